//! Bearers: what is accepted, and everything that is not.

use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use kit::token::{Audience, Claims, MAX_SKEW_SECONDS, SigningKey, TokenError, Verifier, mint};
use proptest::prelude::*;
use schemas::{ProjectId, RunId};
use serde_json::{Value, json};

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn project(name: &str) -> ProjectId {
    ProjectId::try_new(name).unwrap()
}

fn claims() -> Claims {
    let run = RunId::from_uuid(uuid::Uuid::from_u128(1));
    Claims {
        project: project("ours"),
        agent: "coder".parse().unwrap(),
        run_id: run,
        root_run_id: run,
        epoch: 3,
        audience: vec![Audience::BudgetProxy, Audience::Git],
        issued_at: NOW,
        expires_at: NOW + 60,
    }
}

fn verifier(key: &SigningKey) -> Verifier {
    Verifier::new(project("ours"), [key.public()]).unwrap()
}

fn verify(key: &SigningKey, token: &str) -> Result<Claims, TokenError> {
    verifier(key).verify(token, Audience::BudgetProxy, at(NOW))
}

/// A token with the given header and claims, and a signature that fits neither.
fn forge(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}.{}", part(header), part(claims), BASE64URL_NOPAD.encode(signature))
}

fn split(token: &str) -> [&str; 3] {
    let parts: Vec<_> = token.split('.').collect();
    parts.try_into().unwrap()
}

#[test]
fn a_bearer_is_accepted_and_says_what_was_claimed() {
    let key = SigningKey::generate();
    let token = mint(&key, &claims()).unwrap();
    assert_eq!(verify(&key, &token), Ok(claims()));
    assert!(token.len() < 1024, "{} bytes", token.len());
}

#[test]
fn its_header_names_algorithm_and_key() {
    let key = SigningKey::generate();
    let token = mint(&key, &claims()).unwrap();
    let header = BASE64URL_NOPAD.decode(split(&token)[0].as_bytes()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header["alg"], "EdDSA");
    assert_eq!(header["kid"], key.public().kid());
}

#[test]
fn time_is_checked_to_the_second() {
    let key = SigningKey::generate();
    let token = mint(&key, &claims()).unwrap();
    let verify_at = |seconds| verifier(&key).verify(&token, Audience::BudgetProxy, at(seconds)).map(|_| ());
    assert_eq!(verify_at(NOW + 59), Ok(()));
    // No leeway: a run's end is the end.
    assert_eq!(verify_at(NOW + 60), Err(TokenError::Expired));
    assert_eq!(verify_at(NOW - MAX_SKEW_SECONDS), Ok(()));
    assert_eq!(verify_at(NOW - MAX_SKEW_SECONDS - 1), Err(TokenError::NotYetValid));
    let within = at(NOW) + SignedDuration::from_millis(59_999);
    assert!(verifier(&key).verify(&token, Audience::BudgetProxy, within).is_ok());
}

#[test]
fn it_is_for_its_audiences_and_project_only() {
    let key = SigningKey::generate();
    let token = mint(&key, &claims()).unwrap();
    let ours = verifier(&key);
    assert!(ours.verify(&token, Audience::Git, at(NOW)).is_ok());
    assert_eq!(ours.verify(&token, Audience::Mcp, at(NOW)), Err(TokenError::WrongAudience));

    // Even when both projects were given the same key.
    let theirs = Verifier::new(project("theirs"), [key.public()]).unwrap();
    assert_eq!(theirs.verify(&token, Audience::Git, at(NOW)), Err(TokenError::ForeignProject));
}

#[test]
fn another_key_is_unknown_and_can_not_borrow_an_id() {
    let (ours, theirs) = (SigningKey::generate(), SigningKey::generate());
    let foreign = mint(&theirs, &claims()).unwrap();
    assert_eq!(verify(&ours, &foreign), Err(TokenError::UnknownKey));

    let header = json!({"typ": "JWT", "alg": "EdDSA", "kid": ours.public().kid()});
    let signature = BASE64URL_NOPAD.decode(split(&foreign)[2].as_bytes()).unwrap();
    let forged = forge(&header, &json!(claims()), &signature);
    assert_eq!(verify(&ours, &forged), Err(TokenError::Signature));
}

