//! What the issuer is told.

use std::path::PathBuf;
use std::time::Duration;

use schemas::ProjectId;

/// Longest life of a bearer, unless configured: a week lets a run wait over a weekend for a person, and is
/// less than anybody should rely on a key for.
pub const DEFAULT_MAX_LIFETIME: Duration = kit::crew::MAX_DEADLINE;

/// The issuer's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The project in whose name it signs.
    pub project: ProjectId,
    /// The secret key, 0600: `Identity::bearer_key_file`. Made when absent.
    pub key_file: PathBuf,
    /// How far ahead a deadline may lie.
    pub max_lifetime: Duration,
}
