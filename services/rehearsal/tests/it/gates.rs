//! Gates: answers that wait for a test.

use rehearsal::Outcome;
use serde_json::{Value, json};

use crate::client::{Api, BOTH, Rig, events, streamed_text};

const RULES: &str = "
  - name: before
    when: {last_user: before}
    gate: start
    reply: {text: At last.}
  - name: within
    when: {last_user: within}
    gate: {name: middle, after_tokens: 2}
    reply: {text: '0123456789012345'}
";

async fn waiting(rig: &Rig, gate: usize) -> Value {
    rig.get("/rehearsal/gates").await[gate].clone()
}

#[tokio::test]
async fn an_answer_waits_until_its_gate_opens_and_the_next_one_passes() {
    for api in BOTH {
        let rig = Rig::playing(RULES).await;
        let opened = async {
            while waiting(&rig, 1).await["waiting"] != json!([1]) {}
            assert_eq!(waiting(&rig, 1).await, json!({"name": "start", "open": false, "waiting": [1]}));
            assert_eq!(rig.post("/rehearsal/gates/start/open").await, 204);
        };
        let (answer, ()) = tokio::join!(rig.ask(api, "before"), opened);
        assert_eq!(answer.status(), 200);
        assert_eq!(rig.ask(api, "before").await.status(), 200);
        assert_eq!(waiting(&rig, 1).await, json!({"name": "start", "open": true, "waiting": []}));
    }
}

#[tokio::test]
async fn a_gate_within_an_answer_lets_its_beginning_out() {
    for api in BOTH {
        let rig = Rig::playing(RULES).await;
        let opened = async {
            rig.until_seen(|seen| seen.first().is_some_and(|record| record.output_tokens == 2)).await;
            assert_eq!(waiting(&rig, 0).await["waiting"], json!([1]));
            rig.server.open_gate("middle").unwrap();
        };
        let streamed = async { events(rig.ask_streaming(api, "within").await).await };
        let (streamed, ()) = tokio::join!(streamed, opened);
        assert_eq!(streamed_text(api, &streamed), "0123456789012345");
        assert_eq!(rig.server.requests(0).requests[0].outcome, Outcome::Completed);
    }
}

#[tokio::test]
async fn who_gives_up_at_a_gate_waits_no_more() {
    let rig = Rig::playing(RULES).await;
    tokio::select! {
        _ = rig.ask(Api::Anthropic, "before") => panic!("the gate is closed"),
        () = async { while waiting(&rig, 1).await["waiting"] != json!([1]) {} } => {}
    }
    let seen = rig.until_seen(|seen| seen[0].outcome == Outcome::CutByClient).await;
    assert_eq!(seen[0].output_tokens, 0);
    assert_eq!(waiting(&rig, 1).await["waiting"], json!([]));
}

#[tokio::test]
async fn a_gate_is_closed_again_by_name_and_by_reset() {
    let rig = Rig::playing(RULES).await;
    assert_eq!(rig.post("/rehearsal/gates/start/open").await, 204);
    assert_eq!(rig.post("/rehearsal/gates/start/close").await, 204);
    assert_eq!(waiting(&rig, 1).await["open"], false);
    rig.server.open_gate("start").unwrap();
    rig.ask(Api::Openai, "before").await;
    assert_eq!(rig.post("/rehearsal/reset").await, 204);
    assert_eq!(waiting(&rig, 1).await["open"], false);
    assert_eq!(rig.get("/rehearsal/requests").await, json!({"seen": 1, "requests": []}));
}

#[tokio::test]
async fn an_unknown_gate_is_told_the_known_ones() {
    let rig = Rig::playing(RULES).await;
    let response = rig.request("/rehearsal/gates/statr/open").send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.text().await.unwrap(), "no gate is named `statr`; the scenarios have: middle, start");
}
