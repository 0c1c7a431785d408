//! The tools of a run: who may call which, in which worktree, and what the journal is told.
//!
//! [`RunTools::call`] never fails: whatever goes wrong is a result for the model and the journal. After a call that may
//! have changed the worktree it is saved, the bundle is put into `blobs`, and only then does the call return, so that
//! what the journal says of a call can be brought back on an empty disk.

use std::{future::Future, sync::Arc, time::Duration};

use kit::{
    blobs::Blobs,
    class::chain,
    clock,
    crew::{self, Access, Agent, Crew, Source},
    journal::{Journal, ReadError},
    logs::LogSink,
    message::Stored,
};
use schemas::{
    AgentName, BlobRef, RunId,
    event::{CodeCommitted, FileChanged, ToolCalled, ToolOutcome, ToolReturned, Work, WorktreeSaved},
};
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    model::ToolOffer,
    native::HANDOFF,
    probe::{Place, Probe},
    run::{RunState, decide::Returned, next::Asked},
    runtime,
    sandbox::{Bubblewrap, BubblewrapConfig, Sandbox, SandboxError},
    tools::{self, HandledBy, ToolContext, ToolOutput},
    worktree::{
        BundleError, BundleSource, CommitId, Repository, Snapshot, SnapshotRef, StartPoint, Worktree, Worktrees,
    },
};

/// Pause between tries to store a bundle while the bus is away: the call has happened, so its result must not be lost.
const STORE_RETRY: Duration = Duration::from_millis(200);

/// The tools can not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no sandbox on this machine.
    #[error("commands can not be sandboxed on this machine")]
    Sandbox(#[source] SandboxError),
    /// A repository of `team.yaml` can not be used.
    #[error("repository {name} of team.yaml can not be used")]
    Repository {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: crate::worktree::InvalidRepository,
    },
}

/// Whether an agent may make a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Granted {
        /// Whether the call may be made again when its runner was lost.
        idempotent: bool,
    },
    /// It may not; the text is for the model.
    Refused(String),
}

/// What the tools need of the runner.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The crew's files: who may what.
    pub crew: Arc<Crew>,
    /// Where snapshots and long outputs are.
    pub blobs: Blobs,
    /// Where it is seen who holds a run.
    pub journal: Journal,
    /// Where output is kept, line by line.
    pub logs: Option<LogSink>,
    /// What a test wants to be told.
    pub probe: Probe,
}

/// Everything that is shared by the tools of all runs. Cheap to clone.
#[derive(Clone)]
pub struct Toolbox {
    crew: Arc<Crew>,
    blobs: Blobs,
    journal: Journal,
    logs: Option<LogSink>,
    probe: Probe,
    sandbox: Arc<dyn Sandbox>,
    worktrees: Worktrees,
}

impl std::fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toolbox").finish_non_exhaustive()
    }
}

impl Toolbox {
    /// The tools of `crew`. Fails where there is no sandbox: nothing is ever run outside one.
    pub async fn new(config: &Config, parts: Parts) -> Result<Self, SetupError> {
        let own = config.state_dir.join("sandbox");
        let sandbox = Bubblewrap::new(BubblewrapConfig::new(own)).map_err(SetupError::Sandbox)?;
        sandbox.probe().await.map_err(SetupError::Sandbox)?;
        let sandbox: Arc<dyn Sandbox> = Arc::new(sandbox);
        let worktrees = Worktrees::new(&config.state_dir, Arc::clone(&sandbox));
        let Parts { crew, blobs, journal, logs, probe } = parts;
        Ok(Self { crew, blobs, journal, logs, probe, sandbox, worktrees })
    }

    /// The worktrees on this disk.
    pub const fn worktrees(&self) -> &Worktrees {
        &self.worktrees
    }

    /// What an agent may call, as its model is told.
    pub fn offers(&self, agent: &Agent) -> Vec<ToolOffer> {
        let granted = |spec: &&tools::ToolSpec| agent.capabilities.access(spec.name).is_some();
        let offer = |spec: &tools::ToolSpec| ToolOffer {
            name: spec.name.to_owned(),
            description: spec.description.to_owned(),
            input_schema: spec.input_schema.clone(),
        };
        tools::builtin().iter().filter(granted).map(offer).collect()
    }

