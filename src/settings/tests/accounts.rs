//! Accounts and their credentials.

use super::*;

fn token(account: &Account) -> &str {
    match &account.credential {
        Credential::Token(token) => token.expose_secret(),
        Credential::OAuth { .. } => panic!("account {} should have a token", account.id),
    }
}

#[test]
fn account_in_the_environment_is_read() {
    let settings = load("", &[("HARVEST_ACCOUNT_ID", "7"), ("HARVEST_ACCESS_TOKEN", "t0ken")]).unwrap();
    let [account] = settings.require_accounts().unwrap() else { panic!("one account") };
    assert_eq!((account.id, token(account)), (7, "t0ken"));
}

#[test]
fn settings_without_an_account_fail_only_if_an_account_is_required() {
    let settings = load("", &[]).unwrap();
    assert!(settings.accounts().is_empty());
    assert!(
        settings
            .require_accounts()
            .unwrap_err()
            .to_string()
            .starts_with("no account is set; set HARVEST_ACC")
    );
}

#[test]
fn oauth2_application_in_file_or_environment_needs_no_refresh_token() {
    let dir = SettingsDir::new();
    let secret = dir.write("client", "sec\n");
    let file = format!(
        "[[accounts]]\nid = 1\n\
         oauth = {{ client_id = \"a\", client_secret_file = {secret:?}, refresh_token = \"r\" }}"
    );
    let env = [
        ("HARVEST_ACCOUNT_ID", "2"),
        ("HARVEST_OAUTH_CLIENT_ID", "b"),
        ("HARVEST_OAUTH_CLIENT_SECRET", "tes"),
    ];
    let settings = load(&file, &env).unwrap();
    let found: Vec<_> = settings
        .accounts()
        .iter()
        .map(|account| match &account.credential {
            Credential::OAuth { client_id, client_secret, refresh_token } => (
                account.id,
                client_id.as_str(),
                client_secret.expose_secret(),
                refresh_token.as_ref().map(ExposeSecret::expose_secret),
            ),
            Credential::Token(_) => panic!("OAuth2 was given"),
        })
        .collect();
    assert_eq!(found, [(1, "a", "sec", Some("r")), (2, "b", "tes", None)]);
}

#[test]
fn account_in_the_environment_overrides_the_same_account_of_the_file_or_is_added() {
    let dir = SettingsDir::new();
    let present = dir.write("token", "f").display().to_string();
    // The credential of the file is not read if the environment overrides it.
    for (path, id, ids) in [("/not/there", "7", vec![7]), (&present, "8", vec![7, 8])] {
        let file = format!("[[accounts]]\nid = 7\naccess_token_file = {path:?}");
        let settings = load(&file, &[("HARVEST_ACCOUNT_ID", id), ("HARVEST_ACCESS_TOKEN", "e")]).unwrap();
        assert_eq!(settings.accounts().iter().map(|account| account.id).collect::<Vec<_>>(), ids);
        assert_eq!(token(settings.accounts().last().unwrap()), "e");
    }
    let id_alone =
        load("[[accounts]]\nid = 7\naccess_token = \"f\"", &[("HARVEST_ACCOUNT_ID", "7")]).unwrap();
    assert_eq!(token(&id_alone.accounts()[0]), "f");
}

#[test]
fn account_of_the_file_with_an_incomplete_or_ambiguous_credential_is_refused() {
    for (file, fault) in [
        (account(""), "account 7 (F) has no credential; give an access token, its file, or OAuth2"),
        (
            account("access_token = \"\""),
            "account 7 (F) has no credential; give an access token, its file, or OAuth2",
        ),
        (
            account("access_token = \"canary\"\noauth = { client_id = \"a\", client_secret = \"canary\" }"),
            "account 7 (F) has both an access token and OAuth2; keep one of them",
        ),
        (
            account("access_token = \"canary\"\naccess_token_file = \"/canary\""),
            "accounts[0].access_token (F) and accounts[0].access_token_file (F) are both given; keep one of them",
        ),
        (
            account("oauth = { client_secret = \"canary\" }"),
            "account 7 (F) has no OAuth2 client id; give client id and client secret",
        ),
        (
            account("oauth = { client_id = \"a\", refresh_token = \"canary\" }"),
            "account 7 (F) has no OAuth2 client secret; give client id and client secret",
        ),
    ] {
        assert_refused_without_secret(&file, fault);
    }
}

