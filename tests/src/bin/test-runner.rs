//! A runner that tests kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    nightcrew_tests::process::main()
}
