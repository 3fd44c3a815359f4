//! The status page: the time of a look at many accounts, and looks at the database for visitors at once.
//!
//! `cargo bench -- page [ACCOUNTS ASSIGNMENTS]`. The rows are inserted directly.

use std::time::{Duration, Instant};

use futures::future::join_all;
use harvest_sim::{Company, Options, Sim};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::measured::{Daemon, quantile};
use crate::postgres::{Server, until};

const LOOKS: usize = 20;
const VISITORS: usize = 10;
/// Visitors within two seconds share a look.
const NEXT_LOOK: Duration = Duration::from_millis(2100);

/// How often the page's query has read this table, which no idle process reads. PostgreSQL counts within ten seconds.
const SCANS: &str = "SELECT (seq_scan + coalesce(idx_scan, 0))::bigint FROM pg_stat_user_tables
                      WHERE relid = 'roster.held_deletions'::regclass";

fn rows(accounts: usize, assignments: usize) -> String {
    format!(
        "INSERT INTO roster.accounts (account_id, name, last_full_at, free_at)
         SELECT 200000 + a, 'Company ' || a, now(), now() FROM generate_series(1, {accounts}) AS a;
         INSERT INTO roster.watermarks (account_id, resource, last_success_at)
         SELECT 200000 + a, resource, now() - a * interval '1 second'
           FROM generate_series(1, {accounts}) AS a, (VALUES ('users'), ('user_assignments')) AS list (resource);
         INSERT INTO roster.users (account_id, id, first_name, last_name, email, weekly_capacity, is_contractor, is_active,
                                   roles, access_roles, created_at, updated_at, raw, version, content_hash, synced_at)
         SELECT 200000 + a, 1000 + u, 'Ada', 'Marlow ' || u, 'ada.' || u || '@example.com', 126000, false, true,
                '{{}}', '{{member}}', now(), now(), '{{}}', 1, 0, now()
           FROM generate_series(1, {accounts}) AS a, generate_series(1, 50) AS u;
         INSERT INTO roster.projects (account_id, id, name, seen_at)
         SELECT 200000 + a, 1, 'Project', now() FROM generate_series(1, {accounts}) AS a;
         INSERT INTO roster.user_assignments (account_id, id, user_id, project_id, is_active, created_at, updated_at, raw,
                                              version, content_hash, synced_at)
         SELECT 200001 + n % {accounts}, 5000 + n, 1001 + n % 50, 1, true, now(), now(), '{{}}', 1, 0, now()
           FROM generate_series(1, {assignments}) AS n;
         ANALYZE"
    )
}

pub async fn measure(arguments: &[String]) {
    let number = |nth: usize, default| arguments.get(nth).map_or(default, |it| it.parse().unwrap());
    let (accounts, assignments) = (number(0, 1000), number(1, 1_000_000));
    let server = Server::start().await;
    let sim = Sim::start(Company::seeded(3, 10, 10), Options::default()).await.unwrap();
    let url = server.database("page").await;
    // Free again before the daemon binds it.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let environment = [
        ("DATABASE_URL", url.clone()),
        ("HARVEST_BASE_URL", sim.base_url().to_owned()),
        ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
        ("HARVEST_ACCESS_TOKEN", sim.token()),
        ("ROSTERD__SYNC__POLL_INTERVAL", "1h".to_owned()),
        ("ROSTERD__HTTP__LISTEN", address.to_string()),
    ];
    let daemon = Daemon::start(&environment, &server.directory().join("log"));
    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    until(&pool, "SELECT count(first_full_at) = 1 FROM roster.accounts").await;
    sqlx::raw_sql(AssertSqlSafe(rows(accounts, assignments))).execute(&pool).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let look = async || {
        let began = Instant::now();
        let page = client.get(format!("http://{address}/")).send().await.unwrap();
        assert!(page.error_for_status().unwrap().text().await.unwrap().contains("more account"));
        began.elapsed()
    };
    let mut times = Vec::new();
    for _ in 0..LOOKS {
        sleep(NEXT_LOOK).await;
        times.push(look().await);
    }
    times.sort_unstable();
    let [median, most] = [(1, 2), (1, 1)].map(|share| quantile(&times, share).as_millis());
    println!(
        "page of {accounts} accounts and {assignments} assignments: median {median} ms, at most {most} ms"
    );
    let settled = async || {
        sleep(Duration::from_secs(12)).await;
        sqlx::query_scalar::<_, i64>(SCANS).fetch_one(&pool).await.unwrap()
    };
    let before = settled().await;
    let mut times = join_all((0..VISITORS).map(|_| look())).await;
    times.sort_unstable();
    let most = quantile(&times, (1, 1)).as_millis();
    println!("{VISITORS} visitors at once: {} looks, at most {most} ms", settled().await - before);
    daemon.stop();
    pool.close().await;
    server.drop_database("page").await;
    server.stop().await;
}
