//! Creates the clients of accounts from their credentials and request budgets.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::context::App;
use super::failure::{Exit, Failure};
use crate::daemon::limiter::LimiterTask;
use crate::daemon::token_renewal::{self, TokenRenewer};
use crate::harvest::oauth::{OAuthApplication, OAuthTokens};
use crate::harvest::rate_limit::RateLimiter;
use crate::harvest::transport::{ClientOptions, HttpClient};
use crate::harvest::{AccessToken, Auth, Client};
use crate::roster::AccountId;
use crate::settings::{Account, Credential};
use crate::store::StoreError;
use crate::store::seal::Seal;

impl App {
    pub(crate) fn client(&self, account: &Account, budgets: &LimiterTask) -> Result<Client, Failure> {
        let limiter = self.limiter(account, budgets)?;
        let harvest = &self.settings.harvest;
        // Harvest requires contact details in the user agent. The account is the default.
        let user_agent = self.user_agent(&format!("Harvest account {}", account.id));
        let auth = self.auth(account, budgets, &limiter, &user_agent)?;
        let options = ClientOptions {
            http: self.http()?,
            base: harvest.base_url.clone(),
            user_agent,
            per_page: harvest.per_page,
            with_pay_data: self.settings.rates.mirror,
        };
        Ok(Client::new(&options, AccountId(account.id), auth, limiter, self.clock.clone()))
    }

    /// The HTTP client that all accounts share.
    fn http(&self) -> Result<HttpClient, Failure> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let harvest = &self.settings.harvest;
        let http = HttpClient::new(&harvest.base_url, harvest.request_timeout);
        let http = http.map_err(|error| Failure::new(Exit::Settings, error))?;
        Ok(self.http.get_or_init(|| http).clone())
    }

    fn auth(
        &self,
        account: &Account,
        budgets: &LimiterTask,
        limiter: &RateLimiter,
        user_agent: &str,
    ) -> Result<Auth, Failure> {
        match &account.credential {
            Credential::Token(token) => AccessToken::new(token).map(Auth::Personal).map_err(|_| {
                let advice = format!(
                    "the access token of account {} contains characters that no token has; check for line breaks",
                    account.id
                );
                Failure::new(Exit::Settings, advice)
            }),
            Credential::OAuth { client_id, client_secret, refresh_token } => {
                Ok(Auth::OAuth(Arc::new(TokenRenewer {
                    store: self.store.clone(),
                    account: AccountId(account.id),
                    replica: budgets.replica(),
                    application: self.oauth_application(client_id, client_secret, user_agent)?,
                    seal: Seal::new(client_secret).map_err(StoreError::from)?,
                    seed: refresh_token.clone(),
                    limiter: limiter.clone(),
                    clock: self.clock.clone(),
                    timeout: self.settings.harvest.request_timeout,
                    renewals: self.renewals.clone(),
                    known: Mutex::default(),
                })))
            }
        }
    }

    fn limiter(&self, account: &Account, budgets: &LimiterTask) -> Result<RateLimiter, Failure> {
        budgets.limiter(&self.budget_name(account)).ok_or_else(|| {
            Failure::new(Exit::Internal, format!("account {} has no request budget", account.id))
        })
    }

    /// `default` replaces an empty `harvest.user_agent_contact`.
    fn user_agent(&self, default: &str) -> String {
        let contact = self.settings.harvest.user_agent_contact.as_ref();
        let contact = contact.map_or(default, |contact| contact.expose_secret());
        format!("rosterd/{} ({contact})", env!("CARGO_PKG_VERSION"))
    }

    fn oauth_application(
        &self,
        id: &str,
        secret: &SecretString,
        user_agent: &str,
    ) -> Result<OAuthApplication, Failure> {
        let harvest = &self.settings.harvest;
        OAuthApplication::new(&harvest.identity_url, id, secret, user_agent, harvest.request_timeout)
            .map_err(|error| Failure::new(Exit::Settings, error))
    }

    /// The OAuth2 application that `rosterd auth login` uses.
    ///
    /// # Errors
    /// If the HTTP client cannot be built, or the credential is no OAuth2 application.
    pub(crate) fn application(&self, credential: &Credential) -> Result<OAuthApplication, Failure> {
        let Credential::OAuth { client_id, client_secret, .. } = credential else {
            return Err(no_application());
        };
        self.oauth_application(client_id, client_secret, &self.user_agent("rosterd auth login"))
    }

    /// Stores the tokens of a consent and notifies the account's lease holder.
    ///
    /// # Errors
    /// If the database is unavailable, or the credential is no OAuth2 application.
    pub(crate) async fn keep_consent(
        &self,
        account: AccountId,
        credential: &Credential,
        tokens: &OAuthTokens,
    ) -> Result<(), Failure> {
        let Credential::OAuth { client_secret, refresh_token, .. } = credential else {
            return Err(no_application());
        };
        let seal = Seal::new(client_secret).map_err(StoreError::from)?;
        token_renewal::keep_new(&self.store, &seal, account, tokens, refresh_token.as_ref()).await?;
        Ok(self.store.notify_daemon(Some(account)).await?)
    }
}

fn no_application() -> Failure {
    let advice = "no OAuth2 application is configured; register one at https://id.getharvest.com/developers and set \
                  HARVEST_OAUTH_CLIENT_ID and HARVEST_OAUTH_CLIENT_SECRET";
    Failure::new(Exit::Settings, advice)
}
