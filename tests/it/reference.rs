//! Reference pages: the part after a marker is generated from the source that it describes, and must be up to date.
//!
//! `UPDATE_DOCS=1 cargo test --test it -- reference:: deploy::alerts` writes these parts.

use std::fmt::Write;
use std::fs;

use clap::{Command, CommandFactory};
use rosterd::cli::Cli;
use sqlx::{Connection, PgConnection};

use crate::database::TestDatabase;

const MARKER: &str =
    "<!-- The rest is generated: UPDATE_DOCS=1 cargo test --test it -- reference:: deploy::alerts -->\n";

/// Expects that the page ends with this text after the marker, or writes it.
#[track_caller]
pub fn expect_page(page: &str, generated: &str) {
    let path = format!("{}/docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap();
    let (preface, present) = text.split_once(MARKER).unwrap_or_else(|| panic!("{page} has no line {MARKER}"));
    let generated = format!("\n{}\n", generated.trim());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{preface}{MARKER}{generated}")).unwrap();
    } else {
        let differs =
            present.lines().zip(generated.lines()).find(|(present, generated)| present != generated);
        assert!(
            present == generated,
            "docs/{page} is not up to date: UPDATE_DOCS=1 cargo test --test it -- reference:: deploy::alerts\n{differs:?}"
        );
    }
}

/// The text of a table's cell.
pub fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

/// The anchor that forges and mdBook give to a heading.
pub fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The commands without subcommands, with all their words.
fn leaves(command: &Command, words: &str, found: &mut Vec<(String, Command)>) {
    let words = format!("{words} {}", command.get_name()).trim().to_owned();
    let is_runnable = !command.is_subcommand_required_set();
    if is_runnable {
        found.push((words.clone(), command.clone()));
    }
    for subcommand in command.get_subcommands().filter(|it| it.get_name() != "help") {
        leaves(subcommand, &words, found);
    }
}

fn command_section(words: &str, command: &Command) -> String {
    let mut command = command.clone().bin_name(words).term_width(120);
    let usage = command.render_usage().to_string();
    let mut section = format!("### {words}\n\n{}.\n", command.get_about().unwrap());
    write!(section, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim()).unwrap();
    let arguments = command.get_arguments().filter(|it| !it.is_hide_set() && !it.is_global_set());
    let rows: Vec<_> = arguments.filter(|it| it.get_id() != "help").collect();
    if !rows.is_empty() {
        section.push_str("\n| argument | meaning |\n|---|---|\n");
    }
    for argument in rows {
        let help =
            argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let mut values: Vec<_> =
            argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        values.retain(|value| value != "true" && value != "false");
        let values = if values.is_empty() { String::new() } else { format!(": {}", values.join(", ")) };
        let name = argument.to_string().replace('|', "\\|");
        writeln!(section, "| `{name}` | {}{values} |", cell(&help)).unwrap();
    }
    if let Some(after) = command.get_after_help() {
        write!(section, "\n```text\n{}\n```\n", after.to_string().trim()).unwrap();
    }
    section
}

#[test]
fn command_page_has_every_command_and_argument() {
    let (mut found, mut text) = (Vec::new(), String::from("| command | what it does |\n|---|---|\n"));
    let mut root = Cli::command().subcommand_required(true);
    root.build();
    leaves(&root, "", &mut found);
    assert!(found.len() > 30, "{found:?}");
    for (words, command) in &found {
        writeln!(
            text,
            "| [`{words}`](#{}) | {} |",
            anchor(words),
            cell(&command.get_about().unwrap().to_string())
        )
        .unwrap();
    }
    text.push_str(
        "\n## Arguments\n\nEvery command also takes `--config FILE`, `--log-format FORMAT` and `--help`.\n",
    );
    for (words, command) in &found {
        write!(text, "\n{}", command_section(words, command)).unwrap();
    }
    expect_page("COMMANDS.md", &text);
}

/// The lines of a comment without its signs.
fn uncommented(line: &str) -> &str {
    line.trim_start_matches('#').strip_prefix(' ').unwrap_or(line.trim_start_matches('#'))
}

