//! Where settings come from, and what is not one.

use super::*;
use crate::settings::{layers, reader::Reader, validate};

#[test]
fn the_defaults_stand_alone() {
    let settings = Settings::load(None, &variables(&[])).unwrap();
    assert!(settings.database.url.is_none());
    assert_eq!(settings.database.data_dir, PathBuf::from("/home/jo/.local/share/rosterd/postgres"));
    assert_eq!((settings.database.max_connections, settings.harvest.per_page), (5, 2000));
    assert_eq!(settings.database.statement_timeout, Duration::from_secs(30));
    assert_eq!(settings.harvest.base_url.as_str(), "https://api.harvestapp.com/v2");
    assert_eq!((settings.rate_limit.requests, settings.rate_limit.reserve), (100, 5));
    assert_eq!(
        (settings.rate_limit.window, settings.rate_limit.scope),
        (Duration::from_secs(15), Scope::Process)
    );
    assert_eq!(settings.sync.full_interval, Duration::from_hours(1));
    assert_eq!((settings.sync.deletion_guard.fraction, settings.sync.deletion_guard.at_least), (0.1, 5));
    assert_eq!(settings.outbox.retention, Duration::from_hours(30 * 24));
    assert_eq!(settings.retention.history, None);
    assert_eq!(settings.http.listen, Some(SocketAddr::from(([127, 0, 0, 1], 8080))));
    assert_eq!((settings.log.format, settings.log.level.as_str()), (LogFormat::Auto, "info"));
    assert!(settings.warnings.is_empty() && settings.accounts().is_empty());
}

#[test]
fn every_key_of_the_reference_is_read_and_every_key_read_is_in_the_reference() {
    let mut faults = Vec::new();
    let layers = layers::merge(None, &variables(&[]), &mut faults);
    let mut reader = Reader::new(&layers.values, faults);
    validate::read(&mut reader, &variables(&[]), (Vec::new(), None), Vec::new());
    let documented: Vec<_> = layers.values.keys().map(String::as_str).collect();
    assert_eq!(reader.asked().iter().copied().collect::<Vec<_>>(), documented);
    assert!(reader.into_faults().is_empty());
}

#[test]
fn every_key_of_the_reference_has_its_comment() {
    let lines: Vec<_> = layers::DEFAULTS.lines().collect();
    let mut keys = 0;
    for pair in lines.windows(2).filter(|pair| !pair[1].starts_with(['#', '[']) && !pair[1].is_empty()) {
        keys += 1;
        assert!(pair[0].starts_with("# "), "{} has no comment above it", pair[1]);
    }
    assert_eq!(keys, layers::merge(None, &variables(&[]), &mut Vec::new()).values.len());
    assert!(lines.iter().all(|line| line.len() <= 120));
}

#[test]
fn the_accounts_shown_in_the_reference_are_accounts() {
    let shown = layers::DEFAULTS.lines().skip_while(|line| !line.starts_with("# [[accounts]]"));
    let desk = Desk::new();
    let text: Vec<_> = shown.map(|line| line.trim_start_matches('#').trim_start()).collect();
    let secret = desk.write("secret", "s3cret").display().to_string();
    let text = ["/run/secrets/harvest-token", "/run/secrets/client", "/run/secrets/first"]
        .into_iter()
        .fold(text.join("\n").replace('…', "x"), |text, path| text.replace(path, &secret));
    let settings = Settings::load(Some(&desk.write("roster.toml", &text)), &variables(&[])).unwrap();
    assert_eq!(
        settings.accounts().iter().map(|account| account.id).collect::<Vec<_>>(),
        [123_456, 234_567, 345_678]
    );
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = "[sync]\npoll_interval = \"5s\"\nskew_buffer = \"9s\"\ndeletion_guard = { fraction = 1 }";
    let env = [("ROSTERD__SYNC__POLL_INTERVAL", "7s"), ("ROSTERD__DATABASE__MIGRATE", "false")];
    let settings = load(file, &env).unwrap();
    assert_eq!(settings.sync.poll_interval, Duration::from_secs(7).into());
    assert_eq!(settings.sync.skew_buffer, Duration::from_secs(9));
    assert_eq!((settings.sync.deletion_guard.fraction, settings.sync.deletion_guard.at_least), (1.0, 5));
    assert!(!settings.database.migrate);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let env = [
        ("ROSTERD_CONFIG", ""),
        ("ROSTERD__SYNC__POLL_INTERVAL", ""),
        ("ROSTERD__NO__SUCH", ""),
        ("RUST_LOG", ""),
        ("DATABASE_URL", ""),
        ("HARVEST_ACCOUNT_ID", ""),
        ("HARVEST_ACCESS_TOKEN", ""),
    ];
    let settings = Settings::load(None, &variables(&env)).unwrap();
    assert_eq!(
        (settings.sync.poll_interval, settings.log.level.as_str()),
        (Duration::from_mins(1).into(), "info")
    );
    assert!(settings.database.url.is_none() && settings.accounts().is_empty());
}

