//! What tools take, and the tools that read: read, list, search.

use std::{fs, os::unix::fs::symlink};

use agent_runner::tools::{self, HandledBy};
use serde_json::json;

use crate::{desk::Desk, fixture::tree};

#[test]
fn schemas_are_strict_and_take_what_the_tools_take() {
    let samples = [
        ("read", json!({ "path": "a", "offset": 2, "limit": 3 })),
        ("list", json!({ "path": "a", "glob": "*.rs", "depth": 1, "ignored": true })),
        ("search", json!({ "pattern": "a", "path": "b", "glob": "*", "ignore_case": true, "context": 2 })),
        ("edit", json!({ "path": "a", "old": "b", "new": "c", "replace_all": true })),
        ("write", json!({ "path": "a", "content": "b" })),
        ("shell", json!({ "command": "a", "timeout_s": 3 })),
        ("git", json!({ "operation": "commit", "message": "m" })),
        ("handoff", json!({ "agent": "scout", "task": "t", "context": "c" })),
    ];
    let names: Vec<&str> = tools::builtin().iter().map(|spec| spec.name).collect();
    assert_eq!(names, samples.each_ref().map(|(name, _)| *name));
    for (spec, (name, sample)) in tools::builtin().iter().zip(samples) {
        let schema = jsonschema::validator_for(&spec.input_schema).unwrap();
        assert!(schema.is_valid(&sample), "{name}: {}", spec.input_schema);
        let mut unknown = sample.clone();
        unknown["more"] = json!(1);
        assert!(!schema.is_valid(&unknown) && !schema.is_valid(&json!({ "more": 1 })), "{name}");
        assert_eq!(spec.input_schema["type"], "object", "{name}");
        for (argument, of) in spec.input_schema["properties"].as_object().unwrap() {
            assert!(of["description"].is_string(), "{name}.{argument} is not described");
            let mut wrong = sample.clone();
            wrong[argument] = json!({ "a": 1 });
            assert!(!schema.is_valid(&wrong), "{name}.{argument}");
        }
        assert_eq!(spec.handled_by == HandledBy::Runner, name == "handoff");
    }
}

#[tokio::test]
async fn wrong_arguments_are_answered_with_how_they_must_be() {
    let desk = Desk::new().await;
    for (tool, arguments, says) in [
        ("read", json!({}), "missing field `path`"),
        ("read", json!({ "path": "a", "lines": 3 }), "unknown field `lines`"),
        ("read", json!({ "path": 3 }), "invalid type"),
        ("shell", json!("ls"), "invalid type"),
        ("git", json!({ "operation": "push" }), "unknown variant `push`"),
        ("git", json!({ "operation": "status", "message": "m" }), "leave it out"),
        ("search", json!({ "pattern": "(" }), "regular expression"),
        ("list", json!({ "glob": "[" }), "glob"),
        ("nonsense", json!({}), "There are: read, list"),
        ("handoff", json!({ "agent": "scout", "task": "t" }), "the runner acts on it"),
    ] {
        let said = desk.refused(tool, arguments).await;
        assert!(said.contains(says), "{tool}: {said}");
    }
    assert!(desk.refused("read", json!({})).await.contains("\"properties\""), "the schema is not shown");
}

#[tokio::test]
async fn read_answers_lines_with_numbers_and_says_what_is_left() {
    let desk = Desk::new().await;
    let text: String = (1..=3000).fold(String::new(), |text, n| text + &format!("line {n}\n"));
    fs::write(tree(desk.worktree()).join("long"), &text).unwrap();
    assert_eq!(desk.ok("read", json!({ "path": "README" })).await, "     1\tone\n");
    assert_eq!(desk.ok("read", json!({ "path": "/work/src/lib" })).await, "     1\tlib\n");
    let first = desk.call("read", json!({ "path": "long" })).await;
    assert!(first.content.ends_with("  1000\tline 1000\n[lines 1 to 1000 of 3000; go on with offset 1001]"));
    assert_eq!(first.truncated.map(|truncated| (truncated.kept, truncated.of)), Some((1000, 3000)));
    let last = desk.ok("read", json!({ "path": "long", "offset": 2999, "limit": 10 })).await;
    assert_eq!(last, "  2999\tline 2999\n  3000\tline 3000\n[lines 2999 to 3000, the end of the file]");
    let behind = desk.refused("read", json!({ "path": "long", "offset": 4000 })).await;
    assert!(behind.contains("3000 lines"), "{behind}");
}

