//! The keeper of an account's OAuth2 tokens: the newest are in the database, where a restart and other replicas find
//! them; new ones are asked for by one process at a time, and are used only once they are stored.
//!
//! Lost are tokens only of a process that dies between Harvest's answer and the database's.

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
use crate::harvest::HarvestError;
use crate::harvest::auth::{Renew, Token};
use crate::harvest::oauth::{Application, IdentityError, Tokens};
use crate::harvest::pace::{Lane, Pace};
use crate::roster::AccountId;
use crate::store::credentials::{Credential, Renewed};
use crate::store::seal::{Seal, SealError};
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// How often one who waits for another process, or for the database, looks again.
const LOOK: Duration = Duration::from_millis(200);
/// How long leave to ask may take once there was room for it.
const LEAVE: Duration = Duration::from_secs(5);
/// How long a claim holds beyond the time that one request may take, leave included: nobody else asks before.
const MARGIN: Duration = Duration::from_secs(10);
/// For so long the same refusal is not asked for again.
const SOON: Duration = Duration::from_secs(15);
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
    /// Whether somebody goes on trying to store them.
    is_storing: bool,
    /// When the last ones came in place of some that were refused.
    renewed_at: Option<Instant>,
}

impl Known {
    /// The token, where it need not be renewed.
    fn fresh(&self, keeper: &Keeper, refused: Option<&Token>) -> Option<Token> {
        let tokens = self.tokens.as_ref().filter(|tokens| !tokens.is_due(keeper.clock.now()))?;
        // One that is new and refused is no better the next time.
        let is_new = self.renewed_at.is_some_and(|at| at.elapsed() < SOON);
        tokens.access().filter(|token| is_new || Some(token) != refused)
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
            // The long waits come first, where they may be given up.
            self.pace.room(Lane::Poll, 1).await;
            // What Harvest has answered must not be lost because whoever waits for it was told to stop.
            let keeper = self.clone();
            let renewal = self.renewals.spawn(async move { keeper.renewed(refused.as_ref()).await });
            renewal.await.unwrap_or_else(|error| Err(self.keeping(error)))
        }
        .boxed()
    }
}

impl Keeper {
    async fn renewed(self: &Arc<Self>, refused: Option<&Token>) -> Result<Token, HarvestError> {
        // Held throughout: in this process too, one asks and the others wait.
        let mut known = self.known.lock().await;
        if let Some(token) = known.fresh(self, refused) {
            return Ok(token);
        }
        let error = match self.renew(&mut known, refused).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        if known.unstored.is_some() && !std::mem::replace(&mut known.is_storing, true) {
            self.renewals.spawn(self.clone().store_at_last());
        }
        let Some(token) = known.good(self, refused) else { return Err(error) };
        tracing::warn!(
            account_id = self.account.0,
            error = %chain(&error),
            "the OAuth2 tokens could not be renewed in good time; the old one still works"
        );
        Ok(token)
    }

    /// Brings tokens that are fresh, from the database or from Harvest.
    async fn renew(&self, known: &mut Known, refused: Option<&Token>) -> Result<Token, HarvestError> {
        let hold = self.timeout + LEAVE + MARGIN;
        let give_up = Instant::now() + hold + MARGIN;
        loop {
            self.store_unstored(known).await?;
            let kept = self.store.credential(self.account).await.map_err(|error| self.keeping(error))?;
            known.tokens = self.opened(&kept).or(known.tokens.take());
            if let Some(token) = known.fresh(self, refused) {
                return Ok(token);
            }
            let claim = self.store.claim_renewal(self.account, &kept, self.replica, hold);
            if claim.await.map_err(|error| self.keeping(error))? {
                match self.ask(&kept).await {
                    // Stored on the next way round, unless somebody has brought better ones.
                    Ok(tokens) => {
                        known.unstored = Some((tokens, kept));
                        known.renewed_at = refused.map(|_| Instant::now());
                    }
                    Err(error) => {
                        // A question without an answer may be under way yet: then, and where this fails, the claim ends
                        // by itself.
                        if error.is_answer() {
                            let _ = self.store.drop_claim(self.account, self.replica).await;
                        }
                        return Err(error.of(self.account));
                    }
                }
            } else if Instant::now() > give_up {
                return Err(self.keeping("another process has been renewing them for too long"));
            } else {
                sleep(LOOK).await;
            }
        }
    }

    /// Asks Harvest: for what is kept; where that is refused, or does not open, for a first refresh token in the settings
    /// that has not been used up.
    async fn ask(&self, kept: &Credential) -> Result<Tokens, IdentityError> {
        let opened = self.opened(kept);
        let seed = self.seed.as_ref().filter(|seed| kept.seed_hash.as_ref() != Some(&self.seal.hash(seed)));
        let refused = match opened {
            Some(tokens) => match self.exchange(&tokens).await {
                Err(error @ (IdentityError::Refused(_) | IdentityError::NothingToRenewWith)) => error,
                other => return other,
            },
            None if kept.sealed.is_some() => IdentityError::Sealed,
            None => IdentityError::NothingToRenewWith,
        };
        match seed {
            Some(seed) => self.exchange(&Tokens::seed(seed)).await,
            None => Err(refused),
        }
    }

    async fn exchange(&self, old: &Tokens) -> Result<Tokens, IdentityError> {
        // There was room a moment ago. A budget that was closed since gives no leave any more.
        let permit =
            timeout(LEAVE, self.pace.permit(Lane::Poll)).await.map_err(|_| IdentityError::NoLeave)?;
        self.application.renew(self.account, old, permit, &*self.clock).await
    }

    /// Stores what could not be stored before; until then it is not used.
    async fn store_unstored(&self, known: &mut Known) -> Result<(), HarvestError> {
        let Some((tokens, kept)) = &known.unstored else { return Ok(()) };
        let renewed = sealed(&self.seal, self.account, tokens, self.seed.as_ref());
        let renewed = renewed.map_err(|error| self.keeping(error))?;
        let stored = self.store.keep_renewed(self.account, kept, &renewed).await;
        if stored.map_err(|error| self.keeping(error))? {
            tracing::debug!(account_id = self.account.0, "the OAuth2 tokens were renewed");
        }
        known.unstored = None;
        Ok(())
    }

    /// Goes on trying: they may be the only good ones, and this process may not be the one that needs them next.
    async fn store_at_last(self: Arc<Self>) {
        loop {
            sleep(LOOK * 5).await;
            let mut known = self.known.lock().await;
            if self.store_unstored(&mut known).await.is_ok() {
                known.is_storing = false;
                return;
            }
        }
    }

    /// What is kept, where our secret opens it.
    fn opened(&self, kept: &Credential) -> Option<Tokens> {
        serde_json::from_slice(&self.seal.open(self.account, kept.sealed.as_ref()?)?).ok()
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
