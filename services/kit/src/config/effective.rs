//! What the configuration came to be, for people: every setting, its value and where it came from.

use std::{collections::BTreeMap, fmt};

/// What stands in for a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
    /// Nothing said otherwise.
    Default,
}

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its value, redacted when it is a secret.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// The configuration in force. Its `Display` is printed once at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// By full variable name.
    pub settings: BTreeMap<String, Setting>,
    /// Variables with our prefix that nobody read, each with the name that was probably meant. Worth a warning, not an
    /// end: one environment may serve several services.
    pub unknown: Vec<(String, Option<String>)>,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, setting)) in self.settings.iter().enumerate() {
            let origin = match setting.origin {
                Origin::Environment => "",
                Origin::File => " (file)",
                Origin::Default => " (default)",
            };
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{name}={}{origin}", setting.value)?;
        }
        Ok(())
    }
}
