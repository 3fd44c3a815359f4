//! `docs/WRITES.md`: its SQL statements run under the roles that it names, its commands exist, and its tables have every
//! permission, kind and state.

use std::collections::BTreeSet;

use harvest_sim::Company;
use rosterd::roster::write::WriteKind;
use rosterd::settings::PERMISSIONS;

use crate::consuming_guide::{Block, MirrorWithRoles, indented_blocks_of};

const GUIDE: &str = include_str!("../../docs/WRITES.md");

fn blocks(language: &str) -> Vec<Block> {
    indented_blocks_of(GUIDE, language)
}

/// The words in code spans at the beginnings of the rows of the table below this heading.
fn first_cells(heading: &str) -> BTreeSet<&'static str> {
    let section = GUIDE.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| row.split(" |").next().unwrap().split('`').step_by(2))
        .filter(|it| !it.is_empty())
        .collect()
}

#[tokio::test]
async fn writes_guide_statements_run_under_their_role() {
    let mirror = MirrorWithRoles::new().await;
    let statements = blocks("sql");
    let roles: BTreeSet<_> = statements.iter().map(|block| block.words[0]).collect();
    assert_eq!(roles, BTreeSet::from(["auditor", "provisioner"]));
    for block in &statements {
        let role = block.words[0];
        mirror.run(role, block.text).await.unwrap_or_else(|error| panic!("{role}: {error}\n{}", block.text));
        let refused = mirror.run("reader", block.text).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{}", block.text);
    }
    let requested = mirror.lines("SELECT concat_ws(' ', kind, actor) FROM roster.writes").await;
    let kinds = ["assignment_add", "user_create", "user_deactivate", "user_update"];
    assert_eq!(requested, kinds.map(|kind| format!("{kind} sql:provisioner")).into());
}

#[tokio::test]
async fn writes_guide_commands_exist_and_take_their_options() {
    let mirror = MirrorWithRoles::of(Company::seeded(5, 20, 40)).await;
    let lines: Vec<_> = blocks("console").iter().flat_map(|block| block.text.lines()).collect();
    assert!(lines.len() > 10, "{lines:?}");
    for line in lines {
        let words: Vec<_> = line.trim().split(' ').collect();
        assert_eq!(words[0], "rosterd", "{line}");
        // The command line is valid, and the command refuses to write.
        let called = mirror.program.call(&words[1..]).await;
        let code = called.0.status.code();
        let is_refused = code == Some(77) && called.sentence().contains("write.mode");
        let concerns_journal = words[1] == "writes" && [Some(0), Some(1)].contains(&code);
        assert!(is_refused || concerns_journal, "{line}: {code:?} {}", called.stderr());
    }
}

#[test]
fn writes_guide_lists_every_permission_kind_and_state() {
    assert_eq!(first_cells("Permissions"), PERMISSIONS.into());
    assert_eq!(first_cells("Requests by SQL"), WriteKind::ALL.map(WriteKind::name).into());
    let migration = include_str!("../../migrations/0007_writes.sql");
    let outcomes = migration.split("CHECK (outcome IN (").nth(1).unwrap().split(')').next().unwrap();
    let outcomes = outcomes.split(", ").map(|outcome| outcome.trim_matches('\''));
    assert_eq!(first_cells("Outcomes"), outcomes.chain(["waiting", "held", "in_doubt"]).collect());
}

#[test]
fn writes_guide_settings_are_valid() {
    let defaults: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
    for block in blocks("toml") {
        let example: toml::Table = block.text.parse().unwrap();
        for (section, keys) in &example {
            for key in keys.as_table().unwrap().keys() {
                assert!(defaults[section].as_table().unwrap().contains_key(key), "{section}.{key}");
            }
        }
    }
}
