//! Writes to Harvest while the process is killed repeatedly and answers are lost, late or unreadable. Harvest, mirror and
//! journal agree in the end, and no user is created or invited twice.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use harvest_sim::{Company, Fault, Limit, Options, UserId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::Row;
use tokio::time::sleep;
use uuid::Uuid;

use super::{FaultLog, REQUESTS, WINDOW};
use crate::program::{Daemon, Program};
use crate::scene::Scene;

/// What a write asks for.
enum Asked {
    Creation { email: String },
    Telephone { user: i64, value: String },
    Active { user: i64, value: bool },
    Assignment,
}

struct Campaign {
    faults: FaultLog,
    rng: StdRng,
    scene: Scene,
    program: Program,
    /// Killed processes too: each checks at its end that the test took all writes.
    daemons: Vec<Daemon>,
    users: Vec<UserId>,
    /// In the order of the requests.
    asked: Vec<(Uuid, Asked)>,
}

impl Campaign {
    async fn new(test: &'static str, rounds: u64) -> Self {
        let faults = FaultLog::of(test, rounds);
        let limit = Some(Limit { requests: REQUESTS, window: WINDOW });
        let scene =
            Scene::of(Company::seeded(faults.seed, 40, 80), Options { limit, ..Options::default() }).await;
        let mut program = scene.program();
        program
            .set("ROSTERD__HTTP__LISTEN", "127.0.0.1:0")
            .set("ROSTERD__WRITE__MODE", "on")
            .set("ROSTERD__WRITE__GUARD__AT_LEAST", "100000")
            .set("ROSTERD__HARVEST__REQUEST_TIMEOUT", "1s")
            .set("ROSTERD__RATE_LIMIT__WINDOW", &format!("{}s", WINDOW.as_secs()))
            .set("ROSTERD__SYNC__SKEW_BUFFER", "2s");
        program.call(&["sync"]).await.expect(0);
        let owner = scene.sim.token_owner();
        let users = scene.sim.user_ids().into_iter().filter(|id| *id != owner).collect();
        let rng = StdRng::seed_from_u64(faults.seed);
        Self { faults, rng, scene, program, daemons: Vec::new(), users, asked: Vec::new() }
    }

    async fn run(mut self) {
        self.daemons.push(self.program.start());
        for round in 1..=self.faults.rounds {
            self.faults.round = round;
            self.fail_harvest();
            for _ in 0..self.rng.random_range(1..7) {
                self.ask().await;
            }
            sleep(Duration::from_millis(self.rng.random_range(0..900))).await;
            if self.rng.random_bool(0.7) {
                self.kill().await;
            }
            if round % 10 == 0 || round == self.faults.rounds {
                self.check().await;
            }
        }
        let sent = self.scene.sim.take_writes().len();
        let most = self.scene.sim.max_requests_in_window(WINDOW);
        assert!(most <= REQUESTS, "{most} requests in one window");
        assert!(sent > 0, "no write reached Harvest");
        self.faults.sum_up(&format!("{} writes, {sent} requests that write", self.asked.len()), most);
    }

    fn fail_harvest(&mut self) {
        let (name, fault) = match self.rng.random_range(0..9) {
            0 => ("reset before", Fault::reset()),
            1 => ("reset after", Fault::reset().after_processing()),
            2 => ("502 before", Fault::html(502)),
            3 => ("502 after", Fault::html(502).after_processing()),
            4 => ("lost answer", Fault::lost_response()),
            5 => ("slow answer", Fault::slow_response(Duration::from_millis(400))),
            6 => ("late request", Fault::delay_request(Duration::from_millis(1500))),
            7 => ("truncated answer", Fault::truncate_body()),
            _ => return,
        };
        let path = ["POST /v2", "PATCH /v2/users", "DELETE /v2", "/v2/"][self.rng.random_range(0..4)];
        self.faults.note(format!("{name} of {path}"));
        self.scene.sim.inject(fault.on(path).skip_first(self.rng.random_range(0..2)));
    }

    async fn kill(&mut self) {
        self.faults.note("killed");
        let last = self.daemons.len() - 1;
        self.daemons[last].signal("-KILL");
        self.daemons[last].ended().await;
        self.scene.execute("UPDATE roster.replicas SET expires_at = now()").await;
        self.daemons.push(self.program.start());
    }

