//! The files of `deploy/` name only metrics, settings, variables, ports, commands and tables that exist.
//! These tests read them as text; `.ci/deploy` checks their syntax with the tools of each format.

mod exposition;
mod queries;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::database::TestDatabase;
use crate::logging::names;
use crate::program::{Program, STUCK, free_port};
use crate::reference::expect_page;
use crate::scene::small_company;
use exposition::Exposition;
use harvest_sim::{Company, Fault, Options, Sim};
use queries::{Query, alerts, panels};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The texts between each `start` and the next of `ends`, without white space around them.
fn between(text: &str, start: &str, ends: &[char]) -> Vec<String> {
    let parts = text.split(start).skip(1);
    parts.map(|rest| rest.split(ends).next().unwrap_or_default().trim().to_owned()).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_query_only_metrics_that_rosterd_exposes() {
    let sim = Sim::start(Company::seeded(5, 60, 120), Options::default()).await.unwrap();
    let database = TestDatabase::new().await;
    let mut program = Program::new(&sim, database.url());
    let (address, tokens) = (format!("127.0.0.1:{}", free_port()), tempfile::NamedTempFile::new().unwrap());
    fs::write(tokens.path(), format!("{} okta read {}", sim.account_id(), "t".repeat(32))).unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let (secret, settings) = (dir.path().join("secret"), dir.path().join("rosterd.toml"));
    fs::write(&secret, crate::receiver::secret("bot")).unwrap();
    let secret = secret.display();
    // No receiver listens there.
    let section = format!(
        "[webhooks.bot]\nurl = \"http://127.0.0.1:9\"\nsecret_files = [\"{secret}\"]\nstart = \"beginning\"\n\
         notices = true"
    );
    fs::write(&settings, section).unwrap();
    program
        .set("ROSTERD_CONFIG", settings.to_str().unwrap())
        .set("ROSTERD__WRITE__MODE", "dry")
        .set("ROSTERD__SCIM__LISTEN", &address)
        .set("ROSTERD__SCIM__PUBLIC_URL", "https://scim.test")
        .set("ROSTERD__SCIM__TOKENS_FILE", tokens.path().to_str().unwrap());
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    // Metrics have requests by status after the first one, here without a token.
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET /scim/v2/1/Me HTTP/1.0\r\n\r\n").await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    // It may have been logged before the end of the cycle.
    if !daemon.log().contains("webhook.failing") {
        daemon.until("webhook.failing").await;
    }
    let planned = sim.user_ids()[1].to_string();
    program.call(&["user", "deactivate", &planned, "--yes"]).await.expect(0);
    sim.inject(Fault::refusal(400).on("/users?").times(1));
    // The request for the total gets the first 401, which does not fail the cycle.
    sim.inject(Fault::html(401).on("/users?").times(2));
    daemon.until("credentials.refused").await;
    let owner = sim.token_owner();
    for user in sim.user_ids().into_iter().filter(|user| *user != owner).take(20) {
        sim.delete_user(user);
    }
    daemon.until("deletions.held").await;
    daemon.until("cycle.finished").await;
    // As if the concerns had begun two minutes earlier. The receiver gets a notice of each.
    let begin =
        "UPDATE roster.webhook_notices SET began_at = began_at - interval '2 minutes' WHERE state = 'new';
                 SELECT pg_notify('roster_outbox', '')";
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let any = "SELECT count(*) > 0 FROM roster.webhook_notices WHERE state = 'new'";
    let give_up = Instant::now() + STUCK;
    while !sqlx::query_scalar::<_, bool>(any).fetch_one(&mut connection).await.unwrap() {
        assert!(Instant::now() < give_up, "no notice");
        sleep(Duration::from_millis(20)).await;
    }
    sqlx::raw_sql(begin).execute(&mut connection).await.unwrap();
    let notices = "\nrosterd_webhook_notices_total{".to_owned();
    let of_tables = ["held_deletions", "webhook_state", "outbox_consumer_lag", "writes_open", "mirror_rows"]
        .map(|name| format!("\nrosterd_{name}{{"));
    let expected: Vec<_> = of_tables.iter().chain([&notices]).map(String::as_str).collect();
    let metrics = program.until_metrics(&expected).await;
    let exposition = Exposition::parse(&metrics);
    let of_source = between(&read("src/telemetry/instruments.rs"), "\"rosterd_", &['"']);
    let exposed: BTreeSet<_> =
        exposition.names().map(|name| name.trim_start_matches("rosterd_").to_owned()).collect();
    let unseen: Vec<_> = of_source.iter().filter(|name| !exposed.contains(*name)).collect();
    assert!(
        of_source.len() > 20 && unseen.is_empty(),
        "the test makes rosterd expose all metrics but {unseen:?}"
    );

    let (alerts, panels) =
        (alerts(&read("deploy/alerts.yaml")), panels(&read("deploy/grafana-dashboard.json")));
    assert!(alerts.len() > 5 && panels.len() > 5);
    for query in alerts.iter().chain(&panels) {
        exposition.expect(query, true);
    }
    for series in between(&read("deploy/alerts_test.yaml"), "- series: ", &['\n']) {
        exposition.expect(&Query::new(&series, &series), false);
    }
    // Each exposed metric is on a panel.
    let shown: BTreeSet<_> = panels.iter().flat_map(Query::metrics).collect();
    let unseen: Vec<_> =
        exposition.names().filter(|name| !shown.iter().any(|shown| shown.starts_with(name))).collect();
    assert!(unseen.is_empty(), "on no panel: {unseen:?}");
    expect_page("METRICS.md", &exposition.table(&metrics, &alerts));
}

#[test]
fn each_alert_has_a_description_a_runbook_section_and_a_test() {
    let (alerts, tests, runbook) =
        (read("deploy/alerts.yaml"), read("deploy/alerts_test.yaml"), read("deploy/RUNBOOK.md"));
    for rule in alerts.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        let runbook_url = format!("runbook_url: deploy/RUNBOOK.md#{}\n", name.to_lowercase());
        assert!(format!("{rule}\n").contains(&runbook_url), "{name} has no {runbook_url}");
        assert!(runbook.contains(&format!("\n### {name}\n")), "RUNBOOK.md has no heading {name}");
        let fires = format!("alertname: {name}\n        exp_alerts:\n");
        assert!(tests.contains(&fires), "alerts_test.yaml does not show {name} firing");
    }
}

