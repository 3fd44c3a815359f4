//! Builds and runs the image and `deploy/compose.yaml`. If no Docker engine answers, these tests print that they were skipped,
//! and pass.

mod docker;

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harvest_sim::{Company, Options, Sim};
use serde_json::{Value, json};

use docker::{Cleaner, build, call, count, docker, inspect, log, repository, say, tag, unique, until};

/// A fixed revision, so that the builder's cache stays valid.
const REVISION: &str = "0123456789ab";
/// The maximum size of the image in bytes.
const LARGEST: u64 = 60_000_000;
/// The time limit for `docker stop` of an idle daemon: two seconds as documented, and a margin for a busy machine.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);
/// The exit code of `tests/images/make` if this machine has no base images and cannot make them.
const UNAVAILABLE: Option<i32> = Some(69);

const PASSWORD: &str = "of-no-use-elsewhere";

/// The id of the image, which is built once. `None` if it cannot be built here.
fn image() -> Option<&'static str> {
    static IMAGE: OnceLock<Option<String>> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        if call("docker", &["version"]).is_err() {
            say("SKIPPED: Docker does not answer");
            return None;
        }
        say("pulling the base images and building, which takes minutes the first time");
        match call("tests/images/make", &[]) {
            Err((UNAVAILABLE, error)) => {
                say(&format!("SKIPPED: no base images: {error}"));
                return None;
            }
            made => made.unwrap_or_else(|(_, error)| panic!("{error}")),
        };
        let revision = format!("REVISION={REVISION}");
        Some(build("rosterd", &["--build-arg", &revision]))
    });
    image.as_deref()
}

/// A simulated Harvest at the gateway of a network, where its containers can reach it.
async fn harvest(network: &str) -> Option<Sim> {
    let gateway = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway: IpAddr = docker(&["network", "inspect", network, "--format", gateway]).parse().unwrap();
    let company = Company::seeded(1, 30, 120);
    match Sim::start_at((gateway, 0).into(), company, Options::default()).await {
        Ok(sim) => Some(sim),
        Err(error) => {
            say(&format!("SKIPPED: containers do not run on this machine: {gateway}: {error}"));
            None
        }
    }
}

#[test]
fn image_is_small_and_labelled_and_runs_without_root() {
    let Some(image) = image() else { return };
    let (size, config) = (inspect(image, "/Size").as_u64().unwrap(), inspect(image, "/Config"));
    say(&format!("{} MB", size / 1_000_000));
    assert!(size < LARGEST, "{size}");
    assert_eq!(config["User"], "65532:65532");
    let label = |key: &str| config["Labels"][format!("org.opencontainers.image.{key}")].clone();
    assert_eq!(label("title"), "rosterd");
    assert!(label("description").is_string());
    assert_eq!(label("licenses"), "MIT OR Apache-2.0");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("revision"), REVISION);
}