    /// Whether `agent` may make this call.
    pub fn permit(&self, agent: &AgentName, asked: &Asked) -> Permit {
        let Some(spec) = tools::builtin().iter().find(|spec| spec.name == asked.tool) else {
            return Permit::Refused(format!("There is no tool {:?}.", asked.tool));
        };
        let access = self.crew.agent(agent).and_then(|agent| agent.capabilities.access(spec.name));
        if access.is_none() {
            return Permit::Refused(format!("You may not call {:?}: it is not in your scope.", asked.tool));
        }
        Permit::Granted { idempotent: spec.idempotent && spec.handled_by == HandledBy::Tools && asked.tool != HANDOFF }
    }

    /// The tools of one run, until `cancel`.
    pub fn for_run(&self, state: &RunState, cancel: CancellationToken) -> RunTools {
        let request = state.request();
        let snapshots: Vec<SnapshotRef> =
            state.saved().iter().filter_map(|saved| SnapshotRef::try_from(saved).ok()).collect();
        let bundles = state.saved().iter().map(|saved| saved.bundle.clone()).collect();
        let inner = Inner {
            toolbox: self.clone(),
            run_id: state.run_id(),
            agent: request.agent.clone(),
            start: start_point(request.work.as_ref()),
            repository: repository_of(state),
            restore: snapshots.clone(),
            bundles: Bundles { blobs: self.blobs.clone(), saved: bundles },
            worktree: OnceCell::new(),
            previous: Mutex::new(snapshots.last().cloned()),
            cancel,
        };
        RunTools { inner: Arc::new(inner) }
    }
}

/// Where a run works: where its worktree was saved, also by the run that it goes on from, or where its work is.
fn repository_of(state: &RunState) -> Option<String> {
    let saved = state.saved().last().map(|saved| saved.repository.clone());
    saved.or_else(|| state.request().work.as_ref().map(|work| work.repository.clone()))
}

/// A run goes on from another's commit when it was given one.
fn start_point(work: Option<&Work>) -> StartPoint {
    let commit = work.and_then(|work| CommitId::try_new(work.commit.clone()).ok());
    commit.map_or(StartPoint::Base, StartPoint::Commit)
}

/// The tools of one run. Cheap to clone.
#[derive(Clone)]
pub struct RunTools {
    inner: Arc<Inner>,
}

struct Inner {
    toolbox: Toolbox,
    run_id: RunId,
    agent: AgentName,
    start: StartPoint,
    repository: Option<String>,
    restore: Vec<SnapshotRef>,
    bundles: Bundles,
    worktree: OnceCell<Arc<Worktree>>,
    /// The newest snapshot that the journal has or is about to have. Held while one is made: they follow one another.
    previous: Mutex<Option<SnapshotRef>>,
    cancel: CancellationToken,
}

/// Bundles from the blobs that the journal names.
struct Bundles {
    blobs: Blobs,
    saved: Vec<BlobRef>,
}

impl BundleSource for Bundles {
    fn bundle<'a>(
        &'a self,
        snapshot: &'a SnapshotRef,
    ) -> futures::future::BoxFuture<'a, Result<bytes::Bytes, BundleError>> {
        Box::pin(async move {
            let blob = self
                .saved
                .iter()
                .find(|blob| blob.blob == snapshot.bundle)
                .ok_or("the journal names no such bundle")?;
            Ok(self.blobs.get(blob).await?)
        })
    }
}

/// What the worktree came to after a call.
#[derive(Default)]
struct After {
    changes: Vec<FileChanged>,
    saved: Option<WorktreeSaved>,
    committed: Option<CodeCommitted>,
    notes: Vec<String>,
}

impl RunTools {
    /// Makes a call that was permitted and journaled by the holder that opened `epoch`.
    pub fn call(&self, call: ToolCalled, epoch: u64) -> impl Future<Output = Returned> + Send + 'static {
        let inner = Arc::clone(&self.inner);
        async move { inner.call(call, epoch).await }
    }

    /// Whether the holder that opened `epoch` holds the run still. Waits for the bus.
    pub async fn is_held(&self, epoch: u64) -> bool {
        self.inner.is_held(epoch).await
    }
}

