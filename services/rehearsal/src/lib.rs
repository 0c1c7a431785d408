//! The rehearsal model: a model server that speaks the Anthropic Messages and the OpenAI Chat Completions API and plays
//! scenario files.
//!
//! It stands in when no key is configured, and it is what the tests and benches run on, so that the whole path is real
//! except the model. Every answer's model name begins with `rehearsal/`.
//!
//! **In:** HTTP on one port. `POST /v1/messages`, `POST /v1/messages/count_tokens`, `POST /v1/chat/completions`,
//! `GET /v1/models[/ID]`; and for tests `GET /rehearsal/requests`, `GET /rehearsal/gates`,
//! `POST /rehearsal/gates/NAME/open|close`, `POST /rehearsal/reset`, `GET /rehearsal/health`.
//! **Out:** nothing. It has no bus, keeps no files and knows nothing of Nightcrew's own types: to the rest of Nightcrew
//! it must look like any provider.
//!
//! **The same request gets the same answer.** Ids derive from a digest of the request's bytes, usage is a quarter of the
//! bytes (`tokens`), and there is no clock or chance in an answer. The only state that shows is how often a rule with
//! `times` was used in a conversation, and which gates are open.
//!
//! **Usage.** Input is the UTF-8 bytes of system prompt, texts, thinking, tool calls, tool results and tool definitions
//! (compact JSON) divided by four, rounded up, plus 1,600 for each image or document. Output is the same for each block
//! of the answer. Cache figures are zero unless the rule tells them.
//!
//! The path of a request: `api` parses it into a `conversation::Request`, `scenario::Playbook` selects a rule,
//! `script` writes what happens on the wire, `player` plays it. All but the last are synchronous and pure.

mod admin;
mod api;
mod config;
mod conversation;
pub mod demo;
mod digest;
mod gates;
mod handle;
mod player;
mod reply;
mod scenario;
mod script;
mod seen;
mod server;
mod tokens;

pub use config::{Config, MAX_REQUEST_BYTES};
pub use gates::{GateView, UnknownGate};
pub use reply::MODEL_PREFIX;
pub use scenario::{Problems, Scenario};
pub use seen::{Outcome, Record, Requests};
pub use server::{Server, StartError, run};