#[test]
fn a_token_can_not_choose_how_it_is_checked() {
    let key = SigningKey::generate();
    let kid = key.public().kid();
    let none = forge(&json!({"typ": "JWT", "alg": "none", "kid": kid}), &json!(claims()), b"");
    assert!(matches!(verify(&key, &none), Err(TokenError::Malformed | TokenError::Algorithm)));

    // The classic: the public key as the secret of a symmetric algorithm.
    let header =
        jsonwebtoken::Header { kid: Some(kid.to_owned()), ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256) };
    let public = BASE64URL_NOPAD.decode(key.public().x().as_bytes()).unwrap();
    let secret = jsonwebtoken::EncodingKey::from_secret(&public);
    let confused = jsonwebtoken::encode(&header, &claims(), &secret).unwrap();
    assert_eq!(verify(&key, &confused), Err(TokenError::Algorithm));
}

#[test]
fn claims_are_signed_and_complete() {
    let key = SigningKey::generate();
    let token = mint(&key, &claims()).unwrap();
    let [header, _, signature] = split(&token);
    let altered = json!(Claims { epoch: 4, ..claims() });
    let altered = BASE64URL_NOPAD.encode(altered.to_string().as_bytes());
    assert_eq!(verify(&key, &format!("{header}.{altered}.{signature}")), Err(TokenError::Signature));

    for field in ["project", "agent", "run_id", "root_run_id", "epoch", "aud", "iat", "exp"] {
        let mut incomplete = json!(claims());
        incomplete.as_object_mut().unwrap().remove(field);
        let token = sign_anything(&key, &incomplete);
        assert_eq!(verify(&key, &token), Err(TokenError::Malformed), "without {field}");
    }
}

/// Signed by the right key, whatever it says.
fn sign_anything(key: &SigningKey, claims: &Value) -> String {
    let seed = key.to_text();
    let seed = seed.trim().rsplit(':').next().unwrap();
    let seed = BASE64URL_NOPAD.decode(seed.as_bytes()).unwrap();
    let pkcs8: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let secret = jsonwebtoken::EncodingKey::from_ed_der(&[pkcs8.as_slice(), &seed].concat());
    let header = jsonwebtoken::Header {
        kid: Some(key.public().kid().to_owned()),
        ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA)
    };
    jsonwebtoken::encode(&header, claims, &secret).unwrap()
}

#[test]
fn a_known_older_key_still_verifies() {
    let (old, new) = (SigningKey::generate(), SigningKey::generate());
    let both = Verifier::new(project("ours"), [new.public(), old.public()]).unwrap();
    for key in [&old, &new] {
        let token = mint(key, &claims()).unwrap();
        assert!(both.verify(&token, Audience::Git, at(NOW)).is_ok());
    }
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let key = SigningKey::generate();
    let text = key.to_text();
    let secret = text.trim().rsplit(':').next().unwrap();
    assert!(!format!("{key:?}").contains(secret));
}

proptest! {
    #[test]
    fn no_text_is_accepted_or_panics(text in "\\PC{0,300}") {
        let key = SigningKey::generate();
        prop_assert!(verify(&key, &text).is_err());
    }

    #[test]
    fn no_changed_byte_is_accepted(position in 0_usize..10_000, to in 0_u8..64) {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let key = SigningKey::generate();
        let token = mint(&key, &claims()).unwrap();
        let mut bytes = token.clone().into_bytes();
        let position = position % bytes.len();
        prop_assume!(bytes[position] != b'.' && bytes[position] != ALPHABET[usize::from(to)]);
        bytes[position] = ALPHABET[usize::from(to)];
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(verify(&key, &changed).is_err());
    }
}
