//! Several accounts in one process: each has its own worker, all share one request budget, and a failing account does
//! not affect the others.

use std::io::Write;
use std::time::Duration;

use harvest_sim::{Company, Fault, Options, Sim};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::program::{Daemon, Program, STUCK};

const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// One daemon that mirrors two accounts.
struct TwoAccounts {
    first: Mirror,
    second: Mirror,
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
        let sims = Sim::start_many(first, [second], &options).await.unwrap();
        let database = TestDatabase::new().await;
        let mut settings = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        for sim in &sims {
            let (id, token) = (sim.account_id(), sim.token());
            writeln!(settings, "[[accounts]]\nid = {id}\naccess_token = \"{token}\"\n").unwrap();
        }
        let mut program = Program::new(&sims[0], database.url());
        program
            .set("ROSTERD_CONFIG", settings.path().to_str().unwrap())
            .set("HARVEST_ACCOUNT_ID", "")
            .set("HARVEST_ACCESS_TOKEN", "")
            .set("ROSTERD__SYNC__POLL_INTERVAL", &format!("{}s", POLL_INTERVAL.as_secs()))
            .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "3s");
        let daemon = program.start();
        let mirror = |sim: &Sim| Mirror { sim: sim.clone(), store: store(database.url()) };
        let (first, second) = (mirror(&sims[0]), mirror(&sims[1]));
        Self { first, second, program, daemon, _database: database, _settings: settings }
    }

    /// The most requests of both accounts together in any closed window of this length.
    fn max_requests_in_window(&self, window: Duration) -> usize {
        let requests = [&self.first, &self.second].into_iter().flat_map(|account| account.sim.requests());
        let arrivals: Vec<_> = requests.map(|request| request.at).collect();
        let within = |first: std::time::Instant| {
            arrivals.iter().filter(|next| **next >= first && **next - first <= window).count()
        };
        arrivals.iter().map(|first| within(*first)).max().unwrap()
    }
}

/// Waits for this number of polls of an account; returns the longest interval between two of them.
async fn longest_poll_interval(account: &Mirror, polls: usize) -> Duration {
    let give_up = Instant::now() + STUCK;
    loop {
        let requests = account.sim.requests();
        let is_poll = |path: &str| path.contains("/users?") && path.contains("updated_since");
        let arrivals: Vec<_> = requests.iter().filter(|it| is_poll(&it.path)).map(|it| it.at).collect();
        if arrivals.len() >= polls {
            return arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        }
        assert!(Instant::now() < give_up, "{requests:?}");
        sleep(Duration::from_millis(50)).await;
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
        scene.first.sim.clear_requests();
        let longest = longest_poll_interval(&scene.first, 4).await;
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
    let longest = longest_poll_interval(&scene.first, 7).await;
    let is_complete =
        "SELECT count(*) = 2 FROM roster.watermarks WHERE account_id = 222222 AND watermark IS NOT NULL";
    scene.second.until(format!("SELECT NOT ({is_complete})")).await;
    assert!(longest < 2 * POLL_INTERVAL, "{longest:?} between two polls");
    scene.second.until(is_complete).await;
    let most = scene.max_requests_in_window(Duration::from_secs(15));
    assert!((60..=100).contains(&most), "{most} requests in a window");
    scene.first.expect_right().await;
    scene.daemon.signal("-TERM");
    assert_eq!(scene.daemon.ended().await, Some(0));
    scene.second.expect_mirror_equals_source().await;
}
