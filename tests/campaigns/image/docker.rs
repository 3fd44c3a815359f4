//! Calls the Docker command line, and removes what a test has created.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

/// How long a test waits for anything before it fails.
const STUCK: Duration = Duration::from_mins(2);

/// The stdout of a successful program, or the exit code and stderr of a failed one.
pub type Output = Result<String, (Option<i32>, String)>;

/// Runs a program to its end, in the root of the repository.
pub fn call(program: &str, arguments: &[&str]) -> Output {
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
    call("docker", arguments).unwrap_or_else(|(_, error)| panic!("docker {arguments:?}: {error}"))
}

/// Builds an image; returns its id.
pub fn build(image: &str, arguments: &[&str]) -> String {
    // A builder other than BuildKit keeps its stages. With a tag, the next build replaces the old stage.
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

/// The tag of an image of this checkout. Tests of another checkout may use the same Docker daemon.
pub fn tag(image: &str) -> String {
    let mut hasher = DefaultHasher::new();
    repository().hash(&mut hasher);
    format!("rosterd-test/{image}:{:x}", hasher.finish())
}

/// The number of rows of a table of the mirror, `None` if the query fails. `psql` is the command before the query.
pub fn count(psql: &[&str], table: &str) -> Option<usize> {
    let query = format!("SELECT count(*) FROM roster.{table}");
    let arguments = [psql, &["--no-psqlrc", "--tuples-only", "--no-align", "--command", &query]].concat();
    call("docker", &arguments).ok()?.parse().ok()
}

/// A part of `docker inspect`, by its JSON pointer.
pub fn inspect(container: &str, pointer: &str) -> Value {
    let inspected: Value = serde_json::from_str(&docker(&["inspect", container])).unwrap();
    inspected[0].pointer(pointer).unwrap_or(&Value::Null).clone()
}

/// The log of a container.
pub fn log(container: &str) -> String {
    let output = Command::new("docker").args(["logs", container]).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Waits until a condition is true. If it fails, the panic has the log of `container`.
#[track_caller]
pub fn until(what: &str, container: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + STUCK;
    while !condition() {
        assert!(Instant::now() < give_up, "not within {STUCK:?}: {what}\n{}", log(container));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A unique name for the containers and networks of a test.
pub fn unique() -> String {
    format!("rosterd-test-{}", Uuid::new_v4().simple())
}

/// Removes everything with a label at the end of a test, even if the test is killed. A shell reads from a pipe until the
/// end of the file, and only this process has the other end of the pipe.
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
        // Its own process group: Ctrl-C, and a test runner that kills the group of the tests, do not reach it.
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

/// Prints although the test's output is captured.
pub fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "image: {what}");
}
