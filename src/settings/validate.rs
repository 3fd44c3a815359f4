//! Each setting with its bounds, then the rules that span several.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use url::{Host, Url};

use super::{
    Account, Credential, Database, DeletionGuard, Harvest, Http, Lease, Log, LogFormat, Outbox, PollInterval,
    RateLimit, Rates, Retention, Scope, Settings, Sync, database, reader::Reader, secrets,
};

/// Below this a number of seconds can only be a slip.
const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);

/// Reads every key. Where `reader` has faults in the end, the settings are made of stand-ins and to be
/// dropped.
pub(super) fn read(
    reader: &mut Reader,
    env: &BTreeMap<String, String>,
    accounts: (Vec<Account>, Option<Credential>),
    mut warnings: Vec<String>,
) -> Settings {
    let database = database(reader, env, &mut warnings);
    let harvest = harvest(reader);
    if reader.sound(&["harvest.base_url"]) && !harvest.base_url.path().ends_with("/v2") {
        warnings.push(format!(
            "harvest.base_url (from {}) does not end in /v2, below which Harvest's API answers; add /v2, unless a gateway \
             does",
            reader.source("harvest.base_url")
        ));
    }
    let settings = Settings {
        database,
        harvest,
        rate_limit: RateLimit {
            requests: reader.whole("rate_limit.requests", 1..=1_000_000),
            window: reader.duration("rate_limit.window", TENTH),
            scope: choice(reader, "rate_limit.scope", [("process", Scope::Process), ("token", Scope::Token)]),
            reserve: reader.whole("rate_limit.reserve", 0..=1_000_000),
        },
        sync: Sync {
            poll_interval: reader
                .duration_or("sync.poll_interval", "auto", SECOND)
                .map_or(PollInterval::AUTO, PollInterval::from),
            skew_buffer: reader.duration("sync.skew_buffer", 2 * SECOND),
            full_interval: reader.duration("sync.full_interval", SECOND),
            count_probe: reader.flag("sync.count_probe"),
            deletion_guard: DeletionGuard {
                fraction: reader.fraction("sync.deletion_guard.fraction"),
                at_least: reader.whole("sync.deletion_guard.at_least", 0..=u32::MAX),
            },
        },
        lease: Lease { ttl: reader.duration("lease.ttl", 3 * SECOND) },
        rates: Rates { mirror: reader.flag("rates.mirror"), histories: reader.flag("rates.histories") },
        outbox: Outbox { retention: reader.duration("outbox.retention", SECOND) },
        retention: Retention {
            cycles: reader.duration("retention.cycles", SECOND),
            history: reader.duration_or("retention.history", "forever", SECOND),
        },
        http: Http { listen: reader.text("http.listen", listen).flatten() },
        log: Log {
            format: choice(
                reader,
                "log.format",
                [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("pretty", LogFormat::Pretty)],
            ),
            level: reader.text("log.level", level).unwrap_or_default(),
        },
        warnings,
        accounts: accounts.0,
        unnumbered: accounts.1,
    };
    across(reader, &settings);
    settings
}

/// The rules that span keys.
fn across(reader: &mut Reader, settings: &Settings) {
    let Settings { harvest, rate_limit, sync, rates, .. } = settings;
    if reader.sound(&["rate_limit.requests", "rate_limit.reserve"])
        && rate_limit.reserve >= rate_limit.requests
    {
        let (requests, source) = (rate_limit.requests, reader.source("rate_limit.requests"));
        reader.refuse_value(
            "rate_limit.reserve",
            format_args!("give less than rate_limit.requests, which is {requests} (from {source})"),
        );
    }
    let poll = sync.poll_interval;
    if reader.sound(&["sync.poll_interval", "sync.full_interval"]) && sync.full_interval < poll.slowest {
        let source = reader.source("sync.poll_interval");
        reader.refuse_value(
            "sync.full_interval",
            format_args!("give at least sync.poll_interval, which is \"{poll}\" (from {source})"),
        );
    }
    if reader.sound(&["rates.mirror", "rates.histories"]) && rates.histories && !rates.mirror {
        let source = reader.source("rates.mirror");
        reader.refuse_value(
            "rates.histories",
            format_args!("it needs rates.mirror, which is false (from {source}); change one of them"),
        );
    }
    for (key, url) in
        [("harvest.base_url", &harvest.base_url), ("harvest.identity_url", &harvest.identity_url)]
    {
        let open = url.scheme() == "http" && !is_loopback(url) && !harvest.allow_plain_http;
        if open && reader.sound(&[key, "harvest.allow_plain_http"]) {
            reader.refuse_value(key, "plain http would show the token on the way; give an https URL");
        }
    }
}