#[tokio::test]
async fn read_is_bounded_and_knows_what_is_no_text() {
    let desk = Desk::new().await;
    let root = tree(desk.worktree());
    fs::write(root.join("binary"), b"\x7fELF\0\0").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("wide"), format!("{}\nend\n", "x".repeat(10_000_000))).unwrap();
    fs::write(root.join("many"), ("y".repeat(150) + "\n").repeat(1000)).unwrap();
    assert!(desk.refused("read", json!({ "path": "binary" })).await.contains("not text (6 bytes)"));
    assert_eq!(desk.ok("read", json!({ "path": "empty" })).await, "[the file is empty]");
    let wide = desk.ok("read", json!({ "path": "wide" })).await;
    assert!(wide.len() < 3000 && wide.contains("bytes cut]") && wide.ends_with("     2\tend\n"), "{}", wide.len());
    let many = desk.call("read", json!({ "path": "many" })).await;
    assert!(many.content.len() < 33 * 1024 && many.truncated.is_some());
    assert!(many.content.contains("go on with offset 2"), "{}", &many.content[many.content.len() - 80..]);
    for (path, says) in [
        ("src", "folder"),
        ("none", "does not exist"),
        ("../x", "`..`"),
        (".git", "git tool"),
        ("/etc/passwd", "outside"),
    ] {
        let said = desk.refused("read", json!({ "path": path })).await;
        assert!(said.contains(says), "{path}: {said}");
    }
}

#[tokio::test]
async fn list_respects_gitignore_depth_and_globs() {
    let desk = Desk::new().await;
    let script = "mkdir -p a/b/c/d target && touch a/b/c/d/deep.rs a/x.rs a/y.txt target/out && echo target/ > .gitignore && mkfifo pipe";
    desk.site.shell(desk.worktree(), script).await;
    let all = desk.ok("list", json!({})).await;
    assert_eq!(
        all,
        ".gitignore  8\nREADME  4\na/\na/b/\na/b/c/\na/x.rs  0\na/y.txt  0\nlink  [link]\npipe  [special]\nsrc/\nsrc/lib  4\n"
    );
    assert_eq!(desk.ok("list", json!({ "glob": "*.rs" })).await, "a/b/c/d/deep.rs  0\na/x.rs  0\n");
    assert_eq!(desk.ok("list", json!({ "glob": "a/*" })).await, "a/x.rs  0\na/y.txt  0\n");
    assert_eq!(desk.ok("list", json!({ "path": "a", "depth": 1 })).await, "a/b/\na/x.rs  0\na/y.txt  0\n");
    assert!(desk.ok("list", json!({ "ignored": true })).await.contains("target/out"));
    assert_eq!(desk.ok("list", json!({ "glob": "*.none" })).await, "[nothing]");
    symlink("/etc", tree(desk.worktree()).join("out")).unwrap();
    assert!(desk.refused("list", json!({ "path": "out" })).await.contains("out of the worktree"));
    desk.site.shell(desk.worktree(), "mkdir many && cd many && touch $(seq 1500)").await;
    let many = desk.call("list", json!({ "path": "many" })).await;
    assert!(many.content.ends_with("[500 more; name a folder or a glob]") && many.truncated.is_some());
}

#[tokio::test]
async fn search_finds_lines_and_says_what_it_left_out() {
    let desk = Desk::new().await;
    let root = tree(desk.worktree());
    fs::write(root.join("a.rs"), "fn one() {}\nfn two() {}\n\nfn three() {}\r\n").unwrap();
    fs::write(root.join("b.txt"), "FN ONE\n").unwrap();
    fs::write(root.join("bin"), "fn one\0").unwrap();
    fs::write(root.join("many"), "hit\n".repeat(500)).unwrap();
    symlink("/etc/passwd", root.join("out")).unwrap();
    let found = desk.ok("search", json!({ "pattern": r"^fn (one|three)\(\) \{\}$" })).await;
    assert!(found.starts_with("a.rs:1: fn one() {}\na.rs:4: fn three() {}\n[2 matching lines in 1 file]\n"), "{found}");
    assert!(found.contains("1 file not searched"), "{found}");
    let found = desk.ok("search", json!({ "pattern": "fn one", "ignore_case": true, "glob": "*.txt" })).await;
    assert!(found.starts_with("b.txt:1: FN ONE\n"), "{found}");
    let found = desk.ok("search", json!({ "pattern": "two", "path": "a.rs", "context": 1 })).await;
    assert!(found.starts_with("a.rs-1- fn one() {}\na.rs:2: fn two() {}\na.rs-3- \n"), "{found}");
    let many = desk.call("search", json!({ "pattern": "hit" })).await;
    assert!(many.content.contains("there are more matches") && many.truncated.is_some());
    assert!(desk.ok("search", json!({ "pattern": "root:" })).await.starts_with("[no line matches]"));
    assert!(desk.refused("search", json!({ "pattern": "root:", "path": "out" })).await.contains("out of the worktree"));
}
