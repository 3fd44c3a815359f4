//! Renews an account's OAuth2 tokens. The newest tokens are in the database, for restarts and other replicas. One
//! process at a time renews them, and uses new tokens only after they are stored.
//!
//! Tokens are lost only if the process dies after Harvest's response and before the database's commit.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt;
use futures::future::BoxFuture;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::Clock;
use crate::harvest::auth::{AccessToken, Renew};
use crate::harvest::oauth::{OAuthApplication, OAuthTokens};
use crate::harvest::rate_limit::{Priority, RateLimiter};
use crate::harvest::{HarvestError, IdentityError};
use crate::roster::AccountId;
use crate::store::credentials::{Credential, Renewed};
use crate::store::seal::{Seal, SealError};
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// Time between queries while another process renews the tokens.
const QUERY_INTERVAL: Duration = Duration::from_millis(200);
/// Time between attempts to store new tokens while the database is unavailable.
const STORE_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Limit of the wait for a permit. Permits were available immediately before.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// A claim is valid for this much longer than one renewal may take. Other processes do not renew before it expires.
const CLAIM_MARGIN: Duration = Duration::from_secs(10);
/// If Harvest refuses a token that was renewed within this time, the token is not renewed again.
const MIN_RENEWAL_SPACING: Duration = Duration::from_secs(15);
/// While the old token is valid, a failed renewal is retried after this time or an eighth of the remaining validity,
/// whichever is shorter.
const RENEWAL_RETRY_INTERVAL: TimeDelta = TimeDelta::seconds(30);

pub(crate) struct TokenRenewer {
    pub store: Store,
    pub account: AccountId,
    pub replica: Uuid,
    pub application: OAuthApplication,
    /// Encrypts the tokens in the database.
    pub seal: Seal,
    /// The initial refresh token from the settings.
    pub seed: Option<SecretString>,
    pub limiter: RateLimiter,
    pub clock: Arc<dyn Clock>,
    /// Of one request.
    pub timeout: Duration,
    /// Running renewals. A process that exits waits for them, because the old tokens may be invalid already.
    pub renewals: TaskTracker,
    pub known: Mutex<KnownTokens>,
}

/// The tokens that this process has read or renewed.
#[derive(Default)]
pub(crate) struct KnownTokens {
    tokens: Option<OAuthTokens>,
    /// Renewed tokens that are not stored yet, and the row that they replace.
    unstored: Option<(OAuthTokens, Credential)>,
    /// Whether a task tries to store `unstored`.
    is_storing: bool,
    /// When refused tokens were last renewed.
    renewed_at: Option<Instant>,
}

impl KnownTokens {
    /// The access token, unless it must be renewed.
    fn current(&self, renewer: &TokenRenewer, refused: Option<&AccessToken>) -> Option<AccessToken> {
        let tokens = self.tokens.as_ref().filter(|tokens| !tokens.is_due(renewer.clock.now()))?;
        // Renewing a new token that Harvest refuses would not help.
        let is_new = self.renewed_at.is_some_and(|at| at.elapsed() < MIN_RENEWAL_SPACING);
        tokens.access().filter(|token| is_new || Some(token) != refused)
    }

    /// The access token if it is still valid although it should be renewed. Schedules the next renewal.
    fn still_valid(&mut self, renewer: &TokenRenewer, refused: Option<&AccessToken>) -> Option<AccessToken> {
        let now = renewer.clock.now();
        let tokens = self.tokens.as_mut().filter(|tokens| !tokens.is_over(now))?;
        let token = tokens.access().filter(|token| Some(token) != refused)?;
        let left = tokens.expires_at.map_or(RENEWAL_RETRY_INTERVAL, |end| end - now);
        tokens.renew_at = Some(now + RENEWAL_RETRY_INTERVAL.min(left / 8));
        Some(token)
    }
}

impl Renew for TokenRenewer {
    fn token(
        self: Arc<Self>,
        refused: Option<AccessToken>,
    ) -> BoxFuture<'static, Result<AccessToken, HarvestError>> {
        async move {
            if let Some(token) = self.known.lock().await.current(&self, refused.as_ref()) {
                return Ok(token);
            }
            // Waits for permits here, where the caller may cancel, and not in the task.
            self.limiter.wait_for_capacity(Priority::Poll, 1).await;
            // A task, because Harvest's response must be stored even if the caller is cancelled.
            let renewer = self.clone();
            let renewal = self.renewals.spawn(async move { renewer.renewed(refused.as_ref()).await });
            renewal.await.unwrap_or_else(|error| Err(self.error(error)))
        }
        .boxed()
    }
}

impl TokenRenewer {
    async fn renewed(self: &Arc<Self>, refused: Option<&AccessToken>) -> Result<AccessToken, HarvestError> {
        // Locked throughout, so that one task of this process renews and the others wait.
        let mut known = self.known.lock().await;
        if let Some(token) = known.current(self, refused) {
            return Ok(token);
        }
        let error = match self.renew(&mut known, refused).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        if known.unstored.is_some() && !std::mem::replace(&mut known.is_storing, true) {
            self.renewals.spawn(self.clone().store_with_retries());
        }
        let Some(token) = known.still_valid(self, refused) else { return Err(error) };
        tracing::warn!(
            account_id = self.account.0,
            error = %chain(&error),
            "could not renew the OAuth2 tokens before they are due; the old one still works"
        );
        Ok(token)
    }

