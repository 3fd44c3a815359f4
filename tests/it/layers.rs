//! The rules of the house, checked: who may import whom, which library belongs to which room, how long a file is.

mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::{Mention, Named, Source, repository};

/// Each room of `src/` and what it may import, from the bottom up.
const ROOMS: [(&str, &[&str]); 12] = [
    ("roster", &[]),
    ("clock", &[]),
    ("progress", &[]),
    ("settings", &[]),
    ("telemetry", &[]),
    // These two never meet.
    ("harvest", &["roster", "clock", "progress", "telemetry"]),
    ("store", &["roster", "clock", "progress", "telemetry"]),
    ("sync", &["harvest", "store", "roster", "clock", "progress", "telemetry"]),
    // Tells how the workers are, and is nobody's but the wiring's.
    ("http", &["sync", "store", "roster", "clock", "telemetry"]),
    // Below here nobody sees the settings.
    ("app", &["http", "sync", "harvest", "store", "roster", "clock", "settings", "telemetry"]),
    ("cli", &["app", "http", "sync", "harvest", "store", "roster", "clock", "settings", "telemetry"]),
    ("main", &["cli", "app"]),
];

/// Libraries that are one room's business, and the rooms that may name them.
const LIBRARIES: [(&str, &[&str]); 18] = [
    // `sync` hands the pool on from `store` to `store`.
    ("sqlx", &["store", "sync"]),
    ("sqlx_core", &["store"]),
    // `cli` asks the local listener; `telemetry` proves that reqwest's own lines keep the token.
    ("reqwest", &["harvest", "cli", "telemetry"]),
    ("governor", &["harvest"]),
    ("hyper_util", &["harvest"]),
    ("oauth2", &["harvest"]),
    ("ring", &["store"]),
    ("roaring", &["roster"]),
    ("sd_notify", &["app"]),
    ("axum", &["http"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("config", &["settings"]),
    ("metrics", &["telemetry"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("tracing_appender", &["telemetry"]),
    // `settings` tries `log.level` out on it.
    ("tracing_subscriber", &["telemetry", "settings"]),
];

/// What the pure core does without: waiting, the outside, the time of day.
const IMPURE: [&str; 16] = [
    "async",
    "await",
    "tokio",
    "tokio_util",
    "futures",
    "sqlx",
    "reqwest",
    "axum",
    "tracing",
    "rand",
    "fs",
    "net",
    "env",
    "process",
    "SystemTime",
    "Instant",
];

/// Beyond this a file is more than one idea.
const LONGEST: usize = 400;

#[test]
fn imports_point_one_way() {
    let wrong = daemon().mentions.into_iter().filter_map(|it| {
        let (Named::Ours(path), [room, ..]) = (&it.path, it.module.as_slice()) else { return None };
        let target = path.first().map_or("the root of the crate", String::as_str);
        let allowed = target == room || may_import(room).contains(&target);
        (!allowed).then(|| format!("{}: `{room}` may not import `{target}`", it.place))
    });
    none(wrong, "imports point one way; see src/lib.rs");
}

#[test]
fn a_library_is_named_in_its_own_rooms_only() {
    let wrong = daemon().mentions.into_iter().filter_map(|it| {
        let (Named::Foreign(path), [room, ..]) = (&it.path, it.module.as_slice()) else { return None };
        let (library, rooms) = LIBRARIES.iter().find(|(library, _)| path[0] == *library)?;
        (!rooms.contains(&room.as_str())).then(|| {
            format!("{}: `{room}` may not use {library}; it belongs to {}", it.place, rooms.join(", "))
        })
    });
    none(wrong, "each library has its rooms");
}

#[test]
fn the_core_is_pure() {
    let wrong =
        daemon().mentions.into_iter().filter(|it| it.module.first().is_some_and(|room| room == "roster"));
    let wrong = wrong.filter_map(|it| {
        let word = match &it.path {
            Named::Foreign(path) => path.iter().find(|name| IMPURE.contains(&name.as_str())),
            Named::Word(word) => Some(word).filter(|word| ["async", "await"].contains(&word.as_str())),
            Named::Ours(_) => None,
        }?;
        Some(format!("{}: `{word}` has no place in `roster`", it.place))
    });
    none(wrong, "the core is plain functions on plain values");
}

#[test]
fn every_file_is_part_of_the_crate() {
    let source = daemon();
    let orphans = rust_files("src").into_iter().filter(|file| !source.files.contains(file));
    none(orphans.map(|file| format!("{}: no `mod` leads here", file.display())), "nobody compiles them");
}

#[test]
fn no_file_is_longer_than_one_idea() {
    let long = ["src", "tests", "examples", "benches"].into_iter().flat_map(rust_files).filter_map(|file| {
        let lines = fs::read_to_string(repository().join(&file)).unwrap().lines().count();
        (lines > LONGEST).then(|| format!("{}: {lines} lines, {LONGEST} at most", file.display()))
    });
    none(long, "a file is one idea; part it");
}

/// Two independent readings of Harvest's documents: were one to lean on the other, a misreading would pass.
#[test]
fn the_daemon_and_the_simulator_share_nothing() {
    let daemon = manifest("Cargo.toml");
    let simulator = manifest("tests/harvest-sim/Cargo.toml");
    for kind in ["dependencies", "build-dependencies"] {
        assert!(!depends(&daemon, kind, "harvest-sim"), "the daemon's {kind} name the simulator");
    }
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        assert!(!depends(&simulator, kind, "rosterd"), "the simulator's {kind} name the daemon");
    }
}

#[test]
fn a_mention_is_found_wherever_it_hides_and_nowhere_else() {
    let text = r#"
        //! crate::in_a_comment
        use crate::{clock, store::{Store, page::Page}};
        use super::super::app as wiring;
        #[derive(serde::Serialize)]
        struct A(&'static str);
        mod tests {
            use super::*;
            fn b() { warn!(error = %crate::telemetry::chain(&"crate::in_a_string"), "{}", self::C); }
        }
    "#;
    let mut source = Source::default();
    let module = ["sync", "cycle"].map(str::to_owned);
    source.text(text, Path::new("src/sync/cycle.rs"), &module, Path::new("src/sync/cycle"));
    let said: Vec<_> = source
        .mentions
        .iter()
        .filter_map(|Mention { place, path, .. }| match path {
            Named::Ours(path) => Some(format!("{} ours {}", place.rsplit(':').next()?, path.join("::"))),
            Named::Foreign(path) => {
                Some(format!("{} foreign {}", place.rsplit(':').next()?, path.join("::")))
            }
            Named::Word(_) => None,
        })
        .collect();
    assert_eq!(
        said,
        [
            "3 ours clock",
            "3 ours store::Store",
            "3 ours store::page::Page",
            "4 ours app",
            "5 foreign serde::Serialize",
            "8 ours sync::cycle",
            "9 ours telemetry::chain",
            "9 ours sync::cycle::tests::C",
        ]
    );
}

/// The library and the binary.
fn daemon() -> Source {
    let mut source = Source::default();
    source.read(Path::new("src/lib.rs"), &[]);
    source.read(Path::new("src/main.rs"), &["main"]);
    assert!(source.files.len() > 50, "the scan lost its way: {:?}", source.files);
    source
}

fn may_import(room: &str) -> &'static [&'static str] {
    ROOMS
        .iter()
        .find(|(name, _)| *name == room)
        .unwrap_or_else(|| panic!("`{room}` is no room: add it to ROOMS"))
        .1
}

#[track_caller]
fn none(wrong: impl Iterator<Item = String>, rule: &str) {
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

/// Rust files below `dir`, from the root of the repository.
fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from(dir)];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(repository().join(&dir)) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = dir.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn manifest(path: &str) -> toml::Table {
    fs::read_to_string(repository().join(path)).unwrap().parse().unwrap()
}

/// Whether a package is named, under whatever name, for all targets or for one.
fn depends(manifest: &toml::Table, kind: &str, package: &str) -> bool {
    let of_targets =
        manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|it| it.values());
    let tables = std::iter::once(manifest).chain(of_targets.filter_map(toml::Value::as_table));
    tables.filter_map(|table| table.get(kind)?.as_table()).flatten().any(|(name, value)| {
        name == package || value.get("package").and_then(toml::Value::as_str) == Some(package)
    })
}
