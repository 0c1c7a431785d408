//! Ed25519 keys of bearers: the secret one that `issuer` holds, and the public ones that verifiers hold.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use nkeys::{KeyPair, KeyPairType};
use schemas::ask::PublicJwk;
use sha2::{Digest as _, Sha256};

/// Bytes of an Ed25519 seed and of a public key.
const KEY_BYTES: usize = 32;

/// What precedes the seed in the PKCS #8 form of an Ed25519 key (RFC 8410), which the signer asks for.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Starts the text form of a secret key, so that nobody mistakes the file for anything else.
const SECRET_PREFIX: &str = "nightcrew-bearer-key-1:";

/// A key's text form is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in the form that Nightcrew writes")]
pub struct InvalidKey;

/// The secret key that signs bearers.
pub struct SigningKey {
    seed: [u8; KEY_BYTES],
    encoding: EncodingKey,
    public: PublicKey,
}

impl SigningKey {
    /// A fresh key from the system's randomness.
    pub fn generate() -> Self {
        let seed: [u8; KEY_BYTES] = rand::random();
        // The conversion of 32 bytes can not fail; a second try is free of cost and of a panic.
        Self::from_seed(seed).unwrap_or_else(|InvalidKey| Self::generate())
    }

    /// Reads what `to_text` wrote.
    pub fn from_text(text: &str) -> Result<Self, InvalidKey> {
        let encoded = text.trim().strip_prefix(SECRET_PREFIX).ok_or(InvalidKey)?;
        let seed = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| InvalidKey)?;
        Self::from_seed(seed.try_into().map_err(|_| InvalidKey)?)
    }

    /// The secret as text, for a file that only its owner reads.
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}\n", BASE64URL_NOPAD.encode(&self.seed))
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }

    fn from_seed(seed: [u8; KEY_BYTES]) -> Result<Self, InvalidKey> {
        let pair = KeyPair::new_from_raw(KeyPairType::User, seed).map_err(|_| InvalidKey)?;
        let (_, public) = nkeys::from_public_key(&pair.public_key()).map_err(|_| InvalidKey)?;
        let der = [PKCS8_PREFIX.as_slice(), seed.as_slice()].concat();
        Ok(Self { seed, encoding: EncodingKey::from_ed_der(&der), public: PublicKey::new(public) })
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.public.kid).finish_non_exhaustive()
    }
}

/// A public key with the id that tokens name it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kid: String,
    bytes: [u8; KEY_BYTES],
}

impl PublicKey {
    fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self { kid: thumbprint(&bytes), bytes }
    }

    /// Its id: the JWK thumbprint (RFC 7638), so a key can not be passed off under another's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key as the `x` of a JWK: 32 bytes in base64url.
    pub fn x(&self) -> String {
        BASE64URL_NOPAD.encode(&self.bytes)
    }

    /// Reads what `x` wrote.
    pub fn from_x(x: &str) -> Result<Self, InvalidKey> {
        let bytes = BASE64URL_NOPAD.decode(x.as_bytes()).map_err(|_| InvalidKey)?;
        Ok(Self::new(bytes.try_into().map_err(|_| InvalidKey)?))
    }

    pub(super) fn decoding(&self) -> Result<DecodingKey, InvalidKey> {
        DecodingKey::from_ed_components(&self.x()).map_err(|_| InvalidKey)
    }
}

impl From<PublicKey> for PublicJwk {
    fn from(key: PublicKey) -> Self {
        Self { kty: "OKP".to_owned(), crv: "Ed25519".to_owned(), x: key.x(), kid: key.kid }
    }
}

impl TryFrom<PublicJwk> for PublicKey {
    type Error = InvalidKey;

    fn try_from(jwk: PublicJwk) -> Result<Self, Self::Error> {
        let key = Self::from_x(&jwk.x)?;
        if jwk.kty == "OKP" && jwk.crv == "Ed25519" && jwk.kid == key.kid { Ok(key) } else { Err(InvalidKey) }
    }
}

fn thumbprint(bytes: &[u8; KEY_BYTES]) -> String {
    let x = BASE64URL_NOPAD.encode(bytes);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64URL_NOPAD.encode(&Sha256::digest(members.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        let key = PublicKey::from_x("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_key_survives_its_text_form() {
        let key = SigningKey::generate();
        let read = SigningKey::from_text(&key.to_text()).unwrap();
        assert_eq!(read.public(), key.public());
        assert_ne!(SigningKey::generate().public(), key.public());
    }

    #[test]
    fn a_jwk_under_another_id_is_refused() {
        let (one, two) = (SigningKey::generate(), SigningKey::generate());
        let mut jwk = PublicJwk::from(one.public().clone());
        assert_eq!(PublicKey::try_from(jwk.clone()).unwrap(), *one.public());
        two.public().kid().clone_into(&mut jwk.kid);
        assert_eq!(PublicKey::try_from(jwk), Err(InvalidKey));
    }
}
