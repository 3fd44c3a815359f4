//! The keeper of an account's OAuth2 tokens: the newest are in the database, where a restart and other replicas find
//! them; new ones are asked for by one process at a time, and are used only once they are stored.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt;
use futures::future::BoxFuture;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::Clock;
use crate::harvest::HarvestError;
use crate::harvest::auth::{Renew, Token};
use crate::harvest::oauth::{Application, IdentityError, Tokens};
use crate::harvest::pace::Pace;
use crate::roster::AccountId;
use crate::store::credentials::{Credential, Renewed};
use crate::store::seal::{Seal, SealError};
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// How often one who waits for another process looks whether it is done.
const LOOK: Duration = Duration::from_millis(200);
/// How long it waits, and how long a claim holds beyond the time of its requests.
const PATIENCE: Duration = Duration::from_secs(20);
/// While the old token is still good, a renewal that failed is tried again after this, or after an eighth of what is left.
const AGAIN: TimeDelta = TimeDelta::seconds(30);

/// What it takes to keep an account's tokens; handed in by `app`.
pub struct Keeper {
    /// Where they are kept.
    pub store: Store,
    /// Whose they are.
    pub account: AccountId,
    /// This process.
    pub replica: Uuid,
    /// Where they come from.
    pub application: Application,
    /// What they are sealed with.
    pub seal: Seal,
    /// The first refresh token, where the settings have one.
    pub seed: Option<SecretString>,
    /// Leave to ask.
    pub pace: Pace,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Renewals under way: a process that ends waits for them, or the only good tokens may be lost.
    pub renewals: TaskTracker,
    /// What this process knows.
    pub known: Mutex<Known>,
}

/// What a process knows of the tokens.
#[derive(Default)]
pub struct Known {
    tokens: Option<Tokens>,
    /// Asked for and got, but not stored yet, in place of those.
    unstored: Option<(Tokens, Credential)>,
}

impl Known {
    /// The token, where it need not be renewed.
    fn fresh(&self, keeper: &Keeper, refused: Option<&Token>) -> Option<Token> {
        let tokens = self.tokens.as_ref().filter(|tokens| !tokens.is_due(keeper.clock.now()))?;
        tokens.access().filter(|token| Some(token) != refused)
    }

    /// The token, where it could be renewed but does for now.
    fn good(&mut self, keeper: &Keeper, refused: Option<&Token>) -> Option<Token> {
        let now = keeper.clock.now();
        let tokens = self.tokens.as_mut().filter(|tokens| !tokens.is_over(now))?;
        let token = tokens.access().filter(|token| Some(token) != refused)?;
        let left = tokens.expires_at.map_or(AGAIN, |end| end - now);
        tokens.renew_at = Some(now + AGAIN.min(left / 8));
        Some(token)
    }
}

impl Renew for Keeper {
    fn token(self: Arc<Self>, refused: Option<Token>) -> BoxFuture<'static, Result<Token, HarvestError>> {
        async move {
            if let Some(token) = self.known.lock().await.fresh(&self, refused.as_ref()) {
                return Ok(token);
            }
            // Whoever waits may be told to stop; what Harvest has already answered must not be lost by that.
            let keeper = self.clone();
            let renewal = self.renewals.spawn(async move { keeper.renewed(refused.as_ref()).await });
            renewal.await.unwrap_or_else(|error| Err(self.keeping(error)))
        }
        .boxed()
    }
}

impl Keeper {
    async fn renewed(&self, refused: Option<&Token>) -> Result<Token, HarvestError> {
        // Held throughout: in this process too, one asks and the others wait.
        let mut known = self.known.lock().await;
        if let Some(token) = known.fresh(self, refused) {
            return Ok(token);
        }
        let error = match self.renew(&mut known, refused).await {
            Ok(()) => match known.tokens.as_ref().and_then(Tokens::access) {
                Some(token) => return Ok(token),
                None => IdentityError::NothingToRenewWith.of(self.account),
            },
            Err(error) => error,
        };
        let Some(token) = known.good(self, refused) else { return Err(error) };
        tracing::warn!(
            account_id = self.account.0,
            error = %chain(&error),
            "the OAuth2 tokens could not be renewed in good time; the old one still works"
        );
        Ok(token)
    }

