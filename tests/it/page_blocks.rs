//! The code blocks of all pages: shell is valid, commands of rosterd are accepted by the command line's parser, JSON and TOML are
//! valid, and tests run the SQL. The commands of the guides run in their order.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Parser;
use harvest_sim::Company;
use rosterd::cli::Cli;

use crate::consuming_guide::{Block, MirrorWithRoles, indented_blocks_of};
use crate::links::{ROOT, pages};
use crate::program::{Program, STUCK};

/// The pages with SQL, each with the test that runs its statements.
const SQL: [(&str, &str); 11] = [
    ("README.md", "readme::readme_queries_run_as_a_reader"),
    ("deploy/RUNBOOK.md", "deploy::runbook_sql_statements_are_valid"),
    ("docs/ACCESS_REVIEWS.md", "consuming_guide::guide_statements_run_under_their_role"),
    ("docs/CONNECTORS.md", "logical_replication"),
    ("docs/CONSUMING.md", "consuming_guide::guide_statements_run_under_their_role"),
    ("docs/DASHBOARDS.md", "consuming_guide::guide_statements_run_under_their_role"),
    ("docs/MOVING.md", "consuming_guide::guide_statements_run_under_their_role"),
    ("docs/SCIM.md", "scim_guide::scim_guide_statements_run_under_their_role_and_the_login_serves_scim"),
    ("docs/TROUBLESHOOTING.md", "consuming_guide::guide_statements_run_under_their_role"),
    ("docs/WRITES.md", "writes_guide::writes_guide_statements_run_under_their_role"),
    ("examples/consumers/README.md", "consuming_guide, whose login for readers it is"),
];

fn read(page: &Path) -> String {
    fs::read_to_string(Path::new(ROOT).join(page)).unwrap()
}

/// The blocks of a language in all pages, with the name of the page.
fn blocks(language: &str) -> Vec<(String, Block)> {
    let of_page = |page: std::path::PathBuf| {
        let name = page.display().to_string();
        indented_blocks_of(&read(&page), language).into_iter().map(move |block| (name.clone(), block))
    };
    pages().into_iter().flat_map(of_page).collect()
}

fn shell_blocks() -> impl Iterator<Item = (String, Block)> {
    ["sh", "console"].into_iter().flat_map(blocks)
}

/// The words of a command as a shell splits them, up to a pipe, a redirection, a comment or the next command.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '|' | ';' | '>' | '<' | '#' | '&') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The commands of rosterd in a block: after variables, after ` -- ` of another command, or alone.
fn commands(block: &str) -> Vec<Vec<String>> {
    let of_line = |line: &str| {
        let line =
            line.split_once(" -- rosterd ").map_or(line.to_owned(), |(_, own)| format!("rosterd {own}"));
        let words: Vec<_> = words(line.trim()).into_iter().skip_while(|word| word.contains('=')).collect();
        (words.first()? == "rosterd").then_some(words)
    };
    block.lines().filter_map(of_line).collect()
}

/// The examples in the help of the commands.
fn examples() -> impl Iterator<Item = (String, &'static str)> {
    let of_commands = |(page, block): (String, Block)| {
        (page == "docs/COMMANDS.md").then(|| Some((page, block.text.split_once("\nExample")?.1)))?
    };
    blocks("text").into_iter().filter_map(of_commands)
}

