//! Registers this process for the request budgets that all processes on the database share.

use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::timeout;
use uuid::Uuid;

use super::context::App;
use super::failure::{Exit, Failure};
use crate::daemon::limiter::LimiterTask;
use crate::harvest::rate_limit::RateLimits;
use crate::settings::{Account, Credential, Scope};
use crate::store::permits::Replica;

impl App {
    /// Starts the limiter task and waits until the process is registered: other processes consider it dead until then,
    /// and would take its leases.
    ///
    /// # Errors
    /// At once if the database user may not write; otherwise if the registration does not succeed within `limit`.
    pub(crate) async fn budgets(&self, replica: Replica, limit: Duration) -> Result<LimiterTask, Failure> {
        // The registration would be retried although it cannot succeed.
        if let Err(failure) = self.require_write_access().await
            && failure.exit == Exit::Settings
        {
            return Err(failure);
        }
        if self.settings.rate_limit.scope == Scope::Token {
            let _ = self.salt.set(self.store.budget_salt().await?);
        }
        let ttl = self.settings.lease.ttl;
        let pool = self.store.reserved().clone();
        let budgets = LimiterTask::start(pool, replica, ttl, self.limits(), self.budget_names());
        if timeout(limit, budgets.registered()).await.is_ok() {
            return Ok(budgets);
        }
        budgets.stop().await;
        let advice = "timed out registering this process in roster.replicas, which the shared request budget requires; run \
                      `rosterd check`";
        Err(Failure::new(Exit::Unavailable, advice))
    }

    /// The budgets of a process that cannot register: `rate_limit.reserve` requests per window, because registered
    /// processes may use all others. Each further process of this kind sends as many requests again.
    ///
    /// # Errors
    /// If the reserve is 0.
    pub(crate) fn reserved_budgets(&self) -> Result<LimiterTask, Failure> {
        let limits = self.limits();
        if limits.reserve == 0 {
            let advice = "this process cannot register in roster.replicas and may then send rate_limit.reserve requests, \
                          which is 0; set rate_limit.reserve to 1 or more, or let this process register: run `rosterd \
                          migrate` as a database user who may write";
            return Err(Failure::new(Exit::Settings, advice));
        }
        let limits = RateLimits { requests: limits.reserve, reserve: 0, ..limits };
        Ok(LimiterTask::local(limits, self.budget_names()))
    }

    fn limits(&self) -> RateLimits {
        let settings = &self.settings;
        RateLimits {
            requests: settings.rate_limit.requests,
            window: settings.rate_limit.window,
            reserve: settings.rate_limit.reserve,
            grace: settings.harvest.request_timeout,
        }
    }

    fn budget_names(&self) -> impl Iterator<Item = String> {
        self.settings.accounts().iter().map(|account| self.budget_name(account))
    }

    /// One budget for all accounts, or one per token. A token's budget is named by a hash of the token and the
    /// database's salt: each process with the token derives the same name, and the name alone cannot confirm a guess of
    /// the token.
    pub(super) fn budget_name(&self, account: &Account) -> String {
        match (self.settings.rate_limit.scope, &account.credential) {
            (Scope::Token, Credential::Token(token)) => {
                // Local budgets need no salt.
                let salt = self.salt.get().copied().unwrap_or_default();
                format!("token {}", Uuid::new_v5(&salt, token.expose_secret().as_bytes()))
            }
            (Scope::Token, Credential::OAuth { client_id, .. }) => format!("client {client_id}"),
            (Scope::Process, _) => "process".to_owned(),
        }
    }
}
