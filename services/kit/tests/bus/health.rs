//! Asking services over the bus how they are.

use kit::identity::Service;
use kit::service::{Check, Context, HealthAskError, answer_health, ask_health};

use crate::fixture::Fixture;

#[tokio::test]
async fn a_service_tells_its_own_checks_for_as_long_as_it_runs() {
    let fixture = Fixture::start().await;
    let person = fixture.connect(Service::Nightcrew).await;
    let absent = ask_health(&person, "issuer").await;
    assert!(matches!(absent, Err(HealthAskError::Absent(_))), "{absent:?}");

    let process = Context::new("nightcrew");
    for service in [Service::Issuer, Service::ChatBridge] {
        let context = process.child(service.name());
        let bus = fixture.connect(service).await;
        answer_health(bus.client(), &context).await.unwrap();
        bus.flush().await;
        context.ready();
        if service == Service::ChatBridge {
            let red = Check::Red("revoked".to_owned());
            context.health.set("matrix", red);
        }
    }
    let issuer = ask_health(&person, "issuer").await.unwrap();
    assert!(issuer.ready, "{issuer:?}");
    let bridge = ask_health(&person, "chat-bridge").await.unwrap();
    assert_eq!((bridge.ready, bridge.problems()), (false, vec!["matrix: revoked".to_owned()]));

    process.begin_shutdown();
    assert!(process.drain(crate::fixture::SOON).await);
}
