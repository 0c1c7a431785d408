//! The run as a pure state machine.
//!
//! [`state::RunState`] is a fold of the journal; [`decide`](decide::decide) turns a command into events or refuses it;
//! [`next`](next::next) says what has to be done now. None of them knows a bus, a clock, a model or a file. Recovery is
//! the same fold: a runner that takes a run over reads its journal and asks `next`.
//!
//! Invariants, each a test:
//! - folding the journal gives the state that deciding it gave;
//! - a message that was applied changes nothing when it is applied again;
//! - whatever commands come in whatever order, an illegal one is refused and the state stays legal;
//! - an ended run accepts nothing;
//! - a run that goes on from a saved state is the same whether that is loaded before, between or after its messages.

pub mod conversation;
pub mod decide;
pub mod limits;
pub mod next;
pub mod state;

pub use conversation::{Fitted, Turn};
pub use decide::{Command, End, Illegal, decide};
pub use limits::Limits;
pub use next::{Action, next};
pub use state::{Corrupt, DoesNotFit, Phase, RunState};
