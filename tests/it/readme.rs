//! The commands in README.md run, its queries work for a reader, and its settings exist.

use std::collections::BTreeSet;

use harvest_sim::Company;

use crate::consuming_guide::{MirrorWithRoles, blocks_of};

const README: &str = include_str!("../../README.md");
const CI: &str = include_str!("../../.ci/run");
const COMMANDS: &str = include_str!("../../docs/COMMANDS.md");

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

/// The commands of rosterd in code spans, up to the first placeholder.
fn commands_in_spans(text: &'static str) -> BTreeSet<Vec<&'static str>> {
    let spans = text.split('`').skip(1).step_by(2).filter_map(|span| span.strip_prefix("rosterd "));
    let is_literal = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    spans.map(|span| span.split(' ').take_while(is_literal).collect()).collect()
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
async fn readme_and_command_page_name_only_existing_commands() {
    let mirror = MirrorWithRoles::new().await;
    let (readme, page) = (commands_in_spans(README), commands_in_spans(COMMANDS));
    assert!(page.len() > 12, "{page:?}");
    for words in readme.union(&page) {
        let arguments: Vec<_> = words.iter().copied().chain(["--help"]).collect();
        mirror.program.call(&arguments).await.expect(0);
    }
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

#[test]
fn readme_settings_exist() {
    let defaults: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
    let names = README.split('`').skip(1).step_by(2).filter(|span| {
        span.contains('.') && span.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte))
    });
    let settings: Vec<_> =
        names.filter(|name| defaults.contains_key(name.split('.').next().unwrap())).collect();
    assert!(settings.len() >= 8, "{settings:?}");
    for setting in settings {
        let (section, key) = setting.split_once('.').unwrap();
        assert!(defaults[section].as_table().is_some_and(|table| table.contains_key(key)), "{setting}");
    }
}