#[test]
fn image_prints_its_version_and_revision() {
    let Some(image) = image() else { return };
    let version = docker(&["run", "--rm", image, "--version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains(REVISION), "{version}");
}

#[test]
fn image_has_no_shell() {
    let Some(image) = image() else { return };
    for shell in ["sh", "bash", "busybox"] {
        let (code, error) = call("docker", &["run", "--rm", "--entrypoint", shell, image]).unwrap_err();
        assert_eq!(code, Some(127), "{shell}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn container_syncs_and_stops() {
    let Some(image) = image() else { return };
    let name = unique();
    let label = format!("rosterd.test={name}");
    let _cleaner = Cleaner::of(&label);
    docker(&["network", "create", "--label", &label, &name]);
    let Some(sim) = harvest(&name).await else { return };
    let (postgres, rosterd) = (format!("{name}-postgres"), format!("{name}-rosterd"));
    let run = |container: &str, arguments: &[&str]| {
        let common = ["run", "--detach", "--name", container, "--network", &name, "--label", &label];
        docker(&[&common, arguments].concat())
    };
    // The daemon waits until the server accepts connections.
    let password = format!("POSTGRES_PASSWORD={PASSWORD}");
    run(&postgres, &["--tmpfs", "/var/lib/postgresql/data", "--env", &password, "postgres:17"]);
    let mut arguments = vec!["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    arguments.extend(["--health-interval", "1s"]);
    let environment = [
        format!("DATABASE_URL=postgres://postgres:{PASSWORD}@{postgres}/postgres?sslmode=disable"),
        format!("HARVEST_BASE_URL={}", sim.base_url()),
        format!("HARVEST_ACCOUNT_ID={}", sim.account_id()),
        format!("HARVEST_ACCESS_TOKEN={}", sim.token()),
        "ROSTERD__HARVEST__ALLOW_PLAIN_HTTP=true".to_owned(),
        "ROSTERD__SYNC__POLL_INTERVAL=1s".to_owned(),
    ];
    arguments.extend(environment.iter().flat_map(|variable| ["--env", variable]));
    arguments.push(image);
    run(&rosterd, &arguments);

    let psql = ["exec", &postgres, "psql", "--username", "postgres"];
    let mirrored = |what: &str| {
        until(what, &rosterd, || count(&psql, "users") == Some(sim.users_json().len()));
        until(what, &rosterd, || count(&psql, "user_assignments") == Some(sim.assignments_json().len()));
    };
    mirrored("the first sync");
    until("healthy", &rosterd, || inspect(&rosterd, "/State/Health/Status") == "healthy");
    docker(&["exec", &rosterd, "rosterd", "health", "--ready"]);
    let jane = sim.create_user("Jane", "Doe");
    sim.assign(jane, sim.new_project("Road Building", "RB"));
    mirrored("the next sync");

    let before = Instant::now();
    docker(&["stop", &rosterd]);
    let took = before.elapsed();
    say(&format!("stopped within {} ms", took.as_millis()));
    let log = log(&rosterd);
    assert_eq!(inspect(&rosterd, "/State/ExitCode"), 0, "{log}");
    assert!(took < STOPPED_WITHIN, "{took:?}\n{log}");
    let last: Value = serde_json::from_str(log.lines().next_back().unwrap()).unwrap();
    assert_eq!(last["event"], "daemon.stopped", "{log}");
    sim.expect_no_writes();
}

/// A compose project with its own name.
struct Project {
    name: String,
    label: String,
    compose: Vec<&'static str>,
    _cleaner: Cleaner,
}

impl Project {
    fn new() -> Option<Self> {
        let name = unique();
        let answers = |command: &&[&str]| call(command[0], &[&command[1..], &["version"]].concat()).is_ok();
        let commands: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let Some(compose) = commands.into_iter().find(answers) else {
            say("SKIPPED: Docker Compose is not installed");
            return None;
        };
        let label = format!("com.docker.compose.project={name}");
        let cleaner = Cleaner::of(&label);
        Some(Self { name, label, compose: compose.to_vec(), _cleaner: cleaner })
    }

    /// Starts the project with the images of this checkout.
    fn up(&self, arguments: &[&str]) {
        let images =
            [format!("ROSTERD_IMAGE={}", tag("rosterd")), format!("SIMULATOR_IMAGE={}", tag("simulator"))];
        let mut all = vec![images[0].as_str(), &images[1]];
        all.extend(&self.compose);
        all.extend(["--project-name", &self.name]);
        all.extend(arguments);
        all.extend(["up", "--detach", "--no-build"]);
        call("env", &all).unwrap_or_else(|(_, error)| panic!("{arguments:?}: {error}"));
    }

    /// The id of a service's container.
    fn container(&self, service: &str) -> String {
        let project = format!("label={}", self.label);
        let service = format!("label=com.docker.compose.service={service}");
        docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service])
    }

    /// Waits until rosterd is healthy; returns the number of mirrored users.
    fn users(&self, rosterd: &str, database: &str) -> Option<usize> {
        let (rosterd, database) = (self.container(rosterd), self.container(database));
        until("healthy", &rosterd, || inspect(&rosterd, "/State/Health/Status") == "healthy");
        count(&["exec", &database, "psql", "--username", "rosterd"], "users")
    }
}

#[test]
fn compose_demo_needs_no_harvest_account() {
    let Some(_) = image() else { return };
    let Some(project) = Project::new() else { return };
    build("simulator", &["--file", "tests/harvest-sim/Dockerfile"]);
    project.up(&["--file", "deploy/compose.yaml", "--profile", "demo"]);
    assert_eq!(project.users("demo", "demo-database"), Some(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn compose_runs_with_two_secrets() {
    let Some(_) = image() else { return };
    let Some(project) = Project::new() else { return };
    let (network, label) = (&project.name, &project.label);
    docker(&["network", "create", "--label", label, network]);
    let Some(sim) = harvest(network).await else { return };
    // The documented steps, except for the address of Harvest.
    let home = tempfile::tempdir().unwrap();
    let write = |file: &str, mode: u32, text: &str| {
        let path = home.path().join(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    let deployed = |file: &str| fs::read_to_string(repository().join("deploy").join(file)).unwrap();
    write("compose.yaml", 0o644, &deployed("compose.yaml"));
    let account = format!("HARVEST_ACCOUNT_ID={}", sim.account_id());
    write(".env", 0o644, &deployed(".env").replace("HARVEST_ACCOUNT_ID=", &account));
    let harvest = json!({ "HARVEST_BASE_URL": sim.base_url(), "ROSTERD__HARVEST__ALLOW_PLAIN_HTTP": "true" });
    let overrides = json!({
        "services": { "rosterd": { "environment": harvest } },
        "networks": { "default": { "external": true, "name": network } },
    });
    write("compose.override.yaml", 0o644, &overrides.to_string());
    fs::create_dir(home.path().join("secrets")).unwrap();
    let database_url = deployed("secrets/database-url.example").replace("CHANGE-ME", PASSWORD);
    write("secrets/database-url", 0o644, &database_url);
    write("secrets/harvest-token", 0o644, &sim.token());
    let path = |file: &str| home.path().join(file).to_str().unwrap().to_owned();
    project.up(&["--file", &path("compose.yaml"), "--file", &path("compose.override.yaml")]);
    assert_eq!(project.users("rosterd", "database"), Some(sim.users_json().len()));
    sim.expect_no_writes();
}
