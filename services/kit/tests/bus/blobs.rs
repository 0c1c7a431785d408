//! Blobs are what their names say, kept once, and swept when nothing names them.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::{SignedDuration, ToSpan as _};
use kit::blobs::Blobs;
use kit::class::Classified as _;
use kit::clock;
use kit::identity::Service;
use schemas::{BlobRef, Text};

use crate::fixture::{Fixture, connect};
use crate::proxy::Line;

/// What can not be compressed or confused: each place holds something else.
fn content(bytes: usize, seed: u32) -> Bytes {
    (0..bytes / 4).flat_map(|n| (u32::try_from(n).unwrap().wrapping_mul(2_654_435_761) ^ seed).to_le_bytes()).collect()
}

#[tokio::test]
async fn what_is_put_is_had_again_whatever_its_size() {
    let fixture = Fixture::start().await;
    let writer = Blobs::new(&fixture.runner().await);
    let reader = Blobs::new(&fixture.connect(Service::ChatBridge).await);
    for bytes in [0, 4, 128 * 1024, 128 * 1024 + 4, 12 * 1024 * 1024] {
        let content = content(bytes, 1);
        let blob = writer.put(content.clone()).await.unwrap();
        assert_eq!(blob.bytes, bytes as u64);
        assert!(reader.get(&blob).await.unwrap() == content, "{bytes} bytes");
    }
    let missing = BlobRef { blob: "00".repeat(32), bytes: 1, preview: None };
    assert_eq!(reader.get(&missing).await.unwrap_err().code(), "blob_missing");
}

#[tokio::test]
async fn the_same_content_is_kept_once() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let blobs = Blobs::new(&bus);
    let content = content(300 * 1024, 2);
    let first = blobs.put(content.clone()).await.unwrap();
    let mut stream = bus.jetstream().get_stream("OBJ_blobs").await.unwrap();
    let messages = stream.info().await.unwrap().state.messages;
    assert_eq!(blobs.put(content).await.unwrap(), first);
    assert_eq!(stream.info().await.unwrap().state.messages, messages);
    // The tools of NATS read it too.
    let store = fixture.connect(Service::RunCorrelator).await;
    let store = store.jetstream().get_object_store("blobs").await.unwrap();
    assert_eq!(store.info(&first.blob).await.unwrap().size, 300 * 1024);
}

#[tokio::test]
async fn a_long_text_becomes_a_blob_with_its_beginning() {
    let fixture = Fixture::start().await;
    let blobs = Blobs::new(&fixture.runner().await);
    let short = blobs.text("short".to_owned()).await.unwrap();
    assert_eq!(short, Text::Inline("short".to_owned()));
    let long = "ä".repeat(100_000);
    let text = blobs.text(long.clone()).await.unwrap();
    let Text::Blob(blob) = &text else {
        panic!("{text:?}");
    };
    assert!(long.starts_with(blob.preview.as_deref().unwrap()));
    assert_eq!(blobs.load(&text).await.unwrap(), long);
    assert_eq!(blobs.load(&short).await.unwrap(), "short");
}

#[tokio::test]
async fn what_nothing_names_is_swept_without_a_trace_and_can_come_back() {
    let fixture = Fixture::start().await;
    let runner = fixture.runner().await;
    let writer = Blobs::new(&runner);
    let bus = fixture.connect(Service::RunCorrelator).await;
    let sweeper = Blobs::new(&bus);
    let named = writer.put(content(200 * 1024, 3)).await.unwrap();
    let unnamed = writer.put(content(200 * 1024, 4)).await.unwrap();
    // Chunks of an object that was never finished.
    let unfinished = "$O.blobs.C.unfinished";
    let chunk = runner.jetstream().publish(unfinished, "chunk".into()).await;
    chunk.unwrap().await.unwrap();

    let long_ago = clock::now() - 1.hour();
    assert_eq!(sweeper.stored_before(long_ago).await.unwrap(), HashSet::new());
    let just_now = clock::now() + 1.minute();
    let mut names = sweeper.stored_before(just_now).await.unwrap();
    assert_eq!(names, HashSet::from([named.blob.clone(), unnamed.blob.clone()]));
    names.remove(&named.blob);
    assert_eq!(sweeper.sweep(&names, long_ago).await.unwrap(), 0);
    assert_eq!(sweeper.sweep(&names, just_now).await.unwrap(), 1);
    assert_eq!(sweeper.get(&unnamed).await.unwrap_err().code(), "blob_missing");
    sweeper.get(&named).await.unwrap();
    let mut stream = bus.jetstream().get_stream("OBJ_blobs").await.unwrap();
    // Two chunks and a name.
    assert_eq!(stream.info().await.unwrap().state.messages, 3);

    assert_eq!(writer.put(content(200 * 1024, 4)).await.unwrap(), unnamed);
    sweeper.get(&unnamed).await.unwrap();
}

#[tokio::test]
async fn what_is_put_again_at_the_moment_of_its_sweep_is_there() {
    let fixture = Fixture::start().await;
    let line = Line::to(&fixture.server.url()).await;
    let creds = fixture.server.creds(Service::AgentRunner);
    let writer = Blobs::for_test(&connect(&line.url(), Service::AgentRunner, creds).await, SignedDuration::ZERO);
    let sweeper = Blobs::new(&fixture.connect(Service::RunCorrelator).await);
    let content = content(200 * 1024, 5);
    let blob = writer.put(content.clone()).await.unwrap();

    // Whoever puts it again sees that it is there, and it is swept before it is renewed.
    line.hold_next_answer();
    let sweep = async {
        line.until_held().await;
        let swept = sweeper.sweep(&HashSet::from([blob.blob.clone()]), clock::now()).await;
        line.release();
        swept
    };
    let (put, swept) = tokio::join!(writer.put(content.clone()), sweep);
    assert_eq!((put.unwrap(), swept.unwrap()), (blob.clone(), 1));
    assert!(sweeper.get(&blob).await.unwrap() == content);

    // And one that is renewed first is not swept.
    let before = clock::now();
    writer.put(content.clone()).await.unwrap();
    assert_eq!(sweeper.sweep(&HashSet::from([blob.blob.clone()]), before).await.unwrap(), 0);
    assert!(sweeper.get(&blob).await.unwrap() == content);
}
