//! `/metrics` has the documented metrics and labels, and scrapes do not wait for locks.

use harvest_sim::{Company, Fault, Options, Sim};
use rosterd::daemon::health::Health;
use rosterd::http::{State, serve};
use rosterd::sync::concerns::Limits;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::net::TcpListener;
use tokio::time::Duration;

use crate::database::TestDatabase;
use crate::program::Program;
use crate::scene::Scene;

pub async fn scrape(program: &Program) -> String {
    let (status, metrics) = program.probe("/metrics").await;
    assert_eq!(status, 200, "{metrics}");
    metrics
}

fn held_deletions(metrics: &str) -> u32 {
    let line = metrics.lines().find(|line| line.starts_with("rosterd_held_deletions")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn metrics_page_has_the_documented_names_labels_and_values() {
    let sim = Sim::start(Company::seeded(5, 60, 120), Options::default()).await.unwrap();
    let database = TestDatabase::new().await;
    let program = Program::new(&sim, database.url());
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    sim.inject(Fault::html(500).on("/users?").times(1));
    let owner = sim.token_owner();
    for user in sim.user_ids().into_iter().filter(|user| *user != owner).take(20) {
        sim.delete_user(user);
    }
    daemon.until("deletions.held").await;
    daemon.until("cycle.finished").await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let writes = format!(
        "SELECT roster.write_ask({0}, 'user_deactivate', id) FROM generate_series(1, 6) AS id;
         UPDATE roster.writes SET held_at = now() WHERE user_id < 4;
         UPDATE roster.writes SET accepted_at = now(), accepted_by = 'ada@ops-1' WHERE user_id = 1;
         UPDATE roster.writes SET sent_at = now() WHERE user_id = 4;
         UPDATE roster.writes SET sent_at = now() - interval '2 minutes' WHERE user_id = 5;
         SELECT roster.write_withdraw(roster.write_ask({0}, 'user_deactivate', 7))",
        sim.account_id()
    );
    sqlx::raw_sql(AssertSqlSafe(writes)).execute(&mut connection).await.unwrap();
    let account = format!("account=\"{}\"", sim.account_id());
    let lines = [
        "rosterd_build_info{version=",
        "rosterd_harvest_throttled_total 0",
        "rosterd_log_lines_dropped_total 0",
        "rosterd_outbox_head 180",
        &format!("rosterd_lease_held{{{account}}} 1"),
        &format!("rosterd_cycles_total{{{account},mode=\"full\",outcome=\"ok\"}} 1"),
        &format!("rosterd_cycles_total{{{account},mode=\"full\",outcome=\"held\"}} 1"),
        &format!("rosterd_cycle_duration_seconds_bucket{{{account},mode=\"full\",le=\"3600\"}} 2"),
        &format!("rosterd_changes_total{{{account},resource=\"users\",change=\"created\"}} 60"),
        &format!("rosterd_harvest_requests_total{{{account},endpoint=\"users\",status=\"500\"}} 1"),
        &format!("rosterd_harvest_requests_total{{{account},endpoint=\"users/me\",status=\"200\"}} "),
        &format!("rosterd_last_success_timestamp_seconds{{{account}}} "),
        &format!("rosterd_mirror_rows{{{account},resource=\"users\",state=\"deleted\"}} 0"),
        &format!("rosterd_rejected_records{{{account}}} 0"),
        // Accepted ones and those that were sent just now count as waiting.
        &format!("rosterd_writes_open{{{account},state=\"waiting\"}} 3"),
        &format!("rosterd_writes_open{{{account},state=\"held\"}} 2"),
        &format!("rosterd_writes_open{{{account},state=\"in_doubt\"}} 1"),
    ];
    let lines = lines.map(|line| format!("\n{line}"));
    let metrics = program.until_metrics(&lines.each_ref().map(String::as_str)).await;
    assert!(held_deletions(&metrics) >= 20, "{metrics}");
    // Each metric has a help text.
    for line in metrics.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name}");
    }
    let status = program.call(&["status"]).await.expect(0).stdout();
    for line in ["3 writes waiting", "2 writes held for a person", "1 write without an answer"] {
        assert!(status.contains(line), "no {line} in\n{status}");
    }
    // An alert on held deletions ends after an administrator's decision.
    program.call(&["deletions", "reject", "--all"]).await.expect(0);
    program.until_metrics(&[&format!("\nrosterd_held_deletions{{{account}}} 0\n")]).await;
}

#[tokio::test]
async fn scrapes_read_no_rows_of_users_and_assignments() {
    let scene = Scene::new().await;
    let program = scene.program();
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    // The first scrape may count rows, if no poll has counted them yet.
    scrape(&program).await;
    let mut lock = scene.store.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE roster.users, roster.user_assignments").execute(&mut *lock).await.unwrap();
    scene.execute("INSERT INTO roster.consumers (name, stream_id) SELECT 'payroll', stream_id FROM roster.outbox_head").await;
    let metrics = program.until_metrics(&["consumer=\"payroll\""]).await;
    let account = format!("account=\"{}\"", scene.sim.account_id());
    for (resource, rows) in [("users", 20), ("user_assignments", 40)] {
        let labels = format!("rosterd_mirror_rows{{{account},resource=\"{resource}\",state=");
        let lines = metrics.lines().filter(|line| line.starts_with(&labels));
        let counts = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
        assert_eq!(counts.sum::<u32>(), rows, "{metrics}");
    }
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn readyz_answers_while_the_connections_of_heartbeat_and_pages_are_in_use() {
    let scene = Scene::new().await;
    let store = &scene.store;
    let mut in_use = vec![store.reserved().begin().await.unwrap()];
    for _ in 0..2 {
        in_use.push(store.pool().begin().await.unwrap());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut program = scene.program();
    program.set("ROSTERD__HTTP__LISTEN", &listener.local_addr().unwrap().to_string());
    let limits = Limits {
        poll_interval: Duration::from_secs(1),
        retention: Duration::from_hours(1),
        accounts: vec![],
    };
    let state = State { health: Health::default(), store: store.clone(), metrics: None, limits, page: false };
    let server = tokio::spawn(serve(listener, state));
    let (status, answer) = program.probe("/readyz").await;
    assert_eq!(status, 200, "{answer}");
    server.abort();
}
