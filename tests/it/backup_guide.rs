//! `docs/BACKUP.md`: its commands move a database to another server, and it names every table.

use std::process::Command;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cluster::Cluster;
use crate::consuming_guide::{MirrorWithRoles, blocks_of};
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
    let section = GUIDE.split("\n## ").find(|section| section.starts_with("Move the database")).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-ec", blocks_of(section, "sh")[0].text]).current_dir(env!("CARGO_MANIFEST_DIR"));
    shell.env("OLD_URL", mirror.cluster.url()).env("NEW_URL", target.url()).env("ADMIN_URL", target.url());
    let moved = shell.output().unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));

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

#[test]
fn guide_says_of_each_table_what_its_loss_costs() {
    let section = GUIDE.split("\n## ").find(|section| section.starts_with("What is lost")).unwrap();
    let tables = include_str!("schema.snap").lines().filter_map(|line| line.strip_prefix("table roster."));
    let absent: Vec<_> = tables.filter(|table| !section.contains(&format!("`{table}`"))).collect();
    assert!(absent.is_empty(), "{absent:?}");
}
