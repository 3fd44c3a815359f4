//! The sources of settings and their order.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::settings::{layers, reader::Reader, validate};

#[test]
fn defaults_without_file_and_environment_are_valid() {
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
    assert_eq!((settings.log.format, settings.log.level.as_str()), (None, "info"));
    assert!(settings.warnings.is_empty() && settings.accounts().is_empty());
}

#[test]
fn keys_of_the_reference_and_keys_that_are_read_are_the_same() {
    let mut findings = Findings::default();
    let layers = layers::merge(None, &variables(&[]), &mut findings);
    let mut reader = Reader::new(&layers.values, String::new(), Some("/home/jo"), findings);
    validate::settings(&mut reader, &variables(&[]), (Vec::new(), None));
    let documented: Vec<_> = layers.values.keys().map(String::as_str).collect();
    assert_eq!(reader.keys(), documented);
    assert!(reader.into_findings().faults.is_empty());
}

#[test]
fn keys_of_the_reference_each_have_a_comment() {
    let lines: Vec<_> = layers::DEFAULTS.lines().collect();
    let mut count = 0;
    for pair in lines.windows(2).filter(|pair| !pair[1].starts_with(['#', '[']) && !pair[1].is_empty()) {
        count += 1;
        assert!(pair[0].starts_with("# "), "{} has no comment above it", pair[1]);
    }
    assert_eq!(count, layers::merge(None, &variables(&[]), &mut Findings::default()).values.len());
    assert!(lines.iter().all(|line| line.len() <= 120));
}

#[test]
fn example_accounts_of_the_reference_are_valid() {
    let lines = layers::DEFAULTS.lines().skip_while(|line| !line.starts_with("# [[accounts]]"));
    let dir = SettingsDir::new();
    let text: Vec<_> = lines.map(|line| line.trim_start_matches('#').trim_start()).collect();
    let secret = dir.write("secret", "s3cret").display().to_string();
    let text = ["/run/secrets/harvest-token", "/run/secrets/client", "/run/secrets/first"]
        .into_iter()
        .fold(text.join("\n").replace('…', "x"), |text, path| text.replace(path, &secret));
    let settings = Settings::load(Some(&dir.write("roster.toml", &text)), &variables(&[])).unwrap();
    assert_eq!(
        settings.accounts().iter().map(|account| account.id).collect::<Vec<_>>(),
        [123_456, 234_567, 345_678]
    );
}

#[test]
fn environment_overrides_the_file_and_the_file_overrides_the_defaults() {
    let file = "[sync]\npoll_interval = \"5s\"\nskew_buffer = \"9s\"\ndeletion_guard = { fraction = 1 }";
    let env = [("ROSTERD__SYNC__POLL_INTERVAL", "7s"), ("ROSTERD__DATABASE__MIGRATE", "false")];
    let settings = load(file, &env).unwrap();
    assert_eq!(settings.sync.poll_interval, Duration::from_secs(7).into());
    assert_eq!(settings.sync.skew_buffer, Duration::from_secs(9));
    assert_eq!((settings.sync.deletion_guard.fraction, settings.sync.deletion_guard.at_least), (1.0, 5));
    assert!(!settings.database.migrate);
}

#[test]
fn empty_variable_counts_as_unset() {
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
fn file_of_the_command_line_is_read_instead_of_the_file_of_the_environment() {
    let dir = SettingsDir::new();
    let (one, other) = (dir.write("one", "lease.ttl = \"11s\""), dir.write("other", "lease.ttl = \"12s\""));
    let env = variables(&[("ROSTERD_CONFIG", other.to_str().unwrap())]);
    assert_eq!(Settings::load(Some(&one), &env).unwrap().lease.ttl, Duration::from_secs(11));
    assert_eq!(Settings::load(None, &env).unwrap().lease.ttl, Duration::from_secs(12));
    let error = Settings::load(None, &variables(&[("ROSTERD_CONFIG", "/not/there.toml")])).unwrap_err();
    assert!(
        error.to_string().starts_with("the file /not/there.toml (named by ROSTERD_CONFIG) cannot be read: ")
    );
}

#[test]
fn short_and_long_name_with_different_values_are_refused() {
    let long = "ROSTERD__HARVEST__BASE_URL";
    let same = load("", &[("HARVEST_BASE_URL", "https://h.test/v2/"), (long, "https://h.test/v2/")]).unwrap();
    assert_eq!(same.harvest.base_url.as_str(), "https://h.test/v2");
    assert_refused(
        "",
        &[("HARVEST_BASE_URL", "https://h.test/v2"), (long, "https://i.test/v2")],
        "HARVEST_BASE_URL and ROSTERD__HARVEST__BASE_URL are the same setting but differ; keep one of them",
    );
    assert_refused(
        "",
        &[("DATABASE_URL", "postgres://localhost/a"), ("ROSTERD__DATABASE__URL", "postgres://localhost/b")],
        "DATABASE_URL and ROSTERD__DATABASE__URL are the same setting but differ; keep one of them",
    );
}

#[test]
fn rust_log_overrides_log_level_of_file_and_environment() {
    let settings =
        load("log.level = \"warn\"", &[("RUST_LOG", "debug"), ("ROSTERD__LOG__LEVEL", "trace")]).unwrap();
    assert_eq!(settings.log.level, "debug");
}

#[test]
fn file_with_a_syntax_error_is_refused_with_the_line_number_and_not_the_line() {
    let found = faults("[[accounts]]\nid = 1\naccess_token = \"canary\n", &[]);
    assert!(found[0].starts_with("the file roster.toml is not valid TOML in line 3: "), "{found:?}");
    assert!(!found[0].contains("canary"));
}

#[test]
fn settings_with_several_faults_report_all_of_them() {
    let found = faults(
        "sync.poll_interval = \"banana\"\nlease.tll = \"15s\"\n[[accounts]]\nid = 7\n\
         [rates]\nmirror = false\nhistories = true",
        &[("ROSTERD__RATE_LIMIT__RESERVE", "100"), ("DATABASE_URL", "mysql://x")],
    );
    assert_eq!(found.len(), 6, "{found:#?}");
    let error = SettingsError(Findings { faults: found, warnings: Vec::new() });
    assert_eq!(error.to_string().lines().count(), 6);
}

#[test]
fn variables_that_are_not_utf8_are_refused_only_if_rosterd_reads_them() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    let not_utf8 = || OsString::from_vec(vec![0xff]);
    let all = [("PATH".into(), not_utf8()), ("HARVEST_ACCESS_TOKEN".into(), not_utf8())];
    let error = crate::settings::environment::variables(all.into_iter()).unwrap_err();
    assert_eq!(error.to_string(), "HARVEST_ACCESS_TOKEN is not UTF-8 text; set it to UTF-8 text or unset it");
}
