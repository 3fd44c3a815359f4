//! The seeded simulation: a seed stands for a company, edits that appear late, clocks that jump, errors of Harvest, and a
//! rosterd that is killed, disconnected or superseded at any statement. A reference model checks every step.
//!
//! A seed runs with or without full reads: a full read would repair, and so hide, what an early watermark loses.

mod plan;
mod run;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::{Builder, Runtime};

use self::plan::plans;
use self::run::{Run, Tally};
use crate::database::TestDatabase;

/// The reference model reads all events of a database, so that each further run takes longer.
const RUNS_PER_DATABASE: u32 = 20;

/// Runs a range of seeds on so many threads.
pub fn run_seeds(seeds: Range<u64>, full_reads: bool, threads: usize) {
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Tally::default()));
    let count = seeds.end - seeds.start;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                let mut databases = DatabasePool::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let tally = run_seed(seed, full_reads, &runtime, &mut databases);
                    sum.lock().unwrap().add(tally);
                    if (seed - seeds.start + 1).is_multiple_of(500) {
                        eprintln!("{} of {count} seeds", seed - seeds.start + 1);
                    }
                }
            });
        }
    });
    let kind = if full_reads { "with" } else { "without" };
    eprintln!("{count} seeds {kind} full reads: {:?}", sum.into_inner().unwrap());
}

/// A database for several runs, each with its own account. A run that fails does not return the database.
#[derive(Default)]
struct DatabasePool {
    database: Option<TestDatabase>,
    runs: u32,
}

impl DatabasePool {
    fn take(&mut self) -> Option<TestDatabase> {
        self.runs += 1;
        self.database.take().filter(|_| !self.runs.is_multiple_of(RUNS_PER_DATABASE))
    }
}

fn run_seed(seed: u64, full_reads: bool, runtime: &Runtime, databases: &mut DatabasePool) -> Tally {
    static ACCOUNT: AtomicI64 = AtomicI64::new(1000);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let max_shrink_iters = std::env::var("ROSTERD_SHRINK").map_or(300, |steps| steps.parse().unwrap());
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters, ..Config::default() };
    let (databases, tally) = (RefCell::new(databases), Cell::new(Tally::default()));
    let result = TestRunner::new_with_rng(config, rng).run(&plans(full_reads), |plan| {
        runtime.block_on(async {
            let kept = databases.borrow_mut().take();
            let database = match kept {
                Some(database) => database,
                None => TestDatabase::new().await,
            };
            let account = ACCOUNT.fetch_add(1, Ordering::Relaxed);
            let mut run = Run::begin(&plan, full_reads, account, &database).await;
            run.execute(&plan).await;
            tally.set(run.tally);
            run.end().await;
            databases.borrow_mut().database = Some(database);
        });
        Ok(())
    });
    if let Err(error) = result {
        let kind = if full_reads { "with" } else { "without" };
        eprintln!("{error}");
        // The plan was printed above: the message of the panic stays short.
        panic!(
            "seed {seed}, {kind} full reads; repeat: \
             ROSTERD_SEED={seed} cargo test --locked --test campaigns -- seeds::"
        );
    }
    tally.get()
}
