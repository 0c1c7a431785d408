//! What the proxy is told by its surroundings.

/// The proxy's configuration. Routes, keys and prices are the crew's, in `models.yaml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Root of the rehearsal model, for routes without a key; without it such routes are refused.
    pub rehearsal_url: Option<String>,
}
