//! Whole histories out of a number: a company, edits that show late, clocks that jump, a Harvest that stumbles, and a rosterd
//! that is killed, cut off or overtaken at any statement; against an oracle.
//!
//! `ROSTERD_SEEDS=10000 cargo test --release --locked --test it -- seeds:: --nocapture` tells so many, twice each: with full
//! reads, and without, since those repair what an early watermark loses. `ROSTERD_SEED=4711` tells that one alone.

mod plan;
mod story;

use std::cell::{Cell, RefCell};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::{Builder, Runtime};

use self::plan::plans;
use self::story::{Story, Tally};
use crate::database::TestDatabase;

/// How many seeds each run of the tests tries: about a minute and a half on two cores.
const SEEDS: u64 = 48;
/// Then a database has told enough: the oracle reads all of its events.
const STORIES_PER_DATABASE: u32 = 20;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

fn tell_seeds(full_reads: bool) {
    // One kind after the other: both at once would leave the other tests no core.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let (first, count) = match setting("ROSTERD_SEED") {
        Some(seed) => (seed, 1),
        None => (1, setting("ROSTERD_SEEDS").unwrap_or(SEEDS)),
    };
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                let mut shelf = Shelf::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    let tally = tell_seed(seed, full_reads, &runtime, &mut shelf);
                    sum.lock().unwrap().add(tally);
                    if (seed - first + 1).is_multiple_of(500) {
                        eprintln!("{} of {count} seeds", seed - first + 1);
                    }
                }
            });
        }
    });
    let kind = if full_reads { "with" } else { "without" };
    eprintln!("{count} seeds {kind} full reads: {:?}", sum.into_inner().unwrap());
}

/// A database for some stories, each with an account of its own. A story that fails leaves none.
#[derive(Default)]
struct Shelf {
    database: Option<TestDatabase>,
    stories: u32,
}

impl Shelf {
    fn take(&mut self) -> Option<TestDatabase> {
        self.stories += 1;
        self.database.take().filter(|_| !self.stories.is_multiple_of(STORIES_PER_DATABASE))
    }
}

fn tell_seed(seed: u64, full_reads: bool, runtime: &Runtime, shelf: &mut Shelf) -> Tally {
    static ACCOUNT: AtomicI64 = AtomicI64::new(1000);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let (shelf, tally) = (RefCell::new(shelf), Cell::new(Tally::default()));
    let told = TestRunner::new_with_rng(config, rng).run(&plans(full_reads), |plan| {
        runtime.block_on(async {
            let kept = shelf.borrow_mut().take();
            let database = match kept {
                Some(database) => database,
                None => TestDatabase::new().await,
            };
            let account = ACCOUNT.fetch_add(1, Ordering::Relaxed);
            let mut story = Story::begin(&plan, full_reads, account, &database).await;
            story.tell(&plan).await;
            tally.set(story.tally);
            story.end().await;
            shelf.borrow_mut().database = Some(database);
        });
        Ok(())
    });
    if let Err(error) = told {
        let kind = if full_reads { "with" } else { "without" };
        eprintln!("{error}");
        // Short, so that nobody has to look for it behind the plan.
        panic!(
            "seed {seed}, {kind} full reads; again: ROSTERD_SEED={seed} cargo test --locked --test it -- seeds::"
        );
    }
    tally.get()
}

#[test]
fn no_history_loses_or_doubles_anything() {
    tell_seeds(true);
}

#[test]
fn nor_does_one_that_no_full_read_repairs() {
    tell_seeds(false);
}
