//! A call under one key is paid once: repeats are answered from what was kept, or join what is under way.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use budget_proxy::replies::{self, CallKey, Replies};
use budget_proxy::upstream;
use futures::future::join_all;
use kit::identity::Service;
use schemas::RunId;
use schemas::call::CallOutcome;

use crate::client::{Api, BOTH, Hearing, hear, json_of, question, refusal};
use crate::stage::{Stage, soon};

const RULES: &str = "
  - name: plain
    when: {last_user: plain}
    reply: {text: 'Plain: 0123456789'}
  - name: slow
    when: {last_user: slow}
    gate: {name: middle, after_tokens: 2}
    reply: {text: '0123456789abcdefghijklmnop'}
";

#[tokio::test]
async fn a_landed_call_is_answered_from_what_was_kept() {
    let stage = Stage::playing(RULES).await;
    for api in BOTH {
        for stream in [false, true] {
            let (run, caller) = stage.caller().await;
            let before = stage.asked().len();
            let first = caller.ask(api, "k", "plain", stream).await;
            let content_type = first.headers()["content-type"].clone();
            let first = hear(first).await;
            for _ in 0..2 {
                let again = caller.ask(api, "k", "plain", stream).await;
                assert_eq!(again.status(), 200);
                assert_eq!(again.headers()["idempotent-replayed"], "true");
                assert_eq!(again.headers()["content-type"], content_type);
                assert_eq!(hear(again).await, first);
            }
            assert_eq!(stage.asked().len(), before + 1, "{api:?} {stream}");
            stage.record(run.id).await;
        }
    }
}

#[tokio::test]
async fn a_kept_reply_outlives_the_proxy() {
    let mut stage = Stage::playing(RULES).await;
    let (run, caller) = stage.caller().await;
    let first = hear(caller.ask(Api::Anthropic, "k", "plain", true).await).await;
    stage.kill_proxy().await;
    let caller = stage.caller_of(&run).await;
    let again = caller.ask(Api::Anthropic, "k", "plain", true).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(hear(again).await, first);
    assert_eq!(stage.asked().len(), 1);
    stage.record(run.id).await;
}

#[tokio::test]
async fn a_repeat_joins_the_call_under_way_and_hears_all_of_it() {
    for api in BOTH {
        let stage = Stage::playing(RULES).await;
        let (run, caller) = stage.caller().await;
        let mut first = Hearing::of(caller.ask(api, "k", "slow", true).await);
        first.until("4567").await;
        let second = caller.ask(api, "k", "slow", true).await;
        assert!(!second.headers().contains_key("idempotent-replayed"));
        let mut second = Hearing::of(second);
        second.until("0123").await;
        stage.model.open_gate("middle").unwrap();
        let (first, second) = tokio::join!(first.rest(), second.rest());
        assert!(first.whole && first == second);
        assert_eq!(stage.asked().len(), 1);
        assert_eq!(stage.record(run.id).await.outcome, CallOutcome::Completed);
    }
}

#[tokio::test]
async fn a_call_whose_caller_is_gone_goes_on_and_is_kept() {
    for api in BOTH {
        let stage = Stage::playing(RULES).await;
        let (run, caller) = stage.caller().await;
        caller.ask_and_leave(api, "k", "slow", "4567").await;
        stage.model.open_gate("middle").unwrap();
        let record = stage.record(run.id).await;
        assert_eq!(record.outcome, CallOutcome::CallerGone);
        assert!(!record.usage_estimated);
        let again = stage.caller_of(&run).await.ask(api, "k", "slow", true).await;
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert!(hear(again).await.whole);
        assert_eq!(stage.asked().len(), 1);
    }
}

#[tokio::test]
async fn first_calls_at_the_same_moment_are_one() {
    let stage = Stage::playing(RULES).await;
    for round in 0..10 {
        let (run, caller) = stage.caller().await;
        let before = stage.asked().len();
        let answers = (0..16)
            .map(|_| async { json_of(caller.ask(Api::OpenAi, &format!("k{round}"), "plain", false).await).await });
        let answers = soon("all answers", join_all(answers)).await;
        assert!(answers.iter().all(|answer| answer == &answers[0]));
        assert_eq!(stage.asked().len(), before + 1);
        stage.record(run.id).await;
    }
}

#[tokio::test]
async fn the_same_key_of_another_run_or_for_another_request_is_another_call() {
    let stage = Stage::playing(RULES).await;
    let ((_one, first), (_two, second)) = (stage.caller().await, stage.caller().await);
    for (n, (caller, text)) in [(&first, "plain"), (&second, "plain"), (&first, "plain too")].iter().enumerate() {
        let answer = caller.ask(Api::Anthropic, "k", text, false).await;
        assert!(!answer.headers().contains_key("idempotent-replayed"));
        assert_eq!(answer.status(), 200);
        hear(answer).await;
        assert_eq!(stage.asked().len(), n + 1);
    }
}

