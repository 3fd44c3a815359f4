//! `docs/CONNECTORS.md` and `deploy/debezium/`: options exist in Debezium, columns exist in the outbox, and the three files
//! agree. The program of the guide runs against a real NATS.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::consuming_guide::{Follower, MirrorWithRoles, blocks_of, python};
use crate::program::{STUCK, free_port};

pub const CONNECTORS: &str = include_str!("../../docs/CONNECTORS.md");
const OPTIONS: &str = include_str!("deploy/debezium.txt");
type Options = BTreeMap<String, String>;

/// Reads a properties file; fails if a property is there twice.
fn properties(text: &str) -> Options {
    let mut read = Options::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no property: {line}"));
        assert!(!line.ends_with('\\') && read.insert(name.to_owned(), value.to_owned()).is_none(), "{line}");
    }
    read
}

/// The configuration for Kafka Connect, with the names that Debezium Server uses.
fn connect() -> Options {
    let read: Value = serde_json::from_str(include_str!("../../deploy/debezium/connect.json")).unwrap();
    assert_eq!(read["name"], "roster-outbox");
    let named = |name: &str| match name.split('.').next().unwrap() {
        "transforms" | "predicates" => format!("debezium.{name}"),
        "tasks" | "key" | "value" => name.to_owned(),
        _ => format!("debezium.source.{name}"),
    };
    let config = read["config"].as_object().unwrap();
    config.iter().map(|(name, value)| (named(name), value.as_str().unwrap().to_owned())).collect()
}

fn files() -> [(&'static str, Options); 3] {
    [
        ("kafka", properties(include_str!("../../deploy/debezium/kafka.properties"))),
        ("nats", properties(include_str!("../../deploy/debezium/nats.properties"))),
        ("connect", connect()),
    ]
}

/// The options of Debezium's PostgreSQL connector.
pub fn connector() -> Options {
    let [(_, kafka), ..] = files();
    kafka
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("debezium.source.")?.to_owned(), value)))
        .collect()
}

/// Whether `deploy/debezium.txt` lists the option: `<name>` stands for a name that we chose, a star for anything.
fn is_documented(option: &str) -> bool {
    let general = ["transforms", "predicates"].iter().find_map(|kind| {
        let own = option.strip_prefix(&format!("debezium.{kind}.outbox."))?;
        Some(format!("debezium.{kind}.<name>.{own}"))
    });
    let option = general.as_deref().unwrap_or(option);
    OPTIONS.lines().filter(|line| !line.starts_with('#')).any(|known| match known.strip_suffix('*') {
        Some(start) => option.starts_with(start),
        None => option == known,
    })
}

