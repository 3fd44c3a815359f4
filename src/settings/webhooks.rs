//! The endpoints of webhooks: the sections `[webhooks.NAME]` of the settings file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use config::{File, FileFormat, Map, Source, Value, ValueKind};
use reqwest::header::HeaderValue;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use url::{Host, Url};

use super::findings::Findings;
use super::glob::matching_types;
use super::model::Webhook;
use super::reader::Reader;
use super::secrets;
use super::values::{Values, flatten, known_values};
use crate::outbound::is_loopback;

/// The default of each key. `config/default.toml` explains the keys, and a test compares the two.
pub(super) const DEFAULTS: &str = r#"
url = ""
url_file = ""
secret_files = []
authorization_file = ""
types = ["user.*", "user_assignment.*"]
accounts = []
content = "full"
include_pay = false
start = "now"
initial = false
in_flight = 1
timeout = "15s"
refused = "wait"
notices = false
"#;

const MAX_ENDPOINTS: usize = 32;
const MAX_NAME: usize = 40;
/// Bytes of a secret, as Standard Webhooks requires.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// What sections need to know of the other settings.
pub(super) struct Context<'a> {
    pub home: Option<&'a str>,
    pub accounts: BTreeSet<i64>,
    /// `rates.mirror`
    pub has_pay_data: bool,
}

pub(super) fn read(sections: Option<Value>, context: &Context<'_>, findings: &mut Findings) -> Vec<Webhook> {
    let Some(sections) = sections else { return Vec::new() };
    let source = sections.origin().unwrap_or_default().to_owned();
    let ValueKind::Table(sections) = sections.kind else {
        findings.fault(format!(
            "webhooks (from {source}) is not a section; begin each endpoint with a line [webhooks.NAME]"
        ));
        return Vec::new();
    };
    if sections.len() > MAX_ENDPOINTS {
        findings.fault(format!("webhooks (from {source}) has more than {MAX_ENDPOINTS} endpoints"));
    }
    let sections: BTreeMap<_, _> = sections.into_iter().collect();
    let webhooks: Vec<_> = sections
        .into_iter()
        .filter_map(|(name, it)| section(&name, it, &source, context, findings))
        .collect();
    // A receiver that knows another endpoint's secret could send messages in rosterd's name.
    let mut known: BTreeMap<&[u8], &str> = BTreeMap::new();
    for webhook in &webhooks {
        for secret in &webhook.secrets {
            if let Some(other) = known.insert(secret.expose_secret(), &webhook.name)
                && other != webhook.name
            {
                findings.fault(format!(
                    "webhooks.{other} and webhooks.{} (from {source}) have the same secret; give each its own",
                    webhook.name
                ));
            }
        }
    }
    webhooks
}

fn section(
    name: &str,
    section: Value,
    source: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Webhook> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('-') || !name.chars().all(is_plain) {
        findings.fault(format!(
            "webhooks.{name:?} (from {source}) is not a name; give at most {MAX_NAME} lower-case letters, digits and hyphens"
        ));
        return None;
    }
    let ValueKind::Table(table) = section.kind else {
        findings.fault(format!(
            "webhooks.{name} (from {source}) is not a section; write [webhooks.{name}] above its keys"
        ));
        return None;
    };
    let prefix = format!("webhooks.{name}.");
    let values = merged(table, source, &prefix, findings);
    let mut reader = Reader::new(&values, prefix, context.home, std::mem::take(findings));
    let faults_before = reader.findings.faults.len();
    let webhook = webhook(name, &mut reader, context);
    *findings = reader.into_findings();
    webhook.filter(|_| findings.faults.len() == faults_before)
}

/// The section's values over the defaults. Unknown keys become faults.
fn merged(table: Map<String, Value>, source: &str, prefix: &str, findings: &mut Findings) -> Values {
    let defaults = File::from_str(DEFAULTS, FileFormat::Toml).collect().unwrap_or_default();
    let mut values = Values::from_iter(flatten(defaults, "the built-in defaults"));
    let names: Vec<_> = values.keys().map(String::as_str).collect();
    let given = known_values(flatten(table, source), &names, prefix, findings);
    values.extend(given);
    values
}

