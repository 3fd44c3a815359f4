//! Webhooks while the process is killed, the receiver fails and operators act: every event arrives, in order, and
//! repetitions keep id and body.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{Environment, FaultLog, Replica};
use crate::receiver::{Answer, OK, Receiver, secret};
use crate::statement_proxy::{Held, When};

/// Statements at which to kill the process.
const POINTS: [(&str, &str); 5] = [
    ("an acknowledgement", "roster.outbox_ack('webhook:'"),
    ("a failure", "SET failing_since = coalesce"),
    ("a read", "outbox_fetch('webhook:'"),
    ("a takeover", "UPDATE roster.webhooks AS webhook SET holder"),
    ("a look at the state", "webhook.stream_id = head.stream_id"),
];

struct Campaign {
    environment: Environment,
    replica: Replica,
    receiver: Receiver,
    _dir: TempDir,
    /// The position at which the endpoint was registered.
    start: i64,
}

impl Campaign {
    async fn new(test: &'static str, rounds: u64, in_flight: u32) -> Self {
        let environment = Environment::new(FaultLog::of(test, rounds), false).await;
        let mut replica = environment.replica("replica").await;
        environment.until("SELECT count(first_full_at) = 1 FROM roster.accounts".to_owned()).await;
        let (receiver, dir) = (Receiver::start("bot").await, TempDir::new().unwrap());
        let (file, settings) = (dir.path().join("secret"), dir.path().join("rosterd.toml"));
        std::fs::write(&file, secret("bot")).unwrap();
        let section = format!(
            "[webhooks.bot]\nurl = \"{}\"\nsecret_files = [\"{}\"]\ntimeout = \"1s\"\nin_flight = {in_flight}\n",
            receiver.url(),
            file.display()
        );
        std::fs::write(&settings, section).unwrap();
        replica.program.set("ROSTERD_CONFIG", settings.to_str().unwrap());
        replica.daemon.signal("-TERM");
        replica.daemon.ended().await;
        replica.start();
        environment.mirror.until("SELECT count(*) = 1 FROM roster.webhooks").await;
        let start = environment.mirror.number("SELECT acked_seq FROM roster.consumers").await;
        Self { environment, replica, receiver, _dir: dir, start }
    }

    async fn run(mut self, in_order: bool) {
        self.environment.edit();
        for round in 1..=self.environment.faults.rounds {
            self.environment.faults.round = round;
            self.receiver_fault();
            match self.environment.rng.random_range(0..8) {
                0..4 => self.kill_at_a_point().await,
                4 => self.replay().await,
                5 => self.pause().await,
                6 => self.crash_the_server().await,
                _ => self.suspend().await,
            }
            self.check(in_order).await;
        }
        self.environment.converge(&mut self.replica).await;
        self.check(in_order).await;
        self.environment.end();
    }

    /// Answers of the next requests; `check` ends them.
    fn receiver_fault(&mut self) {
        let faults = [
            ("receiver: 503", Answer::Status(503, "")),
            ("receiver: reset", Answer::Reset),
            ("receiver: hangs", Answer::Hang),
            ("receiver: slow", Answer::Slow(Duration::from_millis(200))),
            ("receiver: closes connections", Answer::CloseLater),
            ("receiver: no fault", OK),
        ];
        let (name, answer) = self.environment.pick(&faults);
        self.environment.faults.note(*name);
        self.receiver.answer_next(std::iter::repeat_n(answer.clone(), 3));
    }

    async fn kill_at_a_point(&mut self) {
        let (name, text) = *self.environment.pick(&POINTS);
        let (when, place) = *self.environment.pick(&[(When::Before, "before"), (When::After, "after")]);
        self.environment.faults.note(format!("killed {place} {name}"));
        if name == "a failure" {
            self.receiver.answer(Answer::Status(500, ""));
        }
        let catch = self.replica.proxy.catch(when, 1, text);
        if name == "a takeover" {
            self.kill(None).await;
            self.replica.start();
        }
        let retry = "UPDATE roster.webhooks SET next_attempt_at = NULL; NOTIFY roster_outbox";
        let waking = async {
            loop {
                self.environment.mirror.execute(retry).await;
                sleep(Duration::from_millis(200)).await;
            }
        };
        let held = tokio::select! { held = catch.caught() => held, () = waking => unreachable!() };
        self.kill(Some(held)).await;
        self.receiver.answer(OK);
        self.replica.start();
    }

