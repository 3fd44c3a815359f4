//! Writes that are interrupted: kills at each point, late answers, pages older than a write, and many writes at once. The
//! mirror, Harvest and the journal agree in the end, and no user is created or invited twice.

use std::collections::HashSet;
use std::time::Duration;

use harvest_sim::{Company, Fault, Limit, Options};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::program::{Daemon, Program, STUCK};
use crate::scene::Scene;

/// At which point the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    /// Harvest has the request and has not carried it out; it does so after the kill.
    Queued,
    /// Harvest has carried it out, and the answer is on its way.
    Answering,
    /// The answer has arrived and is about to be stored.
    Storing,
}

/// A program that may write. The result of a write without an answer is certain soon after the timeout.
async fn writing_program(scene: &Scene, timeout: &str) -> Program {
    let mut program = scene.program();
    program
        .set("ROSTERD__WRITE__MODE", "on")
        .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", timeout)
        .set("ROSTERD__SYNC__SKEW_BUFFER", "2s")
        .set("ROSTERD__LEASE__TTL", "3s");
    program.call(&["sync"]).await.expect(0);
    program
}

pub async fn started(program: &Program) -> Daemon {
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    daemon
}

async fn ask(scene: &Scene, arguments: &str) {
    scene.execute(format!("SELECT roster.write_ask({}, {arguments})", scene.sim.account_id())).await;
}

/// Waits until Harvest has received this write, whether its sender still waits for the answer or not.
async fn until_written(scene: &Scene, request: &str) {
    let give_up = Instant::now() + STUCK;
    let is_there = || scene.sim.requests().iter().any(|it| format!("{} {}", it.method, it.path) == request);
    while !is_there() {
        assert!(Instant::now() < give_up, "no {request}");
        sleep(Duration::from_millis(5)).await;
    }
}

const CREATE: &str =
    r#"'user_create', wanted => '{"email": "kim@example.com", "first_name": "Kim", "last_name": "K"}'"#;