fn database(reader: &mut Reader, env: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> Database {
    let home = env.get("HOME").filter(|home| !home.is_empty()).map(String::as_str);
    let url = database_url(reader, env, home, warnings);
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
        max_connections: reader.whole("database.max_connections", 2..=1000),
        prepared_statements: reader.flag("database.prepared_statements"),
        statement_timeout: reader.duration("database.statement_timeout", Duration::from_secs(1)),
        migrate: reader.flag("database.migrate"),
    }
}

fn database_url(
    reader: &mut Reader,
    env: &BTreeMap<String, String>,
    home: Option<&str>,
    warnings: &mut Vec<String>,
) -> Option<SecretString> {
    let (plain, file) = (reader.secret("database.url"), reader.secret("database.url_file"));
    let (key, given) = match (plain, file) {
        (Some(url), _) => {
            let key = "database.url";
            let name = format!("{key} (from {})", reader.source(key));
            (key, Ok(SecretString::from(secrets::cleaned(&name, url, warnings))))
        }
        (None, Some(path)) => {
            let key = "database.url_file";
            (key, secrets::from_file(&format!("{key} (from {})", reader.source(key)), path, home, warnings))
        }
        (None, None) => return None,
    };
    let name = format!("{key} (from {})", reader.source(key));
    match given.and_then(|given| database::checked(&name, &given, env, warnings)) {
        Ok(url) => Some(url),
        Err(fault) => {
            reader.fault(fault);
            Some(SecretString::default())
        }
    }
}

fn harvest(reader: &mut Reader) -> Harvest {
    Harvest {
        base_url: url(reader, "harvest.base_url"),
        identity_url: url(reader, "harvest.identity_url"),
        user_agent_contact: reader
            .text("harvest.user_agent_contact", |contact| {
                let plain = contact.chars().all(|c| c == ' ' || c.is_ascii_graphic());
                plain
                    .then(|| contact.trim().to_owned())
                    .ok_or_else(|| "give one line of plain ASCII".to_owned())
            })
            .filter(|contact| !contact.is_empty())
            .map(SecretString::from),
        per_page: reader.whole("harvest.per_page", 1..=2000),
        request_timeout: reader.duration("harvest.request_timeout", TENTH),
        allow_plain_http: reader.flag("harvest.allow_plain_http"),
    }
}

/// The address of an API: tokens go there and paths are appended to it.
fn url(reader: &mut Reader, key: &'static str) -> Url {
    let parse = |text: &str| {
        let url =
            Url::parse(text).ok().filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
        let Some(mut url) = url else {
            return Err("give a URL such as \"https://api.harvestapp.com/v2\"".to_owned());
        };
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !bare {
            return Err("give a URL without user, password, ? and #".to_owned());
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(url)
    };
    reader.text(key, parse).unwrap_or_else(stand_in)
}

#[expect(clippy::expect_used, reason = "the text is a URL")]
fn stand_in() -> Url {
    Url::parse("https://localhost").expect("the text is a URL")
}

/// Whether requests to it stay on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        "give an IP address and a port, such as \"127.0.0.1:8080\", or in a file \"\" for none".to_owned()
    })
}

/// A filter without the spaces that `EnvFilter` refuses. A bare word would pass as the name of a module, and
/// `inof` would silence everything: only levels stand alone.
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

fn choice<T: Copy, const N: usize>(reader: &mut Reader, key: &'static str, choices: [(&str, T); N]) -> T {
    reader
        .text(key, |text| {
            let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
            chosen.ok_or_else(|| {
                format!("give {}", choices.map(|(name, _)| format!("\"{name}\"")).join(" or "))
            })
        })
        .unwrap_or(choices[0].1)
}