    /// Brings tokens that are fresh, from the database or from Harvest.
    async fn renew(&self, known: &mut Known, refused: Option<&Token>) -> Result<(), HarvestError> {
        self.keep_unstored(known).await?;
        let give_up = Instant::now() + self.timeout + PATIENCE;
        loop {
            let kept = self.store.credential(self.account).await.map_err(|error| self.keeping(error))?;
            let newest = self.newest(&kept).map_err(|error| error.of(self.account))?;
            let stale = Known { tokens: Some(newest.clone()), unstored: None };
            if stale.fresh(self, refused).is_some() {
                known.tokens = Some(newest);
                return Ok(());
            }
            let claim = self.store.claim_renewal(self.account, &kept, self.replica, self.timeout + PATIENCE);
            if claim.await.map_err(|error| self.keeping(error))? {
                // What another process stored last may still do if this fails.
                known.tokens = Some(newest.clone());
                return self.ask(known, newest, kept).await;
            }
            if Instant::now() > give_up {
                return Err(self.keeping("another process has been renewing them for too long"));
            }
            sleep(LOOK).await;
        }
    }

    /// Asks Harvest, and stores the answer.
    async fn ask(&self, known: &mut Known, old: Tokens, kept: Credential) -> Result<(), HarvestError> {
        match self.application.renew(&old, &self.pace, &*self.clock).await {
            Ok(tokens) => {
                known.unstored = Some((tokens, kept));
                self.keep_unstored(known).await?;
                tracing::debug!(account_id = self.account.0, "the OAuth2 tokens were renewed");
                Ok(())
            }
            Err(error) => {
                // Where that fails the claim ends by itself.
                let _ = self.store.drop_claim(self.account, self.replica).await;
                Err(error.of(self.account))
            }
        }
    }

    /// Stores what could not be stored before; until then it is not used.
    async fn keep_unstored(&self, known: &mut Known) -> Result<(), HarvestError> {
        let Some((tokens, kept)) = &known.unstored else { return Ok(()) };
        let renewed = sealed(&self.seal, self.account, tokens, self.seed.as_ref());
        let renewed = renewed.map_err(|error| self.keeping(error))?;
        let stored = self.store.keep_renewed(self.account, kept, &renewed).await;
        let ours = stored.map_err(|error| self.keeping(error))?;
        if let Some((tokens, _)) = known.unstored.take()
            && ours
        {
            known.tokens = Some(tokens);
        }
        Ok(())
    }

    /// What to go on with: what is kept, unless the settings have got another first refresh token since, or the
    /// application another secret.
    fn newest(&self, kept: &Credential) -> Result<Tokens, IdentityError> {
        let seed_hash = self.seed.as_ref().map(|seed| self.seal.hash(seed));
        let is_superseded = seed_hash.is_some() && kept.seed_hash.is_some() && kept.seed_hash != seed_hash;
        let opened = kept
            .sealed
            .as_ref()
            .filter(|_| !is_superseded)
            .and_then(|sealed| serde_json::from_slice(&self.seal.open(self.account, sealed)?).ok());
        match (opened, &self.seed) {
            (Some(tokens), _) => Ok(tokens),
            (None, Some(seed)) => Ok(Tokens::seed(seed)),
            (None, None) if kept.sealed.is_some() => Err(IdentityError::Sealed),
            (None, None) => Err(IdentityError::NothingToRenewWith),
        }
    }

    fn keeping(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HarvestError {
        HarvestError::Keeping { account: self.account, source: error.into() }
    }
}

/// Tokens ready to be kept, beside the first refresh token that the settings had then.
fn sealed(
    seal: &Seal,
    account: AccountId,
    tokens: &Tokens,
    seed: Option<&SecretString>,
) -> Result<Renewed, SealError> {
    let plain = serde_json::to_vec(tokens).map_err(|_| SealError)?;
    Ok(Renewed {
        sealed: seal.seal(account, &plain)?,
        seed_hash: seed.map(|seed| seal.hash(seed)),
        expires_at: tokens.expires_at,
    })
}

/// Keeps the tokens of a consent that a person has just given.
pub async fn keep_new(
    store: &Store,
    seal: &Seal,
    account: AccountId,
    tokens: &Tokens,
    seed: Option<&SecretString>,
) -> Result<(), StoreError> {
    let new = sealed(seal, account, tokens, seed)?;
    store.keep_new(account, &new).await
}
