//! The benches: what a step, a wake, a burst, a crash and a start cost, on a real bus that syncs every write.
//!
//! A target is for two cores and a release build; times are ratios where a floor can be measured in the same run, so that
//! a slow disk does not pass for slow code. A missed target is shown and fails nothing: a bench fails only when it could
//! not measure, or when what it drove did not end well.

mod bare;
mod burst;
mod crew;
mod load;
mod log;
mod matrix;
mod report;
mod resume;
mod step;
mod up;
mod wake;

use std::{process::ExitCode, time::Duration};

pub(crate) use crew::in_the_rooms;
use report::{Measured, Report};

/// How long anything that is waited for may take: the slowest, a thousand runs in a debug build, takes a minute.
const PATIENCE: Duration = Duration::from_mins(5);

/// Options of the benches.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "bench", about = "Measure what the system costs in time and memory")]
pub struct Options {
    /// What to measure; everything but `matrix` when nothing is named.
    pub names: Vec<Name>,
    /// Print one JSON object a line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Do a twentieth of everything: shows that the benches work, and little more.
    #[arg(long)]
    pub quick: bool,
}

/// A bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// Appending one decision.
    Step,
    /// From a trigger in the log to the model's first byte.
    Wake,
    /// A thousand triggers at once.
    Burst,
    /// A thousand runs going on after SIGKILL of everything.
    Resume,
    /// Starting, and memory.
    Up,
    /// Ten thousand messages in real rooms while bridge and homeserver are ended at random.
    Matrix,
}

impl Name {
    /// Those that run when none is named; the others take too long for that.
    const USUAL: [Self; 5] = [Self::Step, Self::Wake, Self::Burst, Self::Resume, Self::Up];

    /// How it is called.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Wake => "wake",
            Self::Burst => "burst",
            Self::Resume => "resume",
            Self::Up => "up",
            Self::Matrix => "matrix",
        }
    }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
struct Scale {
    quick: bool,
}

impl Scale {
    /// `full`, or the part of it that a quick bench does.
    fn of(self, full: usize) -> usize {
        /// So that a quick bench of all takes seconds.
        const PART: usize = 20;
        if self.quick { full.div_ceil(PART) } else { full }
    }
}

/// Runs the benches.
pub fn main(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the benches can not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let names = if options.names.is_empty() { Name::USUAL.to_vec() } else { options.names.clone() };
    let report = Report { json: options.json };
    let mut failed = false;
    for name in names {
        match runtime.block_on(measure(name, Scale { quick: options.quick })) {
            Ok(measured) => report.print(name, &measured),
            Err(error) => {
                failed = true;
                complain(&format!("bench {} FAILED: {error:#}", name.as_str()));
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn measure(name: Name, scale: Scale) -> anyhow::Result<Vec<Measured>> {
    match name {
        Name::Step => step::measure(scale).await,
        Name::Wake => wake::measure(scale).await,
        Name::Burst => burst::measure(scale).await,
        Name::Resume => resume::measure(scale).await,
        Name::Up => up::measure(scale).await,
        Name::Matrix => matrix::measure(scale).await,
    }
}

#[expect(clippy::print_stderr, reason = "standard output is for figures")]
fn complain(line: &str) {
    eprintln!("{line}");
}