/// Kills the daemon while a write that `path` matches is at this point, and waits until a second one has settled it. Returns
/// both, because they check at their end that the writes were taken from the simulator's list.
async fn kill_during_write(
    scene: &Scene,
    program: &Program,
    point: Point,
    path: &str,
    question: &str,
) -> [Daemon; 2] {
    let mut daemon = started(program).await;
    let held = CancellationToken::new();
    let mut lock = None;
    match point {
        Point::Queued => scene.sim.inject(Fault::hold_request(held.clone()).on(path)),
        Point::Answering => scene.sim.inject(Fault::hold_response(held.clone()).on(path)),
        Point::Storing => {
            let mut connection = PgConnection::connect(scene.url()).await.unwrap();
            // Readers of the mirror pass, and the transaction with the answer waits.
            let statements = "BEGIN; LOCK TABLE roster.users IN SHARE ROW EXCLUSIVE MODE";
            sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
            lock = Some(connection);
        }
    }
    ask(scene, question).await;
    match point {
        Point::Storing => {
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'roster.users'::regclass)";
            scene.until(waits).await;
        }
        _ => until_written(scene, path).await,
    }
    daemon.child.kill().unwrap();
    daemon.ended().await;
    drop(lock);
    held.cancel();
    let second = started(program).await;
    scene.until("SELECT count(*) = 0 FROM roster.writes WHERE done_at IS NULL").await;
    [daemon, second]
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_at_any_point_of_a_creation_creates_and_invites_one_user() {
    for point in [Point::Queued, Point::Answering, Point::Storing] {
        let scene = Scene::without_limit().await;
        let program = writing_program(&scene, "1s").await;
        let _daemons = kill_during_write(&scene, &program, point, "POST /v2/users", CREATE).await;
        assert_eq!((scene.sim.take_writes().len(), scene.sim.invitations().len()), (1, 1), "{point:?}");
        let done = "SELECT count(*) FROM roster.writes WHERE outcome = 'done' AND user_id IS NOT NULL";
        assert_eq!(scene.number(done).await, 1, "{point:?}");
        // Whether a poll or the look that settles the write reads the new user first, is left to chance.
        let created = "SELECT count(*) FROM roster.outbox JOIN roster.writes ON user_id = record_id
                       WHERE type = 'user.created'";
        assert_eq!(scene.number(created).await, 1, "{point:?}");
        scene.expect_right().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_at_any_point_of_a_deactivation_deactivates_once_in_mirror_and_outbox() {
    for point in [Point::Queued, Point::Answering, Point::Storing] {
        let scene = Scene::without_limit().await;
        let program = writing_program(&scene, "1s").await;
        let user = scene.any_user();
        let path = format!("PATCH /v2/users/{user}");
        let _daemons =
            kill_during_write(&scene, &program, point, &path, &format!("'user_deactivate', {user}")).await;
        assert_eq!(scene.sim.take_writes().len(), 1, "{point:?}");
        let events = "SELECT count(*) FROM roster.outbox WHERE type = 'user.deactivated'";
        assert_eq!(scene.number(events).await, 1, "{point:?}");
        assert_eq!(
            scene.number("SELECT count(*) FROM roster.outbox WHERE type = 'user.reactivated'").await,
            0
        );
        scene.until("SELECT count(*) = 1 FROM roster.writes WHERE outcome = 'done'").await;
        program.call(&["sync"]).await.expect(0);
        scene.expect_right().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_requested_before_a_write_and_delivered_after_it_does_not_undo_the_write() {
    for list in ["/v2/users?", "/v2/user_assignments?"] {
        let scene = Scene::without_limit().await;
        let program = writing_program(&scene, "60s").await;
        let user = scene.any_user();
        let _daemon = started(&program).await;
        let held = CancellationToken::new();
        scene.sim.inject(Fault::hold_response(held.clone()).on(list));
        let sync = async {
            scene.until_asked(list.trim_end_matches('?')).await;
            ask(&scene, &format!("'user_deactivate', {user}")).await;
            scene.until("SELECT count(*) = 1 FROM roster.writes WHERE outcome = 'done'").await;
            held.cancel();
        };
        // A full read: its pages have full authority.
        let (called, ()) = tokio::join!(program.call(&["sync", "--full"]), sync);
        called.expect(0);
        assert_eq!(scene.sim.take_writes().len(), 1);
        assert_eq!(
            scene.number("SELECT count(*) FROM roster.outbox WHERE type LIKE '%.reactivated'").await,
            0,
            "{list}"
        );
        scene.expect_right().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writes_keep_to_the_limit_and_let_polls_pass() {
    const USERS: usize = 60;
    const LIMIT: usize = 20;
    const WINDOW: Duration = Duration::from_secs(2);
    let limit = Limit { requests: LIMIT, window: WINDOW };
    let scene =
        Scene::of(Company::seeded(5, USERS + 1, 10), Options { limit: Some(limit), ..Options::default() })
            .await;
    let mut program = scene.program();
    program
        .set("ROSTERD__WRITE__MODE", "on")
        .set("ROSTERD__RATE_LIMIT__REQUESTS", &LIMIT.to_string())
        .set("ROSTERD__RATE_LIMIT__WINDOW", "2s")
        .set("ROSTERD__RATE_LIMIT__RESERVE", "0")
        .set("ROSTERD__SYNC__POLL_INTERVAL", "2s");
    program.call(&["sync"]).await.expect(0);
    let owner = scene.sim.token_owner();
    for user in scene.sim.user_ids().into_iter().filter(|id| *id != owner) {
        ask(&scene, &format!(r#"'user_update', {user}, wanted => '{{"telephone": "555 {user}"}}'"#)).await;
    }
    let _daemon = started(&program).await;
    scene.until(format!("SELECT count(*) = {USERS} FROM roster.writes WHERE outcome = 'done'")).await;
    assert!(scene.sim.max_requests_in_window(WINDOW) <= LIMIT);
    let requests = scene.sim.requests();
    assert!(requests.iter().all(|it| it.status != Some(429)), "Harvest refused a request");
    let paths: Vec<_> = requests.iter().map(|it| format!("{} {}", it.method, it.path)).collect();
    let first = paths.iter().position(|path| path.starts_with("PATCH")).unwrap();
    let last = paths.iter().rposition(|path| path.starts_with("PATCH")).unwrap();
    let polls = paths[first..last].iter().filter(|path| path.starts_with("GET /v2/users?")).count();
    assert!(polls > 0, "no poll between the first and the last write");
    let written: Vec<_> = scene.sim.take_writes().into_iter().map(|it| it.path).collect();
    assert_eq!((written.len(), written.iter().collect::<HashSet<_>>().len()), (USERS, USERS));
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_that_stops_stores_the_answer_to_a_write_that_was_sent() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene, "60s").await;
    let user = scene.any_user();
    let mut daemon = started(&program).await;
    let held = CancellationToken::new();
    let path = format!("/v2/users/{user}");
    scene.sim.inject(Fault::hold_response(held.clone()).on(format!("PATCH {path}")));
    ask(&scene, &format!("'user_deactivate', {user}")).await;
    until_written(&scene, &format!("PATCH {path}")).await;
    daemon.signal("-TERM");
    held.cancel();
    assert_eq!(daemon.ended().await, Some(0));
    assert_eq!(scene.number("SELECT count(*) FROM roster.writes WHERE outcome = 'done'").await, 1);
    assert_eq!(scene.sim.take_writes().len(), 1);
}

/// What Harvest shows was so before the deactivation, which can still arrive: the reactivation must wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn late_deactivation_of_an_archived_user_does_not_undo_the_next_reactivation() {
    let scene = Scene::without_limit().await;
    let user = scene.any_user();
    scene.sim.archive_user(user);
    let program = writing_program(&scene, "1s").await;
    let _daemon = started(&program).await;
    let held = CancellationToken::new();
    let path = format!("/v2/users/{user}");
    scene.sim.inject(Fault::hold_request(held.clone()).on(format!("PATCH {path}")));
    ask(&scene, &format!("'user_deactivate', {user}")).await;
    until_written(&scene, &format!("PATCH {path}")).await;
    ask(&scene, &format!("'user_reactivate', {user}")).await;
    let give_up = Instant::now() + STUCK;
    let looks = || scene.sim.requests().iter().filter(|it| it.method == "GET" && it.path == path).count();
    while looks() < 2 {
        assert!(Instant::now() < give_up, "the result was settled by the first look");
        sleep(Duration::from_millis(5)).await;
    }
    held.cancel();
    scene.until("SELECT count(*) = 2 FROM roster.writes WHERE outcome = 'done'").await;
    program.call(&["sync"]).await.expect(0);
    let active = format!("SELECT is_active FROM roster.users WHERE id = {user}");
    scene.until(active).await;
    assert_eq!(scene.sim.take_writes().len(), 2);
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn created_user_whom_rosterd_cannot_read_is_not_created_again() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene, "1s").await;
    scene.sim.inject(Fault::reset().after_processing().on("POST /v2/users"));
    let unreadable = Fault::edit_records(|record| {
        if record.get("last_name") == Some(&json!("Odd")) {
            record.insert("first_name".to_owned(), json!(7));
        }
    });
    scene.sim.inject(unreadable.on("/users?").forever());
    let create = ["user", "create", "--email", "Odd@example.com", "--first", "O", "--last", "Odd", "--yes"];
    program.call(&create).await.expect(0);
    assert!(program.call(&create).await.expect(77).stdout().contains("cannot read"));
    assert_eq!((scene.sim.take_writes().len(), scene.sim.invitations().len()), (1, 1));
    // Another address, which that user's contains.
    let create = ["user", "create", "--email", "dd@example.com", "--first", "D", "--last", "D", "--yes"];
    program.call(&create).await.expect(0);
    assert_eq!(scene.sim.take_writes().len(), 1);
    scene.sim.clear_faults();
    program.call(&["sync", "--full"]).await.expect(0);
    scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creation_that_reaches_harvest_late_is_not_sent_again() {
    let scene = Scene::without_limit().await;
    let program = writing_program(&scene, "1s").await;
    let _daemon = started(&program).await;
    let held = CancellationToken::new();
    scene.sim.inject(Fault::hold_request(held.clone()).on("POST /v2/users"));
    ask(&scene, CREATE).await;
    scene.until("SELECT error IS NOT NULL FROM roster.writes").await;
    scene.sim.clear_requests();
    let give_up = Instant::now() + STUCK;
    // Polls and looks, none of which shows the user.
    while scene.sim.requests().iter().filter(|it| it.path.starts_with("/v2/users?")).count() < 6 {
        assert!(Instant::now() < give_up, "no look");
        sleep(Duration::from_millis(5)).await;
    }
    held.cancel();
    scene.until("SELECT count(*) = 1 FROM roster.writes WHERE outcome = 'done'").await;
    assert_eq!((scene.sim.take_writes().len(), scene.sim.invitations().len()), (1, 1));
    scene.expect_right().await;
}
