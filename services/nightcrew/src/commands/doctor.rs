//! `nightcrew doctor`: everything that Nightcrew needs, looked at in the order in which it builds on each other, and what
//! to do about what is missing.
//!
//! It looks and changes nothing. It is for a machine on which nothing works yet, so no check needs another to pass: what
//! can not be looked at is skipped, and said so.

mod host;
mod project;
mod running;

use std::path::Path;

use schemas::cli::{Diagnosis, Examined, Verdict};

use super::show;
use crate::{
    cli::JsonOptions,
    output::{Output, Tone},
    project::Project,
    visible,
};

/// Width of the column of names: that of the longest of them.
const NAME_WIDTH: usize = 22;

/// Looks at everything.
pub(crate) async fn doctor(dir: &Path, options: &JsonOptions, out: &Output) -> anyhow::Result<()> {
    let mut checks = vec![
        host::nats_server(options.reach.nats_url.is_some()).await,
        host::bubblewrap().await,
        host::sandbox().await,
        host::git().await,
        host::python().await,
    ];
    match Project::load(dir) {
        Ok(project) => {
            checks.push(project::files(&project));
            checks.push(project::keys(&project));
            checks.extend(project::routes(&project));
            checks.extend(project::matrix(&project).await);
            checks.extend(running::crew(project, &options.reach).await);
        }
        Err(error) => {
            checks.push(project::broken(&error));
            let names = ["keys", "models", "bus", "services"];
            checks.extend(names.map(|name| skipped(name, "the crew's files are broken")));
        }
    }
    let bad = checks.iter().filter(|check| check.verdict == Verdict::Bad).count() as u64;
    let diagnosis = Diagnosis { healthy: bad == 0, checks };
    if options.json {
        out.json(&diagnosis)?;
    } else {
        for check in &diagnosis.checks {
            print(check, out)?;
        }
    }
    if bad > 0 {
        anyhow::bail!("{} not as needed", if bad == 1 { "1 thing is".to_owned() } else { format!("{bad} things are") });
    }
    Ok(())
}

fn print(check: &Examined, out: &Output) -> anyhow::Result<()> {
    let (tone, mark) = match check.verdict {
        Verdict::Good => (Tone::Good, "ok  "),
        Verdict::Weak => (Tone::Warning, "weak"),
        Verdict::Bad => (Tone::Bad, "BAD "),
        Verdict::Skipped => (Tone::Quiet, "skip"),
    };
    let version = check.version.as_ref().map(|version| format!("{version}, ")).unwrap_or_default();
    let found = format!("{version}{}", check.found);
    let mut lines = found.lines();
    let first = visible::line(lines.next().unwrap_or_default());
    out.line(&format!("{}  {:<NAME_WIDTH$}  {first}", out.tone(tone, mark), visible::line(&check.check)))?;
    let indent = " ".repeat(NAME_WIDTH + 8);
    for line in lines {
        out.line(&format!("{indent}{}", visible::line(line)))?;
    }
    if let Some(advice) = &check.advice {
        out.line(&format!("{indent}{}", out.tone(tone, &format!("-> {}", visible::line(advice)))))?;
    }
    Ok(())
}

fn good(check: &str, found: impl Into<String>) -> Examined {
    Examined { check: check.to_owned(), verdict: Verdict::Good, version: None, found: found.into(), advice: None }
}

fn weak(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Examined {
    Examined { verdict: Verdict::Weak, advice: Some(advice.into()), ..good(check, found) }
}

fn bad(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Examined {
    Examined { verdict: Verdict::Bad, advice: Some(advice.into()), ..good(check, found) }
}

fn skipped(check: &str, why: impl Into<String>) -> Examined {
    Examined { verdict: Verdict::Skipped, ..good(check, why) }
}

/// `names`, as they stand in a sentence.
fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => format!("{} ({})", show::count(names.len() as u64), names.join(", ")),
    }
}
