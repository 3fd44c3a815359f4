//! A database that rosterd cannot use: each cause has its own error, without a wait, and exit code 78. An unreachable
//! database has exit code 69.

use std::fs;
use std::process::Command;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use url::Url;

use crate::cluster::Cluster;
use crate::program::{Called, Program};
use crate::scene::small_company;

/// Less than the pool's connection timeout, and much less than `run` waits for an unreachable server.
const ERROR_LIMIT: Duration = Duration::from_secs(9);

/// The cluster's URL with another user, password and database.
fn url(cluster: &Cluster, user: &str, password: &str, database: &str) -> Url {
    let mut url = Url::parse(cluster.url()).unwrap();
    url.set_username(user).unwrap();
    url.set_password(Some(password)).unwrap();
    url.set_path(database);
    url
}

/// Expects each of these phrases in the output, and no password, library text or PostgreSQL source position.
#[track_caller]
fn expect_error(called: &Called, code: i32, phrases: &[&str]) {
    let output = format!("{}{}", called.expect(code).stdout(), called.stderr());
    for phrase in phrases {
        assert!(output.contains(phrase), "no {phrase:?} in\n{output}");
    }
    for phrase in
        ["hunter2", "at line", "pool timed out", "error returned from database", "OtherError", "✓ database"]
    {
        assert!(!output.contains(phrase), "{phrase:?} in\n{output}");
    }
}

