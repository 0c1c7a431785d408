//! What can be asked on the command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use schemas::{AgentName, event::Outcome};

use crate::services::Name;

/// A crew of AI engineering agents that can be left alone overnight.
#[derive(Debug, Parser)]
#[command(
    name = "nightcrew",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 a mistake on the command line, 64 a mistake in the project's files."
)]
pub struct Cli {
    /// The project folder: where team.yaml, models.yaml and agents/ are.
    #[arg(long, short = 'C', global = true, default_value = ".", env = "NIGHTCREW_DIR")]
    pub dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the project's keys and credentials, and a first crew where there is none; keeps what is there.
    Init(InitOptions),
    /// Start everything in one process, and nats-server unless one is given.
    Up(UpOptions),
    /// Run one service, against a bus that is up.
    Service(ServiceOptions),
    /// Say something to an agent, and wait for the answer.
    Say(SayOptions),
    /// List runs, the newest first.
    Runs(RunsOptions),
    /// Show everything that is known of a run.
    Timeline(TimelineOptions),
    /// List the crew: who is there, who may work, and what they have in hand.
    Agents(JsonOptions),
    /// Call a run off.
    Cancel(CancelOptions),
    /// Let agents take no new step until they are resumed.
    Pause(PauseOptions),
    /// Let agents go on.
    Resume(PauseOptions),
    /// End what agents do at their next step, and refuse new work, until they are resumed.
    Stop(StopOptions),
    /// Try an ended run again, as a new run below it.
    Retry(RetryOptions),
    /// Keep or look at what an agent knows after a run: `say --from` goes on from it.
    #[command(subcommand)]
    State(StateCommand),
    /// Look after messages that could not be handled.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Make everything that is derived from the log anew.
    Rebuild(JsonOptions),
    /// Look at everything that Nightcrew needs, and say what to do.
    Doctor(JsonOptions),
    /// Print the completions of a shell.
    Completions(CompletionsOptions),
}

