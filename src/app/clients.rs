//! How accounts are entered: credentials → clients, each within its budget.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{App, Exit, Failure};
use crate::harvest::oauth::{Application, Tokens};
use crate::harvest::pace::Pace;
use crate::harvest::transport::{Http, Options};
use crate::harvest::{Auth, Client, Token};
use crate::roster::AccountId;
use crate::settings::{Account, Credential, Scope};
use crate::store::StoreError;
use crate::store::seal::Seal;
use crate::sync::budget::Budgets;
use crate::sync::tokens::{self, Keeper};

impl App {
    /// One budget for all, or one for each token. A token's budget is named by a hash of the token and the database's
    /// salt: every process that has the token finds the same name, and the name alone tests no guess of the token.
    pub(super) fn budget_name(&self, account: &Account) -> String {
        match (self.settings.rate_limit.scope, &account.credential) {
            (Scope::Token, Credential::Token(token)) => {
                // Budgets that no database shares need no salt.
                let salt = self.salt.get().copied().unwrap_or_default();
                format!("token {}", Uuid::new_v5(&salt, token.expose_secret().as_bytes()))
            }
            (Scope::Token, Credential::OAuth { client_id, .. }) => format!("client {client_id}"),
            (Scope::Process, _) => "process".to_owned(),
        }
    }

    /// A client for the account, within its budget.
    pub fn client(&self, account: &Account, budgets: &Budgets) -> Result<Client, Failure> {
        let pace = self.pace(account, budgets)?;
        let harvest = &self.settings.harvest;
        // Harvest asks for a way to reach the sender: the account is one.
        let user_agent = self.user_agent(&format!("Harvest account {}", account.id));
        let auth = self.auth(account, budgets, &pace, &user_agent)?;
        let options = Options { http: self.http()?, base: harvest.base_url.clone(), user_agent };
        let with_pay = self.settings.rates.mirror;
        let (id, clock) = (AccountId(account.id), self.clock.clone());
        Ok(Client::new(&options, id, auth, harvest.per_page, with_pay, pace, clock))
    }

    /// What all accounts' requests are sent with.
    fn http(&self) -> Result<Http, Failure> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let harvest = &self.settings.harvest;
        let http = Http::new(&harvest.base_url, harvest.request_timeout);
        let http = http.map_err(|error| Failure::new(Exit::Settings, error))?;
        Ok(self.http.get_or_init(|| http).clone())
    }

    /// How the account is entered.
    fn auth(
        &self,
        account: &Account,
        budgets: &Budgets,
        pace: &Pace,
        user_agent: &str,
    ) -> Result<Auth, Failure> {
        match &account.credential {
            Credential::Token(token) => Token::new(token).map(Auth::Personal).map_err(|_| {
                let advice = format!(
                    "the access token of account {} holds characters that no token has; check for line breaks",
                    account.id
                );
                Failure::new(Exit::Settings, advice)
            }),
            Credential::OAuth { client_id, client_secret, refresh_token } => {
                Ok(Auth::OAuth(Arc::new(Keeper {
                    store: self.store.clone(),
                    account: AccountId(account.id),
                    replica: budgets.replica(),
                    application: self.registered(client_id, client_secret, user_agent)?,
                    seal: Seal::new(client_secret).map_err(StoreError::from)?,
                    seed: refresh_token.clone(),
                    pace: pace.clone(),
                    clock: self.clock.clone(),
                    timeout: self.settings.harvest.request_timeout,
                    renewals: self.renewals.clone(),
                    known: Mutex::default(),
                })))
            }
        }
    }

    fn pace(&self, account: &Account, budgets: &Budgets) -> Result<Pace, Failure> {
        budgets.pace(&self.budget_name(account)).ok_or_else(|| {
            Failure::new(Exit::Internal, format!("account {} has no budget of requests", account.id))
        })
    }

    /// Who we say we are; `otherwise` where nobody has set a way to be reached.
    fn user_agent(&self, otherwise: &str) -> String {
        let contact = self.settings.harvest.user_agent_contact.as_ref();
        let contact = contact.map_or(otherwise, |contact| contact.expose_secret());
        format!("rosterd/{} ({contact})", env!("CARGO_PKG_VERSION"))
    }

    fn registered(&self, id: &str, secret: &SecretString, user_agent: &str) -> Result<Application, Failure> {
        let harvest = &self.settings.harvest;
        Application::new(&harvest.identity_url, id, secret, user_agent, harvest.request_timeout)
            .map_err(|error| Failure::new(Exit::Settings, error))
    }

    /// An OAuth2 application by itself, to ask for a person's consent.
    ///
    /// # Errors
    /// When the HTTP client cannot be built, or the credential is no OAuth2 application.
    pub fn application(&self, credential: &Credential) -> Result<Application, Failure> {
        let Credential::OAuth { client_id, client_secret, .. } = credential else {
            return Err(no_application());
        };
        self.registered(client_id, client_secret, &self.user_agent("rosterd auth login"))
    }

    /// Keeps the tokens of a consent for the account, and wakes whoever writes it.
    ///
    /// # Errors
    /// When the database does not take them, or the credential is no OAuth2 application.
    pub async fn keep_consent(
        &self,
        account: AccountId,
        credential: &Credential,
        tokens: &Tokens,
    ) -> Result<(), Failure> {
        let Credential::OAuth { client_secret, refresh_token, .. } = credential else {
            return Err(no_application());
        };
        let seal = Seal::new(client_secret).map_err(StoreError::from)?;
        tokens::keep_new(&self.store, &seal, account, tokens, refresh_token.as_ref()).await?;
        Ok(self.store.ring(Some(account)).await?)
    }
}

fn no_application() -> Failure {
    let advice = "no OAuth2 application is set; register one at https://id.getharvest.com/developers and set \
                  HARVEST_OAUTH_CLIENT_ID and HARVEST_OAUTH_CLIENT_SECRET";
    Failure::new(Exit::Settings, advice)
}
