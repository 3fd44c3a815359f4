//! Attacks from Harvest's side or by a Harvest user. docs/SECURITY.md names these tests.

use std::convert::Infallible;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use axum::body::{Body, Bytes};
use flate2::{Compress, Compression, FlushCompress};
use futures::StreamExt;
use harvest_sim::{Company, Fault, Options, Sim};
use serde_json::{Value, json};

use crate::program::{Daemon, Program};
use crate::scene::Scene;
use crate::world::World;

const JSON: (&str, &str) = ("content-type", "application/json");
const MIB: usize = 1 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A daemon, and a Harvest in whose place a test answers.
struct AttackedDaemon {
    scene: Scene,
    daemon: Daemon,
}

impl AttackedDaemon {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let mut program = scene.program();
        program
            .set("RUST_LOG", "debug")
            .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "5s")
            .set("ROSTERD__RATE_LIMIT__REQUESTS", "10000")
            // The daemon polls only after SIGHUP.
            .set("ROSTERD__SYNC__POLL_INTERVAL", "10m");
        let mut daemon = program.start();
        daemon.until("cycle.finished").await;
        Self { scene, daemon }
    }

    /// Answers the next list like this, waits for the event and returns its error.
    async fn poll_with_answer(
        &mut self,
        headers: &[(&'static str, &str)],
        body: impl Into<Body>,
        event: &str,
    ) -> String {
        self.scene.answer_once("updated_since", 200, headers, body);
        self.daemon.signal("-HUP");
        self.daemon.until(event).await["error"].to_string()
    }

    /// The same, and expects that the next cycle succeeds.
    async fn survives_answer(
        &mut self,
        headers: &[(&'static str, &str)],
        body: impl Into<Body>,
        event: &str,
    ) -> String {
        let error = self.poll_with_answer(headers, body, event).await;
        self.daemon.signal("-HUP");
        self.daemon.until("cycle.finished").await;
        error
    }

    /// The daemon's peak memory in bytes.
    #[cfg(target_os = "linux")]
    fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

/// About a megabyte of gzip: a page that begins correctly and continues with a gibibyte of spaces.
fn decompression_bomb() -> Vec<u8> {
    let mut deflate = Compress::new(Compression::fast(), false);
    let mut packed = |bytes: &[u8]| {
        let mut out = Vec::with_capacity(MIB);
        deflate.compress_vec(bytes, &mut out, FlushCompress::Full).unwrap();
        out
    };
    let (start, spaces) = (packed(br#"{"users":[ "#), packed(" ".repeat(MIB).as_bytes()));
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    [header.as_slice(), &start, &spaces.repeat(1024)].concat()
}

/// A body of the maximum length that rosterd reads. Its many small parts take more memory once they are decoded.
fn longest_body(start: &str, part: impl Fn(usize) -> String, end: &str) -> String {
    let mut body = String::with_capacity(8 * MIB);
    body.push_str(start);
    for n in 0.. {
        let part = part(n);
        if body.len() + part.len() + end.len() > 8 * MIB {
            break;
        }
        body.push_str(&part);
    }
    body + end
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_answers_neither_stop_the_daemon_nor_exhaust_its_memory() {
    let mut attacked = AttackedDaemon::new().await;
    let failed = "cycle.failed";
    let error =
        attacked.survives_answer(&[JSON, ("content-encoding", "gzip")], decompression_bomb(), failed).await;
    assert!(error.contains("longer than 8 MiB"), "{error}");
    let endless = futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 16 << 10])));
    let error = attacked.survives_answer(&[JSON], Body::from_stream(endless), failed).await;
    assert!(error.contains("longer than 8 MiB"), "{error}");
    let stalled = futures::stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"{\"users\":[")) });
    let stalled = Body::from_stream(stalled.chain(futures::stream::pending()));
    attacked.survives_answer(&[JSON], stalled, "harvest.retried").await;

    let many = longest_body(r#"{"users":[0"#, |_| ",0".to_owned(), "]}");
    let error = attacked.survives_answer(&[JSON], many, failed).await;
    assert!(error.contains("more than was asked for"), "{error}");
    let keys = longest_body(r#"{"users":[]"#, |n| format!(r#","{n}":0"#), "}");
    attacked.survives_answer(&[JSON], keys, "cycle.finished").await;
    let long = longest_body(r#"{"users":[{"id":77,"is_active":true,"new":[0"#, |_| ",0".to_owned(), "]}]}");
    attacked.survives_answer(&[JSON], long, "record.rejected").await;
    let deep = longest_body(r#"{"users":["#, |_| "[".to_owned(), "");
    attacked.survives_answer(&[JSON], deep, failed).await;
    let text = "x".repeat(4000);
    let user = |n| json!({ "id": n + 900_000, "is_active": true, "first_name": text }).to_string() + ",";
    let full = longest_body(r#"{"users":["#, user, r#"{"id":78,"is_active":true}],"links":{"next":null}}"#);
    attacked.poll_with_answer(&[JSON], full, "cycle.finished").await;

    #[cfg(target_os = "linux")]
    {
        let limit = fs::read_to_string(root().join("deploy/kubernetes/deployment.yaml")).unwrap();
        assert!(limit.contains("memory: 256Mi"));
        let peak = attacked.peak_memory() / MIB;
        assert!(peak < 256, "{peak} MiB");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Sim::start(Company::new(), Options::default()).await.unwrap();
    let mut attacked = AttackedDaemon::new().await;
    let location = format!("{}/users", elsewhere.base_url());
    for status in [301, 302, 303, 307, 308] {
        attacked.scene.answer_once("updated_since", status, &[("location", &location)], "");
        attacked.daemon.signal("-HUP");
        let error = attacked.daemon.until("cycle.failed").await["error"].to_string();
        assert!(error.contains("it redirects, which is not followed"), "{error}");
    }
    assert!(elsewhere.requests().is_empty());
}

/// Each page has a new cursor and no new record.
#[tokio::test]
async fn endless_pages_fail_the_cycle() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(2, 250, 10), options).await;
    let first = format!("{}/users?per_page=100", world.sim.base_url());
    let pages = std::sync::atomic::AtomicUsize::new(0);
    let add_next_link = move |page: &mut Value| {
        let n = pages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        page["links"]["next"] = format!("{first}&n={n}").into();
    };
    world.sim.inject(Fault::edit_body(add_next_link).on("/users?").forever());
    assert!(world.try_cycle().await.outcome.is_err());
    assert!(world.sim.requests().len() < 10);
}

const MALICIOUS_NAMES: [&str; 7] = [
    "Robert'); DROP TABLE roster.users; --",
    "$1 {} %s \\ \" ' `id` $(id)",
    "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m",
    "Ada\n{\"level\":\"ERROR\",\"event\":\"panic\"}\r\n",
    "\u{202e}nimda\u{2066}\u{2028}",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
];

#[track_caller]
fn expect_no_control_characters(output: &str) {
    let is_unsafe = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!output.contains(is_unsafe), "{output:?}");
}

/// Each line of the log is one JSON entry of rosterd's.
#[track_caller]
fn expect_json_log(output: &str) {
    expect_no_control_characters(output);
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(entry["timestamp"].is_string() && entry["event"] != "panic", "{line}");
    }
}

#[tokio::test]
async fn malicious_names_are_stored_and_printed_as_data() {
    let scene = Scene::new().await;
    let users = scene.sim.user_ids();
    for (user, name) in users.iter().zip(MALICIOUS_NAMES) {
        scene.sim.edit_user(*user, |user| {
            name.clone_into(&mut user.first_name);
            user.roles = vec![name.to_owned()];
            drop(user.extra.insert(name.to_owned(), name.into()));
        });
    }
    let (nul, long) = (users[MALICIOUS_NAMES.len()], users[MALICIOUS_NAMES.len() + 1]);
    scene.sim.edit_user(nul, |user| "a\0b".clone_into(&mut user.last_name));
    scene.sim.edit_user(long, |user| user.last_name = "x".repeat(MIB));
    for project in scene.sim.project_ids() {
        scene.sim.rename_project(project, MALICIOUS_NAMES[2]);
    }
    let company = MALICIOUS_NAMES[2..5].concat();
    scene.sim.inject(Fault::set_field("name", company).on("/company").forever());

    let mut program = scene.program();
    program.set("RUST_LOG", "debug");
    for (arguments, code) in [
        (&["sync", "--dry-run", "--values"][..], 0),
        (&["sync"], 0),
        (&["verify", "--values"], 1),
        (&["check"], 0),
        (&["check", "--json"], 0),
        (&["status"], 0),
        (&["status", "--json"], 0),
        (&["explain", "user", &users[2].to_string()], 0),
        (&["outbox", "tail"], 0),
    ] {
        let called = program.call(arguments).await;
        called.expect(code);
        expect_no_control_characters(&called.stdout());
        expect_json_log(&called.stderr());
    }
    for (user, name) in users.iter().zip(MALICIOUS_NAMES) {
        let row: (String, Vec<String>, Value) =
            sqlx::query_as("SELECT first_name, roles, raw FROM roster.users WHERE id = $1")
                .bind(user.0)
                .fetch_one(scene.store.pool())
                .await
                .unwrap();
        assert_eq!((row.0.as_str(), &row.1[..], &row.2[name]), (name, &[name.to_owned()][..], &json!(name)));
    }
    let rejected: Vec<(i64, String)> = sqlx::query_as(
        "SELECT record_id, error FROM roster.rejected_records WHERE resource = 'users' ORDER BY 1",
    )
    .fetch_all(scene.store.pool())
    .await
    .unwrap();
    let reasons = ["holds a NUL character, which PostgreSQL cannot store", "is longer than 1 MiB"];
    assert_eq!(rejected, [(nul.0, reasons[0].to_owned()), (long.0, reasons[1].to_owned())]);
    // The log in the pretty format.
    let mut pretty = scene.program();
    let called = pretty.set("RUST_LOG", "debug").call(&["--log-format", "pretty", "sync", "--full"]).await;
    expect_no_control_characters(&called.expect(0).stderr());
}

/// A core file would contain the token.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn crash_leaves_no_core_file() {
    let attacked = AttackedDaemon::new().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", attacked.daemon.child.id())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[tokio::test]
async fn world_readable_secret_file_is_used_with_a_warning() {
    let scene = Scene::new().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{}", scene.sim.token()).unwrap();
    let mut program: Program = scene.program();
    program.set("HARVEST_ACCESS_TOKEN", "").set("HARVEST_ACCESS_TOKEN_FILE", file.path().to_str().unwrap());
    let warning = "which every user of this machine may read";
    for (mode, warned) in [("600", false), ("644", true)] {
        assert!(Command::new("chmod").arg(mode).arg(file.path()).status().unwrap().success());
        let called = program.call(&["sync"]).await;
        assert_eq!(called.expect(0).stderr().contains(warning), warned, "{}", called.stderr());
        assert!(!called.stderr().contains(&scene.sim.token()));
    }
}

/// The page names tests as `path::name`.
#[test]
fn security_page_names_only_existing_tests() {
    let page = fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let named: Vec<(PathBuf, &str)> = page
        .split('`')
        .filter_map(|word| word.split_once(".rs::"))
        .map(|(path, name)| (root().join(format!("{path}.rs")), name))
        .collect();
    assert!(named.len() > 30, "{named:?}");
    for (path, name) in named {
        let source = fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {}", path.display()));
        let before = source.split(&format!("fn {name}(")).next().unwrap();
        assert!(before.len() < source.len(), "no function {name} in {}", path.display());
        let attributes = before.rsplit("\n\n").next().unwrap();
        assert!(
            attributes.contains("#[test]") || attributes.contains("#[tokio::test"),
            "{name} is not a test"
        );
    }
}
