//! Runs in the log: opened, taken over, released, ended.

use kit::bus::Bus;
use kit::clock;
use kit::for_test::PROJECT;
use kit::journal::Journal;
use kit::message::Outgoing;
use schemas::event::{Finished, Requested, ResumeCause, Resumed, Started, Totals, WaitReason, Waiting};
use schemas::trigger::Trigger;
use schemas::{Class, Decision, Envelope, EventId, ProjectId, RunEvent, RunId, Subject};

/// A run and its present epoch.
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) epoch: u64,
    last: u64,
    journal: Journal,
}

impl Run {
    /// A run that is held.
    pub(crate) async fn held(bus: &Bus) -> Self {
        let mut run = Self::requested(bus).await;
        run.start().await;
        run
    }

    /// A run that nobody has taken yet.
    pub(crate) async fn requested(bus: &Bus) -> Self {
        let id = RunId::from_uuid(clock::uuid7());
        let mut run = Self { id, epoch: 0, last: 0, journal: Journal::new(bus) };
        let requested = RunEvent::Requested(Box::new(Requested {
            project: ProjectId::try_new(PROJECT).unwrap(),
            agent: "coder".parse().unwrap(),
            class: Class::Resident,
            trigger: Trigger::Command { by: "test".to_owned(), key: id.to_string() },
            rule: "test".to_owned(),
            prompt: "do it".into(),
            context: None,
            reply_to: None,
            parent_run_id: None,
            root_run_id: id,
            depth: 0,
            deadline: clock::now(),
            work: None,
            state: None,
        }));
        let subject = Subject::Requested(id, Class::Resident, "coder".parse().unwrap());
        run.append(subject, requested).await;
        run
    }

    pub(crate) async fn start(&mut self) {
        let started = Started { runner: "one".to_owned(), harness: "native".to_owned() };
        self.epoch = self.decide(RunEvent::Started(started)).await;
    }

    /// The sequence that the log's next message will have, when nobody else writes.
    pub(crate) const fn next(&self) -> u64 {
        self.last + 1
    }

    /// Another runner takes it over.
    pub(crate) async fn resume(&mut self) {
        let resumed = Resumed { runner: "two".to_owned(), attempt: 2, cause: ResumeCause::HolderLost };
        self.epoch = self.decide(RunEvent::Resumed(resumed)).await;
    }

    /// It waits, and nobody holds it.
    pub(crate) async fn wait(&mut self) {
        let waiting = Waiting { reason: WaitReason::Child, until: None };
        self.decide(RunEvent::Waiting(waiting)).await;
    }

    /// It ends.
    pub(crate) async fn finish(&mut self) {
        let finished = Finished { answer: "done".into(), totals: Totals::default() };
        self.decide(RunEvent::Finished(finished)).await;
    }

    async fn decide(&mut self, event: RunEvent) -> u64 {
        self.append(Subject::Journal(self.id), event).await
    }

    async fn append(&mut self, subject: Subject, event: RunEvent) -> u64 {
        let id = EventId::new(clock::uuid7().to_string());
        let envelope = Envelope::new(id, "decision", "test", clock::now());
        let decision = Decision { events: vec![event] };
        let message = Outgoing::decision(subject, envelope, &decision).unwrap();
        self.last = self.journal.append(self.id, self.last, message).await.unwrap();
        self.last
    }
}
