//! `nightcrew agents`: the crew, which runners serve it and how they are, and what each agent may do and has in hand.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kit::{
    bus::Bus,
    consumer::{Durable, RUNNER_WAKE},
    presence,
};
use run_correlator::Filter;
use schemas::{
    AgentName, Subject,
    cli::{AgentList, AgentStatus, Standing},
    control::Control,
    presence::Presence,
    subject::Target,
};

use super::show;
use crate::{
    cli::JsonOptions,
    connected::Connected,
    output::{Output, Tone},
    visible,
};

/// The stream of controls.
const CONTROLS: &str = "CONTROL";

/// Open runs that are counted: as many as ten runners hold.
const MOST_COUNTED: usize = 20_000;

/// Looks for a waiting runner: between two requests of its it has none for a moment.
const LOOKS: u32 = 5;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Characters of a description in the list.
const DESCRIPTION_CHARS: usize = 60;

/// Lists the crew.
pub(crate) async fn agents(crew: &Connected, options: &JsonOptions, out: &Output) -> anyhow::Result<()> {
    let list = list(crew).await?;
    if options.json {
        return Ok(out.json(&list)?);
    }
    let zone = &crew.project.crew.time_zone;
    let row = |agent: &AgentStatus| {
        let (tone, standing) = standing(agent);
        let since = agent.since.filter(|_| agent.standing != Standing::Free).map(|since| show::moment(since, zone));
        vec![
            (Tone::Plain, agent.agent.to_string()),
            served(&agent.runners),
            (tone, standing),
            (Tone::Quiet, since.unwrap_or_default()),
            (Tone::Plain, show::count(agent.open_runs)),
            (Tone::Plain, show::count(agent.runners.iter().map(|runner| runner.held).sum())),
            (Tone::Plain, show::excerpt(&agent.description, DESCRIPTION_CHARS)),
        ]
    };
    let rows = list.agents.iter().map(row).collect();
    out.table(&["AGENT", "PRESENT", "STANDING", "SINCE", "OPEN RUNS", "HELD", "FOR"], rows)?;
    for (runner, problem) in problems(&list) {
        out.line(&visible::line(&format!("runner {runner} is not well: {problem}")))?;
    }
    Ok(())
}

/// By how many runners an agent is served, and how that is meant.
fn served(runners: &[Presence]) -> (Tone, String) {
    let well = runners.iter().filter(|runner| runner.problems.is_empty()).count();
    match (runners.len(), well) {
        (0, _) => (Tone::Bad, "no runner".to_owned()),
        (_, 0) => (Tone::Bad, "not well".to_owned()),
        (1, _) => (Tone::Good, "yes".to_owned()),
        (all, well) if well < all => (Tone::Warning, format!("{well} of {all} runners")),
        (all, _) => (Tone::Good, format!("{all} runners")),
    }
}

/// What is not well with each runner, once.
fn problems(list: &AgentList) -> BTreeSet<(&str, &str)> {
    let runners = list.agents.iter().flat_map(|agent| &agent.runners);
    runners
        .flat_map(|runner| runner.problems.iter().map(|problem| (runner.runner.as_str(), problem.as_str())))
        .collect()
}

fn standing(agent: &AgentStatus) -> (Tone, String) {
    let (tone, word) = match agent.standing {
        Standing::Free => return (Tone::Plain, "free".to_owned()),
        Standing::Paused => (Tone::Warning, "paused"),
        Standing::Stopped => (Tone::Bad, "stopped"),
        Standing::Killed => (Tone::Bad, "killed"),
    };
    let Some(Control::Pause(by) | Control::Stop(by) | Control::Kill(by)) = &agent.control else {
        return (tone, word.to_owned());
    };
    let why = if by.reason.is_empty() { String::new() } else { format!(": {}", by.reason) };
    (tone, format!("{word} by {}{why}", by.by))
}

