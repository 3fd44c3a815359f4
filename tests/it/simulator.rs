//! The simulator is a second reading of Harvest's documentation. If it shared code with rosterd, both could be wrong alike.

use std::fs;

/// The names of the packages in these sections, also under `[target.…]`.
fn dependencies(manifest: &str, kinds: &[&str]) -> String {
    let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
    let targets =
        manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|it| it.values());
    let tables = [&manifest].into_iter().chain(targets.filter_map(toml::Value::as_table));
    let sections: Vec<_> =
        tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind))).collect();
    format!("{sections:?}")
}

#[test]
fn daemon_and_simulator_do_not_depend_on_each_other() {
    let daemon = dependencies("Cargo.toml", &["dependencies", "build-dependencies"]);
    let all = ["dependencies", "dev-dependencies", "build-dependencies"];
    let simulator = dependencies("tests/harvest-sim/Cargo.toml", &all);
    assert!(daemon.contains("axum") && simulator.contains("axum"), "the sections are there");
    assert!(!daemon.contains("harvest-sim"), "{daemon}");
    assert!(!simulator.contains("rosterd"), "{simulator}");
}
