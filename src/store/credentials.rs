//! OAuth2 tokens, encrypted. Only one process at a time may renew an account's tokens, because a renewal can invalidate
//! the tokens that other processes would renew with.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::seal::Sealed;
use crate::roster::AccountId;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    /// The tokens; `None` before the first are stored.
    pub sealed: Option<Sealed>,
    /// The hash of the settings' first refresh token, as the process that stored the tokens had it. That token is used
    /// up.
    pub seed_hash: Option<Vec<u8>>,
    /// When the tokens were stored, which identifies them; `None` without a row.
    pub stored_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
pub struct Renewed {
    pub sealed: Sealed,
    /// See [`Credential::seed_hash`].
    pub seed_hash: Option<Vec<u8>>,
    /// The end of the access token's validity.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Store {
    pub async fn credential(&self, account: AccountId) -> Result<Credential, StoreError> {
        let row = sqlx::query!(
            "SELECT ciphertext, nonce, seed_hash, updated_at FROM roster.credentials WHERE account_id = $1",
            account.0
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map_or_else(Credential::default, |row| Credential {
            sealed: row
                .ciphertext
                .zip(row.nonce)
                .and_then(|(ciphertext, nonce)| Some(Sealed { ciphertext, nonce: nonce.try_into().ok()? })),
            seed_hash: row.seed_hash,
            stored_at: Some(row.updated_at),
        }))
    }

    /// Reserves the renewal of the tokens `known` for this process. False if another process has reserved it, even one
    /// that died (its request may be in flight), or if newer tokens are stored.
    pub(crate) async fn claim_renewal(
        &self,
        account: AccountId,
        known: &Credential,
        replica: Uuid,
        hold: Duration,
    ) -> Result<bool, StoreError> {
        let claimed = sqlx::query!(
            "INSERT INTO roster.credentials AS mine (account_id, updated_at, claimed_by, claimed_until)
             VALUES ($1, clock_timestamp(), $2, clock_timestamp() + make_interval(secs => $3))
             ON CONFLICT (account_id) DO UPDATE
                SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
              WHERE mine.updated_at = $4
                AND (mine.claimed_by IS NULL OR mine.claimed_by = $2 OR mine.claimed_until <= clock_timestamp())",
            account.0,
            replica,
            hold.as_secs_f64(),
            known.stored_at,
        )
        .execute(&self.pool)
        .await?;
        Ok(claimed.rows_affected() == 1)
    }

    /// Replaces the tokens `known` and ends the reservation. False if other tokens have been stored since; those stay.
    pub(crate) async fn save_renewed(
        &self,
        account: AccountId,
        known: &Credential,
        renewed: &Renewed,
    ) -> Result<bool, StoreError> {
        let updated = sqlx::query!(
            "UPDATE roster.credentials
                SET ciphertext = $2, nonce = $3, expires_at = $4, seed_hash = $5, updated_at = clock_timestamp(),
                    claimed_by = NULL, claimed_until = NULL
              WHERE account_id = $1 AND ($6::timestamptz IS NULL AND ciphertext IS NULL OR updated_at = $6)",
            account.0,
            renewed.sealed.ciphertext,
            &renewed.sealed.nonce[..],
            renewed.expires_at,
            renewed.seed_hash,
            known.stored_at,
        )
        .execute(&self.pool)
        .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Ends the reservation without new tokens, so that another process can try.
    pub(crate) async fn release_claim(&self, account: AccountId, replica: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.credentials SET claimed_by = NULL, claimed_until = NULL
              WHERE account_id = $1 AND claimed_by = $2",
            account.0,
            replica
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Stores tokens from a new authorization. They replace any other tokens.
    pub(crate) async fn save_new(&self, account: AccountId, new: &Renewed) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO roster.credentials (account_id, ciphertext, nonce, expires_at, seed_hash, updated_at)
             VALUES ($1, $2, $3, $4, $5, clock_timestamp())
             ON CONFLICT (account_id) DO UPDATE
                SET ciphertext = excluded.ciphertext, nonce = excluded.nonce, expires_at = excluded.expires_at,
                    seed_hash = excluded.seed_hash, updated_at = excluded.updated_at,
                    claimed_by = NULL, claimed_until = NULL",
            account.0,
            new.sealed.ciphertext,
            &new.sealed.nonce[..],
            new.expires_at,
            new.seed_hash,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
