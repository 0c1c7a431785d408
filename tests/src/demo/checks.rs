//! What the demo claims, looked up.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::bail;
use owo_colors::{OwoColorize as _, Stream};
use schemas::{
    MicroUsd, RunEvent, RunId,
    event::{ResumeCause, ToolOutcome},
    timeline::Timeline,
};

use super::{
    crew::Crew,
    journal::{Follower, Seen},
    stage::Stage,
};
use crate::person::Line;

/// A claim and whether it holds.
struct Claim {
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
        checks.crashes(log);
        checks.room(stage, root, answer, asked).await?;
        checks.repository(stage, log)?;
        let json = crew.ask(&["timeline", &root.to_string(), "--tree", "--json"]).await?;
        let timeline: Timeline = serde_json::from_str(&json)?;
        checks.claim(timeline.is_complete(), "P2 work is observable: the timeline of the tree has no gap");
        Ok(checks)
    }

    fn coordination(&mut self, log: &Follower) {
        let handed = count(log, |seen| matches!(seen.event, RunEvent::HandedOff(_)));
        let ended = count(log, |seen| matches!(seen.event, RunEvent::ChildEnded(_)));
        self.claim(
            handed == 2 && ended == 2,
            &format!("P1 coordination is real: {handed} handoffs, {ended} results came back, no person in between"),
        );
    }

    fn crashes(&mut self, log: &Follower) {
        let lost =
            |seen: &Seen| matches!(&seen.event, RunEvent::Resumed(resumed) if resumed.cause == ResumeCause::HolderLost);
        let taken_over = count(log, lost);
        self.claim(
            taken_over >= 2,
            &format!("killed twice, {taken_over} runs taken over from a lost holder, all ended well"),
        );
        let mut calls = BTreeMap::new();
        for call in &log.calls {
            *calls.entry(call.idempotency_key.as_str()).or_insert(0) += 1;
        }
        let replies = count(log, |seen| matches!(seen.event, RunEvent::ModelReplied(_)));
        let once = calls.values().all(|count| *count == 1) && calls.len() == replies;
        self.claim(
            once,
            &format!(
                "{replies} model answers in the journals, {} calls on the wire: each was paid once",
                log.calls.len()
            ),
        );
        let uncertain =
            count(log, |seen| matches!(&seen.event, RunEvent::ToolReturned(r) if r.outcome == ToolOutcome::Uncertain));
        self.claim(
            uncertain == 1,
            &format!(
                "{uncertain} tool call was in flight, was not repeated blindly and was shown to the model as uncertain"
            ),
        );
    }

    async fn room(&mut self, stage: &Stage, root: RunId, answer: &Line, asked: &str) -> anyhow::Result<()> {
        let thread = stage.person.thread(&stage.room, asked).await?;
        let answers = thread.iter().filter(|line| line.sender == stage.bot).count();
        let footer = answer.text.contains(&root.to_string()) || answer.text.contains(&root.short());
        self.claim(answers == 1 && footer, &format!("{answers} answer in the thread, with the run in its footer"));
        Ok(())
    }

    fn repository(&mut self, stage: &Stage, log: &Follower) -> anyhow::Result<()> {
        let branch = stage.branch()?;
        let trailer = stage.git(&["log", "-1", "--format=%(trailers:key=Run-Id,valueonly)", &branch])?;
        let coder =
            log.events().iter().find(|seen| seen.agent.as_deref() == Some("coder")).map(|seen| seen.run_id.to_string());
        let signed = coder.is_some_and(|run| trailer.trim() == run);
        self.claim(
            signed && stage.tests_pass(&branch)?,
            &format!("the tests pass on branch {branch}, whose commit names its run"),
        );
        self.claim(
            stage.git(&["log", "--oneline", "main"])?.lines().count() == 1,
            "P3 main was not touched: agents work on branches of their own",
        );
        Ok(())
    }

    fn claim(&mut self, shown: bool, text: &str) {
        self.claims.push(Claim { text: text.to_owned(), shown });
    }

    /// What was paid, by agent.
    pub(crate) fn paid(&self) -> String {
        self.paid.clone()
    }

    /// A line a claim.
    pub(crate) fn report(&self) -> String {
        let mut report = String::new();
        for claim in &self.claims {
            let mark = if claim.shown { "shown    " } else { "NOT SHOWN" };
            let mark = if claim.shown {
                mark.if_supports_color(Stream::Stdout, |mark| mark.green()).to_string()
            } else {
                mark.if_supports_color(Stream::Stdout, |mark| mark.red()).to_string()
            };
            let _ = writeln!(report, "{mark}  {}", claim.text);
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
    let mut text =
        String::from("agent     calls    input   output  price of the model that the rehearsal stands in for\n");
    for (agent, (calls, input, output, cost)) in by_agent {
        let _ = writeln!(text, "{agent:<8} {calls:>6} {input:>8} {output:>8}  {cost}");
    }
    text
}
