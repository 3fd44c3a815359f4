//! The image and `deploy/compose.yaml`, built and run for real where a Docker engine answers. Elsewhere these tests
//! say that they were skipped, and pass.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

#[path = "image/engine.rs"]
mod engine;

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harvest_sim::{Company, Options, Sim};
use serde_json::{Value, json};

use engine::{Cleaner, build, call, count, docker, inspect, log, repository, say, tag, unique, until};

/// Passed in as a person would pass theirs, but always the same, so that it does not stir the builder's cache.
const REVISION: &str = "0123456789ab";
/// The largest image that is still called small.
const LARGEST: u64 = 60_000_000;
/// What `docker stop` may take of an idle daemon; two seconds are promised, the rest is for a busy machine.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);
/// The exit code by which `tests/images/make` says that this machine has no base images and cannot make them.
const UNAVAILABLE: Option<i32> = Some(69);

const PASSWORD: &str = "of-no-use-elsewhere";

/// The id of the image, built once; none where that cannot be.
fn image() -> Option<&'static str> {
    static IMAGE: OnceLock<Option<String>> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        if call("docker", &["version"]).is_err() {
            say("SKIPPED, for Docker does not answer");
            return None;
        }
        say("getting the base images and building, which takes minutes the first time");
        match call("tests/images/make", &[]) {
            Err((UNAVAILABLE, complaint)) => {
                say(&format!("SKIPPED, for there are no base images: {complaint}"));
                return None;
            }
            made => made.unwrap_or_else(|(_, complaint)| panic!("{complaint}")),
        };
        let revision = format!("REVISION={REVISION}");
        Some(build("rosterd", &["--build-arg", &revision]))
    });
    image.as_deref()
}

/// A Harvest on this machine where the containers of a network can reach it: at its gateway.
async fn harvest(network: &str) -> Option<Sim> {
    let gateway = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway: IpAddr = docker(&["network", "inspect", network, "--format", gateway]).parse().unwrap();
    let company = Company::seeded(1, 30, 120);
    match Sim::start_at((gateway, 0).into(), company, Options::default()).await {
        Ok(sim) => Some(sim),
        Err(error) => {
            say(&format!("SKIPPED, for containers do not run on this machine itself: {gateway}: {error}"));
            None
        }
    }
}

