//! Typed settings from the built-in defaults, a settings file and the environment.
//!
//! Only `cli` and `app` use [`Settings`]; all other modules get plain values. The caller passes the environment as a
//! map, so that tests can cover each rule. All faults are reported together: each names the key, the source of its
//! value and what is allowed. No message contains a secret.

mod accounts;
mod database;
mod environment;
mod findings;
pub mod glob;
mod layers;
mod model;
mod parse;
mod reader;
mod scim;
mod secrets;
mod unknown;
mod unknown_variables;
mod validate;
mod values;
mod webhooks;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

pub use findings::SettingsError;
pub use model::{Account, Credential, PollInterval, Settings};
pub(crate) use model::{Scope, Webhook};

use findings::Findings;

impl Settings {
    /// Loads the settings with the environment of this process.
    pub(crate) fn from_environment(file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::load(file, &environment::variables(std::env::vars_os())?)
    }

    /// The same without accounts and their credentials, which are not read.
    pub(crate) fn without_accounts(file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::load_with(file, &environment::variables(std::env::vars_os())?, false)
    }

    /// Loads the settings from `file`, or from the file that `ROSTERD_CONFIG` in `env` names, and from `env`.
    pub fn load(file: Option<&Path>, env: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        Self::load_with(file, env, true)
    }

    fn load_with(
        file: Option<&Path>,
        env: &BTreeMap<String, String>,
        with_accounts: bool,
    ) -> Result<Self, SettingsError> {
        let mut findings = Findings::default();
        let env = &environment::cleaned(env, &mut findings);
        let layers = layers::merge(file, env, &mut findings);
        unknown_variables::warn(env, layers.values.keys().map(String::as_str), &mut findings);
        let accounts = if with_accounts {
            accounts::read(layers.accounts.as_ref(), env, &mut findings)
        } else {
            (Vec::new(), None)
        };
        let home = secrets::home(env);
        let mut reader = reader::Reader::new(&layers.values, String::new(), home, findings);
        let mut settings = validate::settings(&mut reader, env, accounts);
        let mut findings = reader.into_findings();
        let context = webhooks::Context {
            home,
            accounts: settings.accounts.iter().map(|account| account.id).collect(),
            has_pay_data: settings.rates.mirror,
        };
        settings.webhooks = webhooks::read(layers.webhooks, &context, &mut findings);
        if !findings.faults.is_empty() {
            return Err(SettingsError(findings));
        }
        settings.warnings = findings.warnings;
        Ok(settings)
    }
}
