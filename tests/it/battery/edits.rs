//! What goes on at the company all the while.

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

/// So many of a list are left by those who delete.
const ENOUGH: usize = 30;

/// Those that are really gone, as `(aggregate, id)`.
pub type Gone = Arc<Mutex<HashSet<(&'static str, i64)>>>;

/// Somebody at the company, who changes this and that.
pub struct Editor {
    sim: Sim,
    rng: StdRng,
    /// The most seconds that a change takes to show.
    latest: u64,
    /// Also what Harvest does not stamp: deletions, and edits that only a full read finds.
    silently_too: bool,
    gone: Gone,
}

impl Editor {
    pub fn new(sim: Sim, seed: u64, latest: u64, silently_too: bool, gone: Gone) -> Self {
        Self { sim, rng: StdRng::seed_from_u64(seed), latest, silently_too, gone }
    }

    /// Works until told to stop; tells then how much was done.
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
        let sim = self.sim.later(Duration::from_secs(late.unwrap_or(0)));
        let user = self.somebody();
        let word = format!("W{:x}", self.rng.random::<u32>());
        let place = *self.sim.assignment_ids().choose(&mut self.rng).unwrap();
        let kinds = if self.silently_too { 13 } else { 10 };
        match self.rng.random_range(0..kinds) {
            0 => _ = sim.hire(&word, "Hired"),
            1 | 2 => sim.rename(user, &word, "Renamed"),
            3 => sim.deactivate(user),
            4 => sim.reactivate(user),
            5 | 6 => {
                let projects = self.sim.project_ids();
                sim.assign(user, *projects.choose(&mut self.rng).unwrap());
            }
            7 => sim.unassign(place),
            8 => sim.edit_assignment(place, |place| {
                place.budget = Some(place.budget.unwrap_or_default() + 1.5);
            }),
            9 => sim.edit_user(user, |user| user.weekly_capacity += 60),
            10 => self.sim.set_roles(user, &[&word]),
            11 if self.sim.user_ids().len() > ENOUGH => self.delete_user(user),
            _ if self.sim.assignment_ids().len() > ENOUGH => {
                self.gone.lock().unwrap().insert(("user_assignment", place.into()));
                self.sim.delete_assignment(place);
            }
            _ => {}
        }
    }

    fn somebody(&mut self) -> UserId {
        let owner = self.sim.token_owner();
        let others: Vec<UserId> = self.sim.user_ids().into_iter().filter(|user| *user != owner).collect();
        *others.choose(&mut self.rng).unwrap()
    }

    /// With their assignments.
    fn delete_user(&self, user: UserId) {
        let mut gone = self.gone.lock().unwrap();
        gone.insert(("user", user.into()));
        let theirs = |place: &&Value| place["user"]["id"] == i64::from(user);
        let places = self.sim.assignments_json();
        gone.extend(places.iter().filter(theirs).map(|it| ("user_assignment", it["id"].as_i64().unwrap())));
        self.sim.delete_user(user);
    }
}