#[tokio::test]
async fn runbook_sql_statements_are_valid() {
    let statements = read("deploy/RUNBOOK.md");
    let statements: String = statements
        .split("\n```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.strip_prefix("sql\n"))
        .collect();
    assert!(statements.len() > 300, "{statements}");
    let database = TestDatabase::new().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
}

#[test]
fn settings_and_variables_named_in_deploy_files_exist() {
    let defaults: toml::Table = read("config/default.toml").parse().unwrap();
    let log_events = names(&read("docs/LOGGING.md"), &["\n| `"]);
    let sources = read("src/settings/environment.rs")
        + &read("src/settings/accounts.rs")
        + &read("src/settings/values.rs");
    let known = |key: &str| {
        let mut parts = key.split('.');
        let section = defaults.get(parts.next()?)?.as_table()?;
        parts.try_fold(section, |table, part| Some(table.get(part)?.as_table().unwrap_or(table)))
    };
    for file in [
        "RUNBOOK.md",
        "alerts.yaml",
        "prometheus.yaml",
        "rosterd.service",
        "kubernetes/deployment.yaml",
        "kubernetes-overlay/kustomization.yaml",
        "packages/rosterd.service.conf",
        "packages/rosterd.toml",
        "packages/rosterd.env",
        "scim/rosterd-scim.service",
        "scim/compose.yaml",
        "scim/kubernetes.yaml",
        "scim/Caddyfile",
        "scim/nginx.conf",
    ] {
        let text = read(&format!("deploy/{file}"));
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)) {
            let word = word.trim_matches(['.', '-']);
            let is_variable =
                ["ROSTERD_", "HARVEST_", "DATABASE_"].iter().any(|prefix| word.starts_with(prefix));
            if let Some(key) = word.strip_prefix("ROSTERD__") {
                let key = key.to_lowercase().replace("__", ".");
                assert!(known(&key).is_some(), "{file} names {word}");
            } else if is_variable && word != "ROSTERD_IMAGE" {
                assert!(sources.contains(&format!("\"{word}\"")), "{file} names {word}");
            } else if let Some((section, _)) = word.split_once('.')
                && defaults.contains_key(section)
                && !word.contains(".example.com")
            {
                assert!(known(word).is_some() || log_events.contains(word), "{file} names {word}");
            }
        }
    }
}

