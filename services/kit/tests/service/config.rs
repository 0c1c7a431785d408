//! Configuration: every mistake at once, one order of precedence, nothing secret printed.

use std::{net::SocketAddr, path::Path};

use kit::config::{
    Effective, Env, ExposeSecret, FileValues, InvalidConfig, InvalidFile, Origin, Reader, Seconds, Secret,
};
use proptest::prelude::*;

#[derive(Debug)]
struct Config {
    listen: SocketAddr,
    grace: Seconds,
    project: String,
    key: Option<Secret>,
}

fn read(env: &Env, file: &FileValues) -> Result<(Config, Effective), InvalidConfig> {
    let mut reader = Reader::new(env, file);
    let listen =
        reader.value("PROXY_LISTEN", "a socket address like 127.0.0.1:0", SocketAddr::from(([127, 0, 0, 1], 0)));
    let grace = reader.value("GRACE", "a duration like 10s", Seconds(std::time::Duration::from_secs(10)));
    let project = reader.required("PROJECT", "a project name");
    let key = reader.secret("PROVIDER_KEY");
    let config = project.map(|project| Config { listen, grace, project, key });
    reader.finish(config)
}

fn env<const N: usize>(pairs: [(&str, &str); N]) -> Env {
    pairs.into_iter().collect()
}

fn file(text: &str) -> FileValues {
    FileValues::parse(Path::new("config.yaml"), text).unwrap()
}

#[test]
fn every_mistake_is_reported_at_once() {
    let env = env([("NIGHTCREW_PROXY_LISTEN", "here"), ("NIGHTCREW_PROVIDER_KEY_FILE", "/nowhere/key")]);
    let error = read(&env, &file("grace: soon\n")).unwrap_err();

    let places: Vec<_> = error.mistakes.iter().map(|mistake| mistake.place.as_str()).collect();
    assert_eq!(
        places,
        ["NIGHTCREW_PROXY_LISTEN", "config.yaml:1:8", "NIGHTCREW_PROJECT", "NIGHTCREW_PROVIDER_KEY_FILE"]
    );
    let text = error.to_string();
    assert!(text.starts_with("4 mistakes in the configuration\n"), "{text}");
    assert!(text.contains("NIGHTCREW_PROXY_LISTEN=\"here\": expected a socket address like 127.0.0.1:0"), "{text}");
    assert!(text.contains("NIGHTCREW_PROJECT: expected a project name; it is not set"), "{text}");
}

#[test]
fn environment_beats_file_beats_default() {
    let file = file("proxy:\n  listen: 127.0.0.1:2\nproject: from-file\ngrace: 3s\n");
    let env = env([("NIGHTCREW_PROXY_LISTEN", "127.0.0.1:1")]);
    let (config, effective) = read(&env, &file).unwrap();

    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.project, "from-file");
    assert_eq!(config.grace.0.as_secs(), 3);
    assert!(config.key.is_none());
    assert_eq!(effective.settings["NIGHTCREW_PROXY_LISTEN"].origin, Origin::Environment);
    assert_eq!(effective.settings["NIGHTCREW_PROJECT"].origin, Origin::File);
}

#[test]
fn an_empty_variable_is_not_set() {
    let env = env([("NIGHTCREW_PROJECT", "crew"), ("NIGHTCREW_PROXY_LISTEN", ""), ("NIGHTCREW_PROVIDER_KEY", "")]);
    let (config, effective) = read(&env, &file("grace:\n")).unwrap();

    assert_eq!(config.listen.port(), 0);
    assert_eq!(effective.settings["NIGHTCREW_GRACE"].origin, Origin::Default);
}

#[test]
fn secrets_are_never_printed() {
    let env = env([("NIGHTCREW_PROJECT", "crew"), ("NIGHTCREW_PROVIDER_KEY", "sk-very-secret\n")]);
    let (config, effective) = read(&env, &file("")).unwrap();

    assert_eq!(config.key.as_ref().unwrap().expose_secret(), "sk-very-secret");
    for printed in [format!("{config:?}"), effective.to_string(), format!("{effective:?}"), format!("{env:?}")] {
        assert!(!printed.contains("very-secret"), "{printed}");
    }
    assert!(effective.to_string().contains("NIGHTCREW_PROVIDER_KEY=[redacted]"));
}

#[test]
fn a_secret_comes_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "sk-from-file\n").unwrap();
    let path = path.to_str().unwrap();
    let good = env([("NIGHTCREW_PROJECT", "crew"), ("NIGHTCREW_PROVIDER_KEY_FILE", path)]);
    assert_eq!(read(&good, &file("")).unwrap().0.key.unwrap().expose_secret(), "sk-from-file");

    let both = env([
        ("NIGHTCREW_PROJECT", "crew"),
        ("NIGHTCREW_PROVIDER_KEY_FILE", path),
        ("NIGHTCREW_PROVIDER_KEY", "sk-secret"),
    ]);
    let error = read(&both, &file("")).unwrap_err();
    assert_eq!(error.mistakes.len(), 1);
    assert!(!error.to_string().contains("sk-secret"));
}

#[test]
fn a_misspelt_variable_is_named_with_what_was_meant() {
    let env = env([("NIGHTCREW_PROJECT", "crew"), ("NIGHTCREW_PROXY_LISTNE", "127.0.0.1:1"), ("NIGHTCREW_ELSE", "x")]);
    let (_, effective) = read(&env, &file("")).unwrap();

    assert_eq!(
        effective.unknown,
        [
            ("NIGHTCREW_ELSE".to_owned(), None),
            ("NIGHTCREW_PROXY_LISTNE".to_owned(), Some("NIGHTCREW_PROXY_LISTEN".to_owned())),
        ]
    );
}

#[test]
fn a_settings_file_of_another_shape_is_refused_with_its_place() {
    let parse = |text| FileValues::parse(Path::new("config.yaml"), text).unwrap_err();
    assert!(parse("a:\n  - 1\n").to_string().starts_with("config.yaml:2:3: "));
    assert!(matches!(parse("just text"), InvalidFile::Shape { .. }));
    assert!(matches!(parse("a: {b: 1\n"), InvalidFile::Syntax { .. }));
    let InvalidFile::Twice { name, first, .. } = parse("proxy: {listen: a}\nproxy_listen: b\n") else {
        panic!("the same setting twice is a mistake");
    };
    assert_eq!((name.as_str(), first.as_str()), ("PROXY_LISTEN", "config.yaml:1:17"));
}

#[test]
fn durations_are_read_as_people_write_them() {
    let millis = |text: &str| text.parse::<Seconds>().map(|seconds| seconds.0.as_millis()).ok();
    assert_eq!(millis("30"), Some(30_000));
    assert_eq!(millis("250ms"), Some(250));
    assert_eq!(millis("1h 30m"), Some(5_400_000));
    assert_eq!(millis("-5s"), None);
    assert_eq!(millis("soon"), None);
}

proptest! {
    #[test]
    fn no_settings_file_makes_it_panic(text in "[a-z:{}\\[\\]&*!|>'\"#\n \t0-9-]{0,200}") {
        let _ = FileValues::parse(Path::new("config.yaml"), &text);
    }
}
