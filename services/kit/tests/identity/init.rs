//! The directory of an identity: made once, kept, brought up to date, never half.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use kit::for_test::TestBus;
use kit::identity::{self, Identity, InitError, JetStreamLimits, Service, Spec};

fn spec() -> Spec<'static> {
    Spec { project: "test", limits: JetStreamLimits::default(), now: Timestamp::UNIX_EPOCH }
}

struct Folder {
    _folder: tempfile::TempDir,
    dir: PathBuf,
}

fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("identity");
    Folder { _folder: folder, dir }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files(dir).into_iter().filter(|path| path.is_file());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn everything_is_its_owners_alone() {
    let folder = folder();
    identity::init(&folder.dir, &spec()).unwrap();
    for path in files(&folder.dir).into_iter().chain([folder.dir.clone()]) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, wanted, "{}", path.display());
    }
    // Nothing is left beside it.
    let beside = fs::read_dir(folder.dir.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1);
}

#[test]
fn a_second_init_changes_nothing() {
    let folder = folder();
    identity::init(&folder.dir, &spec()).unwrap();
    let before = snapshot(&folder.dir);
    let later = Spec { now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1), ..spec() };
    identity::init(&folder.dir, &later).unwrap();
    assert!(snapshot(&folder.dir) == before);
}

#[test]
fn new_limits_sign_the_account_anew_and_nothing_else() {
    let folder = folder();
    let old = identity::init(&folder.dir, &spec()).unwrap();
    let before = snapshot(&folder.dir);
    let limited = Spec {
        limits: JetStreamLimits { disk: Some(1 << 30), memory: None },
        now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1),
        ..spec()
    };
    let new = identity::init(&folder.dir, &limited).unwrap();
    assert_eq!(new.account(), old.account());
    let changed: Vec<_> = snapshot(&folder.dir)
        .into_iter()
        .filter(|file| !before.contains(file))
        .map(|(path, _)| path.strip_prefix(&folder.dir).unwrap().to_owned())
        .collect();
    let expected = ["accounts/project.jwt", "external.conf", "identity.json", "nats-server.conf"];
    assert_eq!(changed, expected.map(PathBuf::from));
}

#[test]
fn what_is_missing_is_made_again_from_the_keys() {
    let folder = folder();
    let identity = identity::init(&folder.dir, &spec()).unwrap();
    let config = fs::read_to_string(identity.config_file()).unwrap();
    fs::remove_file(identity.config_file()).unwrap();
    fs::remove_file(identity.creds_file(Service::ChatBridge)).unwrap();
    let runner = fs::read(identity.creds_file(Service::AgentRunner)).unwrap();
    identity::init(&folder.dir, &spec()).unwrap();
    assert_eq!(fs::read_to_string(identity.config_file()).unwrap(), config);
    assert!(identity.creds_file(Service::ChatBridge).exists());
    assert_eq!(fs::read(identity.creds_file(Service::AgentRunner)).unwrap(), runner);
}

#[test]
fn a_broken_identity_is_reported_and_left_alone() {
    let half = folder();
    fs::create_dir(&half.dir).unwrap();
    fs::write(half.dir.join("operator.jwt"), "").unwrap();
    let error = identity::init(&half.dir, &spec()).unwrap_err();
    assert!(matches!(error, InitError::Incomplete { .. }), "{error}");
    assert_eq!(files(&half.dir).len(), 1);

    let cut = folder();
    identity::init(&cut.dir, &spec()).unwrap();
    fs::write(cut.dir.join("keys/account.nk"), "SAAB").unwrap();
    let error = identity::init(&cut.dir, &spec()).unwrap_err();
    assert!(matches!(error, InitError::BrokenKey { .. }), "{error}");

    let lost = folder();
    identity::init(&lost.dir, &spec()).unwrap();
    fs::remove_file(lost.dir.join("keys/operator.nk")).unwrap();
    let error = identity::init(&lost.dir, &spec()).unwrap_err();
    assert!(matches!(error, InitError::File(_)), "{error}");

    let (mine, other) = (folder(), folder());
    identity::init(&mine.dir, &spec()).unwrap();
    identity::init(&other.dir, &spec()).unwrap();
    fs::copy(other.dir.join("keys/account.nk"), mine.dir.join("keys/account.nk")).unwrap();
    let error = identity::init(&mine.dir, &spec()).unwrap_err();
    assert!(matches!(error, InitError::ForeignKey { .. }), "{error}");
}

#[test]
fn an_identity_is_of_one_project() {
    let folder = folder();
    identity::init(&folder.dir, &spec()).unwrap();
    let other = Spec { project: "other", ..spec() };
    let error = identity::init(&folder.dir, &other).unwrap_err();
    assert!(matches!(error, InitError::OtherProject { .. }), "{error}");
    assert_eq!(Identity::open(&folder.dir).unwrap().project(), "test");
}

#[test]
fn the_instructions_name_what_to_load_and_no_secret() {
    let folder = folder();
    let identity = identity::init(&folder.dir, &spec()).unwrap();
    let file = identity.external_config_file();
    let text = identity.external_instructions();
    assert!(text.contains(identity.account()) && text.contains(&file.display().to_string()));
    let text = text + &fs::read_to_string(file).unwrap();
    assert!(text.contains(&fs::read_to_string(folder.dir.join("accounts/project.jwt")).unwrap()));
    for path in files(&folder.dir) {
        if path.extension().is_some_and(|extension| extension == "nk") {
            let seed = fs::read_to_string(&path).unwrap();
            assert!(!text.contains(seed.trim()), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn users_of_another_identity_are_strangers() {
    let bus = TestBus::start().await;
    let folder = folder();
    let other = identity::init(&folder.dir, &spec()).unwrap();
    let creds = other.creds_file(Service::AgentRunner);
    let options = kit::for_test::connect_options(&creds, Service::AgentRunner).await;
    let refused = options.connect(bus.url()).await.unwrap_err();
    assert!(refused.to_string().contains("authorization"), "{refused}");
}

#[tokio::test]
async fn a_pushed_account_takes_effect_without_a_restart() {
    let bus = TestBus::start().await;
    // New limits stand for whatever changes an account: permissions, revocations.
    let later = Spec {
        project: kit::for_test::PROJECT,
        limits: JetStreamLimits { disk: Some(1 << 20), memory: Some(0) },
        now: kit::clock::now() + SignedDuration::from_secs(2),
    };
    let identity = identity::init(bus.identity().dir(), &later).unwrap();
    let jwt = fs::read_to_string(identity.dir().join("accounts/project.jwt")).unwrap();

    let system = async_nats::ConnectOptions::with_credentials_file(identity.system_creds_file())
        .await
        .unwrap()
        .custom_inbox_prefix("_INBOX.system")
        .connect(bus.url())
        .await
        .unwrap();
    let answer = system.request("$SYS.REQ.CLAIMS.UPDATE", jwt.into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["data"]["code"], 200, "{answer}");

    let setup = bus.bus(Service::Setup).await;
    let account = setup.jetstream().query_account().await.unwrap();
    assert_eq!(account.limits.max_storage, Some(1 << 20));
}
