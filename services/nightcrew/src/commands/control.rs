//! `nightcrew pause`, `resume` and `stop`: what a person tells agents. Every runner folds it from the log and looks at it
//! before each step.

use kit::message::Outgoing;
use schemas::{
    Subject,
    cli::{Message, Told},
    control::Control,
    signal::ByWhom,
    subject::Target,
};

use crate::{cli::Whom, connected::Connected, output::Output};

/// Tells agents, or all of them, what `control` makes.
pub(crate) async fn tell(
    crew: &Connected,
    whom: &Whom,
    control: fn(ByWhom) -> Control,
    json: bool,
    out: &Output,
) -> anyhow::Result<()> {
    // All are checked before the first is told: a mistake in one name does nothing.
    for agent in &whom.agents {
        crew.known(agent)?;
    }
    let targets = if whom.all { vec![Target::All] } else { whom.agents.iter().cloned().map(Target::Agent).collect() };
    let mut told = Vec::new();
    for target in targets {
        let control = control(ByWhom { by: crew.person.clone(), reason: whom.reason.clone() });
        let what = control.kind().to_owned();
        let to = target.to_string();
        let envelope = crew.envelope(&what, None);
        let id = envelope.id.clone();
        let sequence = crew.bus.publish(&Outgoing::json(Subject::Control(target), envelope, &control)?).await?;
        told.push(Message { what, to, id, sequence });
    }
    if json {
        return Ok(out.json(&Told { told })?);
    }
    for message in &told {
        let (to, whom) = if message.to == "all" { ("every agent", "--all") } else { (&*message.to, &*message.to) };
        out.line(&format!("{to}: {}", consequence(&message.what, whom)))?;
    }
    Ok(())
}

fn consequence(what: &str, whom: &str) -> String {
    let until = format!("until `nightcrew resume {whom}`");
    match what {
        "pause" => format!("takes no new step {until}"),
        "resume" => "goes on".to_owned(),
        "stop" => format!("runs end at their next step, and new work is refused {until}"),
        "kill" => format!("runs end at once, and new work is refused {until}"),
        _ => "told".to_owned(),
    }
}
