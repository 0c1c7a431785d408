//! The envelope: what is written is read, and what is not one is refused by name.

use std::collections::BTreeMap;

use proptest::{option, prelude::*};
use schemas::{
    AgentName, Envelope, EventId, RunId,
    envelope::{InvalidEnvelope, SCHEMA_VERSION},
};
use uuid::Uuid;

type Headers = BTreeMap<&'static str, String>;

fn full() -> Envelope {
    let run = |n| Some(RunId::from_uuid(Uuid::from_u128(n)));
    Envelope {
        run_id: run(1),
        parent_run_id: run(2),
        root_run_id: run(3),
        causation_id: Some(EventId::new("cause")),
        agent: Some(AgentName::try_new("lead").unwrap()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..Envelope::new(EventId::new("id"), "decision", "agent-runner", "2026-11-21T02:28:28.125Z".parse().unwrap())
    }
}

fn headers(envelope: &Envelope) -> Headers {
    envelope.headers().into_iter().collect()
}

fn parse(headers: &Headers) -> Result<Envelope, InvalidEnvelope> {
    Envelope::parse(|name| headers.get(name).map(String::as_str))
}

#[test]
fn headers_are_cloudevents_binary_mode() {
    let headers = headers(&full());
    let expected = [
        ("Nats-Msg-Id", "id"),
        ("ce-agent", "lead"),
        ("ce-causationid", "cause"),
        ("ce-dataschema", "urn:nightcrew:schema:decision:1"),
        ("ce-id", "id"),
        ("ce-parentrunid", "00000000-0000-0000-0000-000000000002"),
        ("ce-rootrunid", "00000000-0000-0000-0000-000000000003"),
        ("ce-runid", "00000000-0000-0000-0000-000000000001"),
        ("ce-source", "agent-runner"),
        ("ce-specversion", "1.0"),
        ("ce-time", "2026-11-21T02:28:28.125Z"),
        ("ce-type", "decision"),
        ("content-type", "application/json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name, value.to_owned())).into());
}

#[test]
fn what_is_missing_is_named() {
    for name in ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-dataschema"] {
        let mut without = headers(&full());
        without.remove(name);
        assert_eq!(parse(&without), Err(InvalidEnvelope::Missing(name)));
        let mut empty = headers(&full());
        empty.insert(name, String::new());
        assert_eq!(parse(&empty), Err(InvalidEnvelope::Missing(name)), "an empty value says nothing");
    }
}

#[test]
fn what_can_not_be_read_is_named_with_its_value() {
    let unreadable = [
        ("ce-specversion", "0.3"),
        ("ce-time", "yesterday"),
        ("ce-runid", "17"),
        ("ce-parentrunid", "x"),
        ("ce-rootrunid", "x"),
        ("ce-agent", "Lead Agent"),
        ("ce-dataschema", "decision"),
        ("ce-dataschema", "urn:nightcrew:schema:decision"),
        ("ce-dataschema", "urn:nightcrew:schema:decision:one"),
        ("ce-dataschema", "urn:other:schema:decision:1"),
    ];
    for (header, value) in unreadable {
        let mut headers = headers(&full());
        headers.insert(header, value.to_owned());
        assert_eq!(parse(&headers), Err(InvalidEnvelope::Unreadable { header, value: value.to_owned() }));
    }
}

#[test]
fn a_version_from_the_future_is_refused_before_anything_else_is_read() {
    let mut headers = headers(&full());
    headers.insert("ce-dataschema", format!("urn:nightcrew:schema:decision:{}", SCHEMA_VERSION + 1));
    headers.insert("ce-time", "in a form of the future".to_owned());
    let error = parse(&headers).unwrap_err();
    assert_eq!(error, InvalidEnvelope::FutureVersion { found: SCHEMA_VERSION + 1 });
    assert!(error.to_string().contains("upgrade"), "{error}");
}

proptest! {
    #[test]
    fn an_envelope_round_trips(
        id in "[!-~]{1,40}",
        kind in "[a-z_:]{1,20}",
        source in "[a-z-]{1,20}",
        nanos in 0i64..4_000_000_000_000_000_000,
        ids in option::of((any::<u128>(), any::<u128>(), any::<u128>())),
        cause in option::of("[!-~]{1,40}"),
        agent in option::of("[a-z][a-z0-9]{0,10}x"),
        traceparent in option::of("[0-9a-f-]{1,55}"),
    ) {
        let time = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
        let run = |n| RunId::from_uuid(Uuid::from_u128(n));
        let envelope = Envelope {
            run_id: ids.map(|ids| run(ids.0)),
            parent_run_id: ids.map(|ids| run(ids.1)),
            root_run_id: ids.map(|ids| run(ids.2)),
            causation_id: cause.map(EventId::new),
            agent: agent.map(|name| AgentName::try_new(name).unwrap()),
            traceparent,
            ..Envelope::new(EventId::new(id), kind, source, time)
        };
        prop_assert_eq!(parse(&headers(&envelope)), Ok(envelope));
    }

    #[test]
    fn no_header_makes_it_panic(name in prop::sample::select(headers(&full()).into_keys().collect::<Vec<_>>()), value in ".{0,40}") {
        let mut headers = headers(&full());
        headers.insert(name, value);
        let _ = parse(&headers);
    }
}
