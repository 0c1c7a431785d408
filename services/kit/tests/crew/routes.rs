//! Where routes lead, what calls cost, and how secrets are found.

use std::{fs, io, path::Path};

use jiff::civil::date;
use kit::crew::{Crew, EffectiveError, Provider, SecretError, SecretRef, Upstream};
use schemas::{MicroUsd, Usage};
use secrecy::ExposeSecret;

use crate::project::{CODER, LEAD, MODELS, Project, TEAM};

fn nothing(_: &str) -> Option<String> {
    None
}

#[test]
fn a_route_with_its_key_leads_to_the_provider() {
    let models = Project::good().load().unwrap().models;
    let env = |name: &str| (name == "BIG_KEY").then(|| " k-1\n".to_owned());
    match models.effective("strong", env).unwrap() {
        Upstream::Real { provider, base_url, model, key } => {
            assert_eq!((provider, base_url.as_str()), (Provider::Anthropic, "https://api.anthropic.com"));
            assert_eq!(model, "big-1");
            assert_eq!(key.unwrap().expose_secret(), "k-1");
        }
        Upstream::Rehearsal => panic!("the key is there"),
    }
}

#[test]
fn a_route_without_its_key_is_rehearsed() {
    let models = Project::good().load().unwrap().models;
    assert!(matches!(models.effective("strong", nothing), Ok(Upstream::Rehearsal)));
    assert!(matches!(models.effective("strong", |_| Some("  ".to_owned())), Ok(Upstream::Rehearsal)));
    assert!(matches!(models.effective("filed", nothing), Ok(Upstream::Rehearsal)));
    assert!(matches!(models.effective("play", |_| Some("k".to_owned())), Ok(Upstream::Rehearsal)));
}

#[test]
fn a_server_of_ones_own_needs_no_key() {
    let models = Project::good().load().unwrap().models;
    match models.effective("local", nothing).unwrap() {
        Upstream::Real { base_url, key, .. } => {
            assert_eq!(base_url, "http://127.0.0.1:11434/v1", "without a slash at its end");
            assert!(key.is_none());
        }
        Upstream::Rehearsal => panic!("it needs no key"),
    }
}

#[test]
fn an_unknown_route_is_refused() {
    let models = Project::good().load().unwrap().models;
    assert!(matches!(models.effective("nope", nothing), Err(EffectiveError::UnknownRoute(name)) if name == "nope"));
}

#[test]
fn a_key_file_that_can_not_be_read_is_no_absence() {
    let dir = tempfile::tempdir().unwrap();
    copy_good(dir.path()).unwrap();
    fs::create_dir_all(dir.path().join("secrets/mid")).unwrap();
    let models = Crew::load(dir.path()).unwrap().models;
    let error = models.effective("filed", nothing).unwrap_err();
    assert!(matches!(error, EffectiveError::Key { source: SecretError::Read { .. }, .. }), "a folder is no key");
}

#[test]
fn a_key_file_is_read_without_its_line_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let secret = SecretRef::File(path.clone());
    assert!(secret.read(nothing).unwrap().is_none(), "not there yet");
    fs::write(&path, "k-2\n").unwrap();
    assert_eq!(secret.read(nothing).unwrap().unwrap().expose_secret(), "k-2");
    fs::write(&path, "\n").unwrap();
    assert!(secret.read(nothing).unwrap().is_none(), "empty");
    fs::write(&path, vec![b'x'; 65 * 1024]).unwrap();
    assert!(matches!(secret.read(nothing), Err(SecretError::TooLarge { .. })));
}

#[test]
fn a_price_holds_from_its_day_on() {
    let models = Project::good().load().unwrap().models;
    let usage =
        Usage { input_tokens: 1_000_000, output_tokens: 10, cache_write_tokens: 1, cache_read_tokens: 2_000_000 };
    let price = |day| models.price("big-1", day, &usage);
    assert_eq!(price(date(2025, 12, 31)), None, "before the first price");
    assert_eq!(price(date(2026, 1, 1)), Some(MicroUsd(3_000_000 + 150 + 4 + 600_000)), "3.75 is rounded up");
    assert_eq!(price(date(2026, 2, 28)), price(date(2026, 1, 1)));
    assert_eq!(price(date(2026, 3, 1)), Some(MicroUsd(2_500_000 + 120 + 4 + 500_000)));
    assert_eq!(models.price("small-1", date(2026, 3, 1), &usage), None, "unpriced is not free");
}

fn copy_good(to: &Path) -> io::Result<()> {
    let project = Project::good();
    for agent in ["lead", "coder"] {
        let folder = to.join("agents").join(agent);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("persona.md"), "You work.")?;
    }
    for path in [TEAM, MODELS, LEAD, CODER] {
        fs::write(to.join(path), project.text(path))?;
    }
    Ok(())
}
