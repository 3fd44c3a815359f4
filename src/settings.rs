//! Typed settings: the layers of `config/default.toml`, a file and the environment, read and checked as a
//! whole.
//!
//! Nobody below `app` sees [`Settings`]; everyone else is handed values. Loading touches no process state:
//! the environment comes in as a map, so that every rule can be tested. All faults are reported together,
//! each in a sentence that names the key, where its value came from and what is allowed. Secrets are never
//! repeated.

mod accounts;
mod database;
mod environment;
mod layers;
mod reader;
mod secrets;
mod unknown;
mod validate;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use url::Url;

/// Everything that can be set, checked. What each setting means is written in `config/default.toml`.
#[derive(Debug)]
#[expect(missing_docs, reason = "config/default.toml is the one place where each key is explained")]
pub struct Settings {
    pub database: Database,
    pub harvest: Harvest,
    pub rate_limit: RateLimit,
    pub sync: Sync,
    pub lease: Lease,
    pub rates: Rates,
    pub outbox: Outbox,
    pub retention: Retention,
    pub http: Http,
    pub log: Log,
    /// What the person should know although it is allowed; for the caller to log once there is a log.
    pub warnings: Vec<String>,
    accounts: Vec<Account>,
    unnumbered: Option<Credential>,
}

/// `[database]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct Database {
    /// None: a private local PostgreSQL in `data_dir`. `sslmode` is already what it has to be.
    pub url: Option<SecretString>,
    pub data_dir: PathBuf,
    pub max_connections: u32,
    pub prepared_statements: bool,
    pub statement_timeout: Duration,
    pub migrate: bool,
}

/// `[harvest]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct Harvest {
    /// Without a trailing slash, user, query or fragment.
    pub base_url: Url,
    /// Without a trailing slash, user, query or fragment.
    pub identity_url: Url,
    /// Somebody's address, and therefore kept out of `Debug` as a secret is.
    pub user_agent_contact: Option<SecretString>,
    pub per_page: u32,
    pub request_timeout: Duration,
    pub allow_plain_http: bool,
}

/// `[rate_limit]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct RateLimit {
    pub requests: u32,
    pub window: Duration,
    pub scope: Scope,
    pub reserve: u32,
}

/// Whose budget of requests it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One for everything behind this database.
    Process,
    /// One for each token.
    Token,
}

/// `[sync]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct Sync {
    pub poll_interval: PollInterval,
    pub skew_buffer: Duration,
    pub full_interval: Duration,
    pub count_probe: bool,
    pub deletion_guard: DeletionGuard,
}

/// From the start of one poll to the start of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollInterval {
    /// While things change.
    pub quickest: Duration,
    /// When nothing does; the same where the interval is set and not `"auto"`.
    pub slowest: Duration,
}

impl PollInterval {
    /// Quick while things change, and never slower than the default.
    pub const AUTO: Self = Self { quickest: Duration::from_secs(5), slowest: Duration::from_mins(1) };
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

/// `[sync.deletion_guard]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct DeletionGuard {
    pub fraction: f64,
    pub at_least: u32,
}

/// `[lease]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct Lease {
    pub ttl: Duration,
}

/// `[rates]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct Rates {
    pub mirror: bool,
    pub histories: bool,
}

/// `[outbox]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct Outbox {
    pub retention: Duration,
}

/// `[retention]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct Retention {
    pub cycles: Duration,
    /// None: for ever.
    pub history: Option<Duration>,
}

/// `[http]`
#[derive(Debug)]
pub struct Http {
    /// None: turned off.
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Debug)]
#[expect(missing_docs, reason = "see config/default.toml")]
pub struct Log {
    pub format: LogFormat,
    /// A filter that `tracing_subscriber::EnvFilter` can parse.
    pub level: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people if stderr is a terminal, JSON otherwise.
    Auto,
    /// One flat object a line.
    Json,
    /// For people.
    Pretty,
}

/// One Harvest account and how to get in.
#[derive(Debug)]
pub struct Account {
    /// Harvest's number for it: positive, and no other account has it.
    pub id: i64,
    /// What is shown to Harvest.
    pub credential: Credential,
}

/// What opens an account.
#[derive(Debug)]
pub enum Credential {
    /// A personal access token.
    Token(SecretString),
    /// An OAuth2 application.
    OAuth {
        /// Names the application; not a secret.
        client_id: String,
        /// Proves it, and seals the tokens in the database.
        client_secret: SecretString,
        /// The first refresh token; None where `rosterd auth login` brings it.
        refresh_token: Option<SecretString>,
    },
}

impl Settings {
    /// Settings from `file` (else from what `ROSTERD_CONFIG` names, else no file) and the process's
    /// environment.
    pub fn from_environment(file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::load(file, &environment::variables(std::env::vars_os())?)
    }

    /// The same with `env` for the environment.
    pub fn load(file: Option<&Path>, env: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        let env = &environment::cleaned(env, &mut warnings);
        let layers = layers::merge(file, env, &mut faults);
        unknown::variables(env, layers.values.keys().map(String::as_str), &mut warnings);
        let accounts = accounts::read(layers.accounts.as_ref(), env, &mut faults, &mut warnings);
        let mut reader = reader::Reader::new(&layers.values, faults);
        let settings = validate::read(&mut reader, env, accounts, warnings);
        match reader.into_faults() {
            faults if faults.is_empty() => Ok(settings),
            faults => Err(SettingsError { faults, warnings: settings.warnings }),
        }
    }

    /// The accounts, which may be none: `migrate` needs no account.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// An OAuth2 application without the number of its account, which `rosterd auth login` finds out.
    pub fn unnumbered(&self) -> Option<&Credential> {
        self.unnumbered.as_ref()
    }

    /// The accounts, for a command that can do nothing without one.
    pub fn require_accounts(&self) -> Result<&[Account], SettingsError> {
        let missing = |fault: &str| SettingsError {
            faults: vec![fault.to_owned()],
            // Such as a misspelt variable that was to name the account.
            warnings: self.warnings.clone(),
        };
        if self.unnumbered.is_some() {
            return Err(missing(
                "the OAuth2 application has no account yet; set HARVEST_ACCOUNT_ID to its number, which \
                 `rosterd auth login` tells",
            ));
        }
        if self.accounts.is_empty() {
            return Err(missing(
                "no account is set; set HARVEST_ACCOUNT_ID and HARVEST_ACCESS_TOKEN, \
                 or add an [[accounts]] section to the settings file",
            ));
        }
        Ok(&self.accounts)
    }
}

/// What is wrong with the settings: all of it, a sentence each. A warning may name the cause, such as a misspelt variable.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(faults, warnings))]
pub struct SettingsError {
    faults: Vec<String>,
    warnings: Vec<String>,
}

fn lines(faults: &[String], warnings: &[String]) -> String {
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
    faults.iter().cloned().chain(warnings).collect::<Vec<_>>().join("\n")
}

impl SettingsError {
    /// The sentences about what is wrong, of which `Display` makes a line each.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The sentences about what is allowed but may be the cause.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl From<&str> for SettingsError {
    fn from(fault: &str) -> Self {
        Self { faults: vec![fault.to_owned()], warnings: Vec::new() }
    }
}
