//! `docs/WRITES.md`: its SQL statements run under the roles that it names, its commands exist, and its tables have every
//! permission, kind and state.

use std::collections::BTreeSet;

use harvest_sim::Company;
use rosterd::roster::write::WriteKind;
use rosterd::roster::write_policy::PERMISSIONS;

use crate::consuming_guide::{Block, MirrorWithRoles, indented_blocks_of};
use crate::page_blocks::run;

const GUIDE: &str = include_str!("../../docs/WRITES.md");

/// A table of another database.
const STAFF: &str = "CREATE TABLE staff AS
    SELECT 'ada@example.com' AS email, 'Ada' AS first_name, 'King' AS last_name, true AS active";

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

#[tokio::test]
async fn writes_guide_scripts_plan_what_the_list_says() {
    let mut mirror = MirrorWithRoles::new().await;
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), blocks("csv")[0].text).unwrap();
    mirror.cluster.execute(STAFF).await;
    let url = mirror.cluster.url().to_owned();
    mirror.program.set("ROSTERD__WRITE__MODE", "dry").set("HR_URL", &url);
    let scripts = blocks("sh");
    // The list of Entra ID needs its command-line program and a login.
    let scripts: Vec<_> = scripts.iter().filter(|block| !block.text.contains("az rest")).collect();
    assert_eq!(scripts.len(), 3);
    for script in scripts {
        let script = script.text.replace("/var/lib/hr/people.csv", list.path().to_str().unwrap());
        // 1 says that there is something to do, or that the guard stops a plan that takes access from all users.
        let may_be_1 = script.contains("--dry-run") || script.contains("--deactivate-missing");
        let allowed = if may_be_1 { " || [ $? = 1 ]" } else { "" };
        run(mirror.program.shell(&format!("{}{allowed}", script.replace('\n', &format!("{allowed}\n")))))
            .await;
    }
    let planned = mirror.lines("SELECT concat_ws(' ', kind, outcome) FROM roster.writes").await;
    assert_eq!(planned, BTreeSet::from(["user_create planned".to_owned()]));
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
