//! The types of the settings.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use reqwest::header::HeaderValue;
use secrecy::{SecretSlice, SecretString};
use url::Url;

use super::findings::{Findings, SettingsError};
use crate::roster::DeletionGuard;
use crate::roster::write_policy::{OnDelete, WriteRules};
use crate::telemetry;

/// Valid settings. `config/default.toml` explains each key.
#[derive(Debug)]
pub struct Settings {
    pub(crate) database: Database,
    pub harvest: Harvest,
    pub rate_limit: RateLimit,
    pub sync: Sync,
    pub(crate) lease: Lease,
    pub rates: Rates,
    pub(crate) outbox: Outbox,
    pub(crate) retention: Retention,
    pub(crate) write: Write,
    pub(crate) scim: Scim,
    pub(crate) http: Http,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) monitoring: Monitoring,
    pub(crate) log: Log,
    /// Sentences about allowed but suspicious settings. The caller logs them once logging works.
    pub warnings: Vec<String>,
    pub(super) accounts: Vec<Account>,
    pub(super) credential_without_account: Option<Credential>,
}

#[derive(Debug)]
pub(crate) struct Database {
    /// `None`: rosterd starts a private local PostgreSQL in `data_dir`. The URL requires TLS where it has to.
    pub url: Option<SecretString>,
    pub data_dir: PathBuf,
    pub download: bool,
    pub download_url: Url,
    pub download_sha256: Option<String>,
    pub max_connections: u32,
    pub prepared_statements: bool,
    pub statement_timeout: Duration,
    pub migrate: bool,
}

/// Both URLs have no trailing slash, user, query or fragment.
#[derive(Debug)]
pub struct Harvest {
    pub base_url: Url,
    pub identity_url: Url,
    /// A personal address, so `Debug` must not show it.
    pub(crate) user_agent_contact: Option<SecretString>,
    pub(crate) per_page: u32,
    pub(crate) request_timeout: Duration,
    pub allow_plain_http: bool,
}

#[derive(Debug)]
pub struct RateLimit {
    pub requests: u32,
    pub window: Duration,
    pub(crate) scope: Scope,
    pub reserve: u32,
}

/// Which requests count against one rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All requests of all processes that use this database.
    Process,
    /// The requests of each token.
    Token,
}

#[derive(Debug)]
pub struct Sync {
    pub poll_interval: PollInterval,
    pub(crate) skew_buffer: Duration,
    pub full_interval: Duration,
    pub(crate) count_probe: bool,
    pub deletion_guard: DeletionGuard,
}

/// From the start of one poll to the start of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollInterval {
    /// Used while records change.
    pub quickest: Duration,
    /// Used while no record changes. Equal to `quickest` unless the setting is `"auto"`.
    pub slowest: Duration,
}

impl PollInterval {
    pub(crate) const AUTO: Self = Self { quickest: Duration::from_secs(5), slowest: Duration::from_mins(1) };
}

impl From<Duration> for PollInterval {
    fn from(interval: Duration) -> Self {
        Self { quickest: interval, slowest: interval }
    }
}

impl fmt::Display for PollInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quickest, slowest } = self;
        if quickest != slowest {
            write!(f, "{} to ", humantime::format_duration(*quickest))?;
        }
        write!(f, "{}", humantime::format_duration(*slowest))
    }
}

#[derive(Debug)]
pub(crate) struct Lease {
    pub ttl: Duration,
}

#[derive(Debug)]
pub struct Rates {
    pub mirror: bool,
    pub histories: bool,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    pub retention: Duration,
}

#[derive(Debug)]
pub(crate) struct Retention {
    pub cycles: Duration,
    pub writes: Duration,
    /// `None`: rosterd keeps the history for ever.
    pub history: Option<Duration>,
}

pub(crate) struct Write {
    pub rules: WriteRules,
    /// The time in which the guard counts.
    pub guard_window: Duration,
    /// How long a SCIM request waits for its writes.
    pub patience: Duration,
}