impl Inner {
    async fn call(&self, call: ToolCalled, epoch: u64) -> Returned {
        let started = clock::now();
        let (output, after) = match self.worktree().await {
            Ok(worktree) => self.call_in(worktree, &call, epoch).await,
            Err(why) => (ToolOutput::error(why), After::default()),
        };
        let outcome = if output.is_error { ToolOutcome::Error } else { ToolOutcome::Ok };
        let mut text = output.content;
        for note in &after.notes {
            text.push_str("\n\n");
            text.push_str(note);
        }
        let output = runtime::keep(&self.toolbox.blobs, text).await;
        let millis = u64::try_from(clock::now().duration_since(started).as_millis()).unwrap_or(0);
        let result = ToolReturned { call_id: call.call_id, outcome, output, millis };
        Returned { result, changes: after.changes, saved: after.saved, committed: after.committed }
    }

    async fn call_in(&self, worktree: &Arc<Worktree>, call: &ToolCalled, epoch: u64) -> (ToolOutput, After) {
        let context = ToolContext {
            run_id: self.run_id,
            agent: self.agent.clone(),
            worktree: Arc::clone(worktree),
            sandbox: Arc::clone(&self.toolbox.sandbox),
            read_only: self.access(&call.tool) != Some(Access::Write),
            at: clock::now(),
            cancel: self.cancel.clone(),
            logs: self.toolbox.logs.clone(),
        };
        self.reach(Place::BeforeTool, call);
        let output = tools::call(&context, &call.tool, call.arguments.clone()).await;
        self.reach(Place::AfterTool, call);
        let mutates = tools::builtin().iter().any(|spec| spec.name == call.tool && spec.mutates_worktree);
        let after = if mutates && !context.read_only {
            self.after(worktree, call, &output, epoch).await
        } else {
            After::default()
        };
        (output, after)
    }

    fn access(&self, tool: &str) -> Option<Access> {
        self.toolbox.crew.agent(&self.agent)?.capabilities.access(tool)
    }

    /// Made when first needed.
    async fn worktree(&self) -> Result<&Arc<Worktree>, String> {
        let made = self.worktree.get_or_try_init(|| async {
            let repository = self.repository()?;
            let ensured = self
                .toolbox
                .worktrees
                .ensure(self.run_id, &repository, &self.start, &self.restore, &self.bundles)
                .await;
            ensured.map(Arc::new).map_err(|error| {
                tracing::error!(error = %chain(&error), "the worktree can not be made");
                format!("The worktree can not be made: {}", chain(&error))
            })
        });
        made.await
    }

    fn repository(&self) -> Result<Repository, String> {
        let crew = &self.toolbox.crew;
        let granted = crew.agent(&self.agent).map(|agent| &agent.capabilities.repositories);
        let wanted = match &self.repository {
            Some(name) if granted.is_some_and(|granted| granted.contains(name)) => Some(name),
            // What was saved of one repository is nothing in another.
            Some(name) if !self.restore.is_empty() => {
                return Err(format!("This work is on the repository {name:?}, which is not in your scope."));
            }
            _ => granted.and_then(|granted| granted.first()),
        };
        let name = wanted.ok_or("You have no repository to work on: your scope names none.")?;
        let repository = crew.repositories.get(name).ok_or_else(|| format!("There is no repository {name:?}."))?;
        of_crew(name, repository).map_err(|error| chain(&error))
    }

