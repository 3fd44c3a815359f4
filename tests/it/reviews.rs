//! The access review of `docs/CONSUMING.md`: its queries find what differs, and its examples have their columns.

use sqlx::{AssertSqlSafe, Column, Connection, Executor, PgConnection, Row, SqlSafeStr};

use crate::guide::{Block, GUIDE, House, blocks};

/// The example that follows a statement, if there is one.
fn example_of(block: &Block) -> Option<&'static str> {
    let after = &GUIDE[GUIDE.find(block.text)? + block.text.len()..];
    after.strip_prefix("\n```\n\n```text\n")?.split("\n```").next()
}

/// The first column of a reader's query.
async fn column<T>(house: &House, query: &str) -> Vec<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let mut connection = PgConnection::connect(&house.url("reader")).await.unwrap();
    let rows = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn access_review_queries_find_what_differs_and_their_examples_have_their_columns() {
    let house = House::new().await;
    let statements = blocks("sql");
    let the = |word: &str| statements.iter().find(|block| block.is(word)).unwrap().text;
    let expected =
        statements.iter().find(|block| block.text.contains("CREATE TABLE review.expected")).unwrap();
    house.run("reader", expected.text).await.unwrap();
    let mut connection = PgConnection::connect(&house.url("reader")).await.unwrap();
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

    // The list has all but one of the active people, one who is archived, and one who is nowhere.
    let users = house.sim.user_ids();
    let (unexpected, archived, moved) = (users[1], users[2], users[3]);
    house.sim.deactivate(archived);
    house.sim.promote(moved, "manager");
    house.sim.assign(moved, house.sim.new_project("Harbour", "HBR"));
    house.program.call(&["sync"]).await.expect(0);
    let fill = format!(
        "INSERT INTO review.expected SELECT upper(email), 'hr' FROM directory.users
          WHERE is_active AND id <> {unexpected} OR id = {archived};
         INSERT INTO review.expected VALUES ('new@example.com', 'idp')"
    );
    house.run("reader", &fill).await.unwrap();
    assert_eq!(column::<i64>(&house, the("unexpected")).await, [unexpected.0]);
    let absent = format!(
        "SELECT state FROM ({}) AS absent ORDER BY 1",
        the("absent").trim_end().trim_end_matches(';')
    );
    assert_eq!(column::<String>(&house, &absent).await, ["archived", "not in Harvest"]);
    assert!(column::<i64>(&house, the("privileged")).await.contains(&moved.0));
    let changed = the("roles").trim_end().trim_end_matches(';').replace("2026-01-01", "2020-01-01");
    let changed = format!("SELECT id FROM ({changed}) AS changed WHERE after = '{{manager}}'");
    assert_eq!(column::<i64>(&house, &changed).await, [moved.0]);
    let movers = the("movers").trim_end().trim_end_matches(';').replace("2026-01-01", "2020-01-01");
    let movers = format!("SELECT user_id FROM ({movers}) AS moved WHERE type = 'user_assignment.created'");
    assert_eq!(column::<i64>(&house, &movers).await, [moved.0]);
    let exported =
        format!("SELECT count(as_of) FROM ({}) AS rows", the("export").trim_end().trim_end_matches(';'));
    assert_eq!(column::<i64>(&house, &exported).await, [i64::try_from(users.len()).unwrap()]);
}