#[tokio::test]
async fn a_call_that_failed_can_be_tried_again() {
    let faults = [
        ("kind: rate_limited, retry_after: 7", Some(429)),
        ("kind: overloaded", None),
        ("kind: server_error, status: 502", Some(502)),
        ("kind: garbage", Some(502)),
        ("kind: cut_stream, after_tokens: 2", None),
        ("kind: malformed_frame, after_tokens: 2", None),
        ("kind: error_frame, after_tokens: 2", None),
    ];
    let rules = faults.iter().enumerate().map(|(n, (fault, _))| {
        format!(
            "
  - name: fault-{n}
    when: {{last_user: 'fault {n} '}}
    fault: {{{fault}, times: 1}}
    reply: {{text: '0123456789abcdef'}}
"
        )
    });
    let stage = Stage::playing(&rules.collect::<String>()).await;
    for (n, (_, status)) in faults.into_iter().enumerate() {
        for (api, stream) in
            [(Api::Anthropic, false), (Api::Anthropic, true), (Api::OpenAi, false), (Api::OpenAi, true)]
        {
            let (run, caller) = stage.caller().await;
            let before = stage.asked().len();
            // Another conversation each, in which the fault has not happened yet.
            let text = format!("fault {n} {api:?} {stream}");
            let failed = caller.ask(api, "k", &text, stream).await;
            match status {
                Some(status) => drop(refusal(api, failed, status).await),
                None => drop(hear(failed).await),
            }
            let again = caller.ask(api, "k", &text, stream).await;
            assert_eq!(again.status(), 200, "{text}");
            assert!(!again.headers().contains_key("idempotent-replayed"), "{text}");
            assert!(hear(again).await.whole, "{text}");
            let kept = caller.ask(api, "k", &text, stream).await;
            assert_eq!(kept.headers()["idempotent-replayed"], "true", "{text}");
            assert_eq!(stage.asked().len(), before + 2, "{text}");
            stage.records(run.id, 2).await;
        }
    }
}

#[tokio::test]
async fn a_call_that_is_lost_with_the_proxy_is_made_again() {
    let mut stage = Stage::playing(RULES).await;
    let (run, caller) = stage.caller().await;
    let mut lost = Hearing::of(caller.ask(Api::Anthropic, "k", "slow", true).await);
    lost.until("4567").await;
    stage.proxy.kill();
    assert!(!soon("the end", lost.rest()).await.whole);
    stage.start_proxy().await;
    stage.model.open_gate("middle").unwrap();
    let again = stage.caller_of(&run).await.ask(Api::Anthropic, "k", "slow", true).await;
    assert!(!again.headers().contains_key("idempotent-replayed"));
    assert!(hear(again).await.whole);
    assert_eq!(stage.asked().len(), 2);
}

#[tokio::test]
async fn long_streams_are_kept_too() {
    let text = "0123456789".repeat(2_000);
    let stage = Stage::playing(&format!("\n  - name: long\n    reply: {{text: '{text}'}}\n")).await;
    let (_run, caller) = stage.caller().await;
    let first = hear(caller.ask(Api::OpenAi, "k", "long", true).await).await;
    assert!(first.whole && first.bytes.len() > 1_000_000, "{}", first.bytes.len());
    let again = caller.ask(Api::OpenAi, "k", "long", true).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert!(hear(again).await == first);
}

#[tokio::test]
async fn a_full_bucket_forgets_the_oldest_replies_and_keeps_the_newest() {
    let text = "0123456789".repeat(800);
    let stage = Stage::playing(&format!("\n  - name: long\n    reply: {{text: '{text}'}}\n")).await;
    let setup = stage.bus.bus(Service::Setup).await;
    let bucket = setup.jetstream().get_stream("KV_replies").await.unwrap();
    let small = Config { max_bytes: 64 * 1024, ..bucket.cached_info().config.clone() };
    setup.jetstream().update_stream(small).await.unwrap();

    let (_run, caller) = stage.caller().await;
    for n in 0..32 {
        hear(caller.ask(Api::Anthropic, &format!("k{n}"), "long", false).await).await;
    }
    for (key, is_kept) in [("k31", true), ("k0", false)] {
        let again = caller.ask(Api::Anthropic, key, "long", false).await;
        assert_eq!(again.headers().contains_key("idempotent-replayed"), is_kept, "{key}");
    }
}

#[tokio::test]
async fn a_reply_that_is_too_large_for_a_message_is_kept_too() {
    let stage = Stage::playing(RULES).await;
    let bus = stage.bus.bus(Service::BudgetProxy).await;
    let kept = Replies::open(&bus, Duration::from_secs(10)).await.unwrap();
    let run = RunId::from_uuid(kit::clock::uuid7());
    let key = CallKey::new(run, upstream::Api::Anthropic, "k", b"body");
    // What can not be compressed.
    let body: Vec<u8> = (0..500_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ 0x5a5a).to_le_bytes()).collect();
    kept.keep(&key, replies::encode("text/event-stream", &body)).await;
    let found = kept.get(&key).await.unwrap().expect("a reply");
    assert_eq!(found.content_type, "text/event-stream");
    assert!(found.body == body);
}

#[tokio::test]
async fn a_body_may_come_in_any_order_of_keys() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    let body = question(Api::Anthropic, "plain", false).to_string();
    assert!(body.find("\"model\"") > body.find("\"messages\""));
    let turned = body.replacen('{', "{\"metadata\": {\"model\": \"inner\"}, ", 1);
    let request = caller.post(Api::Anthropic).bearer_auth(&caller.bearer).body(turned);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(stage.asked()[0].model, "claude-test");
}
