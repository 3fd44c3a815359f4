//! Each setting with its bounds, then the rules that involve several settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use url::Url;

use super::model::{
    Account, Credential, Database, Harvest, Http, Lease, Log, Monitoring, Outbox, PollInterval, RateLimit,
    Rates, Retention, Scope, Settings, Sync, Write,
};
use super::parse::{base_url, listen};
use super::{database, reader::Reader, scim, secrets};
use crate::outbound::is_loopback;
use crate::roster::DeletionGuard;
use crate::roster::write_policy::{PERMISSIONS, WriteMode, WriteRules};
use crate::telemetry::Format;

const SECOND: Duration = Duration::from_secs(1);
const MAX_PATIENCE: Duration = Duration::from_secs(55);
const TENTH: Duration = Duration::from_millis(100);

/// Reads every key. If `reader` has faults at the end, the settings contain placeholders and the caller drops them.
pub(super) fn settings(
    reader: &mut Reader,
    env: &BTreeMap<String, String>,
    (accounts, credential_without_account): (Vec<Account>, Option<Credential>),
) -> Settings {
    let rates =
        Rates { mirror: reader.boolean("rates.mirror"), histories: reader.boolean("rates.histories") };
    let settings = Settings {
        database: database(reader, env),
        harvest: harvest(reader),
        rate_limit: RateLimit {
            requests: reader.integer("rate_limit.requests", 1..=1_000_000),
            window: reader.duration("rate_limit.window", TENTH),
            scope: reader.choice("rate_limit.scope", [("process", Scope::Process), ("token", Scope::Token)]),
            reserve: reader.integer("rate_limit.reserve", 0..=1_000_000),
        },
        sync: sync(reader),
        lease: Lease { ttl: reader.duration("lease.ttl", 3 * SECOND) },
        outbox: Outbox { retention: reader.duration("outbox.retention", SECOND) },
        retention: Retention {
            cycles: reader.duration("retention.cycles", SECOND),
            history: reader.duration_or("retention.history", "forever", SECOND),
            writes: reader.duration("retention.writes", SECOND),
        },
        write: write(reader, rates.mirror),
        rates,
        scim: scim::scim(reader),
        http: Http { listen: reader.optional("http.listen", listen), page: reader.boolean("http.page") },
        monitoring: Monitoring { ping_url: ping_url(reader) },
        log: Log {
            format: reader.choice(
                "log.format",
                [("auto", None), ("json", Some(Format::Json)), ("pretty", Some(Format::Pretty))],
            ),
            level: reader.text("log.level", level).unwrap_or_default(),
        },
        warnings: Vec::new(),
        webhooks: Vec::new(),
        accounts,
        credential_without_account,
    };
    check_combinations(reader, &settings);
    check_urls(reader, &settings.harvest);
    settings
}

fn sync(reader: &mut Reader) -> Sync {
    let poll_interval = reader.duration_or("sync.poll_interval", "auto", SECOND);
    Sync {
        poll_interval: poll_interval.map_or(PollInterval::AUTO, PollInterval::from),
        skew_buffer: reader.duration("sync.skew_buffer", 2 * SECOND),
        full_interval: reader.duration("sync.full_interval", SECOND),
        count_probe: reader.boolean("sync.count_probe"),
        deletion_guard: guard(reader, "sync.deletion_guard.fraction", "sync.deletion_guard.at_least"),
    }
}

fn guard(reader: &mut Reader, fraction: &'static str, at_least: &'static str) -> DeletionGuard {
    DeletionGuard { fraction: reader.fraction(fraction), at_least: reader.integer(at_least, 0..=u32::MAX) }
}

fn write(reader: &mut Reader, with_pay_data: bool) -> Write {
    let modes = [("off", WriteMode::Off), ("dry", WriteMode::Dry), ("on", WriteMode::On)];
    Write {
        rules: WriteRules {
            mode: reader.choice("write.mode", modes),
            allow: reader.text("write.allow", permissions).unwrap_or_default(),
            protected: reader.text("write.protected", |text| Ok(words(text))).unwrap_or_default(),
            guard: guard(reader, "write.guard.fraction", "write.guard.at_least"),
            with_pay_data,
        },
        guard_window: reader.duration("write.guard.within", SECOND),
        patience: reader.duration("write.patience", SECOND),
    }
}

/// The words of a list with commas, in lower case.
fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(',').map(|word| word.trim().to_lowercase());
    words.filter(|word| !word.is_empty()).collect()
}

fn permissions(text: &str) -> Result<BTreeSet<String>, String> {
    let words = words(text);
    match words.iter().find(|word| !PERMISSIONS.contains(&word.as_str())) {
        Some(word) => Err(format!("{word:?} is none of {}", PERMISSIONS.join(", "))),
        None => Ok(words),
    }
}

fn check_combinations(reader: &mut Reader, settings: &Settings) {
    scim::check_combinations(reader, settings);
    if reader.all_valid(&["write.patience"]) && settings.write.patience > MAX_PATIENCE {
        reader.refuse_value("write.patience", "give at most \"55s\", because directories give up after 60s");
    }
    let Settings { rate_limit: RateLimit { requests, reserve, .. }, sync, rates, .. } = settings;
    if reader.all_valid(&["rate_limit.requests", "rate_limit.reserve"]) && reserve >= requests {
        let source = reader.source("rate_limit.requests");
        reader.refuse_value(
            "rate_limit.reserve",
            format_args!("give less than rate_limit.requests, which is {requests} (from {source})"),
        );
    }
    let poll = sync.poll_interval;
    if reader.all_valid(&["sync.poll_interval", "sync.full_interval"]) && sync.full_interval < poll.slowest {
        let source = reader.source("sync.poll_interval");
        reader.refuse_value(
            "sync.full_interval",
            format_args!("give at least sync.poll_interval, which is \"{poll}\" (from {source})"),
        );
    }
    if reader.all_valid(&["rates.mirror", "rates.histories"]) && rates.histories && !rates.mirror {
        let source = reader.source("rates.mirror");
        reader.refuse_value(
            "rates.histories",
            format_args!("it needs rates.mirror, which is false (from {source}); change one of them"),
        );
    }
}

