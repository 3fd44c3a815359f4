//! SCIM: `rosterd scim` with 50,000 users, the daemon in another process.
//!
//! `cargo bench -- scim`. The simulator has Harvest's limit of 100 requests in 15 s. Takes five minutes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use harvest_sim::{Company, Options, Sim, UserId};
use rand::RngExt as _;
use reqwest::{Client, RequestBuilder};
use serde_json::json;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::measured::{Daemon, quantile};
use crate::postgres::{Server, until};

const USERS: usize = 50_000;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Lookups by userName, at 200 a second.
const LOOKUPS: usize = 4_000;
const LOOKUP_INTERVAL: Duration = Duration::from_millis(5);
/// Lists of 100 users, one after the other.
const LISTS: usize = 200;
/// Changes of different users, at 25 a second. A directory has at most this many requests in flight.
const CHANGES: usize = 1_000;
const CHANGE_INTERVAL: Duration = Duration::from_millis(40);
const WINDOW: Duration = Duration::from_secs(15);

struct Directory {
    client: Client,
    url: String,
}

impl Directory {
    fn get(&self, query: &str) -> RequestBuilder {
        self.client.get(format!("{}/Users?{query}", self.url)).bearer_auth(TOKEN)
    }

    fn change(&self, user: UserId) -> RequestBuilder {
        let operation =
            json!({"op": "replace", "path": "phoneNumbers[type eq \"work\"].value", "value": "555 0100"});
        let schemas = ["urn:ietf:params:scim:api:messages:2.0:PatchOp"];
        let request = self.client.patch(format!("{}/Users/{user}", self.url)).bearer_auth(TOKEN);
        request
            .header("Content-Type", "application/scim+json")
            .body(json!({"schemas": schemas, "Operations": [operation]}).to_string())
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub async fn measure() {
    let server = Server::start().await;
    let sim = Sim::start(Company::seeded(3, USERS, 100), Options::default()).await.unwrap();
    let (url, listen, tokens) =
        (server.database("scim").await, free_address(), server.directory().join("tokens"));
    std::fs::write(&tokens, format!("{} okta write {TOKEN}\n", sim.account_id())).unwrap();
    let shared = [("DATABASE_URL", url.clone()), ("ROSTERD__WRITE__MODE", "on".to_owned())];
    let daemon = [
        ("HARVEST_BASE_URL", sim.base_url().to_owned()),
        ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
        ("HARVEST_ACCESS_TOKEN", sim.token()),
        ("ROSTERD__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
    ];
    let front = [
        ("ROSTERD__HTTP__LISTEN", String::new()),
        ("ROSTERD__SCIM__LISTEN", listen.clone()),
        ("ROSTERD__SCIM__PUBLIC_URL", "https://scim.example.com".to_owned()),
        ("ROSTERD__SCIM__TOKENS_FILE", tokens.to_str().unwrap().to_owned()),
    ];
    let daemon = Daemon::start(&[&shared[..], &daemon].concat(), &server.directory().join("daemon.log"));
    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    until(&pool, "SELECT count(last_full_at) = 1 FROM roster.accounts").await;
    // As autovacuum does some time after the first read.
    sqlx::raw_sql("VACUUM ANALYZE roster.users").execute(&pool).await.unwrap();
    let front =
        Daemon::start_command("scim", &[&shared[..], &front].concat(), &server.directory().join("scim.log"));
    let client = Client::builder().no_proxy().build().unwrap();
    let directory = Directory { client, url: format!("http://{listen}/scim/v2/{}", sim.account_id()) };
    while directory.get("count=0").send().await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }

    lookups(&directory, &pool).await;
    lists(&directory).await;
    println!("memory of rosterd scim: {:.0} MiB, peak {:.0}", front.memory("VmRSS:"), front.memory("VmHWM:"));
    changes(&directory, &sim, &pool).await;
    println!("memory of rosterd scim: {:.0} MiB, peak {:.0}", front.memory("VmRSS:"), front.memory("VmHWM:"));
    front.stop();
    daemon.stop();
    pool.close().await;
    server.stop().await;
}

async fn lookups(directory: &Directory, pool: &PgPool) {
    let emails: Vec<String> = sqlx::query_scalar("SELECT email FROM roster.users ORDER BY random() LIMIT $1")
        .bind(i64::try_from(LOOKUPS).unwrap())
        .fetch_all(pool)
        .await
        .unwrap();
    let (mut running, mut ticks) = (JoinSet::new(), interval(LOOKUP_INTERVAL));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for email in emails {
        ticks.tick().await;
        let request = directory.get(&format!("filter=userName%20eq%20%22{email}%22"));
        running.spawn(async move {
            let began = Instant::now();
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let text = answer.text().await.unwrap();
            assert!(text.contains("\"totalResults\":1,") || text.contains("\"totalResults\":1}"), "{text}");
            began.elapsed()
        });
    }
    let mut times = running.join_all().await;
    times.sort_unstable();
    let [p50, p99, longest] = [(1, 2), (99, 100), (1, 1)].map(|share| milliseconds(quantile(&times, share)));
    println!(
        "{LOOKUPS} lookups by userName at 200 a second: p50 {p50:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms"
    );
}

async fn lists(directory: &Directory) {
    let mut times = Vec::new();
    for _ in 0..LISTS {
        let start = rand::rng().random_range(1..USERS - 100);
        let began = Instant::now();
        let answer = directory.get(&format!("startIndex={start}&count=100")).send().await.unwrap();
        assert!(answer.text().await.unwrap().contains("\"itemsPerPage\":100"));
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let [median, longest] = [(1, 2), (1, 1)].map(|share| milliseconds(quantile(&times, share)));
    println!("{LISTS} lists of 100 at random positions: median {median:.1} ms, longest {longest:.1} ms");
}

/// Repeats each change until it is done, as directories do.
async fn changes(directory: &Directory, sim: &Sim, pool: &PgPool) {
    // A full window is free.
    sleep(WINDOW + Duration::from_secs(1)).await;
    sim.clear_requests();
    let owner = sim.token_owner();
    let users: Vec<UserId> = sim.user_ids().into_iter().filter(|id| *id != owner).take(CHANGES).collect();
    let began = Instant::now();
    let (mut running, mut ticks) = (JoinSet::new(), interval(CHANGE_INTERVAL));
    for user in users {
        ticks.tick().await;
        let request = directory.change(user);
        running.spawn(async move {
            let mut statuses = Vec::new();
            loop {
                let answer = request.try_clone().unwrap().send().await.unwrap();
                let status = answer.status().as_u16();
                statuses.push(status);
                if status == 200 {
                    return statuses;
                }
                let seconds = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                sleep(Duration::from_secs(seconds)).await;
            }
        });
    }
    let (mut first, mut all) = (BTreeMap::<u16, usize>::new(), BTreeMap::<u16, usize>::new());
    for statuses in running.join_all().await {
        *first.entry(statuses[0]).or_default() += 1;
        for status in statuses {
            *all.entry(status).or_default() += 1;
        }
    }
    println!(
        "{CHANGES} changes at 25 a second: all done after {:.0} s; first answers {first:?}, all answers {all:?}",
        began.elapsed().as_secs_f64()
    );
    let mirrored = "SELECT count(*) FROM roster.users WHERE telephone = '555 0100'";
    let mirrored: i64 = sqlx::query_scalar(AssertSqlSafe(mirrored)).fetch_one(pool).await.unwrap();
    let refused = sim.requests().iter().filter(|it| it.status == Some(429)).count();
    println!(
        "in the mirror: {mirrored}; writes at Harvest: {}; 429 of Harvest: {refused}; at most {} requests in 15 s",
        sim.writes().len(),
        sim.max_requests_in_window(WINDOW)
    );
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
