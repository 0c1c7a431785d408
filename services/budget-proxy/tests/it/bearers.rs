//! Who may call.

use std::time::{Duration, Instant};

use budget_proxy::Patience;
use jiff::SignedDuration;
use kit::for_test::PROJECT;
use kit::token::{self, Audience, Claims, SigningKey};
use reqwest::StatusCode;
use schemas::{ProjectId, RunId};

use crate::client::{Api, BOTH, Caller, hear, question, refusal};
use crate::journal::Run;
use crate::stage::{Setting, Stage, soon};

const RULES: &str = "
  - name: any
    reply: {text: Hello.}
";

fn claims(run: &Run) -> Claims {
    let now = kit::clock::now();
    Claims {
        project: ProjectId::try_new(PROJECT).unwrap(),
        agent: "coder".parse().unwrap(),
        run_id: run.id,
        root_run_id: run.id,
        epoch: run.epoch,
        audience: Audience::ALL.to_vec(),
        issued_at: now.as_second(),
        expires_at: (now + SignedDuration::from_hours(1)).as_second(),
    }
}

/// The key that the stage's issuer signs with.
fn issuers_key(stage: &Stage) -> SigningKey {
    let text = std::fs::read_to_string(stage.bus.identity().bearer_key_file()).unwrap();
    SigningKey::from_text(&text).unwrap()
}

async fn status(caller: &Caller, key: &str) -> StatusCode {
    let response = caller.ask(Api::Anthropic, key, "hi", false).await;
    let status = response.status();
    hear(response).await;
    status
}

#[tokio::test]
async fn only_what_the_issuer_signed_for_this_proxy_and_time_is_taken() {
    let stage = Stage::playing(RULES).await;
    let run = Run::held(&stage.runner).await;
    let (own, foreign) = (issuers_key(&stage), SigningKey::generate());
    let good = claims(&run);
    let signed = |key: &SigningKey, claims: &Claims| token::mint(key, claims).unwrap();
    let past = good.issued_at - 10;
    let wrong = [
        ("garbage", "not-a-token".to_owned()),
        ("forged", signed(&foreign, &good)),
        ("altered", alter(&signed(&own, &good))),
        ("expired", signed(&own, &Claims { expires_at: past, ..good.clone() })),
        ("of tomorrow", signed(&own, &Claims { issued_at: good.issued_at + 3600, ..good.clone() })),
        ("of another project", signed(&own, &Claims { project: ProjectId::try_new("other").unwrap(), ..good.clone() })),
        ("for another audience", signed(&own, &Claims { audience: vec![Audience::Git], ..good.clone() })),
    ];
    for api in BOTH {
        for (what, bearer) in &wrong {
            let caller = Caller::new(&stage.proxy.url, bearer);
            let message = refusal(api, caller.ask(api, "k", "hi", true).await, 401).await;
            assert!(!message.contains(bearer.as_str()), "{what}: {message}");
        }
        let none = Caller::new(&stage.proxy.url, "").post(api);
        let none = none.body(question(api, "hi", false).to_string()).send();
        refusal(api, none.await.unwrap(), 401).await;
    }
    assert!(stage.asked().is_empty(), "nothing was forwarded");
    assert_eq!(status(&Caller::new(&stage.proxy.url, &signed(&own, &good)), "k").await, 200);
    assert_eq!(stage.record(run.id).await.epoch, run.epoch, "the only one on record");
}

/// Another letter within the claims.
fn alter(token: &str) -> String {
    let at = token.find('.').unwrap() + 20;
    let other = if &token[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[tokio::test]
async fn a_run_that_the_log_does_not_have_may_not_call() {
    let patience = Patience { epoch: Duration::from_millis(200), ..Patience::SHIPPED };
    let setting = Setting { patience: Some(patience), ..Setting::default() };
    let stage = Stage::with(RULES, setting).await;
    let bearer = stage.mint(RunId::from_uuid(kit::clock::uuid7()), 7).await;
    let caller = Caller::new(&stage.proxy.url, &bearer);
    let message = refusal(Api::OpenAi, caller.ask(Api::OpenAi, "k", "hi", false).await, 401).await;
    assert!(message.contains("no such epoch"), "{message}");
    assert!(stage.asked().is_empty());
}

#[tokio::test]
async fn an_epoch_that_is_not_seen_yet_is_waited_for_and_not_for_ever() {
    let patience = Patience { epoch: Duration::from_millis(500), ..Patience::SHIPPED };
    let setting = Setting { patience: Some(patience), ..Setting::default() };
    let stage = Stage::with(RULES, setting).await;
    let mut run = Run::requested(&stage.runner).await;
    let early = Caller::new(&stage.proxy.url, &stage.mint(run.id, run.next()).await);

    let begun = Instant::now();
    assert_eq!(status(&early, "k").await, 401);
    assert!(begun.elapsed() >= patience.epoch, "it is waited for");

    let mut asking = Box::pin(early.ask(Api::Anthropic, "k", "hi", false));
    let soon_after = tokio::time::timeout(Duration::from_millis(50), &mut asking).await;
    assert!(soon_after.is_err(), "it waits");
    run.start().await;
    assert_eq!(soon("an answer", asking).await.status(), 200);
}

#[tokio::test]
async fn an_old_epoch_is_refused_and_the_new_one_is_not() {
    let stage = Stage::playing(RULES).await;
    let (mut run, old) = stage.caller().await;
    assert_eq!(status(&old, "first").await, 200);
    run.resume().await;
    until_refused(&old).await;
    assert_eq!(status(&stage.caller_of(&run).await, "new").await, 200);
}

#[tokio::test]
async fn an_ended_run_is_refused() {
    let stage = Stage::playing(RULES).await;
    let (mut run, caller) = stage.caller().await;
    assert_eq!(status(&caller, "first").await, 200);
    run.finish().await;
    until_refused(&caller).await;
}

#[tokio::test]
async fn a_run_that_nobody_holds_may_not_call_until_it_is_taken_up() {
    let stage = Stage::playing(RULES).await;
    let (mut run, caller) = stage.caller().await;
    run.wait().await;
    until_refused(&caller).await;
    run.resume().await;
    assert_eq!(status(&stage.caller_of(&run).await, "k").await, 200);
    assert_eq!(status(&caller, "k").await, 401, "the epoch before stays refused");
}

/// Calls until one is refused. What the log says reaches the proxy on its way, while calls are taken still.
async fn until_refused(caller: &Caller) {
    let calls = async {
        for n in 0.. {
            match status(caller, &format!("after-{n}")).await {
                StatusCode::UNAUTHORIZED => return,
                taken => assert_eq!(taken, 200),
            }
        }
    };
    soon("a refusal", calls).await;
}
