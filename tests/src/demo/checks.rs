//! What the demo claims, looked up: a line or more for each of the five promises.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, bail, ensure};
use kit::bus::{Bus, ConnectError};
use owo_colors::{OwoColorize as _, Stream};
use schemas::{
    MicroUsd, RunEvent, RunId,
    event::{ResumeCause, ToolOutcome},
};

use super::{
    crew::Crew,
    explained,
    journal::{Follower, Seen},
    stage::Stage,
};
use crate::person::Line;

/// The promises that are kept by what later stages bring: the demo has nothing to show for them, and says so.
const LATER: [&str; 2] = ["P4 memory compounds", "P5 work originates"];

/// A claim and whether it holds.
struct Claim {
    promise: &'static str,
    text: String,
    shown: bool,
}

/// All claims.
pub(crate) struct Checks {
    claims: Vec<Claim>,
    paid: String,
}

impl Checks {
    /// Looks everything up.
    pub(crate) async fn of(
        stage: &Stage,
        crew: &Crew,
        log: &Follower,
        root: RunId,
        answer: &Line,
        asked: &str,
    ) -> anyhow::Result<Self> {
        let mut checks = Self { claims: Vec::new(), paid: paid(log) };
        checks.coordination(log);
        checks.room(stage, root, answer, asked).await?;
        checks.explained(crew, root).await?;
        checks.crashes(log);
        checks.boundaries(crew, log).await?;
        checks.repository(stage, log)?;
        Ok(checks)
    }

    /// What `nightcrew timeline --json` prints of the run, and of its tree.
    async fn explained(&mut self, crew: &Crew, root: RunId) -> anyhow::Result<()> {
        let run = root.to_string();
        let own = explained::read(&crew.ask(&["timeline", &run, "--json"]).await?)?;
        let tree = explained::read(&crew.ask(&["timeline", &run, "--tree", "--json"]).await?)?;
        let missing = explained::missing(&tree);
        let (runs, entries) = explained::size(&tree);
        let complete = own.is_complete() && tree.is_complete() && missing.is_empty();
        let mut text = format!(
            "work is observable: the timeline of {runs} runs has {entries} entries from message to outcome, is as \
             schemas/json/timeline.schema.json says, and has no gap"
        );
        for missing in missing {
            let _ = write!(text, "\n               {missing}");
        }
        self.claim("P2", complete && runs == 3, &text);
        Ok(())
    }

    /// Who has no credentials is refused by the servers, and what is not in an agent's scope by the gate.
    async fn boundaries(&mut self, crew: &Crew, log: &Follower) -> anyhow::Result<()> {
        let refused =
            count(log, |seen| matches!(&seen.event, RunEvent::ToolReturned(r) if r.outcome == ToolOutcome::Refused));
        self.claim(
            "P3",
            refused == 1,
            &format!(
                "boundaries are enforced: {refused} tool call outside scout's scope was refused, and the log says so"
            ),
        );
        let config = kit::bus::BusConfig { creds: None, ..crew.bus_config()? };
        let bus = matches!(Bus::connect(&config).await, Err(ConnectError::Unauthorized { .. }));
        let url = format!("{}/v1/messages", crew.endpoint("proxy_url")?);
        let answer = reqwest::Client::new().post(url).json(&serde_json::json!({})).send().await;
        let status = answer.context("budget-proxy does not answer")?.status();
        self.claim(
            "P3",
            bus && status == reqwest::StatusCode::UNAUTHORIZED,
            "without credentials neither the bus nor a model can be reached",
        );
        Ok(())
    }

    fn coordination(&mut self, log: &Follower) {
        let handed = count(log, |seen| matches!(seen.event, RunEvent::HandedOff(_)));
        let ended = count(log, |seen| matches!(seen.event, RunEvent::ChildEnded(_)));
        self.claim(
            "P1",
            handed == 2 && ended == 2,
            &format!("coordination is real: {handed} handoffs, {ended} results came back, no person in between"),
        );
    }

    fn crashes(&mut self, log: &Follower) {
        let lost =
            |seen: &Seen| matches!(&seen.event, RunEvent::Resumed(resumed) if resumed.cause == ResumeCause::HolderLost);
        let taken_over = count(log, lost);
        self.claim(
            "P2",
            taken_over >= 2,
            &format!("killed twice, {taken_over} runs taken over from a lost holder, all ended well"),
        );
        let again = count(log, |seen| matches!(&seen.event, RunEvent::ModelCalled(call) if call.attempt > 1));
        self.claim("P2", again == 1, &format!("{again} model call was in flight at a kill, and was made again"));
        let mut calls = BTreeMap::new();
        for call in &log.calls {
            *calls.entry(call.idempotency_key.as_str()).or_insert(0) += 1;
        }
        let replies = count(log, |seen| matches!(seen.event, RunEvent::ModelReplied(_)));
        let once = calls.values().all(|count| *count == 1) && calls.len() == replies;
        self.claim(
            "P2",
            once,
            &format!(
                "{replies} model answers in the journals, {} calls on the wire: each was paid once",
                log.calls.len()
            ),
        );
        let uncertain =
            count(log, |seen| matches!(&seen.event, RunEvent::ToolReturned(r) if r.outcome == ToolOutcome::Uncertain));
        self.claim(
            "P2",
            uncertain == 1,
            &format!(
                "{uncertain} tool call was in flight, was not repeated blindly and was shown to the model as uncertain"
            ),
        );
    }

