//! The same company read by dlt, another tool for this work, and by rosterd, in turn into the same PostgreSQL.
//!
//! `cargo bench -- peers`, or `peers ROUNDS` for another number of rounds than three. In each round each tool reads
//! 5,000 users and 50,000 assignments into an empty database, then polls once without changes. The order alternates.
//! The third line of a round is a raw `COPY` of rosterd's rows into equal tables, the bound of its first read.
//!
//! dlt runs `benches/peers/dlt_harvest.py` with the Python of `PEERS_PYTHON` (default `python3`). If that Python has no
//! dlt, only rosterd and `COPY` are measured. All times include start and end of the process.

use std::path::Path;
use std::process::{Command, Stdio};

use harvest_sim::{Company, Options, Sim};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::measured::{Ended, rosterd, run};
use crate::postgres::{Server, copy_again, database_size, megabytes, server_cpu, written};

const USERS: usize = 5000;
const ASSIGNMENTS: usize = 50_000;
const PIPELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/dlt_harvest.py");

pub async fn measure(arguments: &[String]) {
    let rounds: usize = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(3);
    let python = std::env::var("PEERS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut tools = vec![Tool::Rosterd];
    match dlt_version(&python) {
        Some(version) => {
            println!("dlt {version} and rosterd, {USERS} users + {ASSIGNMENTS} assignments");
            tools.push(Tool::Dlt);
        }
        None => println!(
            "dlt is skipped because `{python}` cannot import it: `python3 -m venv DIR`, `DIR/bin/pip install \
             'dlt[postgres]==1.31.*'`, then run this again with PEERS_PYTHON=DIR/bin/python."
        ),
    }
    let server = Server::start().await;
    // Neither tool reaches Harvest's limit in one round, but the limit would count the requests of all rounds together.
    let options = Options { limit: None, ..Options::default() };
    let sim = Sim::start(Company::seeded(1, USERS, ASSIGNMENTS), options).await.unwrap();

    println!();
    println!("| round | | | requests | s | CPU s | PostgreSQL's CPU s | MiB | WAL | database |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut results = Results::default();
    for round in 1..=rounds {
        for tool in &tools {
            let bench = Bench::new(&server, &sim, &python, *tool, round).await;
            results.first[*tool as usize].push(bench.measure("first read").await);
            results.idle[*tool as usize].push(bench.measure("idle poll").await);
            bench.assert_complete().await;
            if matches!(tool, Tool::Rosterd) {
                let copy = copy_again(&bench.pool, &bench.tables().await).await.as_secs_f64();
                println!("| {round} | `COPY` | the same rows | | {copy:.2} | | | | | |");
                results.copy.push(copy);
            }
            bench.pool.close().await;
            server.drop_database(&bench.database).await;
        }
        tools.reverse();
    }
    println!();
    results.print();
    server.stop().await;
}

/// `None` if this Python does not exist, or cannot import dlt with its driver for PostgreSQL.
fn dlt_version(python: &str) -> Option<String> {
    let script = "import dlt, psycopg2, dlt.sources.rest_api; print(dlt.__version__)";
    let output = Command::new(python).args(["-c", script]).stderr(Stdio::null()).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !version.is_empty()).then_some(version)
}

#[derive(Clone, Copy)]
enum Tool {
    Rosterd,
    Dlt,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Rosterd => "rosterd",
            Self::Dlt => "dlt",
        }
    }
}

/// One tool with an empty database.
struct Bench<'a> {
    sim: &'a Sim,
    python: &'a str,
    tool: Tool,
    round: usize,
    database: String,
    pool: PgPool,
    environment: Vec<(&'static str, String)>,
}

impl<'a> Bench<'a> {
    async fn new(server: &Server, sim: &'a Sim, python: &'a str, tool: Tool, round: usize) -> Self {
        let database = format!("{}_{round}", tool.name());
        let url = server.database(&database).await;
        let pool = PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
        let files = server.directory().join(&database).display().to_string();
        let environment = vec![
            ("DATABASE_URL", url),
            ("HARVEST_BASE_URL", sim.base_url().to_owned()),
            ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
            ("HARVEST_ACCESS_TOKEN", sim.token()),
            // dlt keeps its state and its files between two steps in this directory, and reports its use to its makers.
            ("DLT_DATA_DIR", files.clone()),
            ("HOME", files),
            ("RUNTIME__DLTHUB_TELEMETRY", "false".to_owned()),
        ];
        Self { sim, python, tool, round, database, pool, environment }
    }

    /// Runs the tool once and prints a row.
    async fn measure(&self, what: &str) -> Ended {
        let mut command = match self.tool {
            Tool::Rosterd => rosterd(&["sync"], &self.environment[..4]),
            Tool::Dlt => {
                let mut command = Command::new(self.python);
                command.arg(PIPELINE).env_clear().envs(self.environment.clone());
                command.current_dir(Path::new(PIPELINE).parent().unwrap());
                command
            }
        };
        let (asked, wal) = (self.sim.requests().len(), written(&self.pool).await.0);
        let postgres = server_cpu(&self.pool).await;
        let ended = run(&mut command);
        println!(
            "| {} | {} | {what} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.1} MB | {:.1} MB |",
            self.round,
            self.tool.name(),
            self.sim.requests().len() - asked,
            ended.took.as_secs_f64(),
            ended.cpu,
            server_cpu(&self.pool).await - postgres,
            ended.peak,
            megabytes(written(&self.pool).await.0 - wal),
            megabytes(database_size(&self.pool).await),
        );
        ended
    }

    /// A tool that stored fewer rows would only seem to be faster.
    async fn assert_complete(&self) {
        let schema = match self.tool {
            Tool::Rosterd => "roster",
            Tool::Dlt => "harvest",
        };
        for (table, expected) in [("users", USERS), ("user_assignments", ASSIGNMENTS)] {
            let count = AssertSqlSafe(format!("SELECT count(*) FROM {schema}.{table}"));
            let count: i64 = sqlx::query_scalar(count).fetch_one(&self.pool).await.unwrap();
            assert_eq!(count, i64::try_from(expected).unwrap(), "{schema}.{table}");
        }
    }

    /// The tables of rosterd.
    async fn tables(&self) -> Vec<String> {
        let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'roster'::regnamespace AND relkind = 'r'";
        sqlx::query_scalar(tables).fetch_all(&self.pool).await.unwrap()
    }
}

/// Results of all rounds, by tool.
#[derive(Default)]
struct Results {
    first: [Vec<Ended>; 2],
    idle: [Vec<Ended>; 2],
    /// In seconds.
    copy: Vec<f64>,
}

impl Results {
    /// Prints the ratios of the medians.
    fn print(&self) {
        for (what, [rosterd, dlt]) in [("First read", &self.first), ("Idle poll", &self.idle)] {
            if dlt.is_empty() {
                continue;
            }
            let ratio = |of: fn(&Ended) -> f64| {
                median(rosterd.iter().map(of).collect()) / median(dlt.iter().map(of).collect())
            };
            println!(
                "{what}, rosterd / dlt: wall {:.2}, CPU {:.3}, peak memory {:.2}.",
                ratio(|ended| ended.took.as_secs_f64()),
                ratio(|ended| ended.cpu),
                ratio(|ended| ended.peak),
            );
        }
        let [rosterd, _] = &self.first;
        let took = median(rosterd.iter().map(|ended| ended.took.as_secs_f64()).collect());
        println!("First read: {:.2} of the speed of the raw `COPY`.", median(self.copy.clone()) / took);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