    /// Gets current tokens from the database, or renews them.
    async fn renew(
        &self,
        known: &mut KnownTokens,
        refused: Option<&AccessToken>,
    ) -> Result<AccessToken, HarvestError> {
        let hold = self.timeout + PERMIT_TIMEOUT + CLAIM_MARGIN;
        let deadline = Instant::now() + hold + CLAIM_MARGIN;
        loop {
            self.store_unstored(known).await?;
            let stored = self.store.credential(self.account).await.map_err(|error| self.error(error))?;
            known.tokens = self.opened(&stored).or(known.tokens.take());
            if let Some(token) = known.current(self, refused) {
                return Ok(token);
            }
            let claim = self.store.claim_renewal(self.account, &stored, self.replica, hold);
            if claim.await.map_err(|error| self.error(error))? {
                match self.request_tokens(&stored).await {
                    // The next iteration stores them, unless an administrator has logged in meanwhile.
                    Ok(tokens) => {
                        known.unstored = Some((tokens, stored));
                        known.renewed_at = refused.map(|_| Instant::now());
                    }
                    Err(error) => {
                        // A request without a response may still reach Harvest: the claim must expire by itself.
                        if error.is_response() {
                            let _ = self.store.release_claim(self.account, self.replica).await;
                        }
                        return Err(error.of(self.account));
                    }
                }
            } else if Instant::now() > deadline {
                return Err(self.error("another process has been renewing the tokens for too long"));
            } else {
                sleep(QUERY_INTERVAL).await;
            }
        }
    }

    /// Renews the stored tokens at Harvest. If Harvest refuses them, or they cannot be decrypted, uses the refresh
    /// token from the settings, unless that was used before.
    async fn request_tokens(&self, stored: &Credential) -> Result<OAuthTokens, IdentityError> {
        let opened = self.opened(stored);
        let seed = self.seed.as_ref().filter(|seed| stored.seed_hash.as_ref() != Some(&self.seal.hash(seed)));
        let refused = match opened {
            Some(tokens) => match self.exchange(&tokens).await {
                Err(error @ (IdentityError::Refused(_) | IdentityError::NothingToRenewWith)) => error,
                other => return other,
            },
            None if stored.sealed.is_some() => IdentityError::Sealed,
            None => IdentityError::NothingToRenewWith,
        };
        match seed {
            Some(seed) => self.exchange(&OAuthTokens::seed(seed)).await,
            None => Err(refused),
        }
    }

    async fn exchange(&self, old: &OAuthTokens) -> Result<OAuthTokens, IdentityError> {
        // A closed rate limiter grants no permits any more.
        let permit = timeout(PERMIT_TIMEOUT, self.limiter.permit(Priority::Poll))
            .await
            .map_err(|_| IdentityError::NoPermit)?;
        self.application.renew(self.account, old, permit, &*self.clock).await
    }

    /// Stores renewed tokens, if any. They are not used before.
    async fn store_unstored(&self, known: &mut KnownTokens) -> Result<(), HarvestError> {
        let Some((tokens, replaced)) = &known.unstored else { return Ok(()) };
        let renewed = sealed(&self.seal, self.account, tokens, self.seed.as_ref());
        let renewed = renewed.map_err(|error| self.error(error))?;
        let is_stored = self.store.save_renewed(self.account, replaced, &renewed).await;
        if is_stored.map_err(|error| self.error(error))? {
            tracing::debug!(account_id = self.account.0, "the OAuth2 tokens were renewed");
        }
        known.unstored = None;
        Ok(())
    }

    /// Retries until the tokens are stored: they may be the only valid ones, and another process may need them next.
    async fn store_with_retries(self: Arc<Self>) {
        loop {
            sleep(STORE_RETRY_INTERVAL).await;
            let mut known = self.known.lock().await;
            if self.store_unstored(&mut known).await.is_ok() {
                known.is_storing = false;
                return;
            }
        }
    }

    /// The stored tokens, if the client secret decrypts them.
    fn opened(&self, stored: &Credential) -> Option<OAuthTokens> {
        serde_json::from_slice(&self.seal.open(self.account, stored.sealed.as_ref()?)?).ok()
    }

    fn error(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HarvestError {
        HarvestError::TokenStorage { account: self.account, source: error.into() }
    }
}

/// Encrypts tokens for the database, with a hash of the refresh token in the settings.
fn sealed(
    seal: &Seal,
    account: AccountId,
    tokens: &OAuthTokens,
    seed: Option<&SecretString>,
) -> Result<Renewed, SealError> {
    let plain = serde_json::to_vec(tokens).map_err(|_| SealError)?;
    Ok(Renewed {
        sealed: seal.seal(account, &plain)?,
        seed_hash: seed.map(|seed| seal.hash(seed)),
        expires_at: tokens.expires_at,
    })
}

/// Stores the tokens of a consent.
pub(crate) async fn keep_new(
    store: &Store,
    seal: &Seal,
    account: AccountId,
    tokens: &OAuthTokens,
    seed: Option<&SecretString>,
) -> Result<(), StoreError> {
    let new = sealed(seal, account, tokens, seed)?;
    store.save_new(account, &new).await
}
