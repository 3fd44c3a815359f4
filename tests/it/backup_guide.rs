//! `docs/BACKUP.md`: its commands back up a database, restore it, try the restore and move it to another server, and it names
//! every table.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cluster::Cluster;
use crate::consuming_guide::{MirrorWithRoles, indented_blocks_of};
use crate::page_blocks::run;
use crate::program::Program;

const GUIDE: &str = include_str!("../../docs/BACKUP.md");
/// What each role may do with tables and functions.
const PRIVILEGES: &str = "
    WITH role AS (SELECT rolname AS name FROM pg_roles WHERE rolname ~ '^roster' UNION VALUES ('public'))
    SELECT concat_ws(' ', role.name, nspname, relname, has_table_privilege(role.name, object.oid, 'SELECT'))
      FROM role, pg_class AS object JOIN pg_namespace AS space ON space.oid = relnamespace
     WHERE nspname IN ('roster', 'directory', 'rosterd_internal') AND relkind IN ('r', 'v')
    UNION ALL
    SELECT concat_ws(' ', role.name, nspname, proname, has_function_privilege(role.name, object.oid, 'EXECUTE'))
      FROM role, pg_proc AS object JOIN pg_namespace AS space ON space.oid = pronamespace
     WHERE nspname IN ('roster', 'directory', 'rosterd_internal')
     ORDER BY 1";

async fn lines(url: &str, query: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap()
}

#[tokio::test]
async fn database_that_is_moved_as_the_guide_says_has_its_rows_and_privileges() {
    let (mirror, target) = (MirrorWithRoles::new().await, Cluster::with_another_system_identifier().await);
    let mut shell = mirror.program.shell(shell_block("Move the database"));
    shell.current_dir(env!("CARGO_MANIFEST_DIR"));
    shell.env("OLD_URL", mirror.cluster.url()).env("NEW_URL", target.url()).env("ADMIN_URL", target.url());
    run(shell).await;

    let events = "SELECT concat_ws(' ', seq, id, payload) FROM roster.outbox ORDER BY seq";
    for query in [events, PRIVILEGES] {
        let expected = lines(mirror.cluster.url(), query).await;
        assert!(expected.len() > 50 && lines(target.url(), query).await == expected, "{query}");
    }
    let program = Program::new(&mirror.sim, target.url());
    assert!(program.call(&["sync"]).await.expect(0).stdout().contains("(0 changed)"));
    program.call(&["verify"]).await.expect(0);
    let stream = "SELECT stream_id::text FROM roster.outbox_head";
    assert_ne!(lines(target.url(), stream).await, lines(mirror.cluster.url(), stream).await);
}

/// The first shell block of a section.
fn shell_block(heading: &str) -> &'static str {
    let section = GUIDE.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    indented_blocks_of(section, "sh")[0].text
}

#[tokio::test]
async fn backup_is_restored_and_compared_with_harvest_as_the_guide_says() {
    let (mut mirror, restored) = (MirrorWithRoles::new().await, Cluster::new().await);
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(
        concat!(env!("CARGO_MANIFEST_DIR"), "/deploy"),
        directory.path().join("deploy"),
    )
    .unwrap();
    let succeed = async |program: &Program, script: &str| {
        let mut shell = program.shell(script);
        shell.current_dir(&directory);
        run(shell).await
    };
    succeed(&mirror.program, shell_block("Back up")).await;
    let mut program = Program::new(&mirror.sim, restored.url());
    program.set("ADMIN_URL", restored.url());
    succeed(&program, shell_block("Restore from a backup")).await;
    for query in ["SELECT concat_ws(' ', seq, id, payload) FROM roster.outbox ORDER BY seq", PRIVILEGES] {
        assert!(lines(restored.url(), query).await == lines(mirror.cluster.url(), query).await, "{query}");
    }

    let url = url::Url::parse(mirror.cluster.url()).unwrap();
    let mut copy = url.clone();
    copy.set_path("/copy");
    mirror.program.set("COPY_URL", copy.as_str()).set("PGHOST", url.host_str().unwrap());
    mirror.program.set("PGPORT", &url.port().unwrap().to_string()).set("PGUSER", url.username());
    mirror.program.set("PGPASSWORD", url.password().unwrap_or_default());
    let tried = succeed(&mirror.program, shell_block("Try it")).await;
    assert!(tried.contains("0 differences"), "{tried}");
}

#[test]
fn guide_says_of_each_table_what_its_loss_costs() {
    let section = GUIDE.split("\n## ").find(|section| section.starts_with("What is lost")).unwrap();
    let tables = include_str!("schema.snap").lines().filter_map(|line| line.strip_prefix("table roster."));
    let absent: Vec<_> = tables.filter(|table| !section.contains(&format!("`{table}`"))).collect();
    assert!(absent.is_empty(), "{absent:?}");
}
