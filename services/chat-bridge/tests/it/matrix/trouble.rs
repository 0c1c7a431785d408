//! Lost keys, lost sessions, and folders.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_key_is_told_and_makes_health_red() {
    let world = World::new(RateLimits::Off, true).await;
    let mut bridge = world.open();
    bridge.read_until(|_| true).await;
    bridge.commit().await;
    world.ada.wait_for_member(&world.room, &world.crew_id(), WITHIN).await.unwrap();
    let event = send_undecryptable(&world).await;
    let told = async {
        loop {
            let batch = bridge.receiver.next().await.unwrap();
            bridge.receiver.commit(&[]).await.unwrap();
            if let Some(tell) = batch.notices.first() {
                return tell.clone();
            }
        }
    };
    let told = tokio::time::timeout(WITHIN, told).await.unwrap();
    assert_eq!((told.room.as_str(), told.thread.as_deref()), (world.room.as_str(), Some(event.as_str())));
    let problems = bridge.checks.report().problems();
    assert!(problems.iter().any(|problem| problem.contains("can not be decrypted")), "{problems:?}");

    world.ada.redact(&world.room, &event).await.unwrap();
    let green = async {
        while !bridge.checks.report().problems().is_empty() {
            bridge.receiver.next().await.unwrap();
            bridge.receiver.commit(&[]).await.unwrap();
        }
    };
    tokio::time::timeout(WITHIN, green).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_red_and_a_password_logs_in_again() {
    let world = World::new(RateLimits::Off, false).await;
    let mut bridge = world.open();
    bridge.read_until(|_| true).await;
    bridge.commit().await;
    world.ada.say(&world.room, "one").await.unwrap();
    bridge.read_texts("one").await;
    bridge.commit().await;
    log_out_everywhere(&world).await;
    world.ada.say(&world.room, "two").await.unwrap();
    assert!(bridge.receiver.next().await.is_err());
    assert!(!bridge.checks.report().problems().is_empty());

    let batch = tokio::time::timeout(WITHIN, bridge.receiver.next()).await.unwrap().unwrap();
    assert_eq!(texts(&batch.messages), ["two"]);
    assert!(batch.notices[0].text.contains("revoked"), "{:?}", batch.notices);
    bridge.commit().await;
    assert!(bridge.checks.report().problems().is_empty());
    bridge.deliver(&outgoing("work", None, "said/0", "still here")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bridges_do_not_share_a_folder() {
    let world = World::new(RateLimits::Off, false).await;
    let _first = world.open();
    let checks = kit::service::Health::new("chat-bridge");
    assert!(matrix::open(world.settings(), Health::new(checks)).is_err());
}

#[test]
fn the_session_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("matrix");
    let settings = Settings {
        matrix: Matrix {
            homeserver: "http://127.0.0.1:1".to_owned(),
            user: "@crew:x".to_owned(),
            login: Login::Password(SecretRef::Env("PASSWORD".to_owned())),
            rooms: Vec::new(),
            allow: Vec::new(),
            audit_room: None,
        },
        rules: Arc::new(Rules {
            senders: Senders::Listed(Vec::new()),
            crew: BTreeSet::new(),
            rooms: std::collections::BTreeMap::new(),
            account: Vec::new(),
        }),
        folder: inside.clone(),
        env: Arc::new(|_| None),
        timeline_limit: 1,
        stalled_after: matrix::STALLED_AFTER,
    };
    let _bridge = Bridge::open(settings);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inside), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_is_away_is_red_until_it_is_back_and_the_room_is_told() {
    let mut world = World::new(RateLimits::Off, false).await;
    world.stalled_after = Duration::from_millis(500);
    let mut bridge = world.open();
    bridge.read_until(|_| true).await;
    bridge.commit().await;
    world.synapse.kill().unwrap();
    let red = async {
        while bridge.checks.report().problems().is_empty() {
            bridge.receiver.next().await.unwrap_err();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WITHIN, red).await.unwrap();
    let problems = bridge.checks.report().problems();
    assert!(problems[0].contains("no sync since"), "{problems:?}");
    world.synapse.launch().await.unwrap();
    let told = async {
        loop {
            if let Ok(batch) = bridge.receiver.next().await {
                return batch.notices;
            }
        }
    };
    let told = tokio::time::timeout(WITHIN, told).await.unwrap();
    assert!(told[0].text.contains("could not read my rooms"), "{told:?}");
    assert_eq!(told[0].room, "work");
    assert!(bridge.checks.report().problems().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_answers_for_a_homeserver_that_is_away_is_red_too() {
    let mut world = World::new(RateLimits::Off, false).await;
    world.stalled_after = Duration::from_millis(500);
    let mut settings = world.settings();
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    settings.matrix.homeserver = format!("http://{}", proxy.local_addr().unwrap());
    let mut bridge = Bridge::open(settings);
    let checks = bridge.checks.clone();
    let mut changes = checks.subscribe();
    let red = async {
        while !checks.report().problems().iter().any(|problem| problem.contains("no sync since")) {
            changes.changed().await.unwrap();
        }
    };
    // matrix-sdk goes on trying, so nothing is read and nothing fails.
    let done = tokio::time::timeout(WITHIN, async {
        tokio::select! {
            () = red => true,
            _ = bridge.receiver.next() => false,
            () = bad_gateway(&proxy) => false,
        }
    });
    assert!(done.await.unwrap(), "{:?}", checks.report());
}

/// Answers every request as a reverse proxy does whose server is away.
async fn bad_gateway(proxy: &tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    loop {
        let (mut client, _) = proxy.accept().await.unwrap();
        let answer = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        if client.read(&mut [0; 4096]).await.is_ok() {
            let _ = client.write_all(answer).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_logs_in_and_a_revoked_one_stays_red_until_there_is_another() {
    let world = World::new(RateLimits::Off, true).await;
    let token = Arc::new(std::sync::Mutex::new(access_token(&world).await));
    let settings = || {
        let token = Arc::clone(&token);
        let mut settings = world.settings();
        settings.matrix.login = Login::Token(SecretRef::Env("TOKEN".to_owned()));
        settings.env = Arc::new(move |name| (name == "TOKEN").then(|| token.lock().unwrap().clone()));
        settings
    };
    let mut bridge = Bridge::open(settings());
    world.ada.say(&world.room, "one").await.unwrap();
    bridge.read_until(|_| true).await;
    bridge.commit().await;
    log_out_everywhere(&world).await;
    bridge.receiver.next().await.unwrap_err();
    let refused = bridge.receiver.next().await.unwrap_err();
    assert!(matches!(refused, ReceiveError::Refused { .. }), "{refused:?}");
    let problems = bridge.checks.report().problems();
    assert!(problems.iter().any(|problem| problem.contains("was revoked")), "{problems:?}");

    let renewed = access_token(&world).await;
    token.lock().unwrap().clone_from(&renewed);
    world.ada.say(&world.room, "two").await.unwrap();
    let batch = tokio::time::timeout(WITHIN, bridge.receiver.next()).await.unwrap().unwrap();
    assert!(batch.notices[0].text.contains("revoked"), "{:?}", batch.notices);
    assert!(bridge.checks.report().problems().is_empty());
}

/// Logs the crew's account in by hand.
async fn access_token(world: &World) -> String {
    let body = serde_json::json!({
        "type": "m.login.password",
        "password": world.password,
        "identifier": { "type": "m.id.user", "user": "crew" },
    });
    let url = format!("{}/_matrix/client/v3/login", world.synapse.url());
    let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    let answer: serde_json::Value = answer.error_for_status().unwrap().json().await.unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

/// Sends an event whose key nobody has.
async fn send_undecryptable(world: &World) -> String {
    let token = world.ada.client().access_token().unwrap();
    let url = format!("{}/_matrix/client/v3/rooms/{}/send/m.room.encrypted/lost-key", world.synapse.url(), world.room);
    let content = serde_json::json!({
        "algorithm": "m.megolm.v1.aes-sha2",
        "sender_key": "q7ZyVqY3wPj7kTn0oW9uU5m5j2m0q2kqv3p0mJc8b1A",
        "device_id": "GONE",
        "session_id": "vWqK2Tq1tq3m5r2u0c6nO5m0yq8m3Xn1b7n2u8d0s4E",
        "ciphertext": "AwgAEnACgAkLmt6qF84IK++J7UDH2Za1YVchHyprqTqsg2yyOwAtHaZTwyNg37afzg8f3r9IsN9r4RNFg7MaZencUJe4qvELiDiopUjy5wYVDAtqdBzer5bWRD9ldxp1FLgbQvBcjkkywYjCsmsq6+hArLd9oAQZnGKn/qLsK+5uNX3PaWzDRC9wZPQvWYYPCTov3jCwXKTPsLKIiTrcCXDqMvnn8m+T3zF/I2zqxg158tnUwWWIw51UO",
    });
    let client = reqwest::Client::new();
    let answer = client.put(url).bearer_auth(token).json(&content).send().await.unwrap();
    let answer: serde_json::Value = answer.error_for_status().unwrap().json().await.unwrap();
    answer["event_id"].as_str().unwrap().to_owned()
}

async fn log_out_everywhere(world: &World) {
    let saved = std::fs::read_to_string(world.folder.path().join("session.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    let token = saved["session"]["access_token"].as_str().unwrap();
    let url = format!("{}/_matrix/client/v3/logout/all", world.synapse.url());
    let answer = reqwest::Client::new().post(url).bearer_auth(token).send().await.unwrap();
    answer.error_for_status().unwrap();
}
