//! Secrets: the database's URL and the accounts' credentials.

use super::*;

fn token(account: &Account) -> &str {
    match &account.credential {
        Credential::Token(token) => token.expose_secret(),
        Credential::OAuth { .. } => panic!("account {} should have a token", account.id),
    }
}

#[test]
fn one_account_comes_from_the_environment() {
    let settings = load("", &[("HARVEST_ACCOUNT_ID", "7"), ("HARVEST_ACCESS_TOKEN", "t0ken")]).unwrap();
    let [account] = settings.require_accounts().unwrap() else { panic!("one account") };
    assert_eq!((account.id, token(account)), (7, "t0ken"));
}

#[test]
fn without_an_account_only_those_who_need_one_complain() {
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
fn oauth2_comes_from_file_or_environment_and_its_first_refresh_token_may_come_later() {
    let desk = Desk::new();
    let secret = desk.write("client", "sec\n");
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
fn the_environment_overrides_the_credentials_of_the_same_account_and_adds_another() {
    let desk = Desk::new();
    let present = desk.write("token", "f").display().to_string();
    // Overridden, the file's credential is not even looked at.
    for (path, id, ids) in [("/not/there", "7", vec![7]), (&present, "8", vec![7, 8])] {
        let file = format!("[[accounts]]\nid = 7\naccess_token_file = {path:?}");
        let settings = load(&file, &[("HARVEST_ACCOUNT_ID", id), ("HARVEST_ACCESS_TOKEN", "e")]).unwrap();
        assert_eq!(settings.accounts().iter().map(|account| account.id).collect::<Vec<_>>(), ids);
        assert_eq!(token(settings.accounts().last().unwrap()), "e");
    }
    let alone = load("[[accounts]]\nid = 7\naccess_token = \"f\"", &[("HARVEST_ACCOUNT_ID", "7")]).unwrap();
    assert_eq!(token(&alone.accounts()[0]), "f");
}

#[test]
fn accounts_that_cannot_work_are_refused() {
    let account = |rest: &str| format!("[[accounts]]\nid = 7\n{rest}");
    for (file, sentence) in [
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
        (
            account("access_token = \"a\"\n") + &account("access_token = \"b\""),
            "account 7 (F) is there twice; keep one of the sections",
        ),
        (
            "[[accounts]]\naccess_token = \"canary\"".to_owned(),
            "accounts[0].id (F) is missing; give the number of the Harvest account",
        ),
        (
            "[[accounts]]\nid = \"7\"\naccess_token = \"canary\"".to_owned(),
            "accounts[0].id (F) is not an account's number; give a positive whole number, unquoted",
        ),
        (
            "[accounts]\nid = 7".to_owned(),
            "accounts (F) is not a list; begin each account with a line [[accounts]]",
        ),
        ("accounts = [7]".to_owned(), "accounts[0] (F) is not a section; write [[accounts]] above its keys"),
    ] {
        let found = faults(&file, &[]);
        assert!(!found.concat().contains("canary"), "{found:?}");
        assert_eq!(found, [sentence.replace("(F)", "(from the file roster.toml)")]);
    }
}

/// As `docker --env-file` (moby/moby#12997), files saved on Windows and copies from a chat leave them.
#[test]
fn quotes_and_white_space_around_a_secret_are_left_out_with_a_warning() {
    let ways: [fn(&str) -> String; 6] = [
        |it| format!("\"{it}\""),
        |it| format!("'{it}'"),
        |it| format!("{it}\r"),
        |it| format!("  {it}\n"),
        |it| format!(" '\"{it} \"'\t"),
        |it| format!("\u{201c}{it}\u{201d}"),
    ];
    let clean = [
        ("HARVEST_ACCOUNT_ID", "7"),
        ("HARVEST_OAUTH_CLIENT_ID", "a"),
        ("HARVEST_OAUTH_CLIENT_SECRET", "s3cret"),
        ("HARVEST_OAUTH_REFRESH_TOKEN", "fr3sh"),
        ("DATABASE_URL", "postgres://me:p@localhost/r"),
    ];
    for way in ways {
        let unclean = clean.map(|(name, value)| (name, way(value)));
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
        let desk = Desk::new();
        let path = desk.write("token", &way("t0ken"));
        let named = [("HARVEST_ACCOUNT_ID", "7"), ("HARVEST_ACCESS_TOKEN_FILE", path.to_str().unwrap())];
        assert_eq!(token(&load("", &named).unwrap().accounts()[0]), "t0ken");
        // A JSON string is one of TOML, too.
        let quoted = serde_json::to_string(&way("t0ken")).unwrap();
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
fn variables_that_make_no_account_are_refused() {
    for (env, sentence) in [
        (
            vec![("HARVEST_ACCESS_TOKEN", "canary")],
            "HARVEST_ACCESS_TOKEN is set without HARVEST_ACCOUNT_ID; set both",
        ),
        (
            vec![("HARVEST_ACCOUNT_ID", "canary"), ("HARVEST_ACCESS_TOKEN", "7")],
            "HARVEST_ACCOUNT_ID is not an account's number; give a positive whole number",
        ),
        (
            vec![("HARVEST_ACCOUNT_ID", "-7"), ("HARVEST_ACCESS_TOKEN", "canary")],
            "HARVEST_ACCOUNT_ID is not an account's number; give a positive whole number",
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
        refused("", &env, sentence);
    }
}

#[test]
fn the_databases_url_may_be_in_a_file_by_any_of_three_names() {
    let desk = Desk::new();
    let file = desk.write("url", "postgres://localhost/roster\n");
    let path = file.to_str().unwrap();
    let by_key = format!("database.url_file = {path:?}");
    for (toml, env) in [
        (by_key.as_str(), vec![]),
        ("", vec![("DATABASE_URL_FILE", path)]),
        ("", vec![("ROSTERD__DATABASE__URL_FILE", path)]),
    ] {
        let url = load(toml, &env).unwrap().database.url.unwrap();
        assert_eq!(url.expose_secret(), "postgres://localhost/roster");
    }
    refused(
        "",
        &[("DATABASE_URL", "postgres://a:canary@localhost/r"), ("ROSTERD__DATABASE__URL_FILE", path)],
        "database.url (from DATABASE_URL) and database.url_file (from ROSTERD__DATABASE__URL_FILE) are both \
         given; keep one of them",
    );
    let later_wins = load(&by_key, &[("DATABASE_URL", "postgres://localhost/other")]).unwrap();
    assert_eq!(later_wins.database.url.unwrap().expose_secret(), "postgres://localhost/other");
    let later_wins =
        load("database.url = \"postgres://localhost/other\"", &[("DATABASE_URL_FILE", path)]).unwrap();
    assert_eq!(later_wins.database.url.unwrap().expose_secret(), "postgres://localhost/roster");
    refused(
        "",
        &[("DATABASE_URL_FILE", "/not/there")],
        "database.url_file (from DATABASE_URL_FILE) names the file /not/there, which cannot be read: \
         No such file or directory (os error 2); name a text file that this user may read",
    );
}

#[test]
fn tls_is_required_on_any_way_that_leaves_this_machine() {
    let remote = "postgres://me:p%40ss@db.test:5433/roster";
    for (given, becomes) in [
        (remote.to_owned(), Some(format!("{remote}?sslmode=require"))),
        (format!("{remote}?sslmode=allow"), Some(format!("{remote}?sslmode=require"))),
        (
            format!("{remote}?ssl-mode=Prefer&options=-c%20a%3Db"),
            Some(format!("{remote}?options=-c+a%3Db&sslmode=require")),
        ),
        (format!("{remote}?sslmode=require"), None),
        (format!("{remote}?sslmode=verify-full"), None),
        (format!("{remote}?sslmode=disable"), None),
        ("postgres://localhost/roster".to_owned(), None),
        ("postgres://me@127.0.0.2/roster?sslmode=prefer".to_owned(), None),
        ("postgresql://[::1]/roster".to_owned(), None),
        ("postgres:///roster".to_owned(), None),
        ("postgres://%2Fvar%2Frun%2Fpostgresql/roster".to_owned(), None),
        ("postgres:///roster?host=/var/run/postgresql".to_owned(), None),
        (
            "postgres:///roster?host=db.test".to_owned(),
            Some("postgres:///roster?host=db.test&sslmode=require".to_owned()),
        ),
        (
            "postgres://localhost/roster?hostaddr=10.0.0.1".to_owned(),
            Some("postgres://localhost/roster?hostaddr=10.0.0.1&sslmode=require".to_owned()),
        ),
        (
            "postgres://[fd00::1]/roster".to_owned(),
            Some("postgres://[fd00::1]/roster?sslmode=require".to_owned()),
        ),
    ] {
        let settings = load("", &[("DATABASE_URL", &given)]).unwrap();
        let warned =
            settings.warnings.iter().filter(|warning| warning.contains("sslmode=require is used")).count();
        assert_eq!(warned, usize::from(becomes.is_some()), "{given}");
        assert!(!settings.warnings.concat().contains("p%40ss"));
        assert_eq!(settings.database.url.unwrap().expose_secret(), becomes.as_ref().unwrap_or(&given));
    }
}

#[test]
fn what_postgresqls_own_variables_say_is_not_absent() {
    let url = "postgres://db.test/roster";
    for (name, value, url, becomes) in [
        ("PGSSLMODE", "verify-full", url, url),
        ("PGSSLMODE", "nonsense", url, "postgres://db.test/roster?sslmode=require"),
        ("PGHOST", "db.test", "postgres:///roster", "postgres:///roster?sslmode=require"),
    ] {
        let settings = load("", &[("DATABASE_URL", url), (name, value)]).unwrap();
        assert_eq!(settings.database.url.unwrap().expose_secret(), becomes);
    }
}

#[test]
fn a_parameter_that_would_be_logged_with_its_value_is_left_out_with_a_warning() {
    let url = "postgres://localhost/roster?pasword=canary&application_name=rosterd-2";
    let settings = load("", &[("DATABASE_URL", url)]).unwrap();
    assert_eq!(
        settings.warnings,
        ["database.url (from DATABASE_URL) has the parameter \"pasword\", \
             which means nothing here and is left out"]
    );
    let url = settings.database.url.unwrap();
    assert_eq!(url.expose_secret(), "postgres://localhost/roster?application_name=rosterd-2");
}

/// A password with a `?` ends the URL's front part.
#[test]
fn the_end_of_a_password_is_no_parameter_to_be_repeated() {
    for password in ["12?canary", "12?a=canary", "12?canary&x=", "12?sslmode=canary", "12#canary"] {
        let url = format!("postgres://me:{password}@db.test/roster");
        let said = match load("", &[("DATABASE_URL", &url)]) {
            Ok(settings) => settings.warnings.join("\n"),
            Err(refused) => refused.to_string(),
        };
        assert!(!said.contains("canary"), "{said}");
    }
}

#[test]
fn what_is_no_database_is_refused_unseen() {
    for url in ["mysql://me:canary@db/x", "canary", "host=db password=canary"] {
        refused(
            "",
            &[("DATABASE_URL", url)],
            "database.url (from DATABASE_URL) is not a PostgreSQL URL; \
             give one such as postgres://user@host/database",
        );
    }
    refused(
        "",
        &[("DATABASE_URL", "postgres://me:canary@db/x?sslmode=on")],
        "database.url (from DATABASE_URL) has sslmode \"on\"; give require, verify-ca, verify-full or disable",
    );
}

#[test]
fn debug_shows_no_secret() {
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
