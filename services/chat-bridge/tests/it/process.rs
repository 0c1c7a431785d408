//! The bridge as a process of its own, so that a test can end it as a power cut would.
//!
//! The test binary starts itself again with one test selected and a description of the bridge in its environment.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use chat_bridge::{Config, Deps};
use kit::{
    bus::{Bus, BusConfig},
    config::Env,
    crew::Crew,
    identity::Service,
    service::Context,
};
use schemas::ProjectId;

/// Holds where the child finds what it needs: bus, credentials, project folder and state, one a line.
const VARIABLE: &str = "NIGHTCREW_TEST_BRIDGE";

/// A bridge under test.
pub(crate) struct BridgeProcess {
    child: Child,
}

impl BridgeProcess {
    /// Starts it.
    pub(crate) fn start(url: &str, creds: &Path, project: &Path, state: &Path) -> Self {
        let place = [url, &creds.display().to_string(), &project.display().to_string(), &state.display().to_string()];
        std::fs::create_dir_all(state).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(state.join("bridge.log")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::bridge_of_another_test", "--nocapture"])
            .env(VARIABLE, place.join("\n"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for BridgeProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Nothing when it is run as a test like the others.
#[test]
fn bridge_of_another_test() {
    let Ok(place) = std::env::var(VARIABLE) else {
        return;
    };
    crate::world::show_log();
    let place: Vec<PathBuf> = place.lines().map(PathBuf::from).collect();
    // The child ends with its parent, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::abort();
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(serve(&place));
}

async fn serve(place: &[PathBuf]) {
    let [url, creds, project, state] = place else { panic!("not a place: {place:?}") };
    let bus = BusConfig {
        urls: vec![url.display().to_string()],
        creds: Some(creds.clone()),
        service: Service::ChatBridge.name().to_owned(),
        project: ProjectId::try_new(kit::for_test::PROJECT).unwrap(),
    };
    let bus = Bus::connect(&bus).await.unwrap();
    let crew = Arc::new(Crew::load(project).unwrap());
    let config = Config { folder: state.clone(), env: Env::default() };
    let context = Context::new("chat-bridge");
    chat_bridge::run(config, Deps { bus, crew }, context.clone()).await.unwrap();
    panic!("the bridge ended: {:?}", context.ended());
}
