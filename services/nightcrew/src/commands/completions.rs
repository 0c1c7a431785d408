//! `nightcrew completions`: what a shell needs to know to complete our words.

use clap::CommandFactory as _;

use crate::{
    cli::{Cli, CompletionsOptions},
    output::{Output, PrintError},
};

/// Prints them.
pub(crate) fn completions(options: &CompletionsOptions, out: &Output) -> Result<(), PrintError> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "nightcrew", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())
}