/// Every command that needs the database exits with 78 and these phrases.
async fn expect_refused(url: &str, phrases: &[&str]) {
    let sim = small_company().await;
    let program = Program::new(&sim, url);
    for command in ["check", "sync", "migrate", "run"] {
        let start = Instant::now();
        let called = program.call(&[command]).await;
        expect_error(&called, 78, phrases);
        assert!(start.elapsed() < ERROR_LIMIT, "{command} took {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn refused_login_names_server_database_and_user() {
    let cluster = Cluster::new().await;
    let hba = cluster.data().join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("host all ghost all trust\nhost all blocked all reject\n{rules}")).unwrap();
    cluster.reload().await;
    cluster.execute("CREATE ROLE jo LOGIN PASSWORD 'hunter2'").await;
    cluster.execute("CREATE DATABASE closed").await;
    cluster.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC").await;
    let server = Url::parse(cluster.url()).unwrap();
    let server = format!("{}:{}", server.host_str().unwrap(), server.port().unwrap());
    let cases = [
        ("jo", "wrong-hunter2", "postgres", "refused the password"),
        ("ghost", "hunter2", "postgres", "has no such role"),
        ("blocked", "hunter2", "postgres", "pg_hba.conf"),
        ("jo", "hunter2", "absent", "CREATE DATABASE \"absent\""),
        ("jo", "hunter2", "closed", "GRANT CONNECT ON DATABASE \"closed\" TO \"jo\""),
    ];
    for (user, password, database, phrase) in cases {
        let (in_database, as_user) = (format!("database {database:?}"), format!("user {user:?}"));
        let url = url(&cluster, user, password, database);
        expect_refused(url.as_str(), &[phrase, &server, &in_database, &as_user]).await;
    }
}

#[tokio::test]
async fn missing_privilege_names_database_user_and_object() {
    let cluster = Cluster::new().await;
    cluster.execute("CREATE ROLE jo LOGIN PASSWORD 'hunter2'").await;
    let sim = small_company().await;
    let admin = Url::parse(cluster.url()).unwrap();
    let (port, database) = (admin.port().unwrap().to_string(), admin.path().trim_start_matches('/'));
    let program = Program::new(&sim, url(&cluster, "jo", "hunter2", database).as_str());
    let denied = format!("permission denied for database {database}");
    let phrases = ["lacks a privilege", denied.as_str(), "user \"jo\"", port.as_str()];
    expect_error(&program.call(&["sync"]).await, 78, &phrases);
    expect_error(&program.call(&["migrate"]).await, 78, &phrases);
    let checked = program.call(&["check"]).await;
    assert!(checked.expect(78).stdout().contains("✗ schema"), "{}", checked.stdout());

    Program::new(&sim, cluster.url()).call(&["sync"]).await.expect(0);
    cluster.execute("GRANT USAGE ON SCHEMA roster, directory, rosterd_internal TO jo").await;
    cluster.execute("GRANT SELECT ON ALL TABLES IN SCHEMA roster, directory, rosterd_internal TO jo").await;
    for command in [&["sync"][..], &["sync", "--dry-run"], &["verify"], &["check"], &["run"]] {
        let start = Instant::now();
        let called = program.call(command).await;
        let output = format!("{}{}", called.expect(78).stdout(), called.stderr());
        for phrase in ["may not write roster.accounts", "GRANT SELECT, INSERT", "user \"jo\"", &port] {
            assert!(output.contains(phrase), "no {phrase:?} in {output}");
        }
        assert!(start.elapsed() < ERROR_LIMIT, "{command:?} took {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn read_only_server_is_refused_by_commands_that_write() {
    let mut cluster = Cluster::new().await;
    cluster.execute("CREATE DATABASE frozen").await;
    cluster.execute("ALTER DATABASE frozen SET default_transaction_read_only = on").await;
    let mut frozen = Url::parse(cluster.url()).unwrap();
    frozen.set_path("frozen");
    let phrases = ["is read-only (default_transaction_read_only is on)", "database \"frozen\""];
    expect_refused(frozen.as_str(), &phrases).await;
    cluster.stop().await;
    let standby = cluster.copy(true).await;
    expect_refused(standby.url(), &["is read-only (it is a standby)", "primary"]).await;
}

/// Such a database would refuse names, or miss e-mail addresses.
#[tokio::test]
async fn database_that_cannot_hold_or_compare_every_text_is_refused() {
    let cluster = Cluster::new().await;
    for (name, options, phrase) in [
        ("latin1", "ENCODING 'LATIN1' LOCALE 'C'", "its encoding is not UTF-8"),
        ("ascii", "ENCODING 'SQL_ASCII' LOCALE 'C'", "its encoding is not UTF-8"),
        ("turkish", "ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'", "I to i"),
    ] {
        let created =
            cluster.try_execute(&format!("CREATE DATABASE {name} TEMPLATE template0 {options}")).await;
        if name == "turkish" && created.is_err() {
            println!("skipped: this server was built without ICU");
            continue;
        }
        created.unwrap();
        let mut url = Url::parse(cluster.url()).unwrap();
        url.set_path(name);
        expect_refused(url.as_str(), &[phrase, "create another database"]).await;
    }
}

#[tokio::test]
async fn bad_tls_file_is_named_with_its_path() {
    let (cluster, home) = (Cluster::new().await, tempfile::tempdir().unwrap());
    let junk = home.path().join("junk.pem");
    fs::write(&junk, "junk").unwrap();
    let absent = home.path().join("absent.pem");
    for (parameter, file, phrase) in [
        ("sslrootcert", absent.as_path(), "No such file"),
        ("sslrootcert", home.path(), "Is a directory"),
        ("sslrootcert", &junk, "not in PEM form"),
        ("sslcert", &absent, "No such file"),
    ] {
        let pair = if parameter == "sslcert" { "&sslkey=absent.key" } else { "" };
        let file = file.to_str().unwrap();
        let url = format!("{}?sslmode=verify-full&{parameter}={file}{pair}", cluster.url());
        expect_refused(&url, &[phrase, file, parameter]).await;
    }
    // Without verification rosterd does not read the file.
    let sim = small_company().await;
    let mut program = Program::new(&sim, &format!("{}?sslmode=disable", cluster.url()));
    program.set("PGSSLROOTCERT", absent.to_str().unwrap());
    program.call(&["migrate"]).await.expect(0);
}

#[tokio::test]
async fn unsupported_server_version_is_refused_by_every_command() {
    for version in ["14.2 (Debian 14.2-1)", "19.0"] {
        let port = serve_version(version).await;
        let url = format!("postgres://jo:hunter2@127.0.0.1:{port}/roster?sslmode=disable");
        let major = format!("runs version {}", version.split('.').next().unwrap());
        expect_refused(&url, &[&major, "supports PostgreSQL 15 to 18", &format!("127.0.0.1:{port}")]).await;
    }
}

/// Answers each connection with the start of a session of this version, because only a supported version is installed.
async fn serve_version(version: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let length = client.read_u32().await.unwrap();
            let mut startup = vec![0; length as usize - 4];
            client.read_exact(&mut startup).await.unwrap();
            let mut answer = vec![b'R', 0, 0, 0, 8, 0, 0, 0, 0, b'S'];
            let status = format!("server_version\0{version}\0");
            answer.extend((u32::try_from(status.len()).unwrap() + 4).to_be_bytes());
            answer.extend(status.as_bytes());
            answer.extend([b'K', 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1, b'Z', 0, 0, 0, 5, b'I']);
            client.write_all(&answer).await.unwrap();
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest).await;
        }
    });
    port
}

