//! Resources of the binary for first reads, reads without changes, reads with few changes, idle polls, and a long read
//! under Harvest's limit, with the lower bound of each. "Database" is the size of its files (`pg_database_size`);
//! "bytes per record" is its growth since it was created, by users and assignments.
//!
//! `cargo bench -- workloads`; with `--large` also a company of 20,000 users and 1,000,000 assignments, which takes
//! some minutes. The simulated Harvest and PostgreSQL share the machine, so compare figures only within a run.

use std::time::{Duration, Instant};

use crate::measured::{self, Daemon, Ended, real, rosterd};
use crate::postgres::{Server, connections_cpu, database_size, megabytes, server_cpu, until, written};
use harvest_sim::{Company, Fault, Options, Paging, Sim};
use rosterd::harvest::envelope::Envelope;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::time::sleep;

/// Number of measured polls.
const POLLS: usize = 30;

pub async fn measure(arguments: &[String]) {
    let server = Server::start().await;
    println!(
        "| company | work | requests | s | pagination only, s | CPU s | PostgreSQL's CPU s | MiB | events | WAL \
         | database | bytes per record |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    company(&server, 5000, 50_000).await;
    if arguments.iter().any(|argument| argument == "--large") {
        company(&server, 20_000, 1_000_000).await;
    }
    println!();
    idle_polls(&server).await;
    println!();
    slow_harvest(&server, 5002, Paging::Cursor).await;
    slow_harvest(&server, 5003, Paging::Number).await;
    println!();
    under_the_limit(&server, 2000, Paging::Cursor).await;
    under_the_limit(&server, 2001, Paging::Number).await;
    server.stop().await;
}

async fn company(server: &Server, people: usize, places: usize) {
    let work = Work::new(server, people, places, Options { limit: None, ..Options::default() }).await;
    work.measure("first read", &["sync", "--full"]).await;
    work.measure("full read, no changes", &["sync", "--full"]).await;
    work.edit();
    work.measure("full read, 1 % changed", &["sync", "--full"]).await;
    work.edit();
    work.measure("poll, 1 % changed", &["sync"]).await;
    work.measure("poll, no changes", &["sync"]).await;
    work.pool.close().await;
    server.drop_database(&work.database).await;
}

/// Reads from a Harvest that takes half a second per page, the minimum of the real one. rosterd stores meanwhile, and
/// requests several numbered pages at a time.
async fn slow_harvest(server: &Server, people: usize, paging: Paging) {
    const EACH: Duration = Duration::from_millis(500);
    let work = Work::new(server, people, 50_000, Options { limit: None, paging, ..Options::default() }).await;
    work.sim.inject(Fault::delay_request(EACH).forever());
    let Ended { took, .. } = measured::run(&mut rosterd(&["sync", "--full"], &work.environment));
    let requests = work.sim.requests().len();
    let theirs = real(requests) * EACH.as_secs_f64();
    println!(
        "Harvest with half a second per request, {paging:?}: {requests} requests in {:.1} s, {:.2} of Harvest's response \
         time ({theirs:.1} s).",
        took.as_secs_f64(),
        took.as_secs_f64() / theirs,
    );
}

/// A company with its database.
struct Work {
    sim: Sim,
    name: String,
    database: String,
    pool: PgPool,
    environment: Vec<(&'static str, String)>,
    /// Users and assignments.
    records: i64,
    /// Size of the database before rosterd's first start, in bytes.
    empty: i64,
}

impl Work {
    async fn new(server: &Server, people: usize, places: usize, options: Options) -> Self {
        let limited = options.limit.is_some();
        let sim = Sim::start(Company::seeded(1, people, places), options).await.unwrap();
        let database = format!("company_{people}_{places}");
        let url = server.database(&database).await;
        let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
        let mut environment = vec![
            ("DATABASE_URL", url),
            ("HARVEST_BASE_URL", sim.base_url().to_owned()),
            ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
            ("HARVEST_ACCESS_TOKEN", sim.token()),
            ("ROSTERD__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        if !limited {
            environment.push(("ROSTERD__RATE_LIMIT__REQUESTS", "100000".to_owned()));
        }
        let (records, empty) = (i64::try_from(people + places).unwrap(), database_size(&pool).await);
        Self { sim, name: format!("{people} + {places}"), database, pool, environment, records, empty }
    }

    /// Edits every hundredth record.
    fn edit(&self) {
        for user in self.sim.user_ids().into_iter().step_by(100) {
            self.sim.edit_user(user, |user| user.weekly_capacity += 1800);
        }
        for place in self.sim.assignment_ids().into_iter().step_by(100) {
            let more = |place: &mut harvest_sim::Assignment| {
                place.budget = Some(place.budget.unwrap_or_default() + 1.5);
            };
            self.sim.edit_assignment(place, more);
        }
    }

    /// Runs a command of `rosterd` and prints a row.
    async fn measure(&self, what: &str, arguments: &[&str]) {
        let (wal, asked, events) =
            (written(&self.pool).await.0, self.sim.requests().len(), self.events().await);
        let postgres_before = server_cpu(&self.pool).await;
        let Ended { took, cpu, peak } = measured::run(&mut rosterd(arguments, &self.environment));
        let postgres = server_cpu(&self.pool).await - postgres_before;
        let size = database_size(&self.pool).await;
        let requests = self.sim.requests().len() - asked;
        let pagination = if arguments.contains(&"--full") {
            format!("{:.1}", self.read_pages().await.as_secs_f64())
        } else {
            String::new()
        };
        println!(
            "| {} | {what} | {requests} | {:.1} | {pagination} | {cpu:.2} | {postgres:.2} | {peak:.0} | {} | {:.1} MB \
             | {:.1} MB | {} |",
            self.name,
            took.as_secs_f64(),
            self.events().await - events,
            megabytes(written(&self.pool).await.0 - wal),
            megabytes(size),
            (size - self.empty) / self.records,
        );
    }

    async fn events(&self) -> i64 {
        let head = sqlx::query_scalar("SELECT seq FROM roster.outbox_head").fetch_one(&self.pool);
        // Before the first read there is no table.
        head.await.unwrap_or_default()
    }

    /// Time to request the same pages one after the other, parsing only the link to the next page.
    async fn read_pages(&self) -> Duration {
        let client = reqwest::Client::builder().gzip(true).build().unwrap();
        let began = Instant::now();
        for list in ["users", "user_assignments"] {
            let mut next = Some(format!("{}/{list}?per_page=2000", self.sim.base_url()));
            while let Some(url) = next {
                let request = client.get(url).bearer_auth(self.sim.token());
                let request = request.header("Harvest-Account-Id", self.sim.account_id());
                let body = request.header("User-Agent", "bench").send().await.unwrap().bytes().await.unwrap();
                next = Envelope::parse(&body, list).unwrap().next_link;
            }
        }
        began.elapsed()
    }
}

/// A daemon that polls every second, in a company without changes.
async fn idle_polls(server: &Server) {
    let mut work = Work::new(server, 5001, 50_000, Options { limit: None, ..Options::default() }).await;
    work.environment.push(("ROSTERD__SYNC__POLL_INTERVAL", "1s".to_owned()));
    let daemon = Daemon::start(&work.environment, &server.directory().join("idle"));
    until(
        &work.pool,
        "SELECT count(*) = 2 FROM roster.watermarks WHERE watermark IS NOT NULL AND next_full_at IS NOT NULL",
    )
    .await;
    // Wait until the first polls and heartbeats are over.
    sleep(Duration::from_secs(5)).await;
    // Otherwise autovacuum may write its WAL during the measurement.
    sqlx::query("VACUUM ANALYZE").execute(&work.pool).await.unwrap();
    let (cpu, theirs) = (daemon.cpu(), connections_cpu(&work.pool).await);
    let (wal, rows, asked) = (written(&work.pool).await.0, rows(&work.pool).await, work.sim.requests().len());
    while work.sim.requests().len() < asked + 4 * POLLS {
        sleep(Duration::from_millis(20)).await;
    }
    let (cpu, theirs) = (daemon.cpu() - cpu, connections_cpu(&work.pool).await - theirs);
    let bytes = written(&work.pool).await.0 - wal;
    println!(
        "Idle poll: {:.1} ms of CPU, {:.1} ms of PostgreSQL's CPU, {} bytes of WAL including heartbeats, {} rows of \
         mirror, outbox and cycles written; {:.0} MiB, peak {:.0} MiB.",
        1000.0 * cpu / real(POLLS),
        1000.0 * theirs / real(POLLS),
        bytes / i64::try_from(POLLS).unwrap(),
        self::rows(&work.pool).await - rows,
        daemon.memory("VmRSS:"),
        daemon.memory("VmHWM:"),
    );
    daemon.stop();
}

/// Number of rows written so far to the tables with data.
async fn rows(pool: &PgPool) -> i64 {
    sqlx::query_scalar(
        "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables
          WHERE relname IN ('users', 'user_assignments', 'projects', 'outbox', 'outbox_head', 'cycles', 'user_history',
                            'user_assignment_history')",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Reads more pages than Harvest allows in one window.
async fn under_the_limit(server: &Server, people: usize, paging: Paging) {
    let options = Options { max_per_page: 100, paging, ..Options::default() };
    let mut work = Work::new(server, people, 30_000, options).await;
    work.environment.push(("ROSTERD__HARVEST__PER_PAGE", "100".to_owned()));
    let Ended { took, .. } = measured::run(&mut rosterd(&["sync", "--full"], &work.environment));
    let requests = work.sim.requests().len();
    // The first hundred at once, and each further hundred one window later.
    let floor = 15.0 * real((requests - 1) / 100);
    println!(
        "Under Harvest's limit, {paging:?}: {requests} requests in {:.1} s, {:.2} of the minimum under the limit ({floor:.1} s); at most \
         {} in any 15 s.",
        took.as_secs_f64(),
        took.as_secs_f64() / floor,
        work.sim.max_requests_in_window(Duration::from_secs(15)),
    );
}
