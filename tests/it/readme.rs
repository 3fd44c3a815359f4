//! The commands in README.md run, and its queries work for a reader.

use std::collections::BTreeSet;

use harvest_sim::Company;

use crate::consuming_guide::{MirrorWithRoles, blocks_of};

const README: &str = include_str!("../../README.md");
const CI: &str = include_str!("../../.ci/run");

/// The lines of all console blocks, also of indented ones.
fn console_lines() -> Vec<&'static str> {
    let mut lines = Vec::new();
    let mut is_console = false;
    for line in README.lines().map(str::trim) {
        match line.strip_prefix("```") {
            Some(language) => is_console = language == "console",
            None if is_console => lines.push(line),
            None => {}
        }
    }
    lines
}

#[tokio::test]
async fn readme_commands_run() {
    // The mirror is empty, because rosterd refuses to stop mirroring pay data if the mirror holds some.
    let mut mirror = MirrorWithRoles::of(Company::seeded(5, 20, 40)).await;
    let program = &mut mirror.program;
    let mut seen = BTreeSet::new();
    for line in console_lines() {
        let words: Vec<_> = line.split(' ').collect();
        seen.insert(words[0]);
        match words.as_slice() {
            // The test uses its own account and database.
            ["export", setting] => {
                let (name, value) = setting.split_once('=').unwrap();
                if name.starts_with("ROSTERD__") {
                    program.set(name, value);
                } else {
                    assert!(!program.value(name).is_empty(), "{name}");
                }
            }
            ["rosterd", "run"] => {
                let mut daemon = program.start();
                daemon.until("cycle.finished").await;
                daemon.signal("-TERM");
                assert_eq!(daemon.ended().await, Some(0));
            }
            ["rosterd", arguments @ ..] => {
                program.call(arguments).await.expect(0);
            }
            // `.ci/run` runs these commands, and tests/campaigns/image.rs builds the image. Installing would compile for
            // minutes.
            ["cargo", "run" | "test", ..] => {
                let command = line.strip_suffix(" -- --keep").unwrap_or(line);
                assert!(CI.contains(&format!("({command})\n")), ".ci/run does not run {command}");
            }
            ["cargo", "install", ..] | ["docker", "build", ..] => {}
            _ => panic!("README.md has a command that no test runs: {line}"),
        }
    }
    assert_eq!(seen, BTreeSet::from(["cargo", "docker", "export", "rosterd"]));
}

#[tokio::test]
async fn readme_queries_run_as_a_reader() {
    let mirror = MirrorWithRoles::new().await;
    let queries = blocks_of(README, "sql");
    assert_eq!(queries.len(), 2);
    for query in queries {
        mirror.run("reader", query.text).await.unwrap_or_else(|error| panic!("{error}\n{}", query.text));
    }
}
