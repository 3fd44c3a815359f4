//! Keys that are not settings, and variables that rosterd does not read.

use super::*;
use crate::settings::environment::variable;

#[test]
fn unknown_key_is_refused_with_its_source_and_a_suggestion() {
    for (key, value, sentence) in [
        ("sync.poll_intervall", "\"60s\"", "is not a setting; did you mean sync.poll_interval?"),
        (
            "sync.deletion_guard.fractoin",
            "0.5",
            "is not a setting; did you mean sync.deletion_guard.fraction?",
        ),
        ("poll_interval", "\"60s\"", "is not a setting; did you mean sync.poll_interval?"),
        ("lease.banana", "1", "is not a setting; known keys: lease.ttl"),
        ("sync.poll_interval.a", "1", "is not a setting; did you mean sync.poll_interval?"),
        ("lease", "1", "is a section, not a value; set one of its keys: lease.ttl"),
    ] {
        let in_file = format!("{key} (from the file roster.toml) {sentence}");
        assert_refused(&format!("{key} = {value}"), &[], &in_file);
        let name = variable(key);
        assert_refused("", &[(&name, "1")], &format!("{key} (from {name}) {sentence}"));
    }
    assert_refused(
        "[lasagne]",
        &[],
        "lasagne (from the file roster.toml) is not a setting; known sections: \
         database, harvest, http, lease, log, monitoring, outbox, rate_limit, rates, retention, scim, sync, write",
    );
    assert!(load("[sync]\n[sync.deletion_guard]", &[]).is_ok(), "an empty section is not a fault");
}

#[test]
fn variables_of_kubernetes_and_other_programs_are_ignored() {
    // Kubernetes adds these to pods, for services with the names `rosterd` and `harvest-sim`.
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
fn misspelt_variable_gives_a_warning_with_the_right_name() {
    for (name, advice) in [
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
        assert_eq!(warnings, [format!("rosterd does not read the variable {name}; {advice}")]);
    }
    assert!(load("", &[("HARVEST_TOKEN", "")]).unwrap().warnings.is_empty());
}

#[test]
fn misspelt_variable_is_named_with_the_fault_that_it_causes() {
    let env = [("HARVEST_ACCOUNT_ID", "7"), ("HARVEST_TOKEN", "canary")];
    let error = load("", &env).unwrap_err();
    assert_eq!(
        error.to_string(),
        "account 7 (from HARVEST_ACCOUNT_ID) has no credential; give an access token, its file, or OAuth2\n\
         warning: rosterd does not read the variable HARVEST_TOKEN; did you mean HARVEST_ACCESS_TOKEN?"
    );
    let settings = load("", &[("HARVEST_ACCOUNT", "7")]).unwrap();
    let error = settings.require_accounts().unwrap_err().to_string();
    assert!(error.contains("HARVEST_ACCOUNT; did you mean HARVEST_ACCOUNT_ID?"), "{error}");
}
