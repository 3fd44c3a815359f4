//! The Docker engine of this machine, by its command line: what is asked of it, and what is cleared up behind us.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

/// How long anything may take before the test calls it stuck.
const STUCK: Duration = Duration::from_mins(2);

/// What a program that came to its end said, or its exit code and what it complained of.
pub type Said = Result<String, (Option<i32>, String)>;

/// Runs a program to its end, in the root of the repository.
pub fn call(program: &str, arguments: &[&str]) -> Said {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| (None, format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    Err((output.status.code(), String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// `docker`, which must succeed.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    call("docker", arguments).unwrap_or_else(|(_, complaint)| panic!("docker {arguments:?}: {complaint}"))
}

/// Builds an image and gives its id.
pub fn build(image: &str, arguments: &[&str]) -> String {
    // A builder that is not BuildKit leaves its stages behind; under a name, the old one goes when a new one comes.
    if call("docker", &["buildx", "version"]).is_err() {
        build_one(&tag(&format!("{image}-builder")), &[arguments, &["--target", "build"]].concat());
    }
    build_one(&tag(image), arguments)
}

fn build_one(tag: &str, arguments: &[&str]) -> String {
    let before = call("docker", &["image", "inspect", "--format", "{{.Id}}", tag]);
    let id = docker(&[&["build", "--quiet", "--tag", tag], arguments, &["."]].concat());
    if let Ok(before) = before
        && before != id
    {
        // Unless a container still uses it.
        let _ = call("docker", &["image", "rm", &before]);
    }
    id
}

/// What an image of this checkout is called: another one's tests may be at work on the same engine.
pub fn tag(image: &str) -> String {
    let mut hasher = DefaultHasher::new();
    repository().hash(&mut hasher);
    format!("rosterd-test/{image}:{:x}", hasher.finish())
}

/// How many rows a table of the mirror has, once it can be asked. `psql` is the way into the database.
pub fn count(psql: &[&str], table: &str) -> Option<usize> {
    let query = format!("SELECT count(*) FROM roster.{table}");
    let asked = [psql, &["--no-psqlrc", "--tuples-only", "--no-align", "--command", &query]].concat();
    call("docker", &asked).ok()?.parse().ok()
}

/// A container's part of `docker inspect`.
pub fn inspect(container: &str, pointer: &str) -> Value {
    let said: Value = serde_json::from_str(&docker(&["inspect", container])).unwrap();
    said[0].pointer(pointer).unwrap_or(&Value::Null).clone()
}

/// What a container has said.
pub fn log(container: &str) -> String {
    let output = Command::new("docker").args(["logs", container]).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Waits for something to become true; `container` is the one whose log explains why it does not.
#[track_caller]
pub fn until(what: &str, container: &str, true_now: impl Fn() -> bool) {
    let give_up = Instant::now() + STUCK;
    while !true_now() {
        assert!(Instant::now() < give_up, "not within {STUCK:?}: {what}\n{}", log(container));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A name for what one test makes, told apart from those of others on the same engine.
pub fn unique() -> String {
    format!("rosterd-test-{}", Uuid::new_v4().simple())
}

/// Clears away all that bears a label, at the end of a test and even if it is killed: a shell that reads from a pipe
/// of which only we hold the other end.
pub struct Cleaner(Child);

impl Cleaner {
    pub fn of(label: &str) -> Self {
        let script = r#"
            read -r _
            for id in $(docker ps --all --quiet --filter label="$0"); do docker rm --force --volumes "$id"; done
            for id in $(docker network ls --quiet --filter label="$0"); do docker network rm "$id"; done
            for id in $(docker volume ls --quiet --filter label="$0"); do docker volume rm "$id"; done"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, label]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own, out of the reach of Ctrl-C and of a test runner that kills ours.
        Self(shell.process_group(0).spawn().unwrap())
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Past the capture of the tests' output: whoever runs them wants to know.
pub fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "image: {what}");
}
