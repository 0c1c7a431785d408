//! Tells whether the server refuses a subject to a user.

use async_nats::{Client, Event, ServerError};
use kit::for_test::{TestBus, connect_options};
use kit::identity::Service;
use tokio::sync::mpsc;

/// What nobody may publish: its refusal marks the end of those of an attempt.
const FENCE: &str = "nobody.may.say.this";

/// A connection whose refusals are seen.
pub(crate) struct Probe {
    pub(crate) client: Client,
    refusals: mpsc::Receiver<String>,
    fences: usize,
}

impl Probe {
    pub(crate) async fn connect(bus: &TestBus, service: Service) -> Self {
        let (sender, refusals) = mpsc::channel(1000);
        let client = connect_options(&bus.creds(service), service)
            .await
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    if let Event::ServerError(ServerError::Other(text)) = event {
                        sender.send(text).await.unwrap();
                    }
                }
            })
            .connect(bus.url())
            .await
            .unwrap();
        Self { client, refusals, fences: 0 }
    }

    /// Whether publishing there is let through.
    pub(crate) async fn may_publish(&mut self, subject: &str) -> bool {
        self.client.publish(subject.to_owned(), "{}".into()).await.unwrap();
        self.refused().await.is_empty()
    }

    /// Whether subscribing there is let through.
    pub(crate) async fn may_subscribe(&mut self, subject: &str) -> bool {
        let subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        let allowed = self.refused().await.is_empty();
        drop(subscription);
        allowed
    }

    /// What was refused since the last call. The server answers in order, so all of it precedes the fence's refusal.
    async fn refused(&mut self) -> Vec<String> {
        self.fences += 1;
        let fence = format!("{FENCE}.{}", self.fences);
        self.client.publish(fence.clone(), "".into()).await.unwrap();
        let mut refused = Vec::new();
        loop {
            let text = self.refusals.recv().await.unwrap();
            if text.to_lowercase().contains(&fence) {
                return refused;
            }
            refused.push(text);
        }
    }
}
