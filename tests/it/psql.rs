//! `rosterd psql`, and the log line with the command that connects to the private PostgreSQL.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::program::Program;
use crate::scene::Scene;
use crate::terminal;

/// A program without `database.url`, and the directory of its private PostgreSQL.
fn program_with_private_postgresql(scene: &Scene) -> (Program, tempfile::TempDir) {
    let home = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let mut program = scene.program();
    program
        .set("DATABASE_URL", "")
        .set("ROSTERD__DATABASE__DATA_DIR", home.path().join("pg").to_str().unwrap());
    (program, home)
}

#[tokio::test]
async fn psql_opens_the_private_postgresql_and_leaves_no_server_running() {
    let scene = Scene::new().await;
    let (program, home) = program_with_private_postgresql(&scene);
    let called = program.call(&["psql", "--", "-Atc", "SELECT current_user"]).await;
    assert_eq!(called.expect(0).stdout().trim(), "rosterd");
    let pid_file = home.path().join("pg/server/data/postmaster.pid");
    assert!(home.path().join("pg/server/data").exists() && !pid_file.exists());
    let password = fs::read_to_string(home.path().join("pg/pgpass")).unwrap();
    assert!(!called.stderr().contains(password.trim().rsplit(':').next().unwrap()));
    program.call(&["psql", "--", "-c", "no such statement"]).await.expect(1);
    assert!(!pid_file.exists());
}

#[tokio::test]
async fn daemon_logs_the_psql_command_once_and_other_commands_do_not() {
    let scene = Scene::new().await;
    let (mut program, _home) = program_with_private_postgresql(&scene);
    program.set("RUST_LOG", "debug");
    let migrated = terminal::call(&program, &["migrate"], "").await;
    assert!(!migrated.expect(0).text.contains("PGPASSFILE"), "{}", migrated.text);
    let mut daemon = program.start();
    daemon.until("postgres.private").await;
    daemon.until("cycle.finished").await;
    let synced = program.call(&["sync"]).await;
    assert!(!synced.expect(0).stderr().contains("PGPASSFILE"), "{}", synced.stderr());
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    assert_eq!(daemon.rest().iter().filter(|line| line.contains("PGPASSFILE")).count(), 1);
}

#[tokio::test]
async fn psql_gets_the_password_in_its_environment_and_no_other_secret() {
    let mut program = Scene::new().await.program();
    let path_dir = tempfile::tempdir().unwrap();
    let script = path_dir.path().join("psql");
    fs::write(&script, "#!/bin/sh\necho \"$*\"\necho \"$PGPASSWORD\"\n/usr/bin/env | grep HARVEST\nexit 3\n")
        .unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    program
        .set("PATH", &format!("{}:{}", path_dir.path().display(), std::env::var("PATH").unwrap()))
        .set("DATABASE_URL", "postgres://ada:hunter2@db.invalid/x?sslmode=verify-full");
    let called = program.call(&["psql", "--", "--list"]).await;
    let url = "--dbname=postgres://ada@db.invalid/x?sslmode=verify-full&sslrootcert=system --list";
    assert_eq!(called.expect(3).stdout(), format!("{url}\nhunter2\n"));
}

#[tokio::test]
async fn missing_psql_is_reported_with_its_package() {
    let mut program = Scene::new().await.program();
    let called = program.set("PATH", "/nonexistent").call(&["psql"]).await;
    let sentence = called.expect(78).sentence();
    assert!(
        sentence.contains("psql is not installed") && sentence.contains("postgresql-client"),
        "{sentence}"
    );
}