#[test]
fn the_file_is_the_one_named_on_the_command_line_else_in_the_environment() {
    let desk = Desk::new();
    let (one, other) = (desk.write("one", "lease.ttl = \"11s\""), desk.write("other", "lease.ttl = \"12s\""));
    let env = variables(&[("ROSTERD_CONFIG", other.to_str().unwrap())]);
    assert_eq!(Settings::load(Some(&one), &env).unwrap().lease.ttl, Duration::from_secs(11));
    assert_eq!(Settings::load(None, &env).unwrap().lease.ttl, Duration::from_secs(12));
    let refused = Settings::load(None, &variables(&[("ROSTERD_CONFIG", "/not/there.toml")])).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("the file /not/there.toml (named by ROSTERD_CONFIG) cannot be read: ")
    );
}

#[test]
fn an_unknown_key_is_refused_with_its_source_and_the_one_that_was_meant() {
    for (key, value, sentence) in [
        ("sync.poll_intervall", "\"60s\"", "is not a setting; did you mean sync.poll_interval?"),
        (
            "sync.deletion_guard.fractoin",
            "0.5",
            "is not a setting; did you mean sync.deletion_guard.fraction?",
        ),
        ("poll_interval", "\"60s\"", "is not a setting; did you mean sync.poll_interval?"),
        ("lease.banana", "1", "is not a setting; known there are lease.ttl"),
        ("sync.poll_interval.a", "1", "is not a setting; did you mean sync.poll_interval?"),
        ("lease", "1", "is a section, not a value; it has lease.ttl"),
    ] {
        let in_file = format!("{key} (from the file roster.toml) {sentence}");
        refused(&format!("{key} = {value}"), &[], &in_file);
        let name = format!("ROSTERD__{}", key.to_uppercase().replace('.', "__"));
        refused("", &[(&name, "1")], &format!("{key} (from {name}) {sentence}"));
    }
    refused(
        "[lasagne]",
        &[],
        "lasagne (from the file roster.toml) is not a setting; known there are \
         database, harvest, http, lease, log, outbox, rate_limit, rates, retention, sync",
    );
    assert!(load("[sync]\n[sync.deletion_guard]", &[]).is_ok(), "an empty section says nothing");
}

#[test]
fn variables_of_kubernetes_and_other_programs_are_not_ours() {
    // A service of the name `rosterd` or `harvest-sim` gives its pods these.
    let settings = load(
        "",
        &[
            ("ROSTERD_SERVICE_HOST", "10.0.0.1"),
            ("ROSTERD_PORT", "tcp://10.0.0.1:8080"),
            ("ROSTERD_SERVICE_PORT_HTTP", "8080"),
            ("ROSTERD_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("HARVEST_SIM_SERVICE_PORT", "4010"),
            ("HARVEST_SIM_PORT_4010_TCP", "tcp://10.0.0.1:4010"),
            ("ROSTERD_IMAGE", "rosterd:1"),
            ("ROSTERD_REVISION", "abc"),
            ("DATABASE_URLS", "x"),
        ],
    );
    assert_eq!(settings.unwrap().warnings, [""; 0]);
}

#[test]
fn misspelt_variable_is_warned_of_with_the_right_spelling() {
    for (name, meant) in [
        ("ROSTERD_SYNC_POLL_INTERVAL", "did you mean ROSTERD__SYNC__POLL_INTERVAL?"),
        ("ROSTERD_POLL_INTERVAL", "did you mean ROSTERD__SYNC__POLL_INTERVAL?"),
        ("ROSTERD_SYNC__POLL_INTERVALL", "did you mean ROSTERD__SYNC__POLL_INTERVAL?"),
        ("ROSTERD_DATABASE_URL", "did you mean DATABASE_URL?"),
        ("ROSTERD_HARVEST_ACCESS_TOKEN", "did you mean HARVEST_ACCESS_TOKEN?"),
        ("HARVEST_TOKEN", "did you mean HARVEST_ACCESS_TOKEN?"),
        ("HARVEST_PERSONAL_ACCESS_TOKEN", "did you mean HARVEST_ACCESS_TOKEN?"),
        ("HARVEST_ACOUNT_ID", "did you mean HARVEST_ACCOUNT_ID?"),
        ("HARVEST_ACCOUNT", "did you mean HARVEST_ACCOUNT_ID?"),
        ("HARVEST_URL", "did you mean HARVEST_BASE_URL?"),
        ("HARVEST_CLIENT_ID", "did you mean HARVEST_OAUTH_CLIENT_ID?"),
        ("HARVEST_USER_AGENT_CONTACT", "did you mean ROSTERD__HARVEST__USER_AGENT_CONTACT?"),
        (
            "HARVEST_COLOUR",
            "it reads HARVEST_ACCOUNT_ID, HARVEST_ACCESS_TOKEN, HARVEST_ACCESS_TOKEN_FILE, \
             HARVEST_OAUTH_CLIENT_ID, HARVEST_OAUTH_CLIENT_SECRET, HARVEST_OAUTH_CLIENT_SECRET_FILE, \
             HARVEST_OAUTH_REFRESH_TOKEN, HARVEST_OAUTH_REFRESH_TOKEN_FILE, HARVEST_BASE_URL",
        ),
    ] {
        let warnings = load("", &[(name, "canary")]).unwrap().warnings;
        assert_eq!(warnings, [format!("rosterd does not read the variable {name}; {meant}")]);
    }
    assert!(load("", &[("HARVEST_TOKEN", "")]).unwrap().warnings.is_empty());
}

#[test]
fn misspelt_variable_is_named_beside_the_fault_that_it_causes() {
    let env = [("HARVEST_ACCOUNT_ID", "7"), ("HARVEST_TOKEN", "canary")];
    let refused = load("", &env).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "account 7 (from HARVEST_ACCOUNT_ID) has no credential; give an access token, its file, or OAuth2\n\
         warning: rosterd does not read the variable HARVEST_TOKEN; did you mean HARVEST_ACCESS_TOKEN?"
    );
    let none = load("", &[("HARVEST_ACCOUNT", "7")]).unwrap();
    let refused = none.require_accounts().unwrap_err().to_string();
    assert!(refused.contains("HARVEST_ACCOUNT; did you mean HARVEST_ACCOUNT_ID?"), "{refused}");
}