    async fn kill(&mut self, held: Option<Held>) {
        self.environment.kill(&mut self.replica, held).await;
    }

    async fn replay(&mut self) {
        self.environment.faults.note("replay");
        let acked = self.environment.mirror.number("SELECT acked_seq FROM roster.consumers").await;
        let back = self.environment.rng.random_range(0..30);
        let from = (acked - back).max(self.start + 1).to_string();
        let head = self.environment.mirror.number("SELECT seq FROM roster.outbox_head").await;
        if head > self.start {
            self.replica.program.call(&["webhooks", "replay", "bot", "--from", &from]).await.expect(0);
        }
    }

    async fn pause(&mut self) {
        self.environment.faults.note("pause");
        self.replica.program.call(&["webhooks", "pause", "bot"]).await.expect(0);
        // A request that was in flight ends within its timeout.
        sleep(Duration::from_millis(1500)).await;
        let requests = self.receiver.requests().len();
        let head = self.environment.mirror.number("SELECT seq FROM roster.outbox_head").await;
        self.environment.until(format!("SELECT seq > {head} FROM roster.outbox_head")).await;
        assert_eq!(self.receiver.requests().len(), requests, "a paused endpoint gets nothing");
    }

    async fn crash_the_server(&mut self) {
        self.environment.faults.note("server crashed");
        self.environment.crash_the_server(&mut self.replica, None).await;
    }

    /// For longer than `lease.ttl`.
    async fn suspend(&mut self) {
        self.environment.faults.note("suspended");
        self.replica.daemon.signal("-STOP");
        sleep(Duration::from_secs(4)).await;
        self.replica.daemon.signal("-CONT");
    }

    /// Ends all faults of the receiver, waits until the present head is acknowledged, and compares.
    async fn check(&mut self, in_order: bool) {
        let head = self.environment.mirror.number("SELECT seq FROM roster.outbox_head").await;
        let is_acked = format!("SELECT acked_seq >= {head} FROM roster.consumers");
        let waiting = self.environment.mirror.until(is_acked);
        tokio::pin!(waiting);
        // A server that is starting refuses the command; then the next one succeeds.
        while timeout(Duration::from_secs(1), &mut waiting).await.is_err() {
            self.replica.program.call(&["webhooks", "retry", "bot"]).await;
        }
        let acked = self.environment.mirror.number("SELECT acked_seq FROM roster.consumers").await;
        let events = self.environment.mirror.events_since(self.start).await;
        let wanted: Vec<_> = events.iter().map(|event| event.seq).filter(|seq| *seq <= acked).collect();
        let mut accepted = self.receiver.accepted();
        if in_order {
            assert!(accepted.is_sorted(), "{accepted:?}");
        }
        accepted.sort_unstable();
        assert_eq!(accepted.iter().copied().filter(|seq| *seq <= acked).collect::<Vec<_>>(), wanted);
        let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut bodies = BTreeMap::new();
        for request in self.receiver.requests() {
            let (seq, id) = (request.seq().unwrap(), request.id().to_owned());
            assert_eq!(events.iter().find(|event| event.seq == seq).unwrap().id.to_string(), id);
            assert_eq!(bodies.entry(id).or_insert_with(|| request.body.clone()), &request.body);
            if request.is_accepted {
                let data = &request.json()["data"];
                let record = format!("{} {}", request.r#type().split('.').next().unwrap(), data["id"]);
                let known = versions.entry(record).or_default();
                let version = data["version"].as_i64().unwrap();
                if !known.contains(&version) {
                    known.push(version);
                }
            }
        }
        assert!(versions.values().all(|versions| versions.is_sorted()), "{versions:?}");
    }
}

#[tokio::test]
async fn webhooks_lose_no_event_and_keep_the_order() {
    Campaign::new("webhooks::webhooks_lose_no_event_and_keep_the_order", 12, 1).await.run(true).await;
}

#[tokio::test]
async fn webhooks_in_parallel_lose_no_event_and_keep_the_order_of_each_record() {
    let test = "webhooks::webhooks_in_parallel_lose_no_event_and_keep_the_order_of_each_record";
    Campaign::new(test, 12, 4).await.run(false).await;
}