#[test]
fn account_of_the_file_with_an_unusable_value_is_refused() {
    for (file, fault) in [
        (
            account("access_tokn = \"canary\""),
            "accounts[0].access_tokn (F) is not a setting; did you mean accounts[0].access_token?",
        ),
        (account("access_token = 5"), "accounts[0].access_token (F) must be text in quotes"),
        (
            account("access_token = \"can ary\""),
            "accounts[0].access_token (F) is empty or holds spaces, line breaks, quotes or letters that no token \
             has; copy it again",
        ),
        (
            account("access_token = \"'\""),
            "accounts[0].access_token (F) is empty or holds spaces, line breaks, quotes or letters that no token \
             has; copy it again",
        ),
        (
            account("access_token = \"''\""),
            "accounts[0].access_token (F) is empty or holds spaces, line breaks, quotes or letters that no token \
             has; copy it again",
        ),
        (
            account("oauth = { client_id = \"a b\", client_secret = \"canary\" }"),
            "accounts[0].oauth.client_id (F) is empty or holds spaces, line breaks, quotes or letters that no \
             token has; copy it again",
        ),
    ] {
        assert_refused_without_secret(&file, fault);
    }
}

#[test]
fn account_of_the_file_without_a_unique_id_is_refused() {
    for (file, fault) in [
        (
            account("access_token = \"a\"\n") + &account("access_token = \"b\""),
            "account 7 (F) is configured twice; keep one of the sections",
        ),
        (
            "[[accounts]]\naccess_token = \"canary\"".to_owned(),
            "accounts[0].id (F) is missing; give the id of the Harvest account",
        ),
        (
            "[[accounts]]\nid = \"7\"\naccess_token = \"canary\"".to_owned(),
            "accounts[0].id (F) is not an account id; give a positive whole number without quotes",
        ),
        (
            "[accounts]\nid = 7".to_owned(),
            "accounts (F) is not a list; begin each account with a line [[accounts]]",
        ),
        ("accounts = [7]".to_owned(), "accounts[0] (F) is not a section; write [[accounts]] above its keys"),
    ] {
        assert_refused_without_secret(&file, fault);
    }
}

fn account(rest: &str) -> String {
    format!("[[accounts]]\nid = 7\n{rest}")
}

/// `(F)` in `fault` stands for the source.
#[track_caller]
fn assert_refused_without_secret(file: &str, fault: &str) {
    let found = faults(file, &[]);
    assert!(!found.concat().contains("canary"), "{found:?}");
    assert_eq!(found, [fault.replace("(F)", "(from the file roster.toml)")]);
}

/// `docker --env-file` (moby/moby#12997), Windows editors and chat programs add quotes or white space.
#[test]
fn secret_with_quotes_or_white_space_is_cleaned_with_a_warning() {
    let quoted: [fn(&str) -> String; 6] = [
        |text| format!("\"{text}\""),
        |text| format!("'{text}'"),
        |text| format!("{text}\r"),
        |text| format!("  {text}\n"),
        |text| format!(" '\"{text} \"'\t"),
        |text| format!("\u{201c}{text}\u{201d}"),
    ];
    let clean = [
        ("HARVEST_ACCOUNT_ID", "7"),
        ("HARVEST_OAUTH_CLIENT_ID", "a"),
        ("HARVEST_OAUTH_CLIENT_SECRET", "s3cret"),
        ("HARVEST_OAUTH_REFRESH_TOKEN", "fr3sh"),
        ("DATABASE_URL", "postgres://me:p@localhost/r"),
    ];
    for quote in quoted {
        let unclean = clean.map(|(name, value)| (name, quote(value)));
        let settings = load("", &unclean.each_ref().map(|(name, value)| (*name, value.as_str()))).unwrap();
        let [Account { id: 7, credential }] = settings.accounts() else { panic!("account 7") };
        let Credential::OAuth { client_id, client_secret, refresh_token } = credential else {
            panic!("OAuth2 was given")
        };
        let refresh_token = refresh_token.as_ref().unwrap().expose_secret();
        assert_eq!(
            (client_id.as_str(), client_secret.expose_secret(), refresh_token),
            ("a", "s3cret", "fr3sh")
        );
        assert_eq!(settings.database.url.unwrap().expose_secret(), clean[4].1);
        assert_eq!(settings.warnings.len(), clean.len());
        for (name, _) in clean {
            let warning =
                format!("{name} has quotes or white space around its value; rosterd leaves them out");
            assert!(settings.warnings.contains(&warning), "{:?}", settings.warnings);
        }
        let dir = SettingsDir::new();
        let path = dir.write("token", &quote("t0ken"));
        let named = [("HARVEST_ACCOUNT_ID", "7"), ("HARVEST_ACCESS_TOKEN_FILE", path.to_str().unwrap())];
        assert_eq!(token(&load("", &named).unwrap().accounts()[0]), "t0ken");
        // A JSON string is also a TOML string.
        let quoted = serde_json::to_string(&quote("t0ken")).unwrap();
        let settings = load(&format!("[[accounts]]\nid = 7\naccess_token = {quoted}"), &[]).unwrap();
        assert_eq!(token(&settings.accounts()[0]), "t0ken");
        let [warning] = settings.warnings.as_slice() else { panic!("{:?}", settings.warnings) };
        assert!(
            warning.starts_with("accounts[0].access_token (from the file ")
                && warning.ends_with(" has quotes or white space around its value; rosterd leaves them out"),
            "{warning}"
        );
    }
}

