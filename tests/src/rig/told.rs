//! What people and services tell a crew: requests of another kind, controls and signals.

use kit::{clock, message::Outgoing};
use schemas::{
    Envelope, EventId, RunId, Signal, Subject, control::Control, event::Requested, ids::Token, signal::ByWhom,
    subject::Target,
};

use super::{Nats, Rig};

impl<B: Nats> Rig<B> {
    /// As [`Rig::ask`], with a request that `change` makes another.
    pub async fn ask_with(
        &self,
        agent: &str,
        prompt: &str,
        change: impl FnOnce(&mut Requested),
    ) -> anyhow::Result<RunId> {
        let (run, message) = self.request_with(agent, prompt, &clock::uuid7().to_string(), change)?;
        self.journal.append(run, 0, message).await?;
        Ok(run)
    }

    /// Tells an agent, or all of them, something, as `nightcrew pause` and its like do; gives its place.
    pub async fn tell(&self, target: Target, control: fn(ByWhom) -> Control) -> anyhow::Result<u64> {
        let control = control(ada());
        let envelope = envelope(control.kind());
        Ok(self.client.publish(&Outgoing::json(Subject::Control(target), envelope, &control)?).await?)
    }

    /// Tells a run something, as `nightcrew cancel` does.
    pub async fn signal(&self, run: RunId, signal: &Signal) -> anyhow::Result<u64> {
        let subject = Subject::Signal(run, Token::try_new(signal.kind())?);
        Ok(self.client.publish(&Outgoing::json(subject, envelope(signal.kind()), signal)?).await?)
    }

    /// Calls a run off.
    pub async fn cancel(&self, run: RunId) -> anyhow::Result<u64> {
        self.signal(run, &Signal::Cancel(ada())).await
    }
}

fn ada() -> ByWhom {
    ByWhom { by: "ada".to_owned(), reason: "A test.".to_owned() }
}

fn envelope(kind: &str) -> Envelope {
    Envelope::new(EventId::new(clock::uuid7().to_string()), kind, "test", clock::now())
}
