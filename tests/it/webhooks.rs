//! Webhooks: the real program delivers to a receiver that verifies each request.

mod commands;
mod delivery;
mod failures;
mod guide;
mod idle;
mod notices;
mod privacy;
mod replicas;
mod schemas;
mod streams;
mod tls;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harvest_sim::{Company, Options};
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Daemon, Program};
use crate::receiver::{Receiver, secret};
use crate::scene::Scene;

/// A company, endpoints in a settings file, and the program.
struct Hooks {
    scene: Scene,
    dir: TempDir,
    sections: BTreeMap<String, String>,
}

impl Hooks {
    async fn new() -> Self {
        Self::of(Company::seeded(5, 8, 10)).await
    }

    async fn of(company: Company) -> Self {
        let scene = Scene::of(company, Options::default()).await;
        Self { scene, dir: TempDir::new().unwrap(), sections: BTreeMap::new() }
    }

    /// Adds the endpoint `name`, or replaces it, with further lines of its section.
    fn endpoint(&mut self, name: &str, url: &str, lines: &str) {
        let file = write(self.dir.path(), &format!("{name}.secret"), &secret(name));
        let section = format!("[webhooks.{name}]\nurl = \"{url}\"\nsecret_files = [\"{file}\"]\n{lines}\n");
        self.sections.insert(name.to_owned(), section);
    }

    /// A program with the settings; each has its own address for the probes.
    fn program(&self) -> Program {
        let text = self.sections.values().cloned().collect::<String>();
        let mut program = self.scene.program();
        program.set("ROSTERD_CONFIG", &write(self.dir.path(), "rosterd.toml", &text));
        program
    }

    /// The daemon after its first cycle, with an endpoint `bot` whose section has further lines.
    async fn start(lines: &str) -> (Self, Receiver, Program, Daemon) {
        let (mut hooks, receiver) = (Self::new().await, Receiver::start("bot").await);
        hooks.endpoint("bot", &receiver.url(), lines);
        let program = hooks.program();
        let mut daemon = program.start();
        daemon.until("cycle.finished").await;
        (hooks, receiver, program, daemon)
    }

    /// Changes this many users, one after the other, each with an event.
    fn edit(&self, users: usize) {
        for user in self.scene.sim.user_ids().into_iter().take(users) {
            self.scene.sim.edit_user(user, |user| user.weekly_capacity += 60);
        }
    }

    /// The last event that the endpoint has acknowledged.
    async fn until_acked(&self, seq: i64) {
        self.scene
            .until(format!("SELECT acked_seq >= {seq} FROM roster.consumers WHERE name = 'webhook:bot'"))
            .await;
    }

    async fn head(&self) -> i64 {
        self.scene.number("SELECT seq FROM roster.outbox_head").await
    }

    /// The numbers of the events of users and assignments after `seq`.
    async fn seqs_after(&self, seq: i64) -> Vec<i64> {
        self.scene.events_since(seq).await.iter().map(|event| event.seq).collect()
    }
}

/// Writes a file that only this user may read; returns its path.
fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The endpoint `bot` of `rosterd webhooks list --json`.
async fn listed(program: &Program) -> Value {
    let called = program.call(&["webhooks", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&called.expect(0).stdout()).unwrap();
    listed.as_array().unwrap().iter().find(|line| line["name"] == "bot").unwrap().clone()
}
