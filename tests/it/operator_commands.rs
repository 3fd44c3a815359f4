//! An operator's commands: verify the mirror, decide about held deletions, read one user again, request a cycle of
//! the daemon; and reports of a token without rights.

use harvest_sim::{Company, Fault, Options, Sim};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::database::TestDatabase;
use crate::program::Program;

struct Scene {
    sim: Sim,
    program: Program,
    database: TestDatabase,
}

impl Scene {
    async fn new() -> Self {
        let sim = Sim::start(Company::seeded(5, 60, 120), Options::default()).await.unwrap();
        let database = TestDatabase::new().await;
        let program = Program::new(&sim, database.url());
        Self { sim, program, database }
    }

    async fn execute(&self, statement: &'static str) {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }

    async fn text(&self, statement: &'static str) -> Option<String> {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
    }

    /// Deletes this number of users, but not the token's owner.
    fn delete_users(&self, count: usize) {
        let owner = self.sim.token_owner();
        for user in self.sim.user_ids().into_iter().filter(|user| *user != owner).take(count) {
            self.sim.delete_user(user);
        }
    }
}

#[tokio::test]
async fn verify_reports_each_difference_and_writes_nothing() {
    let scene = Scene::new().await;
    scene.program.call(&["verify"]).await.expect(1);
    scene.program.call(&["sync"]).await.expect(0);
    let right = scene.program.call(&["verify"]).await;
    right.expect(0);
    assert_eq!(right.stdout(), "");
    assert!(right.stderr().contains("60 users and 120 assignments compared, 0 differences"));

    let users = scene.sim.user_ids();
    scene.execute("UPDATE roster.users SET email = 'wrong@example.com', cost_rate = 1 WHERE id = (SELECT min(id) FROM roster.users)").await;
    let leaver = users[30];
    scene.sim.delete_user(leaver);
    let joiner = scene.sim.create_user("Vera", "Verified");
    scene.sim.rename_project(scene.sim.project_ids()[0], "Another name");
    let wrong = scene.program.call(&["verify"]).await;
    wrong.expect(1);
    let lines = wrong.stdout();
    assert!(lines.contains(&format!("user {}: email, cost_rate differs\n", users[0])), "{lines}");
    assert!(lines.contains(&format!("user {leaver}: in the mirror, gone at Harvest\n")), "{lines}");
    assert!(lines.contains(&format!("user {joiner}: at Harvest, not in the mirror\n")), "{lines}");
    assert!(lines.contains("its name or code differs"), "{lines}");
    assert!(!lines.contains("wrong@example.com"));
    let values = scene.program.call(&["verify", "--values"]).await.expect(1).stdout();
    assert!(values.contains("email is \"wrong@example.com\" in the mirror"), "{values}");
    // `verify` wrote nothing and so reports the same again. A full read corrects everything, also rows that were
    // removed from the mirror, whose versions continue.
    assert_eq!(scene.program.call(&["verify"]).await.stdout(), lines);
    scene.execute("DELETE FROM roster.users WHERE id = (SELECT max(id) - 9 FROM roster.users)").await;
    scene
        .execute(
            "DELETE FROM roster.user_assignments WHERE id = (SELECT max(id) FROM roster.user_assignments)",
        )
        .await;
    scene.program.call(&["sync", "--full"]).await.expect(0);
    scene.program.call(&["verify"]).await.expect(0);
}

#[tokio::test]
async fn verify_reports_records_that_could_not_be_checked() {
    let scene = Scene::new().await;
    scene.program.call(&["sync"]).await.expect(0);
    let user = scene.sim.user_ids()[30];
    scene.sim.inject(Fault::hide_records([user.0]).on("/users?").forever());
    scene.program.call(&["verify"]).await.expect(0);
    scene.sim.inject(Fault::html(404).on(format!("/users/{user}")).forever());
    let lines = scene.program.call(&["verify"]).await.expect(1).stdout();
    assert!(lines.contains("which does not say whether it is gone"), "{lines}");
}

#[tokio::test]
async fn held_deletions_can_be_listed_and_accepted_while_a_daemon_runs() {
    let scene = Scene::new().await;
    let mut daemon = scene.program.start();
    daemon.until("cycle.finished").await;
    scene.delete_users(30);
    let entry = daemon.until("deletions.held").await;
    assert_eq!((entry["reason"].as_str(), entry["records"].as_i64()), (Some("guard"), Some(30)));
    let list = scene.program.call(&["deletions", "list"]).await.expect(0).stdout();
    assert!(list.lines().filter(|line| line.contains("(guard); undecided")).count() >= 30, "{list}");
    let json = scene.program.call(&["deletions", "list", "--json"]).await.expect(0).stdout();
    let json: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(json.len(), list.lines().count());
    let status = scene.program.call(&["status"]).await.expect(0).stdout();
    assert!(status.contains("30 deletions of users are held (guard)"), "{status}");
    let accepted = scene.program.call(&["deletions", "accept", "--all", "--yes"]).await.expect(0).stdout();
    assert!(accepted.contains("deletions accepted"), "{accepted}");
    loop {
        if daemon.until("cycle.finished").await["users_changed"] == 30 {
            break;
        }
    }
    assert_eq!(scene.program.call(&["deletions", "list"]).await.expect(0).stdout(), "");
    scene.program.call(&["verify"]).await.expect(0);
}

#[tokio::test]
async fn dry_run_reports_deletions_and_held_deletions_without_writing() {
    let scene = Scene::new().await;
    scene.program.call(&["sync"]).await.expect(0);
    let leaver = scene.sim.user_ids()[20];
    scene.sim.delete_user(leaver);
    let plan = scene.program.call(&["sync", "--dry-run"]).await.expect(0).stdout();
    assert!(plan.contains(&format!("user {leaver} would delete\n")), "{plan}");
    scene.delete_users(30);
    let plan = scene.program.call(&["sync", "--dry-run"]).await.expect(0).stdout();
    assert_eq!(
        plan.lines().filter(|line| line.ends_with("would hold: guard")).count(),
        plan.matches("would hold").count()
    );
    assert!(plan.matches("would hold").count() >= 30, "{plan}");
    assert_eq!(scene.text("SELECT count(*)::text FROM roster.held_deletions").await.as_deref(), Some("0"));
    let held = scene.program.call(&["sync"]).await;
    held.expect(0);
    assert!(held.sentence().contains("deletions held for review"), "{}", held.stderr());
    let kept = scene.program.call(&["deletions", "reject", "--all"]).await.expect(0).stdout();
    assert!(kept.contains("the rows stay as they are"), "{kept}");
}

#[tokio::test]
async fn sync_user_reads_one_user_again() {
    let scene = Scene::new().await;
    scene.program.call(&["sync"]).await.expect(0);
    let user = scene.sim.user_ids()[10];
    scene.sim.edit_user_keeping_updated_at(user, |user| user.weekly_capacity = 1800);
    let id = user.to_string();
    let read = scene.program.call(&["sync", "--user", &id]).await.expect(0).stdout();
    assert!(read.contains("(1 changed)"), "{read}");
    scene.program.call(&["verify"]).await.expect(0);
    let unknown = scene.program.call(&["sync", "--user", "987654"]).await;
    unknown.expect(1);
    assert!(unknown.sentence().contains("neither at Harvest nor in the mirror"), "{}", unknown.stderr());
    scene.program.call(&["sync", "--user", &id, "--full"]).await.expect(2);
}

#[tokio::test]
async fn sync_while_a_daemon_runs_is_delegated_and_exits_with_its_result() {
    let mut scene = Scene::new().await;
    // No poll is due during the test, so that the daemon acts only on requests.
    scene.program.set("ROSTERD__SYNC__POLL_INTERVAL", "10m");
    let mut daemon = scene.program.start();
    daemon.until("cycle.finished").await;
    let user = scene.sim.user_ids()[10];
    scene.sim.edit_user_keeping_updated_at(user, |user| user.weekly_capacity = 1800);
    let read = scene.program.call(&["sync", "--user", &user.to_string()]).await.expect(0).stdout();
    assert!(read.contains("(1 changed)"), "{read}");
    scene.program.call(&["sync", "--user", "987654"]).await.expect(1);
    scene.execute("UPDATE roster.users SET email = 'wrong@example.com' WHERE id = (SELECT min(id) FROM roster.users)").await;
    let read = scene.program.call(&["sync", "--full"]).await.expect(0).stdout();
    assert!(read.contains("everything read") && read.contains("60 users (1 changed)"), "{read}");
    scene.program.call(&["verify"]).await.expect(0);
    scene.sim.create_user("Sy", "Nced");
    daemon.signal("-HUP");
    while daemon.until("cycle.finished").await["users_changed"] != 1 {}
    scene.sim.inject(Fault::refusal(401).forever());
    let refused = scene.program.call(&["sync"]).await;
    assert!(refused.expect(77).sentence().contains("SAML"), "{}", refused.stderr());
    let open = scene.text("SELECT count(*)::text FROM roster.requests WHERE done_at IS NULL").await;
    assert_eq!(open.as_deref(), Some("0"));
    // If the lease holder was killed, the command runs the cycle itself once the lease has expired.
    scene.sim.clear_faults();
    daemon.signal("-KILL");
    scene.program.call(&["sync"]).await.expect(0);
}

#[tokio::test]
async fn demoted_token_is_reported_by_log_status_and_health_until_it_is_restored() {
    let scene = Scene::new().await;
    let mut daemon = scene.program.start();
    daemon.until("cycle.finished").await;
    scene.sim.demote_token();
    let entry = daemon.until("credentials.refused").await;
    assert_eq!(entry["level"], "ERROR");
    assert!(entry["error"].as_str().unwrap().contains("is no longer an administrator"));
    let status = scene.program.call(&["status"]).await.expect(0).stdout();
    assert!(status.contains("last cycle failed: user "), "{status}");
    // After three poll intervals without success the daemon is no longer ready.
    let ready = loop {
        let ready = scene.program.call(&["health", "--ready"]).await;
        if ready.0.status.code() != Some(0) {
            break ready;
        }
    };
    assert!(
        (ready.stdout() + &ready.stderr()).contains("is no longer an administrator"),
        "{}",
        ready.stderr()
    );
    scene.sim.set_token_role("administrator");
    daemon.until("cycle.finished").await;
    scene.program.call(&["health", "--ready"]).await.expect(0);
    scene.program.call(&["verify"]).await.expect(0);
    drop(daemon);
    scene.sim.demote_token();
    scene.program.call(&["sync"]).await.expect(77);
    scene.sim.set_token_role("administrator");
    scene.sim.inject(Fault::refusal(401).forever());
    let refused = scene.program.call(&["sync"]).await;
    refused.expect(77);
    assert!(refused.sentence().contains("before SAML sign-in was enforced"), "{}", refused.stderr());
}
