//! run-correlator: what happened, told from the log. Timelines of runs and their trees, summaries in KV `runs`, the
//! completeness check, and the archive that keeps the log from filling up.
//!
//! Reads `swarm.run.>`, `swarm.signal.>` and `swarm.call.>`; writes KV `runs`, archives in `blobs`, and one `archived`
//! decision to the journal of a run that it archived. It must never write to the journal of a run that has not ended, and
//! never remove a message from the log that is not in an archive which was read back and named in the log.
//!
//! Everything it keeps is a projection: [`rebuild`] makes KV `runs` anew. Timelines are never stored. The readers
//! ([`timeline`], [`list`], [`resolve`]) are functions on the bus and not requests to the service, so that a run can be
//! explained while no service is up.

pub mod domain;

mod read;
mod summaries;

pub use read::{TimelineError, timeline};
pub use summaries::{Filter, ListError, ResolveError, list, resolve};
