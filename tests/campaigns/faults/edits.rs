//! Changes records at Harvest during the faults.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harvest_sim::{Sim, UserId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The number of users and of assignments that deletions leave.
const MINIMUM: usize = 30;

/// The records deleted at Harvest, as `(aggregate, id)`.
pub type Deleted = Arc<Mutex<HashSet<(&'static str, i64)>>>;

/// Makes random changes.
pub struct Editor {
    sim: Sim,
    rng: StdRng,
    /// The largest number of seconds until a change appears in a list.
    latest: u64,
    /// Whether to make changes that only a full read finds: deletions, and edits without a new `updated_at`.
    with_hidden_changes: bool,
    deleted: Deleted,
}

impl Editor {
    pub fn new(sim: Sim, seed: u64, latest: u64, with_hidden_changes: bool, deleted: Deleted) -> Self {
        Self { sim, rng: StdRng::seed_from_u64(seed), latest, with_hidden_changes, deleted }
    }

    /// Works until `stop`; returns the number of changes.
    pub fn work(mut self, stop: CancellationToken) -> JoinHandle<(Self, usize)> {
        tokio::spawn(async move {
            let mut done = 0;
            while !stop.is_cancelled() {
                self.edit();
                done += 1;
                let pause = Duration::from_millis(self.rng.random_range(10..150));
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
            }
            (self, done)
        })
    }

    fn edit(&mut self) {
        let late = self.rng.random_bool(0.3).then(|| self.rng.random_range(1..=self.latest));
        let sim = self.sim.with_visibility_delay(Duration::from_secs(late.unwrap_or(0)));
        let user = self.random_user();
        let word = format!("W{:x}", self.rng.random::<u32>());
        let assignment = *self.sim.assignment_ids().choose(&mut self.rng).unwrap();
        let kinds = if self.with_hidden_changes { 13 } else { 10 };
        match self.rng.random_range(0..kinds) {
            0 => _ = sim.create_user(&word, "Hired"),
            1 | 2 => sim.rename(user, &word, "Renamed"),
            3 => sim.archive_user(user),
            4 => sim.restore_user(user),
            5 | 6 => {
                let projects = self.sim.project_ids();
                sim.assign(user, *projects.choose(&mut self.rng).unwrap());
            }
            7 => sim.archive_assignment(assignment),
            8 => sim.edit_assignment(assignment, |assignment| {
                assignment.budget = Some(assignment.budget.unwrap_or_default() + 1.5);
            }),
            9 => sim.edit_user(user, |user| user.weekly_capacity += 60),
            10 => self.sim.set_roles(user, &[&word]),
            11 if self.sim.user_ids().len() > MINIMUM => self.delete_user(user),
            _ if self.sim.assignment_ids().len() > MINIMUM => {
                self.deleted.lock().unwrap().insert(("user_assignment", assignment.into()));
                self.sim.delete_assignment(assignment);
            }
            _ => {}
        }
    }

    fn random_user(&mut self) -> UserId {
        let owner = self.sim.token_owner();
        let others: Vec<UserId> = self.sim.user_ids().into_iter().filter(|user| *user != owner).collect();
        *others.choose(&mut self.rng).unwrap()
    }

    /// Deletes a user and their assignments.
    fn delete_user(&self, user: UserId) {
        let mut deleted = self.deleted.lock().unwrap();
        deleted.insert(("user", user.into()));
        let theirs = |assignment: &&Value| assignment["user"]["id"] == i64::from(user);
        let assignments = self.sim.assignments_json();
        deleted.extend(
            assignments.iter().filter(theirs).map(|it| ("user_assignment", it["id"].as_i64().unwrap())),
        );
        self.sim.delete_user(user);
    }
}
