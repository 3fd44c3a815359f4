//! `docs/ACCESS_REVIEWS.md`: its queries find the differences, and its examples have the queries'
//! columns.

use sqlx::{AssertSqlSafe, Column, Connection, Executor, PgConnection, Row, SqlSafeStr};

use crate::consuming_guide::{Block, MirrorWithRoles, blocks_of};
use crate::page_blocks::run;

const GUIDE: &str = include_str!("../../docs/ACCESS_REVIEWS.md");

/// The example after a statement, if there is one.
fn example_of(block: &Block) -> Option<&'static str> {
    let after = &GUIDE[GUIDE.find(block.text)? + block.text.len()..];
    after.strip_prefix("\n```\n\n```text\n")?.split("\n```").next()
}

/// The first column of the rows that a reader gets.
async fn column<T>(mirror: &MirrorWithRoles, query: &str) -> Vec<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let mut connection = PgConnection::connect(&mirror.url("reader")).await.unwrap();
    let rows = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn access_review_queries_find_differences_and_match_their_examples() {
    let mirror = MirrorWithRoles::new().await;
    let statements = blocks_of(GUIDE, "sql");
    let statement = |word: &str| statements.iter().find(|block| block.is(word)).unwrap().text;
    let expected =
        statements.iter().find(|block| block.text.contains("CREATE TABLE review.expected")).unwrap();
    mirror.run("reader", expected.text).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("people.csv"), "email,source\nada@example.com,hr\n").unwrap();
    let mut load = mirror.program.shell(blocks_of(GUIDE, "sh")[0].text);
    load.env("DATABASE_URL", mirror.url("reader")).current_dir(&directory);
    run(load).await;
    assert_eq!(
        column::<String>(&mirror, "DELETE FROM review.expected RETURNING email").await,
        ["ada@example.com"]
    );
    let mut connection = PgConnection::connect(&mirror.url("reader")).await.unwrap();
    let mut examples = 0;
    for block in statements.iter().filter(|block| block.words[0] == "reader") {
        let Some(example) = example_of(block) else { continue };
        let described =
            connection.describe(AssertSqlSafe(block.text.to_owned()).into_sql_str()).await.unwrap();
        let columns: Vec<_> = described.columns().iter().map(Column::name).collect();
        let shown: Vec<_> = example.lines().next().unwrap().split('|').map(str::trim).collect();
        assert_eq!(shown, columns, "{}", block.text);
        examples += 1;
    }
    assert!(examples > 7);

    // The list has all active users except one, an archived user, and a user who is not in the mirror.
    let users = mirror.sim.user_ids();
    let (unexpected, archived, moved) = (users[1], users[2], users[3]);
    mirror.sim.archive_user(archived);
    mirror.sim.promote(moved, "manager");
    mirror.sim.assign(moved, mirror.sim.new_project("Harbour", "HBR"));
    mirror.program.call(&["sync"]).await.expect(0);
    let insert_expected = format!(
        "INSERT INTO review.expected SELECT upper(email), 'hr' FROM directory.users
          WHERE is_active AND id <> {unexpected} OR id = {archived};
         INSERT INTO review.expected VALUES ('new@example.com', 'idp')"
    );
    mirror.run("reader", &insert_expected).await.unwrap();
    assert_eq!(column::<i64>(&mirror, statement("unexpected")).await, [unexpected.0]);
    let absent = format!(
        "SELECT state FROM ({}) AS absent ORDER BY 1",
        statement("absent").trim_end().trim_end_matches(';')
    );
    assert_eq!(column::<String>(&mirror, &absent).await, ["archived", "not in Harvest"]);
    assert!(column::<i64>(&mirror, statement("privileged")).await.contains(&moved.0));
    let changed = statement("roles").trim_end().trim_end_matches(';').replace("2026-01-01", "2020-01-01");
    let changed = format!("SELECT id FROM ({changed}) AS changed WHERE after = '{{manager}}'");
    assert_eq!(column::<i64>(&mirror, &changed).await, [moved.0]);
    let movers = statement("movers").trim_end().trim_end_matches(';').replace("2026-01-01", "2020-01-01");
    let movers = format!("SELECT user_id FROM ({movers}) AS moved WHERE type = 'user_assignment.created'");
    assert_eq!(column::<i64>(&mirror, &movers).await, [moved.0]);
    let exported = format!(
        "SELECT count(as_of) FROM ({}) AS rows",
        statement("export").trim_end().trim_end_matches(';')
    );
    assert_eq!(column::<i64>(&mirror, &exported).await, [i64::try_from(users.len()).unwrap()]);
}
