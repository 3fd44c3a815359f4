//! Harvest ID: the application, the person who is asked, and the tokens.
//!
//! This is what tests see and set; the decisions are in `issuer`, the record of requests in `log`.

mod account;
mod issuer;
mod log;

use std::time::Duration;

use crate::http::{Desk, World};
use crate::sim::Sim;
use crate::sync::lock;

pub use self::account::Account;
pub(crate) use self::issuer::{Issuer, Tokens};
pub(crate) use self::log::TokenLog;
pub use self::log::{Grant, Outcome, Refusal, TokenRequest};

/// Harvest's OAuth2 as a test sees and sets it, from [`Sim::oauth`]. What is set holds from then on: tokens
/// keep the lifetime they were made with.
#[derive(Clone, Copy)]
pub struct OAuth<'s> {
    desk: &'s Desk,
}

impl Sim {
    /// The application, its tokens and the record of requests for them.
    ///
    /// ```
    /// # fn story(sim: &harvest_sim::Sim) {
    /// use harvest_sim::{Grant, Outcome};
    /// use std::time::Duration;
    ///
    /// sim.oauth().lifetime(Duration::from_secs(4));
    /// sim.oauth().rotate(true);
    /// let first = sim.oauth().mint_refresh_token();
    /// // … let a client loose with it …
    /// assert!(sim.oauth().count(Grant::RefreshToken, Outcome::Granted) >= 3);
    /// assert_eq!(sim.oauth().most_in_flight(), 1);
    /// # }
    /// ```
    pub fn oauth(&self) -> OAuth<'_> {
        OAuth { desk: &self.desk }
    }
}

impl OAuth<'_> {
    /// The application's id.
    pub fn client_id(self) -> String {
        self.read(|issuer| issuer.application.id.clone())
    }

    /// The application's secret.
    pub fn client_secret(self) -> String {
        self.read(|issuer| issuer.application.secret.clone())
    }

    /// Gives the application another id and secret. Its tokens stay good.
    pub fn register(self, client_id: impl Into<String>, client_secret: impl Into<String>) {
        self.set(|issuer| {
            issuer.application.id = client_id.into();
            issuer.application.secret = client_secret.into();
        });
    }

    /// What a `redirect_uri` must start with, and what it is where none is given. Until this is said, any
    /// http address of the loopback interface will do.
    pub fn register_redirect(self, url: impl Into<String>) {
        self.set(|issuer| issuer.application.redirect_url = Some(url.into()));
    }

    /// Whether the person who is asked says no.
    pub fn person_refuses(self, refuses: bool) {
        self.set(|issuer| issuer.person_refuses = refuses);
    }

    /// What the person may enter. Until this is said, an account of Forecast and then the simulator's own.
    pub fn accounts(self, accounts: impl IntoIterator<Item = Account>) {
        self.set(|issuer| issuer.accounts = Some(accounts.into_iter().collect()));
    }

    /// How long access tokens live from now on, by the simulator's clock; at first 14 days.
    pub fn lifetime(self, lifetime: Duration) {
        self.set(|issuer| issuer.lifetime = lifetime);
    }

    /// Whether each refresh makes a new refresh token and ends the old one at once; at first not.
    pub fn rotate(self, rotate: bool) {
        self.set(|issuer| issuer.rotate = rotate);
    }

    /// Whether a refresh ends the access tokens that came before it; at first they live on until they expire.
    pub fn refresh_ends_access(self, ends: bool) {
        self.set(|issuer| issuer.refresh_ends_access = ends);
    }

    /// A refresh token, as if the person had just said yes and nothing had been done with it yet.
    pub fn mint_refresh_token(self) -> String {
        self.set(Issuer::mint_refresh_token)
    }

    /// Ends every token; the personal one stays good.
    pub fn revoke_all(self) {
        self.revoke_access_tokens();
        self.revoke_refresh_tokens();
    }

    /// Ends the access tokens; they can be refreshed.
    pub fn revoke_access_tokens(self) {
        self.set(Issuer::revoke_access_tokens);
    }

    /// Ends the refresh tokens; access tokens live on until they expire.
    pub fn revoke_refresh_tokens(self) {
        self.set(Issuer::revoke_refresh_tokens);
    }

    /// Everything that must never be found in a log: the application's secret and every code and token that
    /// was ever handed out, dead ones included.
    pub fn secrets(self) -> Vec<String> {
        self.read(|issuer| {
            let secret = [issuer.application.secret.clone()];
            secret.into_iter().chain(issuer.handed_out().iter().cloned()).collect()
        })
    }

    /// Every token request since the start or the last clearing, in the order of arrival.
    pub fn requests(self) -> Vec<TokenRequest> {
        lock(&self.desk.tokens).requests().to_vec()
    }

    /// How many token requests of this kind ended so.
    pub fn count(self, grant: Grant, outcome: Outcome) -> usize {
        let log = lock(&self.desk.tokens);
        log.requests().iter().filter(|it| it.grant == grant && it.outcome == Some(outcome)).count()
    }

    /// The most token requests that were under way at once.
    pub fn most_in_flight(self) -> usize {
        lock(&self.desk.tokens).most_in_flight()
    }

    /// Forgets the token requests seen so far, save that those under way are counted on.
    pub fn clear_requests(self) {
        lock(&self.desk.tokens).clear();
    }

    fn read<T>(self, read: impl FnOnce(&Issuer) -> T) -> T {
        read(&lock(&self.desk.world).issuer)
    }

    fn set<T>(self, set: impl FnOnce(&mut Issuer) -> T) -> T {
        let World { issuer, .. } = &mut *lock(&self.desk.world);
        set(issuer)
    }
}
