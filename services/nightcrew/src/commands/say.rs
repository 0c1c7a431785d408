//! `nightcrew say`: a person's words to the crew, and what the crew answers.
//!
//! The terminal is a channel like any other: chat-bridge decides whom the words wake, by the rules of `team.yaml`, and
//! brings the answer. This command only prints what it hears. The log says when there is nothing more to hear: a run has
//! ended, and its last word is known to be delivered.

mod from;

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use chat_bridge::adapters::terminal::{Said, Session};
use kit::{clock, journal::Journal};
use schemas::{Decision, RunEvent, RunId, Signal, cli::Spoken, event::Outcome};

use super::{agents, show};
use crate::{
    cli::SayOptions,
    connected::{Connected, Usage},
    output::{Output, PrintError, Tone},
    visible,
};

use from::Words;

/// How often the log is asked whether a run has ended. Its answer usually comes before.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the bridge may take to say why nobody was woken.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// After a run's end, how long its answer may take to be delivered here.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

/// Says something, and waits for the answers unless told not to.
pub(crate) async fn say(crew: &Connected, options: &SayOptions, out: &Output) -> anyhow::Result<()> {
    let words = words(crew, &options.words)?;
    let mut session = Session::open(&crew.bus, clock::uuid7()).await?;
    let woken = match &options.from {
        Some(from) => vec![from::start(crew, from, words, session.room()).await?],
        None => session.say(clock::uuid7(), &crew.person, &as_said(&words), clock::now()).await?,
    };
    let printer = Printer { json: options.json, out };
    for started in &woken {
        printer.woken(started)?;
        if !options.json
            && let Some(why) = agents::held_back(&crew.bus, &started.agent).await?
        {
            out.line(&out.tone(Tone::Warning, &visible::line(&why)))?;
        }
    }
    if woken.is_empty() {
        while let Ok(Some(said)) = tokio::time::timeout(REFUSED_WITHIN, session.next()).await {
            printer.said(&said)?;
        }
        anyhow::bail!("nobody was woken");
    }
    if options.no_wait {
        return Ok(());
    }
    let mut waiting = Waiting::new(crew, woken.iter().map(|started| started.run_id));
    let failed = waiting.until_over(&mut session, &printer).await?;
    if failed > 0 {
        anyhow::bail!("{} did not end well", show::counted(failed, "run"));
    }
    Ok(())
}

/// What is said, and to whom: the agent that the first word names.
fn words(crew: &Connected, words: &[String]) -> anyhow::Result<Words> {
    let named = |word: &str| crew.project.crew.agents.iter().find(|agent| agent.name.as_str() == word);
    let (agent, words) = match words {
        [first, rest @ ..] if !rest.is_empty() => match named(first) {
            Some(agent) => (Some(agent.name.clone()), rest),
            None => (None, words),
        },
        words => (None, words),
    };
    let text = match words {
        [dash] if dash == "-" => std::io::read_to_string(std::io::stdin().lock())?,
        words => words.join(" "),
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(Usage("there is nothing to say".to_owned()).into());
    }
    Ok(Words { agent, text: text.to_owned() })
}

/// The words as they are said in a room.
fn as_said(Words { agent, text }: &Words) -> String {
    match agent {
        Some(agent) => format!("{agent}: {text}"),
        None => text.clone(),
    }
}

/// Prints what is heard.
struct Printer<'a> {
    json: bool,
    out: &'a Output,
}

