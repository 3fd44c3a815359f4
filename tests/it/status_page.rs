//! The status page of the real program: its headers and cost, and pictures by headless Chromium if it is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::time::{Duration, Instant, sleep};

use crate::program::{Daemon, Program, STUCK};
use crate::scene::Scene;

/// What is wrong on the pictures.
const ILL: &str = "
    INSERT INTO roster.accounts (account_id, free_at, last_full_at, holder)
    SELECT 234567, now() - interval '9 days', now(), id FROM roster.replicas;
    INSERT INTO roster.watermarks (account_id, resource, last_success_at)
    SELECT 234567, resource, now() - interval '2 hours 5 minutes' FROM (VALUES ('users'), ('user_assignments')) AS list (resource);
    UPDATE roster.accounts SET last_error = 'Harvest sent no response within 30 s' WHERE account_id <> 234567;
    INSERT INTO roster.consumers (name, stream_id, acked_seq)
    SELECT name, stream_id, mine.seq FROM roster.outbox_head, (VALUES ('access-review', 48), ('payroll', 60)) AS mine (name, seq);
    INSERT INTO roster.consumers (name, stream_id) VALUES ('identity-sync', gen_random_uuid());
    UPDATE roster.outbox SET recorded_at = now() - (70 - seq) * interval '17 minutes' - seq % 7 * interval '1 minute'";

async fn started(scene: &Scene) -> (Program, Daemon) {
    let mut program = scene.program();
    program.set("HOSTNAME", "web-1").set("ROSTERD__SYNC__POLL_INTERVAL", "10m");
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    (program, daemon)
}

/// The page once it contains `text`: visitors within two seconds share one query.
async fn page_with(program: &Program, text: &str) -> String {
    let give_up = Instant::now() + STUCK;
    loop {
        let (status, html) = program.probe("/").await;
        assert_eq!(status, 200, "{html}");
        if html.contains(text) {
            return html;
        }
        assert!(Instant::now() < give_up, "no {text} in {html}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn status_page_reads_no_rows_of_the_mirror_and_survives_the_database() {
    let scene = Scene::new().await;
    let (mut program, mut daemon) = started(&scene).await;
    page_with(&program, "<h1 class=\"ok\">").await;
    let mut lock = scene.store.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE roster.users, roster.user_assignments, roster.projects")
        .execute(&mut *lock)
        .await
        .unwrap();
    scene
        .execute("INSERT INTO roster.consumers (name, stream_id) VALUES ('<b>payroll', gen_random_uuid())")
        .await;
    let html = page_with(&program, "consumer &lt;b&gt;payroll has lost events").await;
    assert!(html.contains("In the last 24 hours: 60 events, at most 60 in an hour."), "{html}");
    lock.rollback().await.unwrap();
    let (_, still) = program.probe("/?still").await;
    assert_eq!((html.contains("http-equiv=\"refresh\""), still.contains("http-equiv")), (true, false));
    let mut lock = scene.store.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE roster.accounts IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let html = page_with(&program, "the database does not answer").await;
    assert!(
        html.contains(" by the database's clock, ") && html.contains("payroll has lost events"),
        "{html}"
    );
    lock.rollback().await.unwrap();
    page_with(&program, "<title>rosterd: 1 critical concern</title>").await;
    daemon.signal("-TERM");
    daemon.ended().await;
    program.set("ROSTERD__HTTP__PAGE", "false");
    let mut daemon = program.start();
    daemon.until("daemon.started").await;
    assert_eq!(program.probe("/").await.0, 404);
}

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join("chromium"));
    found.into_iter().find(|path| path.is_file())
}

/// The page as a picture.
fn picture(
    chromium: &Path,
    program: &Program,
    name: &str,
    (width, height): (u32, u32),
    dark: bool,
) -> Vec<u8> {
    let profile = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new(chromium);
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--window-size={width},{height}")).arg(format!("--screenshot={}", path.display()));
    if dark {
        command.arg("--blink-settings=preferredColorScheme=0");
    }
    let output = command.arg(format!("http://{}/?still", program.listen())).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    // Chromium prints a violation of the policy, such as a style with another hash, on its console.
    assert!(output.status.success() && !log.contains("CONSOLE"), "{log}");
    let png = std::fs::read(&path).unwrap_or_else(|error| panic!("{error}: {log}"));
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!((side(16), side(20)), (width, height), "{name}");
    png
}

/// `UPDATE_PICTURE=1` writes the picture of the README.
#[tokio::test]
async fn status_page_in_chromium_follows_the_colour_scheme_and_its_policy() {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: chromium is not installed, so the status page was not rendered");
        return;
    };
    let scene = Scene::new().await;
    let (program, _daemon) = started(&scene).await;
    let pictures = async |state: &'static str| {
        let (chromium, program) = (chromium.as_path(), &program);
        std::thread::scope(|scope| {
            let sizes = [(360, 1500), (1280, 900)].map(|size| {
                scope.spawn(move || {
                    let [light, dark] = ["light", "dark"].map(|scheme| {
                        let name = format!("status-page-{state}-{scheme}-{}.png", size.0);
                        picture(chromium, program, &name, size, scheme == "dark")
                    });
                    assert!(light != dark, "{state} at {} px has the same colours in light and dark", size.0);
                })
            });
            for size in sizes {
                size.join().unwrap();
            }
        });
    };
    page_with(&program, "<h1 class=\"ok\">").await;
    pictures("well").await;
    scene.execute(ILL).await;
    page_with(&program, "<h1 class=\"critical\">").await;
    pictures("ill").await;
    if std::env::var_os("UPDATE_PICTURE").is_some() {
        let png = picture(&chromium, &program, "status-page.png", (800, 920), false);
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status-page.png"), png).unwrap();
    }
}