    /// Saves the worktree and publishes a commit, when the call led to any.
    async fn after(&self, worktree: &Worktree, call: &ToolCalled, output: &ToolOutput, epoch: u64) -> After {
        let mut after = After::default();
        let mut previous = self.previous.lock().await;
        match worktree.snapshot(previous.as_ref()).await {
            Ok(None) => {}
            Ok(Some(snapshot)) => {
                let bundle = self.store(snapshot.bundle.clone()).await;
                self.reach(Place::AfterSnapshot, call);
                *previous = Some(snapshot.reference(bundle.blob.clone()));
                after.saved = Some(saved(worktree, call, &snapshot, bundle));
                for file in snapshot.changes.files {
                    after.changes.push(FileChanged {
                        call_id: call.call_id.clone(),
                        path: file.path,
                        change: file.change,
                        added: file.added,
                        removed: file.removed,
                        diff: runtime::keep(&self.toolbox.blobs, file.diff).await,
                    });
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the worktree can not be saved");
                after.notes.push(format!("The worktree could not be saved: {}", chain(&error)));
            }
        }
        drop(previous);
        if let Some(commit) = &output.commit {
            self.publish(worktree, call, commit, &mut after, epoch).await;
        }
        after
    }

    async fn publish(
        &self,
        worktree: &Worktree,
        call: &ToolCalled,
        commit: &tools::Committed,
        after: &mut After,
        epoch: u64,
    ) {
        let is_held = || async {
            let held = self.is_held(epoch).await;
            self.reach(Place::BeforePublish, call);
            held
        };
        match worktree.publish(is_held).await {
            Ok(Some(head)) => {
                self.reach(Place::AfterPublish, call);
                let work = Work {
                    repository: worktree.repository().name().to_owned(),
                    branch: worktree.branch().to_owned(),
                    commit: head.as_str().to_owned(),
                };
                after.committed =
                    Some(CodeCommitted { call_id: call.call_id.clone(), work, subject: commit.subject.clone() });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the branch can not be published");
                after.notes.push(format!(
                    "The commit is on the run's branch here, but could not be published: {}",
                    chain(&error)
                ));
            }
        }
    }

    /// Whether the holder that opened `epoch` holds the run still: nobody has opened a later one. Waits for the bus.
    async fn is_held(&self, epoch: u64) -> bool {
        loop {
            match self.since(epoch).await {
                Ok(Some(since)) => return !since.iter().any(is_taken_by),
                Ok(None) => {}
                Err(error) => tracing::warn!(error = %chain(&error), "who holds the run can not be seen now"),
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    /// The run's messages after `epoch`; nothing when the replica that answered has not all that its leader has.
    async fn since(&self, epoch: u64) -> Result<Option<Vec<Stored>>, ReadError> {
        let journal = &self.toolbox.journal;
        let last = journal.last(self.run_id).await?.map_or(0, |last| last.sequence);
        let since = journal.read(self.run_id, epoch + 1).await?;
        let seen = since.last().map_or(epoch, |last| last.sequence);
        Ok((seen >= last).then_some(since))
    }

    fn reach(&self, place: Place, call: &ToolCalled) {
        self.toolbox.probe.at(self.run_id, &self.agent, place, &call.tool);
    }

    /// Waits for the bus as long as it takes: without its bundle the call's result would not survive this machine.
    async fn store(&self, bundle: bytes::Bytes) -> BlobRef {
        loop {
            match self.toolbox.blobs.put(bundle.clone()).await {
                Ok(blob) => return blob,
                Err(error) => tracing::warn!(error = %chain(&error), "the worktree's bundle can not be stored now"),
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    }
}

/// Whether a run is nobody's, or somebody else's, from this message on. Of an archived run no other is left than the last:
/// whoever slept through its end and its archive sees neither its successor nor the end.
fn is_taken_by(message: &Stored) -> bool {
    message.opens_epoch() || message.is_end() || message.has("archived")
}

fn saved(worktree: &Worktree, call: &ToolCalled, snapshot: &Snapshot, bundle: BlobRef) -> WorktreeSaved {
    WorktreeSaved {
        call_id: call.call_id.clone(),
        repository: worktree.repository().name().to_owned(),
        branch: worktree.branch().to_owned(),
        base: snapshot.base.as_str().to_owned(),
        head: snapshot.head.as_str().to_owned(),
        snapshot: snapshot.commit.as_str().to_owned(),
        bundle,
    }
}

/// A repository of `team.yaml` as worktrees know it.
fn of_crew(name: &str, repository: &crew::Repository) -> Result<Repository, crate::worktree::InvalidRepository> {
    let source = match &repository.source {
        Source::Path(path) => path.to_string_lossy().into_owned(),
        Source::Url(url) => url.clone(),
    };
    Repository::try_new(name, &source, &repository.base)
}
