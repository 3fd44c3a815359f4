//! OAuth2 tokens, sealed, and who may ask for new ones: one process at a time, since a renewal may end the tokens that
//! everybody else would try with.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::seal::Sealed;
use super::{Store, StoreError};
use crate::roster::AccountId;

/// What is kept for an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    /// The tokens; `None` before the first.
    pub sealed: Option<Sealed>,
    /// Of the first refresh token in the settings of whoever stored them: it is used up.
    pub seed_hash: Option<Vec<u8>>,
    /// Which tokens these are; `None` where there is no row.
    pub stored_at: Option<DateTime<Utc>>,
}

/// Tokens to be kept.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// The tokens.
    pub sealed: Sealed,
    /// See [`Credential::seed_hash`].
    pub seed_hash: Option<Vec<u8>>,
    /// When the access token ends.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Store {
    /// What is kept for the account.
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

    /// Makes this process the one that asks for new tokens in place of `known`. False where another one may be at it, dead
    /// or alive (its request may be under way), or where there are newer ones already.
    pub async fn claim_renewal(
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

    /// Keeps new tokens in place of `known`, and ends the claim. False where somebody has stored others meanwhile: those
    /// are better.
    pub async fn keep_renewed(
        &self,
        account: AccountId,
        known: &Credential,
        renewed: &Renewed,
    ) -> Result<bool, StoreError> {
        let kept = sqlx::query!(
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
        Ok(kept.rows_affected() == 1)
    }

    /// Lets others try: nothing was renewed.
    pub async fn drop_claim(&self, account: AccountId, replica: Uuid) -> Result<(), StoreError> {
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

    /// Keeps tokens that a person has just brought: whatever was there, these are the newest.
    pub async fn keep_new(&self, account: AccountId, new: &Renewed) -> Result<(), StoreError> {
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