/// A directory with these secrets as files, like a mounted volume.
fn secrets_directory(names: &[String], program: &Program) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let secret = program.value(match name.as_str() {
            "database-url" => "DATABASE_URL",
            "harvest-account-id" => "HARVEST_ACCOUNT_ID",
            "harvest-access-token" => "HARVEST_ACCESS_TOKEN",
            other => panic!("unknown secret {other}"),
        });
        fs::write(dir.path().join(name), format!("{secret}\n")).unwrap();
    }
    dir
}

/// A program without the variables that the file under test sets.
fn unconfigured(sim: &Sim, database: &TestDatabase) -> Program {
    let mut program = Program::new(sim, database.url());
    for name in ["DATABASE_URL", "HARVEST_ACCOUNT_ID", "HARVEST_ACCESS_TOKEN"] {
        program.set(name, "");
    }
    program
}

#[tokio::test]
async fn kubernetes_manifests_configure_a_working_daemon() {
    let (settings, manifest) = ("deploy/kubernetes/rosterd.toml", read("deploy/kubernetes/deployment.yaml"));
    let kustomization = read("deploy/kubernetes/kustomization.yaml");
    let sim = small_company().await;
    let database = TestDatabase::blank().await;
    let keys = between(&kustomization, "--from-literal=", &['=']);
    let secrets = secrets_directory(&keys, &Program::new(&sim, database.url()));
    let in_container = |text: &str| {
        let mut program = unconfigured(&sim, &database);
        for variable in
            text.split("            - name: ").skip(1).filter(|entry| entry.starts_with(char::is_uppercase))
        {
            let name = variable.lines().next().unwrap();
            let value = if let Some(value) = between(variable, " value: ", &['\n']).first() {
                let settings = format!("{}/{settings}", env!("CARGO_MANIFEST_DIR"));
                value
                    .replace("/run/secrets/rosterd", secrets.path().to_str().unwrap())
                    .replace("/etc/rosterd/rosterd.toml", &settings)
            } else {
                let key = between(variable, " key: ", &['\n']).remove(0);
                fs::read_to_string(secrets.path().join(key)).unwrap().trim().to_owned()
            };
            program.set(name, &value);
        }
        program
    };
    let (init, main) = manifest.split_once("\n      containers:").unwrap();
    let (init, main) = (in_container(init), in_container(main));
    assert_eq!(between(&manifest, "args: [", &[']']), ["\"migrate\"", "\"run\""]);
    init.call(&["migrate"]).await.expect(0);
    main.call(&["check"]).await.expect(0);
    let mut daemon = main.start();
    daemon.until("cycle.finished").await;
    let probes = between(&manifest, "path: ", &['\n']);
    assert_eq!(probes, ["/livez", "/livez", "/readyz"]);
    for path in &probes {
        assert_eq!(main.probe(path).await.0, 200, "{path}");
    }
    // The image, the manifests and Prometheus name the same port.
    let port = between(&read("Dockerfile"), "ROSTERD__HTTP__LISTEN=0.0.0.0:", &['\n']);
    assert_eq!(between(&manifest, "containerPort: ", &['\n']), port);
    assert_eq!(between(&read("deploy/kubernetes/service.yaml"), " port: ", &['\n']), port);
    assert_eq!(between(&read("deploy/prometheus.yaml"), " port: ", &['\n']), port);
    let tag = [format!("\"{}\"", env!("CARGO_PKG_VERSION"))];
    assert_eq!(between(&kustomization, "newTag: ", &['\n']), tag);
    let overlay = read("deploy/kubernetes-overlay/kustomization.yaml");
    assert_eq!(between(&overlay, "newTag: ", &['\n']), tag);
}

