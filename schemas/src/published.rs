//! The JSON Schemas of the contract, one for each type that stands alone on the bus or in a bucket.
//!
//! They are committed in `schemas/json/`, so that a change of the contract is a change that a reviewer sees, and so
//! that programs in other languages can be written against them. A test fails when they differ from the types.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use crate::{
    ask::{KeysReply, MintReply, MintRequest, Refused},
    call::ModelCall,
    cli::{
        AgentList, DeadList, DeadResults, Diagnosis, FollowedEntry, Initialised, ParkedLetter, Rebuilt, Retried,
        RunList, Running, Spoken, StateSaved, Told,
    },
    control::Control,
    dead::DeadLetter,
    envelope::{SCHEMA_PREFIX, SCHEMA_VERSION},
    event::{Decision, RunEvent},
    presence::Presence,
    public::PublicEvent,
    signal::Signal,
    state::SavedState,
    summary::RunSummary,
    timeline::Timeline,
    trigger::Trigger,
};

/// A schema and the name of its file, without `.schema.json`.
#[derive(Debug, Clone)]
pub struct Published {
    /// The file's name, and the last part of the schema's `$id`.
    pub name: &'static str,
    /// The schema, JSON Schema draft 2020-12.
    pub schema: Schema,
}

/// Every published schema.
pub fn schemas() -> Vec<Published> {
    vec![
        publish::<AgentList>("cli_agents"),
        publish::<DeadList>("cli_dead_list"),
        publish::<DeadResults>("cli_dead_results"),
        publish::<ParkedLetter>("cli_dead_show"),
        publish::<Diagnosis>("cli_doctor"),
        publish::<Initialised>("cli_init"),
        publish::<Rebuilt>("cli_rebuild"),
        publish::<Retried>("cli_retry"),
        publish::<RunList>("cli_runs"),
        publish::<Spoken>("cli_say"),
        publish::<StateSaved>("cli_state_save"),
        publish::<FollowedEntry>("cli_timeline_follow"),
        publish::<Told>("cli_told"),
        publish::<Running>("cli_up"),
        publish::<Control>("control"),
        publish::<DeadLetter>("dead_letter"),
        publish::<Decision>("decision"),
        publish::<KeysReply>("keys_reply"),
        publish::<MintReply>("mint_reply"),
        publish::<MintRequest>("mint_request"),
        publish::<ModelCall>("model_call"),
        publish::<Presence>("presence"),
        publish::<PublicEvent>("public_event"),
        publish::<Refused>("refused"),
        publish::<RunEvent>("run_event"),
        publish::<RunSummary>("run_summary"),
        publish::<SavedState>("saved_state"),
        publish::<Signal>("signal"),
        publish::<Timeline>("timeline"),
        publish::<Trigger>("trigger"),
    ]
}

/// The published form of one type's schema: this crate's dialect and an `$id` of ours.
pub fn publish<T: JsonSchema>(name: &'static str) -> Published {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), format!("{SCHEMA_PREFIX}{name}:{SCHEMA_VERSION}").into());
    Published { name, schema }
}
