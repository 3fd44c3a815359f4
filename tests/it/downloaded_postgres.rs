//! The private PostgreSQL on a machine without server programs: they are downloaded once, verified, and complete or absent.

mod archive;
mod host;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use rosterd::download::{DownloadError, Report};
use rosterd::store::local::{DownloadOptions, LocalError, LocalOptions, LocalPostgres};
use rosterd::telemetry::chain;
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};
use tokio::net::TcpListener;
use tokio::time::timeout;

use self::archive::{sha256, tar_gz, this_machines_programs};
use self::host::{Answer, Host};

/// A machine without PostgreSQL, and the options of its private server.
struct BareMachine {
    home: tempfile::TempDir,
    options: LocalOptions,
}

impl BareMachine {
    fn new(url: &str, sha256: &str) -> Self {
        // Open to all users, because root runs the server as another user.
        let home = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let sha256 = Some(sha256.to_owned());
        let download = DownloadOptions { url: url.parse().unwrap(), sha256, dir: None, report: Report::Log };
        let data_dir = home.path().canonicalize().unwrap().join("postgres");
        let options = LocalOptions {
            durable: false,
            download: Some(download),
            use_installed: false,
            ..LocalOptions::new(data_dir)
        };
        Self { home, options }
    }

    fn programs(&self) -> PathBuf {
        self.options.data_dir.join("programs")
    }

    async fn start(&self) -> LocalPostgres {
        LocalPostgres::start(&self.options).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Starts, which must fail with one sentence that has these words, and must leave no file of the download.
    async fn fails(&self, words: &[&str]) -> LocalError {
        let error = LocalPostgres::start(&self.options).await.unwrap_err();
        let text = chain(&error);
        for word in ["apt install postgresql", "database.download_url", "DATABASE_URL"].iter().chain(words) {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
        assert!(!text.contains("postgresql-17"), "a URL's path is in {text:?}");
        self.expect_nothing_left();
        error
    }

    fn expect_nothing_left(&self) {
        let entries = fs::read_dir(self.programs()).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["lock"]);
    }
}

async fn answer(local: &LocalPostgres) -> i32 {
    let mut connection = PgConnection::connect(local.url().expose_secret()).await.unwrap();
    sqlx::query_scalar("SELECT 6 * 7").fetch_one(&mut connection).await.unwrap()
}

/// An archive without a server, for failures before it is run.
fn small_archive() -> Vec<u8> {
    tar_gz(&[("pg/bin/postgres", b"#!/bin/sh\nexit 1\n"), ("pg/bin/initdb", b""), ("pg/bin/pg_ctl", b"")])
}

#[tokio::test]
async fn private_postgresql_starts_from_programs_that_are_downloaded_once() {
    let archive = this_machines_programs();
    // As at GitHub, the address redirects to another one.
    let host = Host::start(Answer::Redirected(archive.clone())).await;
    let machine = BareMachine::new(&host.url(), &sha256(archive));
    for _ in 0..2 {
        let local = machine.start().await;
        assert_eq!(answer(&local).await, 42);
        local.stop().await.unwrap();
    }
    assert_eq!(host.archives_sent(), 1);
    let requested = host.first_path();
    assert!(requested.starts_with("/releases/17."), "{requested}");
    assert!(requested.ends_with(".tar.gz") && requested.contains("/postgresql-17."), "{requested}");
    assert_eq!(fs::read_dir(machine.programs()).unwrap().count(), 2, "a lock and one set of programs");
}

#[tokio::test]
async fn processes_that_start_at_once_download_once() {
    let archive = this_machines_programs();
    let host = Host::start(Answer::Sent(archive.clone())).await;
    let (mut first, mut second) =
        (BareMachine::new(&host.url(), &sha256(archive)), BareMachine::new(&host.url(), &sha256(archive)));
    let shared = first.home.path().canonicalize().unwrap().join("shared");
    for machine in [&mut first, &mut second] {
        machine.options.download.as_mut().unwrap().dir = Some(shared.clone());
    }
    let (one, other) = tokio::join!(first.start(), second.start());
    assert_eq!((answer(&one).await, answer(&other).await), (42, 42));
    assert_eq!(host.archives_sent(), 1);
    assert!(!first.programs().exists() && !second.programs().exists());
}

#[tokio::test]
async fn wrong_checksum_removes_the_archive_and_names_both_checksums() {
    let archive = small_archive();
    let (expected, actual) = ("ab".repeat(32), sha256(&archive));
    let host = Host::start(Answer::Sent(archive)).await;
    BareMachine::new(&host.url(), &expected).fails(&["127.0.0.1 has the SHA-256", &expected, &actual]).await;
}

#[tokio::test]
async fn cut_body_stalled_start_and_refusals_leave_nothing_and_the_next_start_works() {
    let archive = this_machines_programs();
    let host = Host::start(Answer::Cut(archive.clone())).await;
    let machine = BareMachine::new(&host.url(), &sha256(archive));
    let half = format!("after {} bytes of {}", archive.len() / 2, archive.len());
    machine.fails(&["127.0.0.1 ended the download", &half, "try again"]).await;

    host.answers(Answer::Refused);
    machine.fails(&["127.0.0.1 answered 404 Not Found; check that it has this archive"]).await;

    // The start is cancelled after half of the body arrived.
    host.answers(Answer::Stalled(archive.clone()));
    let start = LocalPostgres::start(&machine.options);
    tokio::select! {
        ended = start => panic!("{ended:?}"),
        () = host.stalled() => {}
    }
    machine.expect_nothing_left();

    host.answers(Answer::Sent(archive.clone()));
    assert_eq!(answer(&machine.start().await).await, 42);
}

#[tokio::test]
async fn refused_connection_names_the_host_and_the_proxy_variables() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let machine = BareMachine::new(&url, &"ab".repeat(32));
    let error = machine.fails(&["cannot reach 127.0.0.1", "HTTPS_PROXY", "Connection refused"]).await;
    let LocalError::Download(DownloadError::Unreachable { .. }) = error else { panic!("{error:?}") };
}

