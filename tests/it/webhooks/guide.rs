//! `docs/WEBHOOKS.md`: its programs verify messages of rosterd, where their language and library are available.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Hooks, secret, write};
use crate::consuming_guide::blocks_of;
use crate::program::free_port;

const GUIDE: &str = include_str!("../../../docs/WEBHOOKS.md");
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/webhook-receivers");

/// Whether the command succeeds.
fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn text(language: &str) -> &'static str {
    blocks_of(GUIDE, language)[0].text
}

/// The command of the Python program, if its library is installed or can be.
fn python(dir: &Path) -> Option<Command> {
    let (venv, check) = (format!("{TARGET}/python"), ["-c", "import standardwebhooks"]);
    let mut python = "python3".to_owned();
    if !runs(&python, &check) {
        python = format!("{venv}/bin/python");
        let is_there = runs(&python, &check)
            || runs("python3", &["-m", "venv", &venv])
                && runs(&python, &["-m", "pip", "install", "--quiet", "standardwebhooks"]);
        if !is_there {
            return None;
        }
    }
    let mut command = Command::new(python);
    command.arg(write(dir, "receiver.py", text("python")));
    Some(command)
}

/// The same for the TypeScript program, which is JavaScript too.
fn node(_dir: &Path) -> Option<Command> {
    let (home, library) = (format!("{TARGET}/node"), format!("{TARGET}/node/node_modules/standardwebhooks"));
    std::fs::create_dir_all(&home).unwrap();
    if !Path::new(&library).exists()
        && !runs("npm", &["install", "--silent", "--prefix", &home, "standardwebhooks"])
    {
        return None;
    }
    let mut command = Command::new("node");
    command.arg(write(Path::new(&home), "receiver.mjs", text("ts")));
    Some(command)
}

/// Killed at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn programs_of_the_guide_verify_the_messages() {
    let mut hooks = Hooks::new().await;
    let mut running = Vec::new();
    for (name, command) in [("python", python(hooks.dir.path())), ("node", node(hooks.dir.path()))] {
        let Some(mut command) = command else {
            eprintln!("skipped: {name} or its library standardwebhooks is not available");
            continue;
        };
        let (port, output) = (free_port().to_string(), hooks.dir.path().join(format!("{name}.out")));
        command.env("PORT", &port).env("WEBHOOK_SECRET", secret(name)).stdin(Stdio::null());
        command.stdout(std::fs::File::create(&output).unwrap()).stderr(Stdio::inherit());
        running.push((Running(command.spawn().unwrap()), output));
        hooks.endpoint(name, &format!("http://127.0.0.1:{port}/"), "");
    }
    if running.is_empty() {
        return;
    }
    let program = hooks.program();
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let first = hooks.head().await;
    hooks.edit(3);
    hooks.scene.until(format!("SELECT seq = {} FROM roster.outbox_head", first + 3)).await;
    // A program that was slow to start refused the first attempts.
    for name in hooks.sections.keys() {
        program.call(&["webhooks", "retry", name]).await.expect(0);
    }
    let done = "SELECT bool_and(acked_seq = seq) FROM roster.consumers, roster.outbox_head";
    hooks.scene.until(done).await;
    let events = hooks.scene.events_since(first).await;
    let expected: Vec<_> = events.iter().map(|event| format!("{} {}", event.id, event.r#type)).collect();
    for (_, output) in &running {
        let printed = std::fs::read_to_string(output).unwrap();
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn rust_program_of_the_guide_is_the_example() {
    assert_eq!(text("rust").trim_end(), include_str!("../../../examples/webhook_receiver.rs").trim_end());
}

#[test]
fn guide_shows_a_message_with_the_fields_of_rosterd() {
    let message: serde_json::Value = serde_json::from_str(text("json")).unwrap();
    let keys: Vec<_> = message.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["data", "recorded_at", "seq", "timestamp", "type"]);
    let notice = serde_json::from_str(blocks_of(GUIDE, "json")[1].text).unwrap();
    super::schemas::expect_described("message.rosterd.attention_needed", &notice);
}
