//! Several accounts in one process: each has its own worker, all share one request budget, and a failing account does
//! not affect the others.

use std::io::Write;
use std::time::Duration;

use harvest_sim::{Company, Fault, Options, Sim};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::database::{TestDatabase, store};
use crate::front::Front;
use crate::mirror::Mirror;
use crate::program::{Daemon, Program, STUCK};

const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// One daemon that mirrors two accounts.
struct TwoAccounts {
    first: Mirror,
    second: Mirror,
    front: Front,
    program: Program,
    daemon: Daemon,
    _database: TestDatabase,
    _settings: tempfile::NamedTempFile,
}

impl TwoAccounts {
    async fn of(first: Company, second: Company, options: Options) -> Self {
        let first = first.with_account_id(111_111).with_token("1.pt.not-a-real-token");
        let second = second.with_account_id(222_222).with_token("2.pt.not-a-real-token");
        // The simulators enforce no limit, because the test counts the requests of both accounts together.
        let options = Options { limit: None, ..options };
        let first = Sim::start(first, options.clone()).await.unwrap();
        let second = Sim::start(second, options).await.unwrap();
        let front = Front::of([&first, &second]).await;
        let database = TestDatabase::new().await;
        let mut settings = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        for sim in [&first, &second] {
            let (id, token) = (sim.account_id(), sim.token());
            writeln!(settings, "[[accounts]]\nid = {id}\naccess_token = \"{token}\"\n").unwrap();
        }
        let mut program = Program::new(&first, database.url());
        program
            .set("ROSTERD_CONFIG", settings.path().to_str().unwrap())
            .set("HARVEST_BASE_URL", front.base_url())
            .set("HARVEST_ACCOUNT_ID", "")
            .set("HARVEST_ACCESS_TOKEN", "")
            .set("ROSTERD__SYNC__POLL_INTERVAL", &format!("{}s", POLL_INTERVAL.as_secs()))
            .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "3s");
        let daemon = program.start();
        let mirror = |sim| Mirror { sim, store: store(database.url()) };
        let (first, second) = (mirror(first), mirror(second));
        Self { first, second, front, program, daemon, _database: database, _settings: settings }
    }

    /// Waits for this number of polls of the account; returns the longest interval between two of them.
    async fn longest_poll_interval(&self, account: i64, polls: usize) -> Duration {
        let give_up = Instant::now() + STUCK;
        while self.front.polls(account).len() < polls {
            assert!(Instant::now() < give_up, "{:?}", self.front.arrivals());
            sleep(Duration::from_millis(50)).await;
        }
        let polls = self.front.polls(account);
        polls.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}

async fn wait_until_mirrored(mirror: &Mirror, user: i64) {
    let account = mirror.sim.account_id();
    let question =
        format!("SELECT EXISTS (SELECT FROM roster.users WHERE (account_id, id) = ({account}, {user}))");
    mirror.until(question).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_account_does_not_delay_another_account() {
    let (first, second) = (Company::seeded(1, 20, 40), Company::seeded(2, 20, 40));
    let mut scene = TwoAccounts::of(first, second, Options::default()).await;
    for _ in 0..2 {
        scene.daemon.until("cycle.finished").await;
    }
    for (case, fault) in [
        ("a refused token", Fault::refusal(401)),
        ("no answer", Fault::delay_request(STUCK)),
        ("an outage", Fault::html(503)),
    ] {
        scene.second.sim.clear_faults();
        scene.second.sim.inject(fault.forever());
        scene.front.forget();
        let longest = scene.longest_poll_interval(scene.first.sim.account_id(), 4).await;
        assert!(longest < 2 * POLL_INTERVAL, "{case}: {longest:?} between two polls");
        let user = scene.first.sim.create_user("Una", "Touched");
        wait_until_mirrored(&scene.first, user.0).await;
    }
    // `/readyz` names the failing account.
    let (code, body) = scene.program.probe("/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let accounts = body["accounts"].as_array().unwrap().iter();
    let states: Vec<_> =
        accounts.map(|account| (account["account_id"].as_i64(), account["state"].as_str())).collect();
    assert_eq!(states, [(Some(111_111), Some("synced")), (Some(222_222), Some("stale"))]);
    assert_eq!(code, 503);

    scene.second.sim.clear_faults();
    let user = scene.second.sim.create_user("Rita", "Restored");
    // The back-off of the failing account grows; SIGHUP ends the wait after the fix.
    scene.daemon.signal("-HUP");
    wait_until_mirrored(&scene.second, user.0).await;
    scene.first.expect_right().await;
    scene.second.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_read_of_a_large_account_does_not_delay_a_small_account() {
    // 120 pages: more requests than one window permits.
    let options = Options { max_per_page: 100, ..Options::default() };
    let mut scene =
        TwoAccounts::of(Company::seeded(1, 20, 40), Company::seeded(2, 4000, 8000), options).await;
    let longest = scene.longest_poll_interval(scene.first.sim.account_id(), 7).await;
    let is_complete =
        "SELECT count(*) = 2 FROM roster.watermarks WHERE account_id = 222222 AND watermark IS NOT NULL";
    scene.second.until(format!("SELECT NOT ({is_complete})")).await;
    assert!(longest < 2 * POLL_INTERVAL, "{longest:?} between two polls");
    scene.second.until(is_complete).await;
    let window = Duration::from_secs(15);
    let most = scene.front.max_requests_in_window(window);
    assert!((60..=100).contains(&most), "{most} requests in a window");
    scene.first.expect_right().await;
    scene.daemon.signal("-TERM");
    assert_eq!(scene.daemon.ended().await, Some(0));
    scene.second.expect_mirror_equals_source().await;
}
