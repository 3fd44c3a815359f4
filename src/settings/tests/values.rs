//! The values that each setting accepts.

use super::*;
use crate::settings::{environment::variable, layers};

const LEVEL: &str = "give error, warn, info, debug, trace or off, or a list such as \"info,rosterd=debug\"";
const LISTEN: &str = "give an IP address and a port, such as \"127.0.0.1:8080\", or in a file \"\" for none";
const SECOND: &str = "give a duration of at least 1s, such as \"60s\"";
const POLL: &str = "give a duration of at least 1s, such as \"60s\", or \"auto\"";

#[test]
fn text_that_is_not_allowed_is_refused_with_its_source_and_advice() {
    for (key, value, advice) in [
        ("sync.poll_interval", "banana", POLL),
        ("sync.poll_interval", "60", POLL),
        ("sync.poll_interval", "Auto", POLL),
        ("sync.poll_interval", "999ms", POLL),
        ("sync.poll_interval", "-5s", POLL),
        ("sync.skew_buffer", "1999ms", "give a duration of at least 2s, such as \"60s\""),
        ("lease.ttl", "2s", "give a duration of at least 3s, such as \"60s\""),
        ("outbox.retention", "100years", "give a duration of less than ten years"),
        ("retention.cycles", "0s", SECOND),
        ("retention.history", "never", "give a duration of at least 1s, such as \"60s\", or \"forever\""),
        ("harvest.request_timeout", "0s", "give a duration of at least 100ms, such as \"60s\""),
        ("database.statement_timeout", "500ms", "give a duration of at least 1s, such as \"60s\""),
        ("rate_limit.window", "15", "give a duration of at least 100ms, such as \"60s\""),
        ("rate_limit.scope", "tokens", "give \"process\" or \"token\""),
        ("log.format", "JSON", "give \"auto\" or \"json\" or \"pretty\""),
        ("log.level", "inof", LEVEL),
        ("log.level", "info,a=b", LEVEL),
        ("http.listen", "8080", LISTEN),
        ("http.listen", "localhost:80", LISTEN),
        ("harvest.base_url", "api.harvestapp.com", "give a URL such as \"https://api.harvestapp.com/v2\""),
        ("harvest.base_url", "ftp://h.test", "give a URL such as \"https://api.harvestapp.com/v2\""),
        ("harvest.base_url", "https://h.test/v2?a=b", "give a URL without user, password, ? and #"),
        ("harvest.identity_url", "https://h.test/#a", "give a URL without user, password, ? and #"),
        (
            "harvest.base_url",
            "http://h.test",
            "plain http would expose the token to the network; give an https URL",
        ),
        (
            "harvest.identity_url",
            "http://h.test",
            "plain http would expose the token to the network; give an https URL",
        ),
        ("harvest.user_agent_contact", "näme", "give one line of plain ASCII"),
        ("write.patience", "56s", "give at most \"55s\", because directories give up after 60s"),
        ("scim.delete", "archive", "give \"deactivate\" or \"delete\" or \"refuse\""),
        ("scim.groups", "projects", "give \"\" or \"roles\""),
        ("scim.public_url", "scim.test", "give a URL such as \"https://scim.example.com\""),
        (
            "scim.public_url",
            "http://scim.test",
            "directories would send their tokens without TLS; give an https URL, or set scim.allow_plain_http",
        ),
    ] {
        assert_refused_in_each_source(key, value, &format!("{value:?}"), advice);
    }
}

#[test]
fn number_out_of_range_is_refused_with_its_source_and_advice() {
    for (key, value, advice) in [
        ("database.max_connections", "1", "give a whole number from 2 to 1000"),
        ("harvest.per_page", "0", "give a whole number from 1 to 2000"),
        ("harvest.per_page", "2001", "give a whole number from 1 to 2000"),
        ("harvest.per_page", "-1", "give a whole number from 1 to 2000"),
        ("rate_limit.requests", "0", "give a whole number from 1 to 1000000"),
        (
            "rate_limit.reserve",
            "100",
            "give less than rate_limit.requests, which is 100 (from the built-in defaults)",
        ),
        ("sync.deletion_guard.fraction", "1.5", "give a number from 0 to 1"),
        ("sync.deletion_guard.fraction", "-0.5", "give a number from 0 to 1"),
        ("sync.deletion_guard.at_least", "-1", "give a whole number from 0 to 4294967295"),
    ] {
        assert_refused_in_each_source(key, value, value, advice);
    }
}

/// `shown` is the value in TOML and in the sentence.
#[track_caller]
fn assert_refused_in_each_source(key: &str, value: &str, shown: &str, advice: &str) {
    let name = variable(key);
    assert_refused("", &[(&name, value)], &format!("{key} is {shown} (from {name}); {advice}"));
    let line = format!("{key} = {shown}");
    assert_refused(&line, &[], &format!("{key} is {shown} (from the file roster.toml); {advice}"));
}

