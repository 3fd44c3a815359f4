//! Many accounts in one process: resources used when idle and with changes, and delays of polls.
//!
//! `cargo bench -- accounts`, or `accounts ACCOUNTS SECONDS` for other numbers than 1,000 accounts and two minutes for
//! each part. Each account is a company of 50 users with a separate token and budget. This process serves all of them
//! at one address, which takes CPU time from the daemon.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::measured::{Daemon, consumer, quantile};
use crate::postgres::{Server, until, written};
use harvest_sim::{Company, Options, Sim};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::time::{sleep, sleep_until};

const INTERVAL: Duration = Duration::from_mins(1);

pub async fn measure(arguments: &[String]) {
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse::<u64>().ok());
    let accounts = numbers.next().unwrap_or(1000);
    let span = Duration::from_secs(numbers.next().unwrap_or(120));
    let sims = companies(accounts).await;
    let server = Server::start().await;
    let url = server.database("accounts").await;
    let pool = PgPoolOptions::new().max_connections(3).connect(&url).await.unwrap();
    let most = watch_connections(pool.clone());

    let log = server.directory().join("log");
    let began = Instant::now();
    let daemon = Daemon::start(&environment(&sims, &url, &server), &log);
    let read = format!(
        "SELECT count(*) = 2 * {accounts} FROM roster.watermarks WHERE watermark IS NOT NULL AND next_full_at IS NOT NULL"
    );
    until(&pool, &read).await;
    println!("{accounts} accounts of 50 users, polled every {} s", INTERVAL.as_secs());
    println!();
    let (took, requests) = (began.elapsed().as_secs_f64(), asked(&sims));
    println!("first read of all: {took:.1} s, {:.1} s of CPU, {requests} requests", daemon.cpu());

    // Wait until all first polls are over.
    sleep(INTERVAL + INTERVAL / 4).await;
    let idle = Part::begin(&sims, &pool, &daemon).await;
    sleep(span).await;
    idle.end("no changes", &sims, &pool, &daemon).await;

    let changes = usize::try_from(span.as_secs() * 10).unwrap();
    let heard = consumer(pool.clone(), changes, span + 2 * INTERVAL).await;
    let busy = Part::begin(&sims, &pool, &daemon).await;
    let edits = edit(&sims, changes, span).await;
    busy.end("ten users change per second", &sims, &pool, &daemon).await;
    let heard = heard.await.unwrap();
    let delays = edits.iter().filter_map(|(who, at)| Some(heard.get(who)?.duration_since(*at)));
    let mut ages: Vec<Duration> = delays.collect();
    ages.sort_unstable();
    println!();
    println!(
        "from {} edits to {} events: median {:.1} s, p99 {:.1} s, longest {:.1} s",
        edits.len(),
        ages.len(),
        quantile(&ages, (1, 2)).as_secs_f64(),
        quantile(&ages, (99, 100)).as_secs_f64(),
        quantile(&ages, (1, 1)).as_secs_f64(),
    );
    let (now, peak) = (daemon.memory("VmRSS:"), daemon.memory("VmHWM:"));
    println!("memory {now:.0} MiB, peak {peak:.0} MiB; at most {} connections", most.load(Ordering::Relaxed));
    let failed = std::fs::read_to_string(&log).unwrap();
    let failed = failed.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
    println!("warnings and errors in the log: {}", failed.clone().count());
    failed.take(3).for_each(|line| println!("  {line}"));
    daemon.stop();
    server.stop().await;
}

async fn companies(accounts: u64) -> Vec<Sim> {
    let mut companies = (1..=accounts).map(|nth| {
        let company = Company::seeded(nth, 50, 150);
        company.with_account_id(nth.cast_signed()).with_token(format!("{nth}.pt.not-a-real-token"))
    });
    let first = companies.next().unwrap();
    Sim::start_many(first, companies, &Options::default()).await.unwrap()
}

