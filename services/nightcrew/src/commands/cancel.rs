//! `nightcrew cancel`: calls a run off by a signal. The runner that holds it ends it, or the next one to wake.

use kit::{journal::Journal, message::Outgoing};
use schemas::{
    Signal, Subject,
    cli::{Message, Told},
    ids::Token,
    signal::ByWhom,
};

use super::{run_of, show};
use crate::{cli::CancelOptions, connected::Connected, output::Output};

/// Calls a run off.
pub(crate) async fn cancel(crew: &Connected, options: &CancelOptions, out: &Output) -> anyhow::Result<()> {
    let run = run_of(&crew.bus, &options.run).await?;
    match Journal::new(&crew.bus).last(run).await? {
        None => anyhow::bail!("{} is not in the log", show::run(run)),
        Some(last) if last.is_end() || last.has("archived") => anyhow::bail!("{} has already ended", show::run(run)),
        Some(_) => {}
    }
    let signal = Signal::Cancel(ByWhom { by: crew.person.clone(), reason: options.reason.clone() });
    let what = signal.kind().to_owned();
    let subject = Subject::Signal(run, Token::try_new(what.as_str())?);
    let envelope = crew.envelope(&what, Some(run));
    let id = envelope.id.clone();
    let sequence = crew.bus.publish(&Outgoing::json(subject, envelope, &signal)?).await?;
    if options.json {
        return Ok(out.json(&Told { told: vec![Message { what, to: run.to_string(), id, sequence }] })?);
    }
    Ok(out.line(&format!("{} is called off; `nightcrew timeline {run} --follow` shows its end", show::run(run)))?)
}