    async fn room(&mut self, stage: &Stage, root: RunId, answer: &Line, asked: &str) -> anyhow::Result<()> {
        let answers = answers(stage, asked).await?;
        let footer = answer.text.contains(&root.to_string()) || answer.text.contains(&root.short());
        self.claim(
            "P1",
            answers == 1 && footer,
            &format!("{answers} answer in the thread, with the run in its footer"),
        );
        Ok(())
    }

    fn repository(&mut self, stage: &Stage, log: &Follower) -> anyhow::Result<()> {
        let branch = stage.branch()?;
        let trailer = stage.git(&["log", "-1", "--format=%(trailers:key=Run-Id,valueonly)", &branch])?;
        let coder =
            log.events().iter().find(|seen| seen.agent.as_deref() == Some("coder")).map(|seen| seen.run_id.to_string());
        let signed = coder.is_some_and(|run| trailer.trim() == run);
        self.claim(
            "P2",
            signed && stage.tests_pass(&branch)?,
            &format!("the tests pass on branch {branch}, whose commit names its run"),
        );
        self.claim(
            "P3",
            stage.git(&["log", "--oneline", "main"])?.lines().count() == 1,
            "main was not touched: agents work on branches of their own",
        );
        Ok(())
    }

    fn claim(&mut self, promise: &'static str, shown: bool, text: &str) {
        self.claims.push(Claim { promise, text: text.to_owned(), shown });
    }

    /// What was paid, by agent.
    pub(crate) fn paid(&self) -> String {
        self.paid.clone()
    }

    /// A line a claim, in the order of the promises.
    pub(crate) fn report(&self) -> String {
        let mut claims: Vec<&Claim> = self.claims.iter().collect();
        claims.sort_by_key(|claim| claim.promise);
        let mut report = String::new();
        for Claim { promise, text, shown } in claims {
            let mark = if *shown {
                "shown    ".if_supports_color(Stream::Stdout, |mark| mark.green()).to_string()
            } else {
                "NOT SHOWN".if_supports_color(Stream::Stdout, |mark| mark.red()).to_string()
            };
            let _ = writeln!(report, "{mark}  {promise} {text}");
        }
        for promise in LATER {
            let _ = writeln!(report, "later      {promise}: not built yet, see docs/maturity.md");
        }
        report
    }

    /// Fails when anything was not shown.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        let failed = self.claims.iter().filter(|claim| !claim.shown).count();
        if failed > 0 {
            bail!("{failed} of {} claims did not hold", self.claims.len());
        }
        Ok(())
    }
}

/// Fails when the thread of a request has not one answer.
pub(crate) async fn answered_once(stage: &Stage, asked: &str) -> anyhow::Result<()> {
    let answers = answers(stage, asked).await?;
    ensure!(answers == 1, "the crew ended, and {answers} answers are in the thread");
    Ok(())
}

async fn answers(stage: &Stage, asked: &str) -> anyhow::Result<usize> {
    let thread = stage.person.thread(&stage.room, asked).await?;
    Ok(thread.iter().filter(|line| line.sender == stage.bot).count())
}

fn count(log: &Follower, wanted: impl Fn(&Seen) -> bool) -> usize {
    log.events().iter().filter(|seen| wanted(seen)).count()
}

/// A line an agent: calls, tokens, money. The rehearsal model costs nothing; the figures are what the model that it
/// stands in for would have cost.
fn paid(log: &Follower) -> String {
    let mut by_agent: BTreeMap<String, (u32, u64, u64, MicroUsd)> = BTreeMap::new();
    for call in &log.calls {
        let entry = by_agent.entry(call.agent.to_string()).or_default();
        entry.0 += 1;
        entry.1 += call.usage.input_tokens + call.usage.cache_read_tokens + call.usage.cache_write_tokens;
        entry.2 += call.usage.output_tokens;
        entry.3 += call.cost.unwrap_or_default();
    }
    let total = by_agent
        .values()
        .fold((0, 0, 0, MicroUsd::default()), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2, sum.3 + one.3));
    by_agent.insert("together".to_owned(), total);
    let mut text =
        String::from("agent     calls    input   output  price of the model that the rehearsal stands in for\n");
    for (agent, (calls, input, output, cost)) in by_agent {
        let _ = writeln!(text, "{agent:<8} {calls:>6} {input:>8} {output:>8}  {cost}");
    }
    text.push_str("Nothing was paid: every answer came from the rehearsal model.\n");
    text
}