fn webhook(name: &str, reader: &mut Reader<'_>, context: &Context<'_>) -> Option<Webhook> {
    let url = url(reader);
    let secrets = signing_secrets(reader);
    let authorization = reader.secret_file("authorization_file", header);
    let types = types(reader);
    let accounts = reader.integers("accounts");
    let ids_only = reader.choice("content", [("full", false), ("ids", true)]);
    let include_pay = reader.boolean("include_pay");
    let from_beginning = reader.choice("start", [("now", false), ("beginning", true)]);
    let timeout = reader.duration("timeout", Duration::from_secs(1));
    if timeout > MAX_TIMEOUT {
        reader.refuse_value("timeout", "give at most \"60s\"");
    }
    if include_pay && ids_only {
        reader.refuse_value(
            "include_pay",
            "messages with content = \"ids\" have no values; remove one of them",
        );
    }
    if include_pay && !context.has_pay_data {
        reader.refuse_value("include_pay", "it needs rates.mirror, which is false");
    }
    if let Some(account) = accounts.iter().find(|account| !context.accounts.contains(account)) {
        let key = reader.name("accounts");
        reader.findings.warn(format!("{key} names account {account}, which these settings do not have"));
    }
    Some(Webhook {
        name: name.to_owned(),
        secrets,
        authorization,
        types,
        accounts,
        ids_only,
        include_pay,
        from_beginning,
        initial: reader.boolean("initial") || from_beginning,
        in_flight: reader.integer("in_flight", 1..=16),
        timeout,
        sets_aside: reader.choice("refused", [("wait", false), ("set_aside", true)]),
        notices: reader.boolean("notices"),
        url: url?,
    })
}

/// The address, which often holds a secret, so no sentence shows it.
fn url(reader: &mut Reader<'_>) -> Option<Url> {
    let checked = |name: &str, text: &str| {
        checked_url(text)
            .map_err(|advice| format!("{name} is not the address of a receiver (not shown); {advice}"))
    };
    let name = reader.name("url");
    match (reader.secret("url"), reader.secret("url_file")) {
        (Some(url), None) => reader.findings.ok(checked(&name, url)),
        (None, Some(_)) => reader.secret_file("url_file", |name, text| checked(name, text.expose_secret())),
        _ => {
            reader.findings.fault(format!("{name} must be given, or url_file, and not both"));
            None
        }
    }
}

fn checked_url(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|_| "give a URL such as https://hooks.example.com/rosterd".to_owned())?;
    let is_refused = match url.host() {
        Some(Host::Ipv4(ip)) => {
            ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()
        }
        Some(Host::Ipv6(ip)) => ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast(),
        Some(Host::Domain(name)) => name.is_empty(),
        None => true,
    };
    if !matches!((url.scheme(), is_loopback(&url)), ("https", _) | ("http", true)) {
        return Err("give an https URL; plain http is allowed to this machine only".to_owned());
    }
    if is_refused {
        return Err("its host is a link-local, unspecified or multicast address".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("give a URL without user, password and #; authorization_file adds a header".to_owned());
    }
    Ok(url)
}

fn signing_secrets(reader: &mut Reader<'_>) -> Vec<SecretSlice<u8>> {
    let (paths, key) = (reader.texts("secret_files"), reader.name("secret_files"));
    if !(1..=2).contains(&paths.len()) {
        let fault = format!("{key} must name one file, or two while the secret is replaced");
        reader.findings.fault(fault);
    }
    let (home, findings) = (reader.home, &mut reader.findings);
    let mut secrets = Vec::new();
    for path in &paths {
        let read = secrets::from_file(&key, path, home, findings);
        let decoded = read.and_then(|secret| decoded(&secret).ok_or_else(|| not_a_secret(&key)));
        secrets.extend(findings.ok(decoded));
    }
    secrets
}

fn decoded(secret: &SecretString) -> Option<SecretSlice<u8>> {
    let bytes = STANDARD.decode(secret.expose_secret().strip_prefix("whsec_")?).ok()?;
    let bytes = Zeroizing::new(bytes);
    SECRET_BYTES.contains(&bytes.len()).then(|| SecretSlice::from(bytes.to_vec()))
}

fn not_a_secret(key: &str) -> String {
    format!(
        "{key} names a file that has no signing secret; write whsec_ and 24 to 64 bytes in base64 into it: \
         printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\""
    )
}

fn header(name: &str, text: &SecretString) -> Result<HeaderValue, String> {
    let mut header = HeaderValue::from_str(text.expose_secret())
        .map_err(|_| format!("{name} names a file with characters that no header may have"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn types(reader: &mut Reader<'_>) -> Vec<String> {
    let mut types = BTreeSet::new();
    for glob in reader.texts("types") {
        match matching_types(&glob) {
            Ok(matching) => types.extend(matching),
            Err(advice) => {
                let fault = format!("{} has {glob:?}: {advice}", reader.name("types"));
                reader.findings.fault(fault);
            }
        }
    }
    types.into_iter().collect()
}