#[test]
fn value_of_the_wrong_type_is_refused() {
    for (key, value, advice) in [
        ("harvest.per_page", "\"100\"", "give a whole number from 1 to 2000"),
        ("harvest.per_page", "99.5", "give a whole number from 1 to 2000"),
        ("sync.poll_interval", "60", POLL),
        ("sync.count_probe", "1", "give true or false"),
        ("sync.count_probe", "\"true\"", "give true or false"),
        ("harvest.user_agent_contact", "42", "put it in quotes: \"42\""),
        ("sync.deletion_guard.fraction", "NaN", "give a number from 0 to 1"),
    ] {
        let line = format!("{key} = {}", value.to_lowercase());
        assert_refused(&line, &[], &format!("{key} is {value} (from the file roster.toml); {advice}"));
    }
    assert_refused(
        "log.level = [\"info\"]",
        &[],
        "log.level is a list (from the file roster.toml); give text in quotes",
    );
    assert_refused(
        "database.url = 5",
        &[],
        "database.url (from the file roster.toml) must be text in quotes",
    );
    for (name, value, advice) in [
        ("MAX_CONNECTIONS", "true", "give a whole number from 2 to 1000"),
        ("MAX_CONNECTIONS", "4.0", "give a whole number from 2 to 1000"),
        ("MIGRATE", "1", "give true or false"),
    ] {
        let key = name.to_lowercase();
        let name = format!("ROSTERD__DATABASE__{name}");
        assert_refused(
            "",
            &[(&name, value)],
            &format!("database.{key} is {value:?} (from {name}); {advice}"),
        );
    }
}

#[test]
fn text_that_looks_like_a_number_stays_text() {
    let env = [
        ("ROSTERD__HARVEST__USER_AGENT_CONTACT", "0042"),
        ("HARVEST_ACCOUNT_ID", "7"),
        ("HARVEST_ACCESS_TOKEN", "00123.50"),
    ];
    let settings = load("", &env).unwrap();
    assert_eq!(settings.harvest.user_agent_contact.unwrap().expose_secret(), "0042");
    let Credential::Token(token) = &settings.accounts[0].credential else { panic!("a token was given") };
    assert_eq!(token.expose_secret(), "00123.50");
}

#[test]
fn plain_http_is_allowed_for_loopback_or_with_allow_plain_http() {
    for url in ["http://127.0.0.1:8080/v2", "http://localhost/v2", "http://[::1]:9/v2", "https://h.test/v2/"]
    {
        assert!(load("", &[("HARVEST_BASE_URL", url)]).is_ok(), "{url}");
    }
    assert!(faults("", &[("HARVEST_BASE_URL", "http://localhost.evil.test/v2")]).len() == 1);
    assert!(load("harvest.allow_plain_http = true", &[("HARVEST_BASE_URL", "http://h.test/v2")]).is_ok());
}

#[test]
fn rule_between_two_settings_names_both_sources() {
    assert_refused(
        "sync.full_interval = \"59s\"",
        &[],
        "sync.full_interval is \"59s\" (from the file roster.toml); give at least sync.poll_interval, \
         which is \"1m\" (from the built-in defaults)",
    );
    assert_refused(
        "sync.full_interval = \"59s\"",
        &[("ROSTERD__SYNC__POLL_INTERVAL", "auto")],
        "sync.full_interval is \"59s\" (from the file roster.toml); give at least sync.poll_interval, \
         which is \"5s to 1m\" (from ROSTERD__SYNC__POLL_INTERVAL)",
    );
    assert_refused(
        "rates.histories = true",
        &[("ROSTERD__RATES__MIRROR", "false")],
        "rates.histories is true (from the file roster.toml); it needs rates.mirror, which is false \
         (from ROSTERD__RATES__MIRROR); change one of them",
    );
    // A number that is refused is not compared with another.
    assert_eq!(faults("rate_limit = { requests = 0, reserve = 5 }", &[]).len(), 1);
}

#[test]
fn log_level_with_spaces_and_modules_is_accepted() {
    let settings = load("log.level = \"info, sqlx=debug ,rosterd::sync=trace\"", &[]).unwrap();
    assert_eq!(settings.log.level, "info,sqlx=debug,rosterd::sync=trace");
}

#[test]
fn empty_http_listen_turns_the_listener_off() {
    assert_eq!(load("http.listen = \"\"", &[]).unwrap().http.listen, None);
}

#[test]
fn default_data_dir_without_home_is_refused_only_for_a_local_database() {
    let none = BTreeMap::new();
    let refused = Settings::load(None, &none).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "database.data_dir is \"~/.local/share/rosterd/postgres\" (from the built-in defaults); \
         HOME is not set, so give a path without ~"
    );
    let env = [("DATABASE_URL".to_owned(), "postgres://localhost/roster".to_owned())];
    assert!(Settings::load(None, &env.into_iter().collect()).is_ok());
}