#[test]
fn settings_page_has_every_key_with_its_default() {
    let defaults = include_str!("../../config/default.toml");
    let (head, sections) = defaults.split_once("\n[").unwrap();
    let paragraphs = head.lines().map(uncommented).collect::<Vec<_>>().join("\n");
    let mut text =
        paragraphs.split_once("\n\n").unwrap().1.replace("This file is", "`config/default.toml` is");
    for section in format!("[{sections}").split("\n[").map(|section| section.trim_start_matches('[')) {
        let (name, body) = section.split_once("]\n").unwrap();
        let mut paragraphs = body.trim().split("\n\n");
        write!(text, "\n\n## {name}\n\n{}", keys(name, paragraphs.next().unwrap())).unwrap();
        // Sections that the defaults do not have are in comments.
        for comment in paragraphs {
            let (prose, example) = comment.split_once("\n#\n").unwrap();
            let heading = example.lines().next().unwrap().trim_matches(['#', '[', ' ', ']']);
            let heading = if heading.starts_with("webhooks") { "webhooks.NAME" } else { heading };
            let lines = |text: &str| text.lines().map(uncommented).collect::<Vec<_>>().join("\n");
            write!(text, "\n\n## {heading}\n\n{}\n\n```toml\n{}\n```", lines(prose), lines(example)).unwrap();
        }
    }
    expect_page("SETTINGS.md", &text);
}

/// A table of the keys of a section, after the section's introduction.
fn keys(section: &str, body: &str) -> String {
    let (mut text, mut rows, mut comment) = (String::new(), String::new(), Vec::new());
    for line in body.lines() {
        if let Some((key, default)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let help = comment.join(" ");
            let variable = format!("ROSTERD__{}__{key}", section.replace('.', "__")).to_uppercase();
            writeln!(rows, "| `{key}` | `{}` | {} <br>`{variable}` |", cell(default), cell(&help)).unwrap();
            comment.clear();
        } else if uncommented(line).is_empty() {
            write!(text, "{}\n\n", comment.join("\n")).unwrap();
            comment.clear();
        } else {
            comment.push(uncommented(line));
        }
    }
    format!("{text}| key | default | meaning, and the variable |\n|---|---|---|\n{}", rows.trim_end())
}

const RELATIONS: &str = r"
    SELECT relation.oid::int8, format('%s.%s', nspname, relname), coalesce(obj_description(relation.oid, 'pg_class'), '')
      FROM pg_class AS relation JOIN pg_namespace AS space ON space.oid = relnamespace
     WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm') ORDER BY relname";
const COLUMNS: &str = r"
    SELECT attname::text, format_type(atttypid, NULL), coalesce(col_description(attrelid, attnum), '')
      FROM pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
const FUNCTIONS: &str = r"
    SELECT format('%s.%s(%s)', nspname, proname, array_to_string(proargnames[:pronargs], ', ')),
           coalesce(obj_description(pg_proc.oid, 'pg_proc'), '')
      FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
     WHERE nspname = $1 AND prorettype <> 'trigger'::regtype ORDER BY 1";

/// Tables, columns and functions of a schema, with their comments.
async fn schema(connection: &mut PgConnection, name: &str) -> String {
    let relations: Vec<(i64, String, String)> =
        sqlx::query_as(RELATIONS).bind(name).fetch_all(&mut *connection).await.unwrap();
    let mut text = String::new();
    for (oid, relation, comment) in &relations {
        write!(text, "\n## {relation}\n\n{}\n\n| column | type | meaning |\n|---|---|---|\n", cell(comment))
            .unwrap();
        let columns: Vec<(String, String, String)> =
            sqlx::query_as(COLUMNS).bind(oid).fetch_all(&mut *connection).await.unwrap();
        for (column, kind, comment) in columns {
            writeln!(text, "| `{column}` | {kind} | {} |", cell(&comment)).unwrap();
        }
    }
    let functions: Vec<(String, String)> =
        sqlx::query_as(FUNCTIONS).bind(name).fetch_all(connection).await.unwrap();
    text.push_str("\n## Functions\n\n| function | meaning |\n|---|---|\n");
    for (function, comment) in functions {
        writeln!(text, "| `{function}` | {} |", cell(&comment)).unwrap();
    }
    assert!(relations.len() > 15, "{relations:?}");
    text
}

#[tokio::test]
async fn pages_of_views_and_tables_have_every_column_with_its_comment() {
    let database = TestDatabase::new().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    expect_page("VIEWS.md", &schema(&mut connection, "directory").await);
    expect_page("TABLES.md", &schema(&mut connection, "roster").await);
}
