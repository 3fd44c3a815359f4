//! What a person at the terminal does about the truth: verify it, settle what is held, read somebody again; and what
//! the daemon says of trouble.

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

    /// Everybody but the token's owner, as far as they go.
    fn dismiss(&self, people: usize) {
        let owner = self.sim.token_owner();
        for user in self.sim.user_ids().into_iter().filter(|user| *user != owner).take(people) {
            self.sim.delete_user(user);
        }
    }
}

#[tokio::test]
async fn verify_says_whether_the_mirror_is_right_and_writes_nothing() {
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
    let joiner = scene.sim.hire("Vera", "Verified");
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
    // It wrote nothing, so it says the same again; whoever asks for a full read has all of it put right, even rows
    // that are not there any more, whose versions go on.
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
async fn verify_calls_nothing_right_that_it_could_not_check() {
    let scene = Scene::new().await;
    scene.program.call(&["sync"]).await.expect(0);
    let user = scene.sim.user_ids()[30];
    scene.sim.inject(Fault::hide([user.0]).on("/users?").forever());
    scene.program.call(&["verify"]).await.expect(0);
    scene.sim.inject(Fault::html(404).on(format!("/users/{user}")).forever());
    let lines = scene.program.call(&["verify"]).await.expect(1).stdout();
    assert!(lines.contains("which does not say whether it is gone"), "{lines}");
}

#[tokio::test]
async fn held_deletions_are_seen_and_settled_beside_a_running_daemon() {
    let scene = Scene::new().await;
    let mut daemon = scene.program.start();
    daemon.until("cycle.finished").await;
    scene.dismiss(30);
    let said = daemon.until("deletions.held").await;
    assert_eq!((said["reason"].as_str(), said["records"].as_i64()), (Some("guard"), Some(30)));
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
async fn a_dry_run_asks_for_the_missing_and_says_what_would_become_of_them() {
    let scene = Scene::new().await;
    scene.program.call(&["sync"]).await.expect(0);
    let one = scene.sim.user_ids()[20];
    scene.sim.delete_user(one);
    let plan = scene.program.call(&["sync", "--dry-run"]).await.expect(0).stdout();
    assert!(plan.contains(&format!("user {one} would delete\n")), "{plan}");
    scene.dismiss(30);
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
async fn a_person_is_read_again_on_request() {
    let scene = Scene::new().await;
    scene.program.call(&["sync"]).await.expect(0);
    let user = scene.sim.user_ids()[10];
    scene.sim.edit_user_silently(user, |user| user.weekly_capacity = 1800);
    let id = user.to_string();
    let read = scene.program.call(&["sync", "--user", &id]).await.expect(0).stdout();
    assert!(read.contains("(1 changed)"), "{read}");
    scene.program.call(&["verify"]).await.expect(0);
    let nobody = scene.program.call(&["sync", "--user", "987654"]).await;
    nobody.expect(1);
    assert!(nobody.sentence().contains("neither at Harvest nor in the mirror"), "{}", nobody.stderr());
    scene.program.call(&["sync", "--user", &id, "--full"]).await.expect(2);
}

#[tokio::test]
async fn beside_a_daemon_the_daemon_is_asked_and_its_answer_is_the_commands() {
    let mut scene = Scene::new().await;
    // Nobody is polled into the stories: the daemon acts when it is asked.
    scene.program.set("ROSTERD__SYNC__POLL_INTERVAL", "10m");
    let mut daemon = scene.program.start();
    daemon.until("cycle.finished").await;
    let user = scene.sim.user_ids()[10];
    scene.sim.edit_user_silently(user, |user| user.weekly_capacity = 1800);
    let read = scene.program.call(&["sync", "--user", &user.to_string()]).await.expect(0).stdout();
    assert!(read.contains("(1 changed)"), "{read}");
    scene.program.call(&["sync", "--user", "987654"]).await.expect(1);
    scene.execute("UPDATE roster.users SET email = 'wrong@example.com' WHERE id = (SELECT min(id) FROM roster.users)").await;
    let read = scene.program.call(&["sync", "--full"]).await.expect(0).stdout();
    assert!(read.contains("everything read") && read.contains("60 users (1 changed)"), "{read}");
    scene.program.call(&["verify"]).await.expect(0);
    scene.sim.hire("Sy", "Nced");
    daemon.signal("-HUP");
    while daemon.until("cycle.finished").await["users_changed"] != 1 {}
    scene.sim.inject(Fault::refusal(401).forever());
    let refused = scene.program.call(&["sync"]).await;
    assert!(refused.expect(77).sentence().contains("SAML"), "{}", refused.stderr());
    let open = scene.text("SELECT count(*)::text FROM roster.requests WHERE done_at IS NULL").await;
    assert_eq!(open.as_deref(), Some("0"));
    // Where the holder is gone without a word, the command does it itself once the lease has run out.
    scene.sim.clear_faults();
    daemon.signal("-KILL");
    scene.program.call(&["sync"]).await.expect(0);
}

#[tokio::test]
async fn a_demoted_token_is_said_everywhere_and_ends_nothing() {
    let scene = Scene::new().await;
    let mut daemon = scene.program.start();
    daemon.until("cycle.finished").await;
    scene.sim.demote_token();
    let said = daemon.until("credentials.refused").await;
    assert_eq!(said["level"], "ERROR");
    assert!(said["error"].as_str().unwrap().contains("no administrator any more"));
    let status = scene.program.call(&["status"]).await.expect(0).stdout();
    assert!(status.contains("last cycle failed: the token of account"), "{status}");
    // Three poll intervals later nobody calls it ready.
    let ready = loop {
        let ready = scene.program.call(&["health", "--ready"]).await;
        if ready.0.status.code() != Some(0) {
            break ready;
        }
    };
    assert!((ready.stdout() + &ready.stderr()).contains("no administrator any more"), "{}", ready.stderr());
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