#[tokio::test]
async fn systemd_unit_configures_a_working_daemon() {
    let unit = read("deploy/rosterd.service");
    let sim = small_company().await;
    let database = TestDatabase::blank().await;
    let credentials = between(&unit, "\nLoadCredential=", &[':']);
    let secrets = secrets_directory(&credentials, &Program::new(&sim, database.url()));
    let mut program = unconfigured(&sim, &database);
    for variable in between(&unit, "\nEnvironment=", &['\n']) {
        let (name, value) = variable.split_once('=').unwrap();
        program.set(name, &value.replace("%d", secrets.path().to_str().unwrap()));
    }
    // The administrator writes the remaining variable.
    let variables = between(&unit, "/etc/rosterd/rosterd.env <<< '", &['\'']);
    assert_eq!(variables, ["HARVEST_ACCOUNT_ID=123456"]);
    program.set("HARVEST_ACCOUNT_ID", &sim.account_id().to_string());
    assert_eq!(between(&unit, "\nExecStart=", &['\n']), ["/usr/local/bin/rosterd run"]);
    program.call(&["check"]).await.expect(0);
    program.start().until("cycle.finished").await;
}

#[tokio::test]
async fn scim_unit_and_manifest_configure_working_processes() {
    let (sim, database) = (small_company().await, TestDatabase::new().await);
    let secrets = tempfile::tempdir().unwrap();
    let directory = secrets.path().to_str().unwrap();
    for (name, text) in
        [("database-url", database.url()), ("tokens", &format!("1 okta read {}", "t".repeat(32)))]
    {
        fs::write(secrets.path().join(name), text).unwrap();
        fs::write(secrets.path().join(format!("scim-{name}")), text).unwrap();
    }
    let unit = read("deploy/scim/rosterd-scim.service");
    assert_eq!(between(&unit, "\nExecStart=", &['\n']), ["/usr/local/bin/rosterd scim"]);
    let from_unit = between(&unit, "\nEnvironment=", &['\n']).into_iter();
    let from_unit = from_unit.chain(between(&unit, "/etc/rosterd/rosterd-scim.env <<< '", &['\'']));
    let from_unit = from_unit.map(|variable| variable.replace("%d", directory));
    let manifest = read("deploy/scim/kubernetes.yaml");
    assert_eq!(between(&manifest, "args: [", &[']']), ["\"scim\""]);
    let version = concat!("rosterd:", env!("CARGO_PKG_VERSION"));
    assert_eq!(between(&manifest, "image: ", &['\n']), [version]);
    let from_manifest = manifest.split("            - name: ").filter_map(|entry| {
        let (name, value) = entry.split_once("\n              value: ")?;
        let value = value.lines().next()?;
        Some(format!("{name}={}", value.trim_matches('"').replace("/run/secrets/rosterd", directory)))
    });
    for variables in [from_unit.collect::<Vec<_>>(), from_manifest.collect()] {
        let mut program = unconfigured(&sim, &database);
        let probes = program.listen().to_owned();
        for (name, value) in variables.iter().map(|variable| variable.split_once('=').unwrap()) {
            program.set(name, value);
        }
        assert!(program.value("ROSTERD__SCIM__LISTEN").ends_with(":8090"), "{variables:?}");
        program
            .set("ROSTERD__HTTP__LISTEN", &probes)
            .set("ROSTERD__SCIM__LISTEN", &format!("127.0.0.1:{}", free_port()));
        program.start_command(&["scim"]).until("scim.started").await;
        assert!(variables.len() > 3, "{variables:?}");
    }
}