impl Printer<'_> {
    fn woken(&self, started: &chat_bridge::ports::Started) -> Result<(), PrintError> {
        let (agent, run_id) = (started.agent.clone(), started.run_id);
        if self.json {
            return self.out.json_line(&Spoken::Woken { agent, run_id });
        }
        let line = format!("{agent} has it: {}", show::run(run_id));
        self.out.line(&self.out.tone(Tone::Quiet, &line))
    }

    fn said(&self, said: &Said) -> Result<(), PrintError> {
        if self.json {
            return self.out.json_line(&Spoken::Said { run_id: said.run_id, text: said.text.clone() });
        }
        self.out.line("")?;
        self.out.line(&visible::text(&said.text))
    }

    fn ended(&self, run_id: RunId, outcome: Outcome) -> Result<(), PrintError> {
        if self.json {
            return self.out.json_line(&Spoken::Ended { run_id, outcome });
        }
        if outcome == Outcome::Finished {
            return Ok(());
        }
        let (tone, word) = show::outcome(outcome);
        let advice = format!("`nightcrew timeline {run_id}` says why");
        self.out.line(&format!("{} {}: {advice}", show::run(run_id), self.out.tone(tone, word)))
    }
}

/// The runs that are waited for, each with when it was first seen to have ended.
struct Waiting {
    journal: Journal,
    runs: BTreeMap<RunId, Option<tokio::time::Instant>>,
}

impl Waiting {
    fn new(crew: &Connected, runs: impl Iterator<Item = RunId>) -> Self {
        Self { journal: Journal::new(&crew.bus), runs: runs.map(|run| (run, None)).collect() }
    }

    /// Prints what is said until all runs are over; gives how many did not end well.
    async fn until_over(&mut self, session: &mut Session, printer: &Printer<'_>) -> anyhow::Result<u64> {
        let mut failed = 0;
        let spinner = spinner(printer);
        while !self.runs.is_empty() {
            match tokio::time::timeout(LOOK_EVERY, session.next()).await {
                Ok(Some(said)) => spinner.suspend(|| printer.said(&said))?,
                Ok(None) => anyhow::bail!("the bus is gone; the runs go on"),
                Err(_) => {}
            }
            for run in self.runs.keys().copied().collect::<Vec<_>>() {
                if let Some(outcome) = self.over(run).await? {
                    self.runs.remove(&run);
                    // What was delivered is here already, or on its way from the same connection.
                    while let Some(Some(said)) = futures::FutureExt::now_or_never(session.next()) {
                        spinner.suspend(|| printer.said(&said))?;
                    }
                    spinner.suspend(|| printer.ended(run, outcome))?;
                    failed += u64::from(outcome != Outcome::Finished);
                }
            }
        }
        spinner.finish_and_clear();
        Ok(failed)
    }

    /// How a run ended, once nothing more of it will be said here.
    async fn over(&mut self, run: RunId) -> anyhow::Result<Option<Outcome>> {
        let Some(last) = self.journal.last(run).await? else { return Ok(None) };
        let decision: Decision = last.decode()?;
        let Some(outcome) = decision.events.iter().find_map(outcome) else { return Ok(None) };
        if !last.has("message_sent") {
            return Ok(Some(outcome));
        }
        let seen = self.runs.entry(run).or_default().get_or_insert_with(tokio::time::Instant::now);
        let late = seen.elapsed() > DELIVERED_WITHIN;
        let signals = self.journal.signals(run, last.sequence).await?;
        let delivered = signals
            .iter()
            .filter_map(|signal| signal.decode().ok())
            .any(|signal| matches!(signal, Signal::Delivered(delivered) if delivered.decision_id == last.envelope.id));
        Ok((delivered || late).then_some(outcome))
    }
}

const fn outcome(event: &RunEvent) -> Option<Outcome> {
    match event {
        RunEvent::Finished(_) => Some(Outcome::Finished),
        RunEvent::Failed(_) => Some(Outcome::Failed),
        RunEvent::Killed(_) => Some(Outcome::Killed),
        RunEvent::Cancelled(_) => Some(Outcome::Cancelled),
        _ => None,
    }
}

/// Something that moves while nothing is said, for a person at a terminal.
fn spinner(printer: &Printer<'_>) -> indicatif::ProgressBar {
    if printer.json || !std::io::stdout().is_terminal() || !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let spinner =
        indicatif::ProgressBar::new_spinner().with_message("waiting for the answer; Ctrl-C leaves the run alone");
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}
