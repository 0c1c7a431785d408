//! The terminal's sending half.

use chat_bridge::{
    adapters::terminal::Sender,
    ports::{Body, Deliver as _, DeliverError, Outgoing},
};
use kit::{for_test::TestBus, identity::Service};
use schemas::signal::Delivered;

#[tokio::test]
async fn what_nobody_hears_is_marked_and_what_never_fits_is_refused() {
    let test = TestBus::start().await;
    let bus = test.bus(Service::ChatBridge).await;
    let sender = Sender::new(&bus);
    let message = |text: String| Outgoing {
        id: "said/0".to_owned(),
        room: "terminal-gone".to_owned(),
        thread: None,
        body: Body::Text(text),
        run_id: None,
        notice: false,
        maybe_sent: false,
    };
    assert_eq!(sender.deliver(&message("hello".to_owned())).await.unwrap(), Delivered::UNATTENDED);
    let too_long = message("x".repeat(bus.max_payload() + 1));
    assert!(matches!(sender.deliver(&too_long).await, Err(DeliverError::Refused { .. })));
}