#[test]
fn value_with_an_at_sign_is_not_shown() {
    assert_refused(
        "",
        &[("ROSTERD__HARVEST__BASE_URL", "https://me:canary@h.test")],
        "harvest.base_url is text with an @ (not shown) (from ROSTERD__HARVEST__BASE_URL); \
         give a URL without user, password, ? and #",
    );
}

/// Any text, and more often text that is likely to cause errors.
fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9a-z.,=\\[\\]{}\"~/:@%?#& -]{0,24}",
        "-?[0-9]{1,25}(ns|ms|s|m|h|d|y|years)?"
    ]
}

proptest! {
    #[test]
    fn any_text_in_any_variable_loads_or_is_refused_with_the_variable(key in 0usize..64, text in odd_text()) {
        let mut names: Vec<_> = layers::merge(None, &variables(&[]), &mut Findings::default())
            .values
            .keys()
            .map(|key| variable(key))
            .collect();
        let short = ["HARVEST_ACCOUNT_ID", "HARVEST_ACCESS_TOKEN", "RUST_LOG", "DATABASE_URL"];
        names.extend(short.map(str::to_owned));
        let name = &names[key % names.len()];
        if let Err(refused) = load("", &[(name, &text)]) {
            prop_assert!(refused.faults().iter().all(|fault| fault.contains(name.as_str())), "{refused}");
        }
    }
}

#[test]
fn poll_interval_auto_is_a_range() {
    let interval = |text| load("", &[("ROSTERD__SYNC__POLL_INTERVAL", text)]).unwrap().sync.poll_interval;
    assert_eq!(interval("auto"), PollInterval::AUTO);
    assert_eq!(
        (interval("auto").to_string(), interval("90s").to_string()),
        ("5s to 1m".into(), "1m 30s".into())
    );
}

#[test]
fn scim_needs_public_url_tokens_tls_and_its_own_address() {
    let complete = [
        ("ROSTERD__SCIM__LISTEN", "127.0.0.1:8081"),
        ("ROSTERD__SCIM__PUBLIC_URL", "https://scim.test/"),
        ("ROSTERD__SCIM__TOKENS_FILE", "~/tokens"),
    ];
    let settings = load("", &complete).unwrap();
    assert_eq!(settings.scim.public_url.unwrap().as_str().trim_end_matches('/'), "https://scim.test");
    assert_eq!(settings.scim.tokens_file.unwrap(), PathBuf::from("/home/jo/tokens"));
    let needed = "scim.listen (from ROSTERD__SCIM__LISTEN) needs it; set both";
    assert_eq!(
        faults("", &complete[..1]),
        ["public_url", "tokens_file"]
            .map(|key| format!("scim.{key} is \"\" (from the built-in defaults); {needed}"))
    );
    let with = |key, value| [&complete[1..], &[(key, value)]].concat();
    let fault = &faults("", &with("ROSTERD__SCIM__LISTEN", "0.0.0.0:8081"))[0];
    assert!(fault.contains("without TLS") && fault.contains("scim.allow_plain_http"), "{fault}");
    let fault = &faults("", &with("ROSTERD__SCIM__LISTEN", "127.0.0.1:8080"))[0];
    assert!(fault.contains("give another address than http.listen"), "{fault}");
    let plain = [
        ("ROSTERD__SCIM__LISTEN", "0.0.0.0:8081"),
        ("ROSTERD__SCIM__PUBLIC_URL", "http://scim.test"),
        ("ROSTERD__SCIM__TOKENS_FILE", "/tokens"),
        ("ROSTERD__SCIM__ALLOW_PLAIN_HTTP", "true"),
    ];
    load("", &plain).unwrap();
}

#[test]
fn ping_url_must_be_https_or_loopback_and_is_not_shown() {
    let dir = SettingsDir::new();
    let load = |url: &str| {
        let file = dir.write("ping", url);
        Settings::load(None, &variables(&[("ROSTERD__MONITORING__PING_URL_FILE", file.to_str().unwrap())]))
    };
    for url in ["https://hc.test/canary", "https://hc.test/canary?create=1\n", "http://127.0.0.1:9/canary"] {
        let settings = load(url).unwrap();
        assert_eq!(settings.monitoring.ping_url.as_ref().unwrap().expose_secret(), url.trim_end());
        assert!(!format!("{settings:?}").contains("canary"));
    }
    for url in [
        "canary",
        "http://hc.test/canary",
        "https://a:canary@hc.test",
        "https://hc.test/#canary",
        "ftp://canary",
    ] {
        let error = load(url).unwrap_err().to_string();
        assert!(error.contains("monitoring.ping_url_file") && error.contains("https URL"), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
    assert!(super::load("", &[]).unwrap().monitoring.ping_url.is_none());
}
