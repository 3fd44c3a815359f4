//! Several accounts in one process: a worker each, one budget for all, and nobody's trouble is another's.

use std::io::Write;
use std::time::Duration;

use harvest_sim::{Company, Fault, Options, Sim};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::database::{TestDatabase, store};
use crate::front::Front;
use crate::mirror::Mirror;
use crate::program::{Daemon, Program, STUCK};

const POLL: Duration = Duration::from_secs(2);

/// Two accounts of one daemon.
struct Scene {
    one: Mirror,
    other: Mirror,
    front: Front,
    program: Program,
    daemon: Daemon,
    _database: TestDatabase,
    _settings: tempfile::NamedTempFile,
}

impl Scene {
    async fn of(one: Company, other: Company, options: Options) -> Self {
        let one = one.with_account_id(111_111).with_token("1.pt.not-a-real-token");
        let other = other.with_account_id(222_222).with_token("2.pt.not-a-real-token");
        // Each has its own limit at Harvest; the test counts what they see together.
        let options = Options { limit: None, ..options };
        let one = Sim::start(one, options.clone()).await.unwrap();
        let other = Sim::start(other, options).await.unwrap();
        let front = Front::of([&one, &other]).await;
        let database = TestDatabase::new().await;
        let mut settings = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        for sim in [&one, &other] {
            let (id, token) = (sim.account_id(), sim.token());
            writeln!(settings, "[[accounts]]\nid = {id}\naccess_token = \"{token}\"\n").unwrap();
        }
        let mut program = Program::new(&one, database.url());
        program
            .set("ROSTERD_CONFIG", settings.path().to_str().unwrap())
            .set("HARVEST_BASE_URL", front.base_url())
            .set("HARVEST_ACCOUNT_ID", "")
            .set("HARVEST_ACCESS_TOKEN", "")
            .set("ROSTERD__SYNC__POLL_INTERVAL", &format!("{}s", POLL.as_secs()))
            .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "3s");
        let daemon = program.start();
        let mirror = |sim| Mirror { sim, store: store(database.url()) };
        let (one, other) = (mirror(one), mirror(other));
        Self { one, other, front, program, daemon, _database: database, _settings: settings }
    }

    /// Waits for so many polls of the account; returns the longest time from one to the next.
    async fn longest_wait(&self, account: i64, polls: usize) -> Duration {
        let give_up = Instant::now() + STUCK;
        while self.front.polls(account).len() < polls {
            assert!(Instant::now() < give_up, "{:?}", self.front.arrivals());
            sleep(Duration::from_millis(50)).await;
        }
        let polls = self.front.polls(account);
        polls.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}

async fn is_mirrored(mirror: &Mirror, user: i64) {
    let account = mirror.sim.account_id();
    let question =
        format!("SELECT EXISTS (SELECT FROM roster.users WHERE (account_id, id) = ({account}, {user}))");
    mirror.until(question).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_account_starves_no_other() {
    let scene = Scene::of(Company::seeded(1, 20, 40), Company::seeded(2, 20, 40), Options::default()).await;
    let mut scene = scene;
    for _ in 0..2 {
        scene.daemon.until("cycle.finished").await;
    }
    for (what, fault) in [
        ("a refused token", Fault::refusal(401)),
        ("no answer", Fault::delay(STUCK)),
        ("an outage", Fault::html(503)),
    ] {
        scene.other.sim.clear_faults();
        scene.other.sim.inject(fault.forever());
        scene.front.forget();
        let longest = scene.longest_wait(scene.one.sim.account_id(), 4).await;
        assert!(longest < 2 * POLL, "{what}: {longest:?} from one poll to the next");
        let user = scene.one.sim.hire("Una", "Touched");
        is_mirrored(&scene.one, user.0).await;
    }
    // Which of them it is can be seen.
    let (code, body) = scene.program.probe("/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let accounts = body["accounts"].as_array().unwrap().iter();
    let states: Vec<_> = accounts.map(|it| (it["account_id"].as_i64(), it["state"].as_str())).collect();
    assert_eq!(states, [(Some(111_111), Some("synced")), (Some(222_222), Some("stale"))]);
    assert_eq!(code, 503);

    scene.other.sim.clear_faults();
    let user = scene.other.sim.hire("Rita", "Restored");
    // It is left alone for longer and longer; whoever has mended it need not wait.
    scene.daemon.signal("-HUP");
    is_mirrored(&scene.other, user.0).await;
    scene.one.expect_right().await;
    scene.other.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_read_of_a_large_account_keeps_no_small_one_waiting() {
    // A hundred and twenty pages: beyond what any window has room for.
    let options = Options { max_per_page: 100, ..Options::default() };
    let mut scene = Scene::of(Company::seeded(1, 20, 40), Company::seeded(2, 4000, 8000), options).await;
    let longest = scene.longest_wait(scene.one.sim.account_id(), 7).await;
    let whole =
        "SELECT count(*) = 2 FROM roster.watermarks WHERE account_id = 222222 AND watermark IS NOT NULL";
    scene.other.until(format!("SELECT NOT ({whole})")).await;
    assert!(longest < 2 * POLL, "{longest:?} from one poll to the next");
    scene.other.until(whole).await;
    let window = Duration::from_secs(15);
    let most = scene.front.most_in_any_window(window);
    assert!((60..=100).contains(&most), "{most} in a window");
    scene.one.expect_right().await;
    scene.daemon.signal("-TERM");
    assert_eq!(scene.daemon.ended().await, Some(0));
    scene.other.expect_mirror_equals_source().await;
}
