//! The pages name only commands and options of rosterd that exist, and settings that have a default. The dbt sources name
//! existing views and columns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use rosterd::cli::Cli;

use crate::consuming_guide::{MirrorWithRoles, blocks_of};
use crate::links::{ROOT, pages};

const MOVING: &str = include_str!("../../docs/MOVING.md");

/// The commands in code spans. `page_blocks` checks those of code blocks.
fn commands(text: &str) -> Vec<String> {
    let (mut found, mut is_code) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter_map(|span| Some(span.strip_prefix("rosterd ")?.to_owned())));
        }
    }
    found
}

/// What is wrong with the arguments of a command, if anything.
fn fault(root: &Command, arguments: &str) -> Option<String> {
    let mut command = root.clone();
    let mut words = arguments.split([' ', '\u{a0}']).filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.peek() {
        let Some(next) = command.find_subcommand(word).cloned() else { break };
        command = next;
        words.next();
    }
    let is_placeholder = |word: &str| !word.starts_with(|c: char| c.is_ascii_lowercase());
    let expects_subcommand = command.has_subcommands() && command.is_subcommand_required_set();
    if expects_subcommand && words.peek().is_some_and(|word| !is_placeholder(word)) {
        return Some(format!("no command {}", words.peek()?));
    }
    let options =
        words.take_while(|word| *word != "--" && *word != "|").filter_map(|word| word.strip_prefix("--"));
    let options: Vec<_> = options.map(|option| option.split(['=', ']']).next().unwrap_or(option)).collect();
    let known: BTreeSet<_> =
        command.get_arguments().chain(root.get_arguments()).filter_map(|it| it.get_long()).collect();
    let unknown =
        options.into_iter().find(|option| !known.contains(option) && !["help", "version"].contains(option));
    unknown.map(|option| format!("no option --{option}"))
}

#[test]
fn pages_name_only_existing_commands_and_options() {
    let mut root = Cli::command().subcommand_required(true);
    root.build();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages().into_iter().filter(|page| page != Path::new("CHANGELOG.md")) {
        let text = fs::read_to_string(Path::new(ROOT).join(&page)).unwrap();
        for command in commands(&text) {
            count += 1;
            wrong.extend(
                fault(&root, &command).map(|fault| format!("{}: rosterd {command}: {fault}", page.display())),
            );
        }
    }
    assert!(count > 100, "{count}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pages_name_only_existing_settings() {
    let defaults: toml::Value = toml::from_str(include_str!("../../config/default.toml")).unwrap();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages().into_iter().filter(|page| page != Path::new("CHANGELOG.md")) {
        let text = fs::read_to_string(Path::new(ROOT).join(&page)).unwrap();
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let Some(key) = word.strip_prefix("ROSTERD__").filter(|key| !["SECTION__KEY", ""].contains(key))
            else {
                continue;
            };
            count += 1;
            let path = key.to_lowercase().replace("__", ".");
            let mut at = Some(&defaults);
            for part in path.split('.') {
                at = at.and_then(|value| value.as_table()?.get(part));
            }
            if at.is_none() {
                wrong.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(count > 20, "{count}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn dbt_sources_are_views_and_columns_and_their_freshness_is_known() {
    let sources = fs::read_to_string(format!("{ROOT}/examples/dbt/models/sources.yml")).unwrap();
    let (head, tables) = sources.split_once("    tables:\n").unwrap();
    let mut named = BTreeMap::<_, Vec<_>>::new();
    let mut table = "";
    for line in tables.lines() {
        if let Some(name) = line.strip_prefix("      - name: ") {
            table = name;
            named.insert(table, Vec::new());
        } else if let Some(column) = line.strip_prefix("          - name: ") {
            named.get_mut(table).unwrap().push(column);
        }
    }
    assert!(named.len() > 10, "{named:?}");
    let mirror = MirrorWithRoles::new().await;
    for (table, columns) in named {
        let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
        mirror.run("reader", &format!("SELECT {columns} FROM directory.{table}")).await.unwrap();
    }
    let freshness = head.split("loaded_at_query: ").nth(1).unwrap().lines().next().unwrap();
    let loaded_at = mirror.lines(&format!("SELECT (({freshness}) > now() - interval '1 day')::text")).await;
    assert_eq!(loaded_at, BTreeSet::from(["true".to_owned()]));
}

#[tokio::test]
async fn comparison_with_an_old_copy_finds_each_kind_of_difference() {
    let mirror = MirrorWithRoles::new().await;
    let users = mirror.sim.user_ids();
    let (deleted, absent, changed) = (users[2], users[3], users[4]);
    let copy = "INSERT INTO review.old_users SELECT id, email, first_name, last_name, is_active FROM directory.users";
    let blocks = blocks_of(MOVING, "sql");
    let table = blocks.iter().find(|block| block.text.contains("TABLE review.old_users")).unwrap();
    mirror.run("reader", table.text).await.unwrap();
    mirror.run("reader", copy).await.unwrap();
    mirror.sim.delete_user(deleted);
    mirror.program.call(&["sync", "--full"]).await.expect(0);
    let edit = format!(
        "DELETE FROM review.old_users WHERE id = {absent};
         UPDATE review.old_users SET email = NULL WHERE id = {changed};
         INSERT INTO review.old_users VALUES (1, 'one@example.com', 'One', 'Only', true)"
    );
    mirror.run("reader", &edit).await.unwrap();
    let query = blocks.iter().find(|block| block.is("users")).unwrap().text.trim_end().trim_end_matches(';');
    let found = mirror.lines(&format!("SELECT concat_ws(' ', id, what) FROM ({query}) AS found")).await;
    let expected = [
        format!("{deleted} deleted at Harvest, still in the old copy"),
        format!("{absent} only in rosterd"),
        format!("{changed} different"),
        "1 only in the old copy".to_owned(),
    ];
    assert_eq!(found, expected.into());
}