#[test]
fn variables_with_an_incomplete_or_ambiguous_account_are_refused() {
    for (env, fault) in [
        (
            vec![("HARVEST_ACCESS_TOKEN", "canary")],
            "HARVEST_ACCESS_TOKEN is set without HARVEST_ACCOUNT_ID; set both",
        ),
        (
            vec![("HARVEST_ACCOUNT_ID", "canary"), ("HARVEST_ACCESS_TOKEN", "7")],
            "HARVEST_ACCOUNT_ID is not an account id; give a positive whole number",
        ),
        (
            vec![("HARVEST_ACCOUNT_ID", "-7"), ("HARVEST_ACCESS_TOKEN", "canary")],
            "HARVEST_ACCOUNT_ID is not an account id; give a positive whole number",
        ),
        (
            vec![("HARVEST_ACCOUNT_ID", "7")],
            "account 7 (from HARVEST_ACCOUNT_ID) has no credential; \
             give an access token, its file, or OAuth2",
        ),
        (
            vec![
                ("HARVEST_ACCOUNT_ID", "7"),
                ("HARVEST_ACCESS_TOKEN", "canary"),
                ("HARVEST_ACCESS_TOKEN_FILE", "/canary"),
            ],
            "HARVEST_ACCESS_TOKEN and HARVEST_ACCESS_TOKEN_FILE are both given; keep one of them",
        ),
        (
            vec![
                ("HARVEST_ACCOUNT_ID", "7"),
                ("HARVEST_ACCESS_TOKEN", "canary"),
                ("HARVEST_OAUTH_CLIENT_ID", "a"),
            ],
            "account 7 (from HARVEST_ACCOUNT_ID) has both an access token and OAuth2; keep one of them",
        ),
        (
            vec![("ROSTERD__ACCOUNTS__0__ACCESS_TOKEN", "canary")],
            "ROSTERD__ACCOUNTS__0__ACCESS_TOKEN cannot be set: [[accounts]] is read from the settings file \
             only; for one account set HARVEST_ACCOUNT_ID and HARVEST_ACCESS_TOKEN",
        ),
    ] {
        assert_refused("", &env, fault);
    }
}

#[test]
fn debug_output_contains_no_secret() {
    let file = "[[accounts]]\nid = 1\naccess_token = \"canary\"\n[[accounts]]\nid = 2\n\
                oauth = { client_id = \"app\", client_secret = \"canary\", refresh_token = \"canary\" }";
    let env = [
        ("DATABASE_URL", "postgres://canary:canary@db.test/roster?password=canary&x=canary"),
        ("ROSTERD__HARVEST__USER_AGENT_CONTACT", "canary@example.com"),
    ];
    let settings = load(file, &env).unwrap();
    assert_eq!(settings.accounts().len(), 2);
    let shown = format!("{settings:#?}");
    assert!(shown.contains("skew_buffer: 60s") && !shown.contains("canary"), "{shown}");
}