#[test]
fn shell_blocks_are_valid() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (page, block) in shell_blocks() {
        count += 1;
        let bash = Command::new("bash").args(["-n", "-c", block.text]).output().unwrap();
        if !bash.status.success() {
            wrong.push(format!("{page}: {}", String::from_utf8_lossy(&bash.stderr)));
        }
    }
    assert!(count > 30, "{count}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn rosterd_accepts_the_commands_of_all_blocks() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    let shell = shell_blocks().map(|(page, block)| (page, block.text));
    for (page, text) in shell.chain(examples()) {
        for command in commands(text) {
            count += 1;
            let fault = Cli::try_parse_from(&command).err().filter(clap::Error::use_stderr);
            wrong.extend(fault.map(|fault| format!("{page}: {}: {fault}", command.join(" "))));
        }
    }
    assert!(count > 80, "{count}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(words(r#"rosterd psql -- -c 'SELECT 1; x' "a b" | jq"#).len(), 6);
    assert_eq!(words("rosterd sync # reads"), ["rosterd", "sync"]);
    assert!(Cli::try_parse_from(["rosterd", "explain", "user"]).is_err());
}

#[test]
fn json_blocks_are_valid() {
    let blocks = blocks("json");
    for (page, block) in &blocks {
        let lines = serde_json::Deserializer::from_str(block.text).into_iter::<serde_json::Value>();
        let values: Result<Vec<_>, _> = lines.collect();
        assert!(values.is_ok_and(|values| !values.is_empty()), "{page}: {}", block.text);
    }
    assert!(blocks.len() > 10, "{}", blocks.len());
}

#[test]
fn toml_blocks_have_only_existing_settings() {
    let text = include_str!("../../config/default.toml");
    let defaults: toml::Table = text.parse().unwrap();
    let blocks = blocks("toml");
    for (page, block) in &blocks {
        let table: toml::Table = block.text.parse().unwrap_or_else(|error| panic!("{page}: {error}"));
        for (section, value) in &table {
            for (key, value) in value.as_table().into_iter().flatten() {
                // Sections that the defaults do not have are in comments there.
                let keys = if section == "webhooks" { value.as_table().unwrap() } else { &table };
                let is_known = match defaults.get(section) {
                    Some(known) => known.as_table().unwrap().contains_key(key),
                    None => {
                        keys.keys().all(|key| text.contains(&format!("\n# {key} = ")))
                            && section == "webhooks"
                    }
                };
                assert!(is_known, "{page}: {section}.{key}");
            }
        }
    }
    assert!(blocks.len() > 5, "{}", blocks.len());
}

#[test]
fn pages_with_sql_have_a_test_that_runs_it() {
    let found: BTreeSet<_> = blocks("sql").into_iter().map(|(page, _)| page).collect();
    assert_eq!(found, SQL.map(|(page, _)| page.to_owned()).into());
}

#[test]
fn settings_and_variables_in_code_spans_exist() {
    let defaults: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
    let log_events = crate::logging::names(&read(Path::new("docs/LOGGING.md")), &["\n| `"]);
    let sources =
        ["environment", "accounts", "values"].map(|it| read(Path::new(&format!("src/settings/{it}.rs"))));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages().into_iter().filter(|page| page != Path::new("CHANGELOG.md")) {
        let text = read(&page);
        for span in text.split('`').skip(1).step_by(2) {
            let name = span.split([' ', '=']).next().unwrap();
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
            let is_known = match name.split_once('.') {
                Some((section, key)) if is_name && defaults.contains_key(section) => {
                    let at = key.split('.').try_fold(&defaults[section], |at, part| at.as_table()?.get(part));
                    // Topics of Debezium's router have the name of a section too.
                    at.is_some() || log_events.contains(name) || key.starts_with("event.")
                }
                None if is_name && name.starts_with("HARVEST_") => {
                    sources.iter().any(|source| source.contains(&format!("\"{name}\"")))
                }
                _ => continue,
            };
            count += 1;
            if !is_known {
                wrong.push(format!("{}: {span}", page.display()));
            }
        }
    }
    assert!(count > 150, "{count}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs a script, which must succeed, on another thread, since the simulator needs the runtime. Returns what it printed.
pub async fn run(mut shell: Command) -> String {
    let output = tokio::task::spawn_blocking(move || shell.stdin(Stdio::null()).output().unwrap());
    let output = tokio::time::timeout(STUCK, output).await.expect("the script should end").unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success(), "{:?}: {text}", output.status);
    text
}

/// Runs the commands of rosterd in the console blocks of a page; returns what each printed.
async fn run_console_of(page: &str, program: &Program) -> Vec<String> {
    let mut printed = Vec::new();
    for block in indented_blocks_of(&read(Path::new(page)), "console") {
        for line in block.text.lines() {
            let first = line.split(' ').next().unwrap();
            // `.ci/run` runs the demo, and the test has its own account.
            if ["cargo", "export"].contains(&first) {
                continue;
            }
            assert_eq!(first, "rosterd", "{page}: {line}");
            printed.push(run(program.shell(line)).await);
        }
    }
    printed
}

#[tokio::test]
async fn console_commands_of_guides_run_in_their_order() {
    let mirror = MirrorWithRoles::of(Company::seeded(5, 20, 40)).await;
    mirror.sim.set_email(mirror.sim.user_ids()[3], "ada@example.com");
    let evaluated = run_console_of("docs/EVALUATE.md", &mirror.program).await;
    let without_digits = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let text = &indented_blocks_of(&read(Path::new("docs/EVALUATE.md")), "text")[0];
    let dry_run = &evaluated[1];
    assert!(without_digits(dry_run).contains(&without_digits(text.text.trim())), "{dry_run}");
    assert!(evaluated[4].contains("0 differences"), "{}", evaluated[4]);
    assert!(evaluated[5].contains("project_name"), "{}", evaluated[5]);
    assert_eq!(evaluated.len(), 9, "{evaluated:#?}");
    let moved = run_console_of("docs/MOVING.md", &mirror.program).await;
    let upgraded = run_console_of("docs/UPGRADING.md", &mirror.program).await;
    assert!(moved.len() == 2 && upgraded[0].contains(env!("CARGO_PKG_VERSION")), "{moved:?} {upgraded:?}");
}