#[tokio::test]
async fn unreachable_server_exits_69_with_the_systems_message() {
    let sim = small_company().await;
    let program = Program::new(&sim, "postgres://jo:hunter2@127.0.0.1:1/roster");
    let phrases = [
        "cannot connect to PostgreSQL at 127.0.0.1:1 (database \"roster\", user \"jo\")",
        "Connection refused",
    ];
    for command in ["check", "sync", "migrate"] {
        expect_error(&program.call(&[command]).await, 69, &phrases);
    }
}

#[tokio::test]
async fn ca_certificate_of_a_server_is_refused_with_the_openssl_options_of_the_fix() {
    let (sim, cluster, home) = (small_company().await, Cluster::new().await, tempfile::tempdir().unwrap());
    let certificate = home.path().join("server.crt");
    let key = home.path().join("server.key");
    let make = async |additions: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-new",
            "-x509",
            "-days",
            "365",
            "-nodes",
            "-text",
            "-subj",
            "/CN=db.example.com",
        ]);
        let made =
            openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key).args(additions).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let read = |file| fs::read_to_string(file).unwrap();
        crate::tls::install(&cluster, &read(&certificate), &read(&key)).await;
    };
    make(&[]).await;
    let parameters = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
    let program = Program::new(&sim, &format!("{}?{parameters}", cluster.url()));
    let additions =
        ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"];
    for command in ["check", "sync"] {
        let phrases =
            ["is a CA certificate, as `openssl req -x509` makes", &additions.join(" "), "127.0.0.1:"];
        expect_error(&program.call(&[command]).await, 78, &phrases);
    }
    make(&additions).await;
    program.call(&["migrate"]).await.expect(0);
}

#[tokio::test]
async fn schema_or_table_of_another_role_fails_check_with_the_owners_name() {
    let (sim, cluster) = (small_company().await, Cluster::new().await);
    cluster.execute("CREATE ROLE jo LOGIN PASSWORD 'hunter2'").await;
    cluster.execute("CREATE ROLE crm").await;
    for database in ["with_schema", "with_table"] {
        cluster.execute(&format!("CREATE DATABASE {database} OWNER jo")).await;
    }
    let owned = |database| url(&cluster, "jo", "hunter2", database);
    let mut admin = Url::parse(cluster.url()).unwrap();
    let mut execute = async |database: &str, statements: &str| {
        admin.set_path(database);
        let mut connection = PgConnection::connect(admin.as_str()).await.unwrap();
        let statements = AssertSqlSafe(statements.to_owned());
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    };
    execute("with_schema", "CREATE SCHEMA roster AUTHORIZATION crm").await;
    execute(
        "with_table",
        "CREATE SCHEMA roster AUTHORIZATION jo;
         CREATE TABLE roster.users (id int); ALTER TABLE roster.users OWNER TO crm",
    )
    .await;
    let cases = [
        ("with_schema", "SCHEMA roster belongs to crm", "OWNER TO jo"),
        ("with_table", "TABLE roster.users exists and belongs to crm", "rename or drop it"),
    ];
    for (database, cause, advice) in cases {
        let program = Program::new(&sim, owned(database).as_str());
        let checked = program.call(&["check"]).await.expect(78).stdout();
        assert!(checked.contains("✗ schema") && !checked.contains("will migrate"), "{checked}");
        for phrase in [cause, advice, &format!("database {database:?}")] {
            assert!(checked.contains(phrase), "no {phrase:?} in {checked}");
        }
        expect_error(&program.call(&["migrate"]).await, 78, &[cause, advice]);
    }
}