/// Without the protected addresses, which are personal data.
impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write").field("mode", &self.rules.mode).finish_non_exhaustive()
    }
}

/// SCIM. If `listen` is set, so are `public_url` and `tokens_file`.
#[derive(Debug)]
pub(crate) struct Scim {
    /// `None`: `run` serves no SCIM.
    pub listen: Option<SocketAddr>,
    /// Has no trailing slash.
    pub public_url: Option<Url>,
    pub tokens_file: Option<PathBuf>,
    pub on_delete: OnDelete,
    /// Whether SCIM shows job roles as groups: `scim.groups`.
    pub with_roles: bool,
}

#[derive(Debug)]
pub(crate) struct Http {
    /// `None`: the listener is off.
    pub listen: Option<SocketAddr>,
    pub page: bool,
}

#[derive(Debug)]
pub(crate) struct Monitoring {
    /// Requested after successful cycles. A secret, because its path is the only credential.
    pub ping_url: Option<SecretString>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a setting")]
pub(crate) struct Webhook {
    pub name: String,
    /// Often holds a secret.
    pub url: Url,
    /// The current one first.
    pub secrets: Vec<SecretSlice<u8>>,
    /// An `Authorization` header, marked as sensitive.
    pub authorization: Option<HeaderValue>,
    pub types: Vec<String>,
    /// Empty: all.
    pub accounts: Vec<i64>,
    /// Whether messages have ids and names of changed fields instead of the event: `content`.
    pub ids_only: bool,
    pub include_pay: bool,
    /// Whether a new endpoint begins with the oldest event instead of the next one.
    pub from_beginning: bool,
    /// Whether events of an account's first full read are sent.
    pub initial: bool,
    pub in_flight: u32,
    pub timeout: Duration,
    /// Whether an event that the receiver keeps refusing is passed over.
    pub sets_aside: bool,
    /// Whether the receiver is notified when an operator is needed.
    pub notices: bool,
}

impl Webhook {
    /// Scheme, host and port of the address.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// Without the address.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Log {
    /// `None`: for people if stderr is a terminal, else JSON.
    pub format: Option<telemetry::Format>,
    /// A filter that `tracing_subscriber::EnvFilter` can parse.
    pub level: String,
}

/// A Harvest account and its credential.
#[derive(Debug)]
pub struct Account {
    /// Harvest's id of the account: positive and unique in the settings.
    pub id: i64,
    pub(crate) credential: Credential,
}

/// How rosterd authenticates to Harvest for an account.
#[derive(Debug)]
pub enum Credential {
    Token(SecretString),
    OAuth {
        /// Not a secret.
        client_id: String,
        /// Also the key that encrypts the tokens in the database.
        client_secret: SecretString,
        /// The first refresh token. `None` if `rosterd auth login` obtains it.
        refresh_token: Option<SecretString>,
    },
}

impl Settings {
    /// The accounts. May be empty: `migrate` needs no account.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// An OAuth2 application whose account id is not set yet. `rosterd auth login` finds the id.
    pub(crate) fn credential_without_account(&self) -> Option<&Credential> {
        self.credential_without_account.as_ref()
    }

    pub(crate) fn require_accounts(&self) -> Result<&[Account], SettingsError> {
        let fault = if self.credential_without_account.is_some() {
            "the OAuth2 application has no account id; run `rosterd auth login`, then set HARVEST_ACCOUNT_ID to the \
             id that it prints"
        } else if self.accounts.is_empty() {
            "no account is set; set HARVEST_ACCOUNT_ID and HARVEST_ACCESS_TOKEN, or add an [[accounts]] section to \
             the settings file"
        } else {
            return Ok(&self.accounts);
        };
        // A warning may name the cause, such as a misspelt variable.
        Err(SettingsError(Findings { faults: vec![fault.to_owned()], warnings: self.warnings.clone() }))
    }
}