    /// Requests a random write.
    async fn ask(&mut self) {
        let number = self.asked.len();
        let user = self.users[self.rng.random_range(0..self.users.len())].0;
        let (kind, user_id, project, assignment, wanted, asked) = match self.rng.random_range(0..10) {
            0..3 => {
                let email = format!("new{number}@example.com");
                let wanted = json!({"email": email, "first_name": "New", "last_name": "User"});
                ("user_create", None, None, None, wanted, Asked::Creation { email })
            }
            3..5 => {
                let value = format!("555 {number:04}");
                let wanted = json!({ "telephone": value });
                ("user_update", Some(user), None, None, wanted, Asked::Telephone { user, value })
            }
            5..7 => {
                ("user_deactivate", Some(user), None, None, json!({}), Asked::Active { user, value: false })
            }
            7 => ("user_reactivate", Some(user), None, None, json!({}), Asked::Active { user, value: true }),
            8 => {
                let projects = self.scene.sim.project_ids();
                let project = projects[self.rng.random_range(0..projects.len())].0;
                ("assignment_add", Some(user), Some(project), None, json!({}), Asked::Assignment)
            }
            _ => {
                let assignments = self.scene.sim.assignments_json();
                let one = &assignments[self.rng.random_range(0..assignments.len())];
                let id = |value: &Value| value.as_i64();
                let (user, project) = (id(&one["user"]["id"]), id(&one["project"]["id"]));
                ("assignment_remove", user, project, id(&one["id"]), json!({}), Asked::Assignment)
            }
        };
        let id: Uuid = sqlx::query_scalar("SELECT roster.write_ask($1, $2, $3, $4, $5, $6)")
            .bind(self.scene.sim.account_id())
            .bind(kind)
            .bind(user_id)
            .bind(project)
            .bind(assignment)
            .bind(wanted)
            .fetch_one(self.scene.store.pool())
            .await
            .unwrap();
        // A second request for the same is the same write, and no later one.
        if self.asked.iter().all(|(known, _)| *known != id) {
            self.asked.push((id, asked));
        }
    }

    /// Waits until all writes are finished, and compares them with Harvest.
    async fn check(&mut self) {
        self.faults.lines.push("no faults".to_owned());
        self.scene.sim.clear_faults();
        self.scene.until("SELECT NOT EXISTS (SELECT FROM roster.writes WHERE done_at IS NULL)").await;
        self.program.call(&["sync", "--full"]).await.expect(0);
        self.scene.expect_right().await;
        let outcomes = self.outcomes().await;
        let invitations = self.scene.sim.invitations();
        let invited: HashSet<&String> = invitations.iter().collect();
        assert_eq!(invited.len(), invitations.len(), "a user was invited twice");
        let users: HashMap<i64, Value> = self
            .scene
            .sim
            .users_json()
            .into_iter()
            .map(|user| (user["id"].as_i64().unwrap_or_default(), user))
            .collect();
        let mut telephones = HashMap::new();
        let mut active = HashMap::new();
        for (id, asked) in &self.asked {
            let outcome = outcomes[id].as_str();
            let is_so = matches!(outcome, "done" | "unchanged");
            match asked {
                Asked::Creation { email } => {
                    assert_eq!(outcome == "done", invited.contains(email), "{id} is {outcome}");
                }
                Asked::Telephone { user, value } if is_so => {
                    telephones.insert(user, (id, value.as_str()));
                }
                Asked::Active { user, value } if is_so => {
                    active.insert(user, (id, *value));
                }
                _ => {}
            }
        }
        for (user, (id, value)) in telephones {
            assert_eq!(users[user]["telephone"].as_str(), Some(value), "{id}");
        }
        for (user, (id, value)) in active {
            assert_eq!(users[user]["is_active"].as_bool(), Some(value), "{id}");
        }
    }

    async fn outcomes(&self) -> HashMap<Uuid, String> {
        let rows = sqlx::query("SELECT id, outcome FROM roster.writes")
            .fetch_all(self.scene.store.pool())
            .await
            .unwrap();
        rows.into_iter().map(|row| (row.get("id"), row.get("outcome"))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_process_doubles_and_loses_no_write() {
    Campaign::new("writes::killed_process_doubles_and_loses_no_write", 30).await.run().await;
}
