//! Time from an edit at Harvest to its event in `roster.outbox`, and number of requests, for several poll intervals.
//!
//! `cargo bench -- freshness`, or `freshness SECONDS` for another time than four minutes. Four equal companies get the
//! same edits at the same times, in bursts with pauses as in an office. Each has a separate daemon and database.

use std::time::{Duration, Instant};

use crate::measured::{Daemon, consumer, quantile};
use crate::postgres::{Server, until};
use harvest_sim::{Company, Options, Sim};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::time::sleep_until;

const INTERVALS: [&str; 4] = ["1s", "5s", "60s", "auto"];
/// Edits in each burst, at random times within 15 seconds.
const BURST: usize = 20;
/// Approximate time between the starts of two bursts.
const QUIET: Duration = Duration::from_secs(40);

pub async fn measure(arguments: &[String]) {
    let seconds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(240);
    let span = Duration::from_secs(seconds);
    let moments = moments(span);
    let server = Server::start().await;
    let mut offices = Vec::new();
    for interval in INTERVALS {
        offices.push(Office::open(&server, interval).await);
    }

    let mut heard = Vec::new();
    for office in &offices {
        // The last edit may wait for a whole interval.
        heard.push(consumer(office.pool.clone(), moments.len(), span + Duration::from_secs(90)).await);
    }
    let began = tokio::time::Instant::now();
    let before: Vec<(usize, f64)> = offices.iter().map(Office::spent).collect();
    let mut edits = Vec::new();
    for (nth, moment) in moments.iter().enumerate() {
        sleep_until(began + *moment).await;
        for office in &offices {
            // Each user once, so that each edit causes a separate event.
            let user = office.sim.user_ids()[1 + nth];
            office.sim.rename(user, "Edited", &format!("Number {nth}"));
        }
        edits.push(Instant::now());
    }
    sleep_until(began + span).await;
    let after: Vec<(usize, f64)> = offices.iter().map(Office::spent).collect();

    println!("{} edits in {seconds} s, in bursts of {BURST}", edits.len());
    println!();
    println!("poll_interval   events   median      p99   longest   requests/minute       CPU    memory");
    for (nth, heard) in heard.into_iter().enumerate() {
        let (office, heard) = (&offices[nth], heard.await.unwrap());
        let users = office.sim.user_ids();
        let account = office.sim.account_id();
        let delays = edits
            .iter()
            .enumerate()
            .filter_map(|(edit, at)| Some(heard.get(&(account, users[1 + edit].0))?.duration_since(*at)));
        let mut ages: Vec<Duration> = delays.collect();
        ages.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand requests")]
        let requests = (after[nth].0 - before[nth].0) as f64 * 60.0 / span.as_secs_f64();
        let cpu = 100.0 * (after[nth].1 - before[nth].1) / span.as_secs_f64();
        let [median, p99, longest] =
            [(1, 2), (99, 100), (1, 1)].map(|share| quantile(&ages, share).as_secs_f64());
        println!(
            "{:<15} {:>6} {median:>6.1} s {p99:>6.1} s {longest:>7.1} s {requests:>19.0} {cpu:>5.1} % {:>5.0} MiB",
            INTERVALS[nth],
            ages.len(),
            office.daemon.memory("VmHWM:")
        );
    }
    for office in offices {
        office.daemon.stop();
        office.pool.close().await;
    }
    server.stop().await;
}

/// Times of the edits.
fn moments(span: Duration) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(11);
    let mut moments = Vec::new();
    let mut start = QUIET / 4;
    while start + QUIET / 2 < span {
        let burst = start;
        moments.extend((0..BURST).map(|_| burst + Duration::from_secs(15).mul_f64(random.random::<f64>())));
        start += QUIET.mul_f64(0.75 + random.random::<f64>() / 2.0);
    }
    moments.sort_unstable();
    moments
}

/// A company with its daemon and database.
struct Office {
    sim: Sim,
    pool: PgPool,
    daemon: Daemon,
}

impl Office {
    /// Starts all parts and waits for the first full read.
    async fn open(server: &Server, interval: &str) -> Self {
        let sim = Sim::start(Company::seeded(3, 500, 2000), Options::default()).await.unwrap();
        let name = format!("office_{interval}");
        let url = server.database(&name).await;
        let environment = [
            ("DATABASE_URL", url.clone()),
            ("HARVEST_BASE_URL", sim.base_url().to_owned()),
            ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
            ("HARVEST_ACCESS_TOKEN", sim.token()),
            ("ROSTERD__SYNC__POLL_INTERVAL", interval.to_owned()),
            ("ROSTERD__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        let daemon = Daemon::start(&environment, &server.directory().join(name));
        let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
        until(&pool, "SELECT count(last_full_at) = 1 FROM roster.accounts").await;
        Self { sim, pool, daemon }
    }

    /// Requests and seconds of CPU so far.
    fn spent(&self) -> (usize, f64) {
        (self.sim.requests().len(), self.daemon.cpu())
    }
}