fn environment(sims: &[Sim], url: &str, server: &Server) -> [(&'static str, String); 6] {
    let mut file = String::new();
    for sim in sims {
        let (id, token) = (sim.account_id(), sim.token());
        writeln!(file, "[[accounts]]\nid = {id}\naccess_token = \"{token}\"\n").unwrap();
    }
    let path = server.directory().join("settings.toml");
    std::fs::write(&path, file).unwrap();
    [
        ("DATABASE_URL", url.to_owned()),
        ("HARVEST_BASE_URL", sims[0].base_url().to_owned()),
        ("ROSTERD_CONFIG", path.display().to_string()),
        ("ROSTERD__RATE_LIMIT__SCOPE", "token".to_owned()),
        ("ROSTERD__SYNC__POLL_INTERVAL", format!("{}s", INTERVAL.as_secs())),
        ("ROSTERD__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
    ]
}

fn asked(sims: &[Sim]) -> usize {
    sims.iter().map(|sim| sim.requests().len()).sum()
}

/// The highest number of simultaneous connections of the daemon, updated in the background.
fn watch_connections(pool: PgPool) -> Arc<AtomicI64> {
    let most = Arc::new(AtomicI64::new(0));
    let seen = most.clone();
    tokio::spawn(async move {
        loop {
            let count = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM pg_stat_activity
                  WHERE application_name = 'rosterd' AND datname = current_database()",
            );
            if let Ok(count) = count.fetch_one(&pool).await {
                seen.fetch_max(count, Ordering::Relaxed);
            }
            sleep(Duration::from_millis(250)).await;
        }
    });
    most
}

/// Edits users of random accounts at random times within `span`, each user once.
async fn edit(sims: &[Sim], changes: usize, span: Duration) -> Vec<((i64, i64), Instant)> {
    let mut random = StdRng::seed_from_u64(7);
    let mut moments: Vec<_> = (0..changes).map(|_| span.mul_f64(random.random::<f64>())).collect();
    moments.sort_unstable();
    let began = tokio::time::Instant::now();
    let mut edits = Vec::new();
    for (nth, moment) in moments.into_iter().enumerate() {
        sleep_until(began + moment).await;
        let sim = &sims[random.random_range(0..sims.len())];
        // Each user once: an account may be chosen again, but then another user is edited.
        let user = sim.user_ids()[1 + nth % 49];
        let who = (sim.account_id(), user.0);
        if edits.iter().all(|(earlier, _)| *earlier != who) {
            sim.rename(user, "Edited", &format!("Number {nth}"));
            edits.push((who, Instant::now()));
        }
    }
    sleep_until(began + span).await;
    edits
}

/// One measured part of the benchmark.
struct Part {
    began: Instant,
    cpu: f64,
    requests: usize,
    wal: i64,
    transactions: i64,
}

impl Part {
    async fn begin(sims: &[Sim], pool: &PgPool, daemon: &Daemon) -> Self {
        let (wal, transactions) = written(pool).await;
        Self { began: Instant::now(), cpu: daemon.cpu(), requests: asked(sims), wal, transactions }
    }

    async fn end(self, what: &str, sims: &[Sim], pool: &PgPool, daemon: &Daemon) {
        let (seconds, cpu) = (self.began.elapsed().as_secs_f64(), daemon.cpu() - self.cpu);
        let (wal, transactions) = written(pool).await;
        let polls: Vec<Vec<Instant>> = sims.iter().map(|sim| polls(sim, self.began)).collect();
        let mut waits: Vec<Duration> =
            polls.iter().flat_map(|polls| polls.windows(2).map(|pair| pair[1] - pair[0])).collect();
        waits.sort_unstable();
        let late = waits.iter().filter(|wait| **wait > INTERVAL + Duration::from_secs(1)).count();
        let unread = polls.iter().filter(|polls| polls.is_empty()).count();
        #[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
        let each = |number: i64| number as f64 / polls.iter().map(Vec::len).sum::<usize>() as f64;
        let requests = asked(sims) - self.requests;
        println!();
        println!("{what}, for {seconds:.0} s:");
        println!(
            "  CPU               {:.1} % of a core, {:.2} ms per poll",
            100.0 * cpu / seconds,
            1000.0 * cpu / each(1).recip()
        );
        println!("  requests          {:.1} per poll", each(i64::try_from(requests).unwrap()));
        println!(
            "  transactions      {:.1} per poll, whole database",
            each(transactions - self.transactions)
        );
        println!("  WAL               {:.0} bytes per poll", each(wal - self.wal));
        println!(
            "  poll to poll      median {:.2} s, p99 {:.2} s, longest {:.2} s; more than a second late: {late}",
            quantile(&waits, (1, 2)).as_secs_f64(),
            quantile(&waits, (99, 100)).as_secs_f64(),
            quantile(&waits, (1, 1)).as_secs_f64(),
        );
        println!("  never polled      {unread} accounts; polls in the busiest second: {}", busiest(&polls));
    }
}

/// Times of the account's polls since then.
fn polls(sim: &Sim, since: Instant) -> Vec<Instant> {
    let requests = sim.requests().into_iter().filter(|request| request.at >= since);
    let polls = requests.filter(|it| it.path.contains("/users?") && it.path.contains("updated_since"));
    polls.map(|request| request.at).collect()
}

/// The highest number of polls in any second.
fn busiest(polls: &[Vec<Instant>]) -> usize {
    let mut all: Vec<Instant> = polls.iter().flatten().copied().collect();
    all.sort_unstable();
    let second = Duration::from_secs(1);
    let within = |first: usize| all[first..].iter().take_while(|at| **at - all[first] < second).count();
    (0..all.len()).map(within).max().unwrap_or(0)
}