fn check_urls(reader: &mut Reader, harvest: &Harvest) {
    const BASE: &str = "harvest.base_url";
    if reader.all_valid(&[BASE]) && !harvest.base_url.path().ends_with("/v2") {
        let name = reader.name(BASE);
        reader.findings.warn(format!(
            "{name} does not end in /v2, the path of Harvest's API; add /v2 unless a gateway adds it"
        ));
    }
    for (key, url) in [(BASE, &harvest.base_url), ("harvest.identity_url", &harvest.identity_url)] {
        let unprotected = url.scheme() == "http" && !is_loopback(url) && !harvest.allow_plain_http;
        if unprotected && reader.all_valid(&[key, "harvest.allow_plain_http"]) {
            reader.refuse_value(key, "plain http would expose the token to the network; give an https URL");
        }
    }
}

fn database(reader: &mut Reader, env: &BTreeMap<String, String>) -> Database {
    let url = database_url(reader, env);
    let home = reader.home;
    let local = url.is_none();
    let data_dir = reader.text("database.data_dir", |path| match secrets::expanded(path, home) {
        Some(path) if !path.as_os_str().is_empty() => Ok(path),
        None if !local => Ok(PathBuf::from(path)),
        None => Err("HOME is not set, so give a path without ~".to_owned()),
        Some(_) => Err("give the path of a directory".to_owned()),
    });
    Database {
        url,
        data_dir: data_dir.unwrap_or_default(),
        download: reader.boolean("database.download"),
        download_url: read_url(reader, "database.download_url", "https://mirror.example.com/postgresql"),
        download_sha256: reader.optional("database.download_sha256", database::sha256),
        max_connections: reader.integer("database.max_connections", 2..=1000),
        prepared_statements: reader.boolean("database.prepared_statements"),
        statement_timeout: reader.duration("database.statement_timeout", SECOND),
        migrate: reader.boolean("database.migrate"),
    }
}

/// `None` if no URL is given. A URL that is given but refused is a placeholder, so that `data_dir` is not required.
fn database_url(reader: &mut Reader, env: &BTreeMap<String, String>) -> Option<SecretString> {
    let plain = reader.secret("database.url");
    let file = reader.secret("database.url_file");
    let name = reader.name(if plain.is_some() { "database.url" } else { "database.url_file" });
    let (home, findings) = (reader.home, &mut reader.findings);
    let given = match plain {
        Some(url) => Ok(SecretString::from(secrets::cleaned(&name, url, findings))),
        None => secrets::from_file(&name, file?, home, findings),
    };
    let checked = given.and_then(|given| database::checked(&name, &given, env, findings));
    Some(findings.ok(checked).unwrap_or_default())
}

fn harvest(reader: &mut Reader) -> Harvest {
    const EXAMPLE: &str = "https://api.harvestapp.com/v2";
    let contact = |contact: &str| {
        if contact.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
            Ok(contact.trim().to_owned())
        } else {
            Err("give one line of plain ASCII".to_owned())
        }
    };
    Harvest {
        base_url: read_url(reader, "harvest.base_url", EXAMPLE),
        identity_url: read_url(reader, "harvest.identity_url", EXAMPLE),
        user_agent_contact: reader
            .text("harvest.user_agent_contact", contact)
            .filter(|contact| !contact.is_empty())
            .map(SecretString::from),
        per_page: reader.integer("harvest.per_page", 1..=2000),
        request_timeout: reader.duration("harvest.request_timeout", TENTH),
        allow_plain_http: reader.boolean("harvest.allow_plain_http"),
    }
}

/// A URL to which rosterd appends paths.
fn read_url(reader: &mut Reader, key: &'static str, example: &str) -> Url {
    let parse = |text: &str| base_url(text, example);
    reader.text(key, parse).unwrap_or_else(placeholder)
}

/// The URL that the file of `monitoring.ping_url_file` contains.
fn ping_url(reader: &mut Reader) -> Option<SecretString> {
    reader.secret_file("monitoring.ping_url_file", |name, text| {
        let is_valid = Url::parse(text.expose_secret()).is_ok_and(|url| {
            (url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url))
                && url.username().is_empty()
                && url.password().is_none()
                && url.fragment().is_none()
        });
        let refused = || format!("{name} names a file without a valid URL (not shown); write an https URL without user, password and # into it");
        if is_valid { Ok(text.clone()) } else { Err(refused()) }
    })
}

#[expect(clippy::expect_used, reason = "the text is a URL")]
fn placeholder() -> Url {
    Url::parse("https://localhost").expect("the text is a URL")
}

/// A log filter without the spaces that `EnvFilter` refuses. A word alone must be a level: `EnvFilter` would take
/// `inof` for the name of a module and turn all other logging off.
fn level(text: &str) -> Result<String, String> {
    let directives: Vec<_> =
        text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    let bare_words_are_levels = directives
        .iter()
        .filter(|directive| !directive.contains(['=', '[', ':']))
        .all(|word| word.parse::<LevelFilter>().is_ok());
    let filter = directives.join(",");
    if filter.is_empty() || !bare_words_are_levels || EnvFilter::builder().parse(&filter).is_err() {
        return Err("give error, warn, info, debug, trace or off, or a list such as \"info,rosterd=debug\""
            .to_owned());
    }
    Ok(filter)
}
