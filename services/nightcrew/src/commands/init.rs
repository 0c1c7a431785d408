//! `nightcrew init`: a first crew, the project's keys and credentials, and what a NATS of the user's own has to load.

use std::path::Path;

use schemas::cli::{Initialised, Keys};

use crate::{
    cli::InitOptions,
    first_crew,
    output::{Output, Tone},
    project::{self, Project},
};

/// Makes the keys, or brings what derives from them up to date.
pub(crate) fn init(dir: &Path, options: &InitOptions, out: &Output) -> anyhow::Result<()> {
    let dir = project::folder(dir)?;
    let written = first_crew::write(&dir)?;
    let project = Project::load(&dir)?;
    let dir = project.identity_dir();
    let before = account(&dir);
    let identity = project.identity()?;
    let keys = match before {
        None => Keys::Made,
        Some(before) if Some(&before) != account(&dir).as_ref() => Keys::Updated,
        Some(_) => Keys::Kept,
    };
    let instructions = options.nats_url.as_ref().map(|_| identity.external_instructions());
    let made = Initialised {
        project: identity.project().to_owned(),
        dir: identity.dir().display().to_string(),
        account: identity.account().to_owned(),
        keys,
        written: written.into_iter().map(ToOwned::to_owned).collect(),
        instructions,
    };
    if options.json {
        return Ok(out.json(&made)?);
    }
    print(&made, options.nats_url.as_deref(), out)
}

fn print(made: &Initialised, nats_url: Option<&str>, out: &Output) -> anyhow::Result<()> {
    if !made.written.is_empty() {
        out.line(&format!("a first crew is written: {}", made.written.join(", ")))?;
    }
    let how = match made.keys {
        Keys::Made => "made",
        Keys::Updated => "brought up to date: permissions have changed",
        Keys::Kept => "there already",
    };
    out.line(&format!("keys and credentials of project {} are in {} ({how})", made.project, made.dir))?;
    if let (Some(instructions), Some(url)) = (&made.instructions, nats_url) {
        out.line("")?;
        out.line(instructions.trim_end())?;
        out.line(&format!("Here that is: NIGHTCREW_NATS_URL={url} nightcrew up"))?;
    } else {
        out.line("`nightcrew up` starts a nats-server that knows them")?;
        let own = "a NATS of your own has to load them: `nightcrew init --nats-url URL` prints what";
        out.line(&out.tone(Tone::Quiet, own))?;
    }
    Ok(())
}

/// The signed account, in which all permissions are.
fn account(dir: &Path) -> Option<String> {
    std::fs::read_to_string(dir.join("accounts/project.jwt")).ok()
}