/// Options of `init`.
#[derive(Debug, Args)]
pub struct InitOptions {
    /// The address of a NATS of your own: print what to load into it.
    #[arg(long, value_name = "URL", env = "NIGHTCREW_NATS_URL")]
    pub nats_url: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct UpOptions {
    /// Use this NATS instead of starting one.
    #[arg(long, value_name = "URL", env = "NIGHTCREW_NATS_URL")]
    pub nats_url: Option<String>,
    /// Leave a service out, because it runs elsewhere.
    #[arg(long, value_name = "SERVICE")]
    pub without: Vec<Name>,
    /// Scenarios that the rehearsal model plays; in the environment separated by colons.
    #[arg(long, value_name = "FILE", env = "NIGHTCREW_REHEARSAL_SCENARIOS", value_delimiter = ':')]
    pub scenario: Vec<PathBuf>,
    /// Print JSON, once it is up.
    #[arg(long)]
    pub json: bool,
}

/// Options of `service`.
#[derive(Debug, Args)]
pub struct ServiceOptions {
    /// The service.
    pub name: Name,
    /// The bus; by default that of the crew that is up in this project.
    #[arg(long, value_name = "URL", env = "NIGHTCREW_NATS_URL")]
    pub nats_url: Option<String>,
    /// Scenarios that the rehearsal model plays; in the environment separated by colons.
    #[arg(long, value_name = "FILE", env = "NIGHTCREW_REHEARSAL_SCENARIOS", value_delimiter = ':')]
    pub scenario: Vec<PathBuf>,
}

/// Where the crew is.
#[derive(Debug, Clone, Default, Args)]
pub struct Reach {
    /// The crew's bus; by default that of the crew that is up in this project.
    #[arg(long, value_name = "URL", env = "NIGHTCREW_NATS_URL")]
    pub nats_url: Option<String>,
    /// Credentials of the bus user `nightcrew`; by default those that `nightcrew init` made.
    #[arg(long, value_name = "FILE", env = "NIGHTCREW_NATS_CREDS")]
    pub nats_creds: Option<PathBuf>,
}

/// What commands without options of their own have.
#[derive(Debug, Args)]
pub struct JsonOptions {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `say`.
#[derive(Debug, Args)]
pub struct SayOptions {
    /// What to say, in any number of words; `-` reads it from standard input. A first word that is an agent's name is
    /// whom to say it to; without one the terminal's default agent answers.
    #[arg(required = true, value_name = "[AGENT] TEXT")]
    pub words: Vec<String>,
    /// Go on from what the agent knows after a run: the run, or a file of `nightcrew state save`. The agent is the run's.
    #[arg(long, value_name = "RUN|FILE")]
    pub from: Option<String>,
    /// Do not wait for the answer.
    #[arg(long)]
    pub no_wait: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `runs`.
#[derive(Debug, Args)]
pub struct RunsOptions {
    /// Only those of this agent.
    #[arg(long)]
    pub agent: Option<AgentName>,
    /// Only those that stand there or ended so.
    #[arg(long, value_enum)]
    pub state: Option<StateFilter>,
    /// At most so many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Where a run stands, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StateFilter {
    /// Every run that has not ended.
    Open,
    /// Not taken yet.
    Requested,
    /// Held by a runner.
    Running,
    /// Held by nobody, waiting for something.
    Waiting,
    /// Over, however it ended.
    Ended,
    /// Ended well.
    Finished,
    /// Could not go on.
    Failed,
    /// Ended at once.
    Killed,
    /// Called off.
    Cancelled,
}

impl StateFilter {
    /// The end that it asks for, when it asks for one.
    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Finished => Some(Outcome::Finished),
            Self::Failed => Some(Outcome::Failed),
            Self::Killed => Some(Outcome::Killed),
            Self::Cancelled => Some(Outcome::Cancelled),
            _ => None,
        }
    }
}

/// Options of `timeline`.
#[derive(Debug, Args)]
pub struct TimelineOptions {
    /// The run: its id, or how that begins or ends.
    pub run: String,
    /// Show the runs below it too.
    #[arg(long)]
    pub tree: bool,
    /// Go on printing until the run has ended.
    #[arg(long, short)]
    pub follow: bool,
    /// Print JSON; with --follow one object a line.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `cancel`.
#[derive(Debug, Args)]
pub struct CancelOptions {
    /// The run: its id, or how that begins or ends.
    pub run: String,
    /// Why.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Whom a control is for.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true).args(["agents", "all"])))]
pub struct Whom {
    /// These agents.
    #[arg(value_name = "AGENT")]
    pub agents: Vec<AgentName>,
    /// Every agent.
    #[arg(long)]
    pub all: bool,
    /// Why.
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// Options of `pause` and `resume`.
#[derive(Debug, Args)]
pub struct PauseOptions {
    /// Whom it is for.
    #[command(flatten)]
    pub whom: Whom,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `stop`.
#[derive(Debug, Args)]
pub struct StopOptions {
    /// Whom it is for.
    #[command(flatten)]
    pub whom: Whom,
    /// End runs at once, in the middle of a step.
    #[arg(long)]
    pub now: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `retry`.
#[derive(Debug, Args)]
pub struct RetryOptions {
    /// The run: its id, or how that begins or ends.
    pub run: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// What to do with the state of an agent.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Write it to a file: the conversation, the tool calls, and where the work is.
    Save(StateSaveOptions),
    /// Show it.
    Show(StateShowOptions),
}

/// Options of `state save`.
#[derive(Debug, Args)]
pub struct StateSaveOptions {
    /// The run: its id, or how that begins or ends.
    pub run: String,
    /// Where to; by default a new file here, named after agent and run.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `state show`.
#[derive(Debug, Args)]
pub struct StateShowOptions {
    /// The run, by its id or how that begins or ends, or a file of `nightcrew state save`.
    #[arg(value_name = "RUN|FILE")]
    pub of: String,
    /// Print the whole state as JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// What to do with messages that could not be handled.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List them, the oldest first.
    List(DeadListOptions),
    /// Show one of them, whole.
    Show(DeadShowOptions),
    /// Have them handled once more; those that are handled are forgotten.
    Replay(DeadSomeOptions),
    /// Forget them.
    Drop(DeadSomeOptions),
}

/// Options of `dead list`.
#[derive(Debug, Args)]
pub struct DeadListOptions {
    /// From this number on.
    #[arg(long, default_value_t = 1)]
    pub from: u64,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `dead show`.
#[derive(Debug, Args)]
pub struct DeadShowOptions {
    /// The message's number.
    pub number: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `dead replay` and `dead drop`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["numbers", "all"])))]
pub struct DeadSomeOptions {
    /// These messages, by their numbers.
    #[arg(value_name = "NUMBER")]
    pub numbers: Vec<u64>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the crew is.
    #[command(flatten)]
    pub reach: Reach,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_control_needs_to_know_whom() {
        assert!(Cli::try_parse_from(["nightcrew", "pause"]).is_err());
        assert!(Cli::try_parse_from(["nightcrew", "pause", "lead", "--all"]).is_err());
        assert!(Cli::try_parse_from(["nightcrew", "stop", "lead", "scout", "--now"]).is_ok());
        assert!(Cli::try_parse_from(["nightcrew", "stop", "all"]).is_err(), "`all` is no agent");
    }
}
