//! Encryption of credentials, so that reading the database does not reveal them: AES-256-GCM with a key derived from a
//! secret in the settings.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};

use crate::roster::AccountId;

/// The salt of the key. Data for another purpose would need another salt.
const PURPOSE: &[u8] = b"rosterd.credentials.v1";

/// Encrypts and decrypts. Nonces are random: a key is safe for 2³² of them, and rosterd uses one every few days.
pub struct Seal {
    key: LessSafeKey,
    hash: hmac::Key,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Ends with the authentication tag.
    pub ciphertext: Vec<u8>,
    /// Random; never reused.
    pub nonce: [u8; NONCE_LEN],
}

/// Encryption failed. The library gives no cause, so that none can leak.
#[derive(Debug, thiserror::Error)]
#[error("AES-256-GCM failed")]
pub struct SealError;

impl Seal {
    /// # Errors
    /// Only if the cryptographic library fails.
    pub fn new(secret: &SecretString) -> Result<Self, SealError> {
        let derived = Salt::new(HKDF_SHA256, PURPOSE).extract(secret.expose_secret().as_bytes());
        let key: UnboundKey = derived.expand(&[b"seal"], &AES_256_GCM).map_err(|_| SealError)?.into();
        let hash = derived.expand(&[b"hash"], hmac::HMAC_SHA256).map_err(|_| SealError)?.into();
        Ok(Self { key: LessSafeKey::new(key), hash })
    }

    /// Encrypts for this account. The result cannot be decrypted for another account.
    ///
    /// # Errors
    /// Only if the cryptographic library fails.
    pub fn seal(&self, account: AccountId, plain: &[u8]) -> Result<Sealed, SealError> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut ciphertext = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(account.0.to_be_bytes()),
                &mut ciphertext,
            )
            .map_err(|_| SealError)?;
        Ok(Sealed { ciphertext, nonce })
    }

    /// Decrypts; `None` with another secret, for another account, or if the data was changed.
    pub fn open(&self, account: AccountId, sealed: &Sealed) -> Option<Vec<u8>> {
        let mut plain = sealed.ciphertext.clone();
        let nonce = Nonce::assume_unique_for_key(sealed.nonce);
        let length =
            self.key.open_in_place(nonce, Aad::from(account.0.to_be_bytes()), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    /// A keyed hash, by which two secrets can be compared. Without the key, no guess can be tested against it.
    pub fn hash(&self, secret: &SecretString) -> Vec<u8> {
        hmac::sign(&self.hash, secret.expose_secret().as_bytes()).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId(7);

    fn seal(secret: &str) -> Seal {
        Seal::new(&SecretString::from(secret)).unwrap()
    }

    #[test]
    fn sealed_data_opens_only_with_its_secret_account_and_bytes() {
        let sealed = seal("secret").seal(ACCOUNT, b"tokens").unwrap();
        assert_eq!(seal("secret").open(ACCOUNT, &sealed).unwrap(), b"tokens");
        assert!(!sealed.ciphertext.windows(6).any(|window| window == b"tokens"));
        assert_eq!(seal("other").open(ACCOUNT, &sealed), None);
        assert_eq!(seal("secret").open(AccountId(8), &sealed), None, "moved to another account's row");
        let mut touched = sealed.clone();
        touched.ciphertext[0] ^= 1;
        assert_eq!(seal("secret").open(ACCOUNT, &touched), None);
        assert_ne!(seal("secret").seal(ACCOUNT, b"tokens").unwrap(), sealed, "each nonce is new");
    }

    #[test]
    fn hash_of_a_secret_depends_on_the_key() {
        let token = SecretString::from("refresh");
        assert_eq!(seal("secret").hash(&token), seal("secret").hash(&token));
        assert_ne!(seal("secret").hash(&token), seal("other").hash(&token));
    }
}
