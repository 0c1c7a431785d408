//! The signals that end a process.

use std::fmt;

use tokio::signal::unix::{SignalKind, signal};

/// A request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: from a supervisor.
    Terminate,
    /// SIGINT: from a person at the keyboard.
    Interrupt,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        })
    }
}

impl Signal {
    /// The exit code by which shells know the signal.
    const fn exit_code(self) -> i32 {
        match self {
            Self::Terminate => 128 + 15,
            Self::Interrupt => 128 + 2,
        }
    }

    /// Ends the process at once: who asks a second time does not want to wait.
    #[expect(clippy::disallowed_methods, reason = "the one place that ends a process in the middle of its work")]
    pub(super) fn exit_process(self) -> ! {
        tracing::warn!(signal = %self, "ended at once by a second signal");
        std::process::exit(self.exit_code())
    }
}

/// Waits for SIGTERM or SIGINT. From the first call on they no longer end the process by themselves.
pub async fn until_signal() -> Signal {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // The defaults of the system stay in force, which end the process: less gently, but they do.
        tracing::error!("can not listen for signals");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => Signal::Terminate,
        _ = interrupt.recv() => Signal::Interrupt,
    }
}