async fn list(crew: &Connected) -> anyhow::Result<AgentList> {
    let to_all = control(&crew.bus, Target::All).await?;
    let mut open: HashMap<AgentName, u64> = HashMap::new();
    let filter = Filter { ended: Some(false), ..Filter::newest(MOST_COUNTED) };
    for summary in run_correlator::list(&crew.bus, &filter).await? {
        *open.entry(summary.agent).or_default() += 1;
    }
    let registry = presence::list(&crew.bus).await?;
    let mut agents = Vec::new();
    for agent in &crew.project.crew.agents {
        let own = control(&crew.bus, Target::Agent(agent.name.clone())).await?;
        let force = in_force(own, to_all.clone());
        let runners: Vec<Presence> = registry.iter().filter(|entry| entry.agent == agent.name).cloned().collect();
        agents.push(AgentStatus {
            agent: agent.name.clone(),
            description: agent.description.clone(),
            standing: force.as_ref().map_or(Standing::Free, |given| stands(&given.control)),
            since: force.as_ref().map(|given| given.at),
            control: force.map(|given| given.control),
            present: Some(!runners.is_empty()),
            runners,
            open_runs: open.get(&agent.name).copied().unwrap_or(0),
        });
    }
    Ok(AgentList { agents })
}

/// Why what was just asked of an agent waits, when it does: it may not work, or nobody is there who runs it.
pub(super) async fn held_back(bus: &Bus, agent: &AgentName) -> anyhow::Result<Option<String>> {
    let own = control(bus, Target::Agent(agent.clone())).await?;
    let force = in_force(own, control(bus, Target::All).await?);
    let control = force.map(|given| given.control);
    if let Some(Control::Unknown(_)) = &control {
        return Ok(Some(format!(
            "{agent} is paused by a control that this version does not know: see `nightcrew agents`"
        )));
    }
    if let Some(Control::Pause(by)) = control {
        let why = if by.reason.is_empty() { String::new() } else { format!(" ({})", by.reason) };
        return Ok(Some(format!("{agent} is paused by {}{why}: it goes on after `nightcrew resume {agent}`", by.by)));
    }
    let alone = is_pulled(bus, &RUNNER_WAKE).await == Some(false);
    Ok(alone.then(|| "no runner is there: it goes on once one is, see `nightcrew doctor`".to_owned()))
}

/// A control message in its stream.
#[derive(Debug, Clone)]
struct Given {
    sequence: u64,
    at: Timestamp,
    control: Control,
}

/// The later of what was said to an agent and to all.
fn in_force(own: Option<Given>, to_all: Option<Given>) -> Option<Given> {
    own.into_iter().chain(to_all).max_by_key(|given| given.sequence)
}

/// How an agent stands by a control. What this build does not know is a pause, as runners have it.
const fn stands(control: &Control) -> Standing {
    match control {
        Control::Pause(_) | Control::Unknown(_) => Standing::Paused,
        Control::Stop(_) => Standing::Stopped,
        Control::Kill(_) => Standing::Killed,
        Control::Resume(_) => Standing::Free,
    }
}

/// The last control message for a target.
async fn control(bus: &Bus, target: Target) -> anyhow::Result<Option<Given>> {
    let stream = bus.jetstream().get_stream_no_info(CONTROLS).await?;
    let subject = Subject::Control(target).to_string();
    let message = match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => message,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(Given {
        sequence: message.sequence,
        at: Timestamp::from_nanosecond(message.time.unix_timestamp_nanos())?,
        control: serde_json::from_slice(&message.payload)?,
    }))
}

/// Whether somebody waits for messages of a consumer: a service that is there always does. None when the bus does not say.
async fn is_pulled(bus: &Bus, durable: &Durable) -> Option<bool> {
    for _ in 0..LOOKS {
        if waiting(bus, durable).await? > 0 {
            return Some(true);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Some(false)
}

/// The consumers of others can only be listed, not asked.
async fn waiting(bus: &Bus, durable: &Durable) -> Option<usize> {
    let stream = bus.jetstream().get_stream_no_info(durable.stream).await.ok()?;
    let mut consumers = stream.consumers().boxed();
    while let Some(info) = consumers.try_next().await.ok()? {
        if info.name == durable.name {
            return Some(info.num_waiting);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use schemas::signal::ByWhom;

    use super::*;

    #[test]
    fn the_later_word_counts() {
        let given = |sequence, control: fn(ByWhom) -> Control| {
            let by = ByWhom { by: "ada".to_owned(), reason: String::new() };
            Some(Given { sequence, at: Timestamp::UNIX_EPOCH, control: control(by) })
        };
        let stands = |own, to_all| in_force(own, to_all).map(|given| stands(&given.control));
        assert_eq!(stands(given(1, Control::Pause), given(2, Control::Resume)), Some(Standing::Free));
        assert_eq!(stands(given(3, Control::Pause), given(2, Control::Resume)), Some(Standing::Paused));
        assert_eq!(stands(None, given(2, Control::Kill)), Some(Standing::Killed));
        assert_eq!(stands(None, None), None);
    }
}
