//! What a newcomer sees first holds: the demo shows every claim that it makes, or it fails.

use std::process::{Command, Stdio};

#[test]
fn the_demo_shows_all_that_it_claims() {
    let ended = Command::new(env!("CARGO_BIN_EXE_demo")).stdin(Stdio::null()).output().expect("the demo runs");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}\n{err}");
}
