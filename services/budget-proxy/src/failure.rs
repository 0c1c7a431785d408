//! Why a call gave no answer, or not all of it.

use crate::refusal::{Kind, Refusal};

/// Why a call gave no answer, or not all of it. It is never kept, and can be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// Nobody answers there.
    #[error("the model's provider can not be reached")]
    Unreachable,
    /// It said nothing for too long.
    #[error("the model's provider was silent for too long")]
    Stalled,
    /// It broke off.
    #[error("the model's provider broke off")]
    Cut,
    /// What it sent is no answer of its API.
    #[error("the model's provider sent what is no answer of its API")]
    Garbage,
    /// It sent more than any answer has.
    #[error("the model's provider sent more than an answer may have")]
    TooLarge,
    /// It pointed elsewhere, where its key must not go.
    #[error("the model's provider answered with a redirect, which is not followed")]
    Redirect,
    /// The run ended meanwhile.
    #[error("the run has ended")]
    RunEnded,
    /// Another epoch holds the run meanwhile, or nobody.
    #[error("the bearer's epoch does not hold the run any more")]
    EpochOver,
    /// The proxy is ending.
    #[error("the proxy is ending")]
    Ending,
    /// Whether the call was made before can not be told, so it is not made.
    #[error("whether this call was made before can not be told now")]
    Unsure,
    /// The call was lost within the proxy.
    #[error("the call was lost")]
    Lost,
}

impl Failure {
    /// The failure as an answer, when none of the provider's was passed on.
    pub fn refusal(self) -> Refusal {
        let kind = match self {
            Self::Unreachable | Self::Cut | Self::Garbage | Self::TooLarge | Self::Redirect => Kind::BadUpstream,
            Self::Stalled => Kind::Timeout,
            Self::RunEnded | Self::EpochOver => Kind::Unauthorized,
            Self::Ending | Self::Unsure => Kind::Unavailable,
            Self::Lost => Kind::Internal,
        };
        Refusal::new(kind, self.to_string())
    }
}