#[test]
fn the_image_is_small_and_labelled_and_nobodys_root() {
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
fn it_says_its_version_and_revision() {
    let Some(image) = image() else { return };
    let said = docker(&["run", "--rm", image, "--version"]);
    assert!(said.contains(env!("CARGO_PKG_VERSION")) && said.contains(REVISION), "{said}");
}

#[test]
fn there_is_no_shell_in_it() {
    let Some(image) = image() else { return };
    for shell in ["sh", "bash", "busybox"] {
        let (code, complaint) = call("docker", &["run", "--rm", "--entrypoint", shell, image]).unwrap_err();
        assert_eq!(code, Some(127), "{shell}: {complaint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_postgres_and_harvest_it_syncs_and_stops() {
    let Some(image) = image() else { return };
    let name = unique();
    let label = format!("rosterd.test={name}");
    let _cleaner = Cleaner::of(&label);
    docker(&["network", "create", "--label", &label, &name]);
    let Some(sim) = harvest(&name).await else { return };
    let (postgres, rosterd) = (format!("{name}-postgres"), format!("{name}-rosterd"));
    let run = |container: &str, arguments: &[&str]| {
        let ours = ["run", "--detach", "--name", container, "--network", &name, "--label", &label];
        docker(&[&ours, arguments].concat())
    };
    // The server comes up while the daemon waits for it.
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
    let jane = sim.hire("Jane", "Doe");
    sim.assign(jane, sim.new_project("Road Building", "RB"));
    mirrored("the next sync");

    let before = Instant::now();
    docker(&["stop", &rosterd]);
    let took = before.elapsed();
    say(&format!("stopped within {} ms", took.as_millis()));
    let said = log(&rosterd);
    assert_eq!(inspect(&rosterd, "/State/ExitCode"), 0, "{said}");
    assert!(took < STOPPED_WITHIN, "{took:?}\n{said}");
    let last: Value = serde_json::from_str(said.lines().next_back().unwrap()).unwrap();
    assert_eq!(last["event"], "daemon.stopped", "{said}");
}

/// One of the projects that `deploy/compose.yaml` describes.
struct Project {
    name: String,
    label: String,
    compose: Vec<&'static str>,
    _cleaner: Cleaner,
}

impl Project {
    fn new() -> Option<Self> {
        let name = unique();
        let answers = |way: &&[&str]| call(way[0], &[&way[1..], &["version"]].concat()).is_ok();
        let ways: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let Some(compose) = ways.into_iter().find(answers) else {
            say("SKIPPED, for there is no compose");
            return None;
        };
        let label = format!("com.docker.compose.project={name}");
        let cleaner = Cleaner::of(&label);
        Some(Self { name, label, compose: compose.to_vec(), _cleaner: cleaner })
    }

    /// Starts it from the images that there are.
    fn up(&self, arguments: &[&str]) {
        let images =
            [format!("ROSTERD_IMAGE={}", tag("rosterd")), format!("SIMULATOR_IMAGE={}", tag("simulator"))];
        let mut all = vec![images[0].as_str(), &images[1]];
        all.extend(&self.compose);
        all.extend(["--project-name", &self.name]);
        all.extend(arguments);
        all.extend(["up", "--detach", "--no-build"]);
        call("env", &all).unwrap_or_else(|(_, complaint)| panic!("{arguments:?}: {complaint}"));
    }

    /// The container of a service.
    fn container(&self, service: &str) -> String {
        let project = format!("label={}", self.label);
        let service = format!("label=com.docker.compose.service={service}");
        docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service])
    }

    /// Waits until rosterd says that it is ready, and tells how many people were mirrored.
    fn people(&self, rosterd: &str, database: &str) -> Option<usize> {
        let (rosterd, database) = (self.container(rosterd), self.container(database));
        until("healthy", &rosterd, || inspect(&rosterd, "/State/Health/Status") == "healthy");
        count(&["exec", &database, "psql", "--username", "rosterd"], "users")
    }
}

#[test]
fn compose_shows_it_to_who_has_no_account() {
    let Some(_) = image() else { return };
    let Some(project) = Project::new() else { return };
    build("simulator", &["--file", "tests/harvest-sim/Dockerfile"]);
    project.up(&["--file", "deploy/compose.yaml", "--profile", "demo"]);
    assert_eq!(project.people("demo", "demo-database"), Some(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn compose_runs_it_with_two_secrets() {
    let Some(_) = image() else { return };
    let Some(project) = Project::new() else { return };
    let (network, label) = (&project.name, &project.label);
    docker(&["network", "create", "--label", label, network]);
    let Some(sim) = harvest(network).await else { return };
    // As a person would, but for Harvest and the way to it.
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
    let elsewhere = json!({
        "services": { "rosterd": { "environment": harvest } },
        "networks": { "default": { "external": true, "name": network } },
    });
    write("compose.override.yaml", 0o644, &elsewhere.to_string());
    fs::create_dir(home.path().join("secrets")).unwrap();
    let database_url = deployed("secrets/database-url.example").replace("CHANGE-ME", PASSWORD);
    write("secrets/database-url", 0o644, &database_url);
    write("secrets/harvest-token", 0o644, &sim.token());
    let place = |file: &str| home.path().join(file).to_str().unwrap().to_owned();
    project.up(&["--file", &place("compose.yaml"), "--file", &place("compose.override.yaml")]);
    assert_eq!(project.people("rosterd", "database"), Some(sim.users_json().len()));
}
