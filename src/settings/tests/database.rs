//! The URL of the database.

use super::*;

#[test]
fn database_url_file_is_read_under_each_of_its_three_names() {
    let dir = SettingsDir::new();
    let file = dir.write("url", "postgres://localhost/roster\n");
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
    assert_refused(
        "",
        &[("DATABASE_URL", "postgres://a:canary@localhost/r"), ("ROSTERD__DATABASE__URL_FILE", path)],
        "database.url (from DATABASE_URL) and database.url_file (from ROSTERD__DATABASE__URL_FILE) are both \
         given; keep one of them",
    );
    let settings = load(&by_key, &[("DATABASE_URL", "postgres://localhost/other")]).unwrap();
    assert_eq!(settings.database.url.unwrap().expose_secret(), "postgres://localhost/other");
    let settings =
        load("database.url = \"postgres://localhost/other\"", &[("DATABASE_URL_FILE", path)]).unwrap();
    assert_eq!(settings.database.url.unwrap().expose_secret(), "postgres://localhost/roster");
    assert_refused(
        "",
        &[("DATABASE_URL_FILE", "/not/there")],
        "database.url_file (from DATABASE_URL_FILE) names the file /not/there, which cannot be read: \
         No such file or directory (os error 2); name a text file that this user may read",
    );
}

#[test]
fn database_url_with_a_remote_host_requires_tls() {
    let remote = "postgres://me:p%40ss@db.test:5433/roster";
    for (given, expected) in [
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
        let warned = settings
            .warnings
            .iter()
            .filter(|warning| warning.contains("rosterd uses sslmode=require"))
            .count();
        assert_eq!(warned, usize::from(expected.is_some()), "{given}");
        assert!(!settings.warnings.concat().contains("p%40ss"));
        assert_eq!(settings.database.url.unwrap().expose_secret(), expected.as_ref().unwrap_or(&given));
    }
}

#[test]
fn postgresql_variables_count_as_parts_of_the_database_url() {
    let url = "postgres://db.test/roster";
    for (name, value, url, expected) in [
        ("PGSSLMODE", "verify-full", url, url),
        ("PGSSLMODE", "nonsense", url, "postgres://db.test/roster?sslmode=require"),
        ("PGHOST", "db.test", "postgres:///roster", "postgres:///roster?sslmode=require"),
    ] {
        let settings = load("", &[("DATABASE_URL", url), (name, value)]).unwrap();
        assert_eq!(settings.database.url.unwrap().expose_secret(), expected);
    }
}

#[test]
fn unknown_parameter_of_the_database_url_is_removed_with_a_warning() {
    let url = "postgres://localhost/roster?pasword=canary&application_name=rosterd-2";
    let settings = load("", &[("DATABASE_URL", url)]).unwrap();
    assert_eq!(
        settings.warnings,
        ["database.url (from DATABASE_URL) has the parameter \"pasword\", \
             which rosterd does not know; rosterd ignores it"]
    );
    let url = settings.database.url.unwrap();
    assert_eq!(url.expose_secret(), "postgres://localhost/roster?application_name=rosterd-2");
}

/// The URL parser takes everything after a `?` or `#` in the password for a query or a fragment.
#[test]
fn password_with_a_question_mark_is_not_shown_as_a_parameter() {
    for password in ["12?canary", "12?a=canary", "12?canary&x=", "12?sslmode=canary", "12#canary"] {
        let url = format!("postgres://me:{password}@db.test/roster");
        let output = match load("", &[("DATABASE_URL", &url)]) {
            Ok(settings) => settings.warnings.join("\n"),
            Err(error) => error.to_string(),
        };
        assert!(!output.contains("canary"), "{output}");
    }
}

#[test]
fn database_url_that_is_not_postgresql_is_refused_and_not_shown() {
    for url in ["mysql://me:canary@db/x", "canary", "host=db password=canary"] {
        assert_refused(
            "",
            &[("DATABASE_URL", url)],
            "database.url (from DATABASE_URL) is not a PostgreSQL URL; \
             give one such as postgres://user@host/database",
        );
    }
    assert_refused(
        "",
        &[("DATABASE_URL", "postgres://me:canary@db/x?sslmode=on")],
        "database.url (from DATABASE_URL) has sslmode \"on\"; give require, verify-ca, verify-full or disable",
    );
}

#[test]
fn download_needs_a_bare_url_and_the_64_digits_of_a_checksum() {
    let digits = "0123456789ABCDEF".repeat(4);
    let toml =
        format!("database.download_sha256 = {digits:?}\ndatabase.download_url = \"http://mirror.test/pg/\"");
    let database = load(&toml, &[]).unwrap().database;
    assert_eq!(database.download_sha256, Some(digits.to_lowercase()));
    assert_eq!(database.download_url.as_str(), "http://mirror.test/pg");
    assert!(database.download);
    assert_refused(
        "database.download_sha256 = \"sha256:0123\"",
        &[],
        "database.download_sha256 is \"sha256:0123\" (from the file roster.toml); \
         give the 64 hexadecimal digits that sha256sum prints",
    );
    assert_refused(
        "",
        &[("ROSTERD__DATABASE__DOWNLOAD_URL", "mirror.test/pg")],
        "database.download_url is \"mirror.test/pg\" (from ROSTERD__DATABASE__DOWNLOAD_URL); \
         give a URL such as \"https://mirror.example.com/postgresql\"",
    );
}
