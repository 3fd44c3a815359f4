//! Writes to Harvest: the time of one deactivation with a daemon running, and how many updates a window holds.
//!
//! `cargo bench -- writes`. The simulator has Harvest's limit of 100 requests in 15 s.

use std::time::{Duration, Instant};

use harvest_sim::{Company, Options, Sim, UserId};
use sqlx::postgres::PgPoolOptions;

use crate::measured::{Daemon, quantile, rosterd};
use crate::postgres::{Server, until};

/// Deactivations, one after the other.
const SINGLE: usize = 20;
/// Updates requested at once.
const TOGETHER: usize = 500;
const WINDOW: Duration = Duration::from_secs(15);

pub async fn measure() {
    let server = Server::start().await;
    let sim = Sim::start(Company::seeded(3, TOGETHER + SINGLE + 1, 100), Options::default()).await.unwrap();
    let url = server.database("writes").await;
    let environment = [
        ("DATABASE_URL", url.clone()),
        ("HARVEST_BASE_URL", sim.base_url().to_owned()),
        ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
        ("HARVEST_ACCESS_TOKEN", sim.token()),
        ("ROSTERD__WRITE__MODE", "on".to_owned()),
        ("ROSTERD__SYNC__POLL_INTERVAL", "15s".to_owned()),
        ("ROSTERD__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
    ];
    let daemon = Daemon::start(&environment, &server.directory().join("log"));
    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    until(&pool, "SELECT count(last_full_at) = 1 FROM roster.accounts").await;
    let owner = sim.token_owner();
    let users: Vec<UserId> = sim.user_ids().into_iter().filter(|id| *id != owner).collect();

    let (mut answers, mut commands) = (Vec::new(), Vec::new());
    for user in &users[..SINGLE] {
        sim.clear_requests();
        let began = Instant::now();
        let mut command = rosterd(&["user", "deactivate", &user.to_string(), "--yes"], &environment);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        commands.push(began.elapsed());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        answers.push(sim.writes().last().unwrap().at.duration_since(began));
    }
    for (what, times) in [("request at Harvest", &mut answers), ("end of the command", &mut commands)] {
        times.sort_unstable();
        let [median, longest] = [(1, 2), (1, 1)].map(|share| quantile(times, share).as_millis());
        println!("{SINGLE} deactivations, {what}: median {median} ms, longest {longest} ms");
    }

    // A full window is free again.
    tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
    sim.clear_requests();
    let began = Instant::now();
    let ask = r#"SELECT count(roster.write_ask($1, 'user_update', id, wanted => '{"telephone": "555 0100"}'))
                   FROM unnest($2::bigint[]) AS id"#;
    let ids: Vec<i64> = users[SINGLE..].iter().map(|id| id.0).collect();
    sqlx::query(ask).bind(sim.account_id()).bind(&ids).execute(&pool).await.unwrap();
    until(&pool, "SELECT count(*) = 0 FROM roster.writes WHERE done_at IS NULL").await;
    let took = began.elapsed();
    let writes: Vec<Instant> = sim.writes().iter().map(|it| it.at).collect();
    let in_window =
        |start: &Instant| writes.iter().filter(|at| **at >= *start && **at - *start < WINDOW).count();
    let most = writes.iter().map(in_window).max().unwrap_or_default();
    println!(
        "{TOGETHER} updates at once: {:.1} s, at most {most} in 15 s, at most {} requests of all kinds in 15 s",
        took.as_secs_f64(),
        sim.max_requests_in_window(WINDOW)
    );
    let apart = "SELECT max(apart)::float8 FROM (
        SELECT extract(epoch FROM started_at - lag(started_at) OVER (ORDER BY started_at)) AS apart FROM roster.cycles) AS polls";
    let apart: f64 = sqlx::query_scalar(apart).fetch_one(&pool).await.unwrap();
    println!("polls started at most {apart:.1} s apart");
    daemon.stop();
    pool.close().await;
    server.stop().await;
}
