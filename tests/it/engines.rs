//! `docs/ENGINES.md` and `deploy/debezium/`: options that Debezium has, columns that the outbox has, thrice the same
//! connector; and the guide's program on a real NATS.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::guide::{Follower, House, blocks_of, python};
use crate::program::STUCK;

pub const ENGINES: &str = include_str!("../../docs/ENGINES.md");
const OPTIONS: &str = include_str!("deploy/debezium.txt");
type Options = BTreeMap<String, String>;

/// A file of properties, each of them once.
fn properties(text: &str) -> Options {
    let mut read = Options::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no property: {line}"));
        assert!(!line.ends_with('\\') && read.insert(name.to_owned(), value.to_owned()).is_none(), "{line}");
    }
    read
}

/// What Kafka Connect is given, by the names of Debezium Server.
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

/// The options of the connector itself.
pub fn connector() -> Options {
    let [(_, kafka), ..] = files();
    kafka
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("debezium.source.")?.to_owned(), value)))
        .collect()
}

/// Whether the option is one of those that are documented: `<name>` is one that we gave, a star is anything.
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
fn each_option_is_one_that_debezium_has() {
    for (file, options) in files() {
        assert!(options.len() > 25, "{file}");
        let unknown: Vec<_> = options.keys().filter(|option| !is_documented(option)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    assert!(!is_documented("debezium.source.slot.nam") && !is_documented("debezium.transforms.outbox.route"));
    let used: BTreeSet<_> = files().into_iter().flat_map(|(_, options)| options.into_keys()).collect();
    let lines = OPTIONS.lines().filter(|line| !line.starts_with('#') && !line.contains(['*', '<']));
    let unused: Vec<_> = lines.filter(|line| !used.contains(*line)).collect();
    assert!(unused.is_empty(), "in debezium.txt, and nowhere used: {unused:?}");
}

#[test]
fn the_three_files_are_of_one_connector() {
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
            assert!(value.starts_with("${"), "{secret} is written down");
        }
    }
    // The topic of the table is what the predicate lets through to the router.
    let pattern = kafka["debezium.predicates.outbox.pattern"].replace("[.]", ".");
    let source = connector();
    assert_eq!(pattern, format!("{}.{}", source["topic.prefix"], source["table.include.list"]));
}

#[tokio::test]
async fn each_column_has_its_place_in_the_messages_and_in_the_guide() {
    let house = House::new().await;
    let columns = house
        .lines("SELECT attname::text FROM pg_attribute WHERE attrelid = 'roster.outbox'::regclass AND attnum > 0")
        .await;
    let table: BTreeSet<_> =
        ENGINES.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for column in &columns {
        assert!(table.contains(column.as_str()), "{column} is not in the table of docs/ENGINES.md");
    }
    for (file, options) in files() {
        let mut placed = BTreeSet::new();
        for field in options["debezium.transforms.outbox.table.fields.additional.placement"].split(',') {
            let parts: Vec<_> = field.split(':').collect();
            assert_eq!(parts[1], "header", "{file}: {field}");
            assert!(columns.contains(parts[0]), "{file}: the outbox has no {}", parts[0]);
            placed.insert(parts[0].to_owned());
            let header = format!("header `{}`", parts.get(2).unwrap_or(&parts[0]));
            let row = ENGINES.lines().find(|line| line.starts_with(&format!("| `{}` ", parts[0]))).unwrap();
            assert!(row.contains(&header), "{file}: {header} is not in {row}");
        }
        // What the router reads without being told: topic, key, value and the header id.
        placed.extend(["id", "aggregatetype", "aggregateid", "payload"].map(String::from));
        assert_eq!(placed, columns, "{file}");
    }
}

/// Reads the stream to its end.
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
async fn its_program_brings_each_event_to_nats_once_though_it_is_killed_and_sends_some_twice() {
    let found = || python("nats", "psycopg, nats", &["psycopg[binary]>=3.2", "nats-py>=2.7"]);
    let python = tokio::task::spawn_blocking(found).await.unwrap();
    let has = |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let server = ["nats-server", "/usr/sbin/nats-server"].into_iter().find(has);
    let (Some(python), Some(server)) = (python, server) else {
        let said = "SKIPPED: the engines' program for NATS, for want of nats-server or python3 with psycopg and nats-py\n";
        std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes()).unwrap();
        return;
    };
    let house = House::new().await;
    let home = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
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
        command.args(["-c", text]).env("DATABASE_URL", house.url("reader"));
        command.env("NATS_URL", format!("nats://127.0.0.1:{port}")).stdin(Stdio::null());
        command
    };
    let followed = async || {
        let mut follower = Follower(script(blocks_of(ENGINES, "python")[0].text).spawn().unwrap());
        let give_up = Instant::now() + STUCK;
        let behind = "SELECT behind::text FROM directory.consumers WHERE name = 'nats'";
        while !house.lines(behind).await.contains("0") {
            assert!(follower.0.try_wait().unwrap().is_none(), "it ended");
            assert!(Instant::now() < give_up, "it does not follow");
            sleep(Duration::from_millis(20)).await;
        }
    };
    followed().await;
    house.stir().await;
    // As if it had died before its ack.
    house.run("reader", "SELECT directory.outbox_start('nats', 0)").await.unwrap();
    followed().await;

    let mut reader = script(READ);
    let read = tokio::task::spawn_blocking(move || reader.output().unwrap()).await.unwrap();
    let read: Vec<_> = String::from_utf8(read.stdout).unwrap().lines().map(String::from).collect();
    let events = "SELECT concat_ws(' ', seq, id, 'roster.' || type, 'False') FROM directory.events";
    let mut events: Vec<_> = house.lines(events).await.into_iter().collect();
    events.sort_by_key(|line| line.split(' ').next().unwrap().parse::<i64>().unwrap());
    assert!(events.len() > 60);
    assert_eq!(read, events, "each once, in order, without pay");
}

#[test]
fn the_guide_and_the_files_name_each_other() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for link in ENGINES.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
        assert!(link.is_empty() || guide.join(link).exists(), "docs/ENGINES.md links to {link}");
    }
    for entry in fs::read_dir(guide.join("../deploy/debezium")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(ENGINES.contains(&format!("(../deploy/debezium/{name})")), "docs/ENGINES.md has no {name}");
    }
}