#[tokio::test]
async fn entry_that_leaves_the_directory_is_refused_and_writes_nothing() {
    for archive in [archive::with_path("../../escaped"), archive::with_path("/tmp/rosterd-escaped")]
        .into_iter()
        .chain(["/etc", "../../.."].map(archive::with_link_and_file_behind_it))
    {
        let host = Host::start(Answer::Sent(archive.clone())).await;
        let machine = BareMachine::new(&host.url(), &sha256(&archive));
        machine.fails(&["cannot be unpacked", "outside of the directory"]).await;
        let entries = fs::read_dir(machine.home.path()).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["postgres"]);
        assert!(!machine.options.data_dir.join("escaped").exists());
    }
}

#[tokio::test]
async fn body_that_is_no_archive_is_refused() {
    let text = b"<html>Please log in to this network.</html>".to_vec();
    let cut = small_archive()[..60].to_vec();
    for body in [text, cut] {
        let host = Host::start(Answer::Sent(body.clone())).await;
        BareMachine::new(&host.url(), &sha256(&body)).fails(&["cannot be unpacked: it is damaged"]).await;
    }
}

#[tokio::test]
async fn directory_without_the_right_to_write_is_named() {
    let host = Host::start(Answer::Sent(small_archive())).await;
    let machine = BareMachine::new(&host.url(), &sha256(&small_archive()));
    // A file at its place refuses root too. The other file marks the directory as one of rosterd's.
    fs::create_dir(&machine.options.data_dir).unwrap();
    fs::set_permissions(&machine.options.data_dir, Permissions::from_mode(0o755)).unwrap();
    fs::write(machine.options.data_dir.join("users"), "").unwrap();
    fs::write(machine.programs(), "").unwrap();
    let error = LocalPostgres::start(&machine.options).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains(machine.programs().to_str().unwrap()), "{text}");
    assert!(text.contains("rosterd's user may"), "{text}");
    assert_eq!(host.archives_sent(), 0);
}

/// On Linux, `/dev/full` refuses each byte as a full disk does.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_disk_is_named_and_leaves_nothing() {
    let host = Host::start(Answer::Delayed(small_archive())).await;
    let machine = BareMachine::new(&host.url(), &sha256(&small_archive()));
    let start = machine.fails(&["cannot write", "check that the disk has space", "No space left on device"]);
    let fill = async {
        // rosterd removes what a killed process left, so the link is made while the request is in progress.
        host.requested().await;
        symlink("/dev/full", machine.programs().join("archive.part")).unwrap();
        host.proceed();
    };
    tokio::join!(start, fill);
}

#[tokio::test]
async fn nothing_is_requested_or_created_if_the_settings_forbid_the_download() {
    let host = Host::start(Answer::Sent(small_archive())).await;
    let mut machine = BareMachine::new(&host.url(), &sha256(&small_archive()));
    machine.options.download = None;
    let error = LocalPostgres::start(&machine.options).await.unwrap_err();
    let text = error.to_string();
    for word in ["database.download is false", "apt install postgresql", "DATABASE_URL"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(!machine.options.data_dir.exists());
    assert_eq!(host.archives_sent(), 0);
}

#[tokio::test]
async fn downloaded_programs_that_do_not_run_are_kept_and_the_error_shows_their_output() {
    let program =
        b"#!/bin/sh\necho 'libxml2.so.2: cannot open shared object file' >&2\nexit 127\n".as_slice();
    let archive = tar_gz(&[("pg/bin/postgres", program), ("pg/bin/initdb", b""), ("pg/bin/pg_ctl", b"")]);
    let host = Host::start(Answer::Sent(archive.clone())).await;
    let machine = BareMachine::new(&host.url(), &sha256(&archive));
    for _ in 0..2 {
        let start = timeout(Duration::from_mins(1), LocalPostgres::start(&machine.options));
        let text = start.await.unwrap().unwrap_err().to_string();
        assert!(text.contains("libxml2.so.2: cannot open") && text.contains("does not run"), "{text}");
    }
    assert_eq!(host.archives_sent(), 1);
}