#[test]
fn debezium_options_exist_in_debezium_and_none_is_listed_unused() {
    for (file, options) in files() {
        assert!(options.len() > 25, "{file}");
        let unknown: Vec<_> = options.keys().filter(|option| !is_documented(option)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    assert!(!is_documented("debezium.source.slot.nam") && !is_documented("debezium.transforms.outbox.route"));
    let used: BTreeSet<_> = files().into_iter().flat_map(|(_, options)| options.into_keys()).collect();
    let lines = OPTIONS.lines().filter(|line| !line.starts_with('#') && !line.contains(['*', '<']));
    let unused: Vec<_> = lines.filter(|line| !used.contains(*line)).collect();
    assert!(unused.is_empty(), "listed in debezium.txt but not used: {unused:?}");
}

#[test]
fn debezium_files_for_kafka_nats_and_connect_agree() {
    let own = |options: &Options| -> Options {
        let shared = |name: &str| {
            ["debezium.source.", "debezium.transforms", "debezium.predicates"]
                .iter()
                .any(|it| name.starts_with(it))
                && !name.starts_with("debezium.source.offset.")
                && !name.ends_with(".placement")
                && !name.ends_with(".password")
        };
        options
            .iter()
            .filter(|(name, _)| shared(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let [(_, kafka), (_, nats), (_, connect)] = files();
    assert_eq!(own(&kafka), own(&nats));
    assert_eq!(own(&kafka), own(&connect));
    assert!(own(&kafka).len() > 20);
    let published = include_str!("../../deploy/publication.sql");
    assert!(published.contains(&format!("CREATE PUBLICATION {} FOR", connector()["publication.name"])));
    for (_, options) in files() {
        for (secret, value) in options.iter().filter(|(name, _)| name.ends_with("password")) {
            assert!(value.starts_with("${"), "{secret} is not a placeholder");
        }
    }
    // The predicate lets exactly the topic of the table through to the router.
    let pattern = kafka["debezium.predicates.outbox.pattern"].replace("[.]", ".");
    let source = connector();
    assert_eq!(pattern, format!("{}.{}", source["topic.prefix"], source["table.include.list"]));
}

#[tokio::test]
async fn outbox_columns_have_a_place_in_messages_and_in_the_connector_guide() {
    let mirror = MirrorWithRoles::new().await;
    let columns = mirror
        .lines("SELECT attname::text FROM pg_attribute WHERE attrelid = 'roster.outbox'::regclass AND attnum > 0")
        .await;
    let table: BTreeSet<_> =
        CONNECTORS.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for column in &columns {
        assert!(table.contains(column.as_str()), "{column} is not in the table of docs/CONNECTORS.md");
    }
    for (file, options) in files() {
        let mut placed = BTreeSet::new();
        for field in options["debezium.transforms.outbox.table.fields.additional.placement"].split(',') {
            let parts: Vec<_> = field.split(':').collect();
            assert_eq!(parts[1], "header", "{file}: {field}");
            assert!(columns.contains(parts[0]), "{file}: the outbox has no {}", parts[0]);
            placed.insert(parts[0].to_owned());
            let header = format!("header `{}`", parts.get(2).unwrap_or(&parts[0]));
            let row =
                CONNECTORS.lines().find(|line| line.starts_with(&format!("| `{}` ", parts[0]))).unwrap();
            assert!(row.contains(&header), "{file}: {header} is not in {row}");
        }
        // The router reads these by default: topic, key, value and the header id.
        placed.extend(["id", "aggregatetype", "aggregateid", "payload"].map(String::from));
        assert_eq!(placed, columns, "{file}");
    }
}

/// Python program that prints every message of the stream.
const READ: &str = r#"
import asyncio, json, os, nats
async def main():
    stream = (await nats.connect(os.environ["NATS_URL"])).jetstream()
    for at in range((await stream.stream_info("roster")).state.messages):
        message = await stream.get_msg("roster", at + 1)
        event = json.loads(message.data)
        print(event["seq"], message.headers["Nats-Msg-Id"], message.subject, b'"cost_rate"' in message.data)
asyncio.run(main())
"#;

#[tokio::test]
async fn nats_program_stores_each_event_once_although_it_sends_some_twice() {
    let found = || python("nats", "psycopg, nats", &["psycopg[binary]>=3.2", "nats-py>=2.7"]);
    let python = tokio::task::spawn_blocking(found).await.unwrap();
    let has = |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let server = ["nats-server", "/usr/sbin/nats-server"].into_iter().find(has);
    let (Some(python), Some(server)) = (python, server) else {
        let message =
            "SKIPPED: the program for NATS needs nats-server and python3 with psycopg and nats-py\n";
        std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes()).unwrap();
        return;
    };
    let mirror = MirrorWithRoles::new().await;
    let home = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let mut nats = Command::new(server);
    nats.args(["--jetstream", "--addr", "127.0.0.1", "--port", &port, "--store_dir"]).arg(home.path());
    let _nats = Follower(nats.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let give_up = Instant::now() + STUCK;
    while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(Instant::now() < give_up, "NATS does not answer");
        sleep(Duration::from_millis(20)).await;
    }
    let script = |text: &str| {
        let mut command = Command::new(&python);
        command.args(["-c", text]).env("DATABASE_URL", mirror.url("reader"));
        command.env("NATS_URL", format!("nats://127.0.0.1:{port}")).stdin(Stdio::null());
        command
    };
    let followed = async || {
        let mut follower = Follower(script(blocks_of(CONNECTORS, "python")[0].text).spawn().unwrap());
        let give_up = Instant::now() + STUCK;
        let behind = "SELECT behind::text FROM directory.consumers WHERE name = 'nats'";
        while !mirror.lines(behind).await.contains("0") {
            assert!(follower.0.try_wait().unwrap().is_none(), "the program exited");
            assert!(Instant::now() < give_up, "the program does not acknowledge all events");
            sleep(Duration::from_millis(20)).await;
        }
    };
    followed().await;
    mirror.change_and_sync().await;
    // As if the program had been killed before its ack.
    mirror.run("reader", "SELECT directory.outbox_start('nats', 0)").await.unwrap();
    followed().await;

    let mut reader = script(READ);
    let read = tokio::task::spawn_blocking(move || reader.output().unwrap()).await.unwrap();
    let read: Vec<_> = String::from_utf8(read.stdout).unwrap().lines().map(String::from).collect();
    let events = "SELECT concat_ws(' ', seq, id, 'roster.' || type, 'False') FROM directory.events";
    let mut events: Vec<_> = mirror.lines(events).await.into_iter().collect();
    events.sort_by_key(|line| line.split(' ').next().unwrap().parse::<i64>().unwrap());
    assert!(events.len() > 60);
    assert_eq!(read, events, "each event once, in order, without pay data");
}

#[test]
fn connector_guide_links_to_existing_files_and_names_each_debezium_file() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for link in CONNECTORS.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
        assert!(link.is_empty() || guide.join(link).exists(), "docs/CONNECTORS.md links to {link}");
    }
    for entry in fs::read_dir(guide.join("../deploy/debezium")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            CONNECTORS.contains(&format!("(../deploy/debezium/{name})")),
            "docs/CONNECTORS.md has no {name}"
        );
    }
}