#[test]
fn a_short_and_a_long_name_may_agree_but_not_differ() {
    let long = "ROSTERD__HARVEST__BASE_URL";
    let same = load("", &[("HARVEST_BASE_URL", "https://h.test/v2/"), (long, "https://h.test/v2/")]).unwrap();
    assert_eq!(same.harvest.base_url.as_str(), "https://h.test/v2");
    refused(
        "",
        &[("HARVEST_BASE_URL", "https://h.test/v2"), (long, "https://i.test/v2")],
        "HARVEST_BASE_URL and ROSTERD__HARVEST__BASE_URL are the same setting but differ; keep one of them",
    );
    refused(
        "",
        &[("DATABASE_URL", "postgres://localhost/a"), ("ROSTERD__DATABASE__URL", "postgres://localhost/b")],
        "DATABASE_URL and ROSTERD__DATABASE__URL are the same setting but differ; keep one of them",
    );
}

#[test]
fn rust_log_wins_over_log_level_wherever_that_was_set() {
    let settings =
        load("log.level = \"warn\"", &[("RUST_LOG", "debug"), ("ROSTERD__LOG__LEVEL", "trace")]).unwrap();
    assert_eq!(settings.log.level, "debug");
}

#[test]
fn a_file_that_is_not_toml_is_refused_by_its_line_without_quoting_it() {
    let found = faults("[[accounts]]\nid = 1\naccess_token = \"canary\n", &[]);
    assert!(found[0].starts_with("the file roster.toml is not valid TOML in line 3: "), "{found:?}");
    assert!(!found[0].contains("canary"));
}

#[test]
fn all_faults_are_told_at_once() {
    let found = faults(
        "sync.poll_interval = \"banana\"\nlease.tll = \"15s\"\n[[accounts]]\nid = 7\n\
         [rates]\nmirror = false\nhistories = true",
        &[("ROSTERD__RATE_LIMIT__RESERVE", "100"), ("DATABASE_URL", "mysql://x")],
    );
    assert_eq!(found.len(), 6, "{found:#?}");
    assert_eq!(SettingsError { faults: found, warnings: Vec::new() }.to_string().lines().count(), 6);
}

#[test]
fn variables_that_are_not_text_are_refused_only_if_they_are_ours() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    let garbage = || OsString::from_vec(vec![0xff]);
    let all = [("PATH".into(), garbage()), ("HARVEST_ACCESS_TOKEN".into(), garbage())];
    let refused = crate::settings::environment::variables(all.into_iter()).unwrap_err();
    assert_eq!(refused.to_string(), "HARVEST_ACCESS_TOKEN is not UTF-8 text");
}
