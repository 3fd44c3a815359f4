//! The test interface of Harvest ID. `issuer` implements the protocol, `log` records the token requests.

mod account;
mod issuer;
mod log;

use std::time::Duration;

use crate::http::{AccountState, World};
use crate::sim::Sim;
use crate::sync::lock;

pub use self::account::Account;
pub(crate) use self::issuer::{Issuer, Tokens};
pub(crate) use self::log::TokenLog;
pub use self::log::{Grant, Outcome, Refusal, TokenRequest};

/// The OAuth2 settings and logs, from [`Sim::oauth`]. Settings do not change tokens that were issued before.
#[derive(Clone, Copy)]
pub struct OAuth<'s> {
    account_state: &'s AccountState,
}

impl Sim {
    /// The application, its tokens and the log of token requests.
    ///
    /// ```
    /// # fn story(sim: &harvest_sim::Sim) {
    /// use harvest_sim::{Grant, Outcome};
    /// use std::time::Duration;
    ///
    /// sim.oauth().set_token_lifetime(Duration::from_secs(4));
    /// sim.oauth().rotate(true);
    /// let first = sim.oauth().issue_refresh_token();
    /// // … run a client with this token …
    /// assert!(sim.oauth().count(Grant::RefreshToken, Outcome::Granted) >= 3);
    /// assert_eq!(sim.oauth().max_in_flight(), 1);
    /// # }
    /// ```
    pub fn oauth(&self) -> OAuth<'_> {
        OAuth { account_state: &self.account_state }
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

    /// Changes the application's id and secret. Its tokens stay valid.
    pub fn register(self, client_id: impl Into<String>, client_secret: impl Into<String>) {
        self.set(|issuer| {
            issuer.application.id = client_id.into();
            issuer.application.secret = client_secret.into();
        });
    }

    /// Whether the user denies consent.
    pub fn deny_consent(self, deny: bool) {
        self.set(|issuer| issuer.deny_consent = deny);
    }

    /// Sets the accounts to which the user has access. Initially, the list has a Forecast account and then the
    /// simulator's account.
    pub fn accounts(self, accounts: impl IntoIterator<Item = Account>) {
        self.set(|issuer| issuer.accounts = Some(accounts.into_iter().collect()));
    }

    /// Sets the lifetime of new access tokens, by the simulator's clock. The default is 14 days.
    pub fn set_token_lifetime(self, lifetime: Duration) {
        self.set(|issuer| issuer.lifetime = lifetime);
    }

    /// Whether each refresh issues a new refresh token and revokes the old one at once. The default is false.
    pub fn rotate(self, rotate: bool) {
        self.set(|issuer| issuer.rotate = rotate);
    }

    /// Issues a refresh token, as after consent by a user.
    pub fn issue_refresh_token(self) -> String {
        self.set(Issuer::issue_refresh_token)
    }

    /// Revokes all tokens except the personal access token.
    pub fn revoke_all(self) {
        self.set(|issuer| {
            issuer.revoke_access_tokens();
            issuer.revoke_refresh_tokens();
        });
    }

    /// Revokes the access tokens. The refresh tokens stay valid.
    pub fn revoke_access_tokens(self) {
        self.set(Issuer::revoke_access_tokens);
    }

    /// All secrets that a log must not contain: the application's secret and all codes and tokens ever issued.
    pub fn secrets(self) -> Vec<String> {
        self.read(|issuer| {
            let secret = [issuer.application.secret.clone()];
            secret.into_iter().chain(issuer.issued().iter().cloned()).collect()
        })
    }

    /// All token requests since the start or the last `clear_requests`, in the order of arrival.
    pub fn requests(self) -> Vec<TokenRequest> {
        lock(&self.account_state.tokens).requests().to_vec()
    }

    /// The number of token requests with this grant and outcome.
    pub fn count(self, grant: Grant, outcome: Outcome) -> usize {
        let log = lock(&self.account_state.tokens);
        log.requests().iter().filter(|it| it.grant == grant && it.outcome == Some(outcome)).count()
    }

    /// The maximum number of token requests in flight at the same time.
    pub fn max_in_flight(self) -> usize {
        lock(&self.account_state.tokens).max_in_flight()
    }

    /// Clears the log. Requests in flight still count for `max_in_flight`.
    pub fn clear_requests(self) {
        lock(&self.account_state.tokens).clear();
    }

    fn read<T>(self, read: impl FnOnce(&Issuer) -> T) -> T {
        read(&lock(&self.account_state.world).issuer)
    }

    fn set<T>(self, set: impl FnOnce(&mut Issuer) -> T) -> T {
        let World { issuer, .. } = &mut *lock(&self.account_state.world);
        set(issuer)
    }
}
