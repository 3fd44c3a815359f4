//! The SQL functions by which consumers read the outbox: events come in order and without a gap, and lost events raise
//! an error.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::world::World;

async fn connect(world: &World) -> PgConnection {
    PgConnection::connect(world.url()).await.unwrap()
}

async fn fetch(connection: &mut PgConnection, schema: &str, name: &str, max: i32) -> sqlx::Result<Vec<i64>> {
    let query = format!("SELECT seq FROM {schema}.outbox_fetch($1, $2)");
    sqlx::query_scalar(AssertSqlSafe(query)).bind(name).bind(max).fetch_all(connection).await
}

async fn ack(connection: &mut PgConnection, schema: &str, name: &str, seq: i64) -> sqlx::Result<i64> {
    let query = format!("SELECT {schema}.outbox_ack($1, $2)");
    sqlx::query_scalar(AssertSqlSafe(query)).bind(name).bind(seq).fetch_one(connection).await
}

#[track_caller]
fn sqlstate(error: &sqlx::Error) -> String {
    error.as_database_error().unwrap().code().unwrap().into_owned()
}

#[tokio::test]
async fn outbox_fetch_returns_events_in_order_until_they_are_acknowledged() {
    let mut world = World::new().await;
    world.cycle().await;
    for schema in ["roster", "directory"] {
        let (mut first, mut second) = (connect(&world).await, connect(&world).await);
        let name = &format!("payroll of {schema}");
        assert_eq!(fetch(&mut first, schema, name, 3).await.unwrap(), [1, 2, 3]);
        // A killed process acknowledges nothing: another process under the same name gets the same events.
        assert_eq!(fetch(&mut second, schema, name, 2).await.unwrap(), [1, 2]);
        assert_eq!(ack(&mut second, schema, name, 2).await.unwrap(), 2);
        assert_eq!(fetch(&mut first, schema, name, 2).await.unwrap(), [3, 4]);
        // The acknowledged position moves forward only.
        assert_eq!(ack(&mut first, schema, name, 4).await.unwrap(), 4);
        assert_eq!(ack(&mut second, schema, name, 3).await.unwrap(), 4);
        assert_eq!(fetch(&mut first, schema, name, 1).await.unwrap(), [5]);
        assert_eq!(fetch(&mut first, schema, "another", 1).await.unwrap(), [1]);
        let beyond = ack(&mut first, schema, name, 1_000_000).await.unwrap_err();
        assert_eq!(sqlstate(&beyond), "22023");
    }
}

#[tokio::test]
async fn consumer_that_lost_events_gets_rs001_and_restarts_from_a_snapshot() {
    let mut world = World::new().await;
    world.cycle().await;
    let mut connection = connect(&world).await;
    let schema = "roster";
    fetch(&mut connection, schema, "slow", 1).await.unwrap();
    fetch(&mut connection, schema, "up to date", 1).await.unwrap();
    ack(&mut connection, schema, "up to date", 10).await.unwrap();
    let trim = "DELETE FROM roster.outbox WHERE seq <= 10; UPDATE roster.outbox_head SET floor_seq = 10";
    sqlx::raw_sql(trim).execute(&mut connection).await.unwrap();
    assert_eq!(fetch(&mut connection, schema, "up to date", 1).await.unwrap(), [11]);
    for lost in [
        fetch(&mut connection, schema, "slow", 1).await.unwrap_err(),
        ack(&mut connection, schema, "slow", 12).await.unwrap_err(),
        // A new consumer begins with the first event, which was removed.
        fetch(&mut connection, schema, "new", 1).await.unwrap_err(),
    ] {
        assert_eq!(sqlstate(&lost), "RS001");
    }
    let start = "SELECT roster.outbox_start('slow', (SELECT seq FROM roster.snapshot_position()))";
    sqlx::query(start).execute(&mut connection).await.unwrap();
    assert!(fetch(&mut connection, schema, "slow", 1).await.unwrap().is_empty());
    world.sim.create_user("Nora", "Next");
    world.cycle().await;
    let next = fetch(&mut connection, schema, "slow", 1).await.unwrap();
    assert_eq!(next.len(), 1);
    ack(&mut connection, schema, "slow", next[0]).await.unwrap();

    // The database was restored to an earlier state (another event has the acknowledged number), or a new stream began.
    sqlx::query("UPDATE roster.outbox SET id = gen_random_uuid() WHERE seq = $1")
        .bind(next[0])
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(sqlstate(&fetch(&mut connection, schema, "slow", 1).await.unwrap_err()), "RS001");
    world.store.new_stream().await.unwrap();
    assert_eq!(sqlstate(&fetch(&mut connection, schema, "up to date", 1).await.unwrap_err()), "RS001");
}

/// A consumer copies all rows in one transaction while rosterd writes; the later events bring the copy up to date.
#[tokio::test]
async fn snapshot_and_the_events_after_it_leave_no_gap() {
    let mut world = World::new().await;
    world.cycle().await;
    let mut connection = connect(&world).await;
    let mut snapshot =
        connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    let copied: Vec<(i64, i64)> =
        sqlx::query_as("SELECT id, version FROM directory.users").fetch_all(&mut *snapshot).await.unwrap();
    for user in world.sim.user_ids() {
        world.sim.edit_user(user, |user| user.telephone.push('1'));
    }
    world.sim.create_user("Nora", "Next");
    world.cycle().await;
    let position: i64 = sqlx::query_scalar("SELECT seq FROM directory.snapshot_position()")
        .fetch_one(&mut *snapshot)
        .await
        .unwrap();
    snapshot.commit().await.unwrap();
    sqlx::query("SELECT directory.outbox_start('copy', $1)")
        .bind(position)
        .execute(&mut connection)
        .await
        .unwrap();
    let mut copy: std::collections::BTreeMap<i64, i64> = copied.into_iter().collect();
    let events: Vec<(i64, i64, String)> = sqlx::query_as(
        "SELECT (payload ->> 'id')::bigint, version, aggregatetype FROM directory.outbox_fetch('copy', 1000)",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for (id, version, _) in events.into_iter().filter(|(.., kind)| kind == "user") {
        assert_eq!(
            copy.insert(id, version).unwrap_or(0) + 1,
            version,
            "a version is skipped or emitted twice"
        );
    }
    let mirror: Vec<(i64, i64)> = sqlx::query_as("SELECT id, version FROM roster.users ORDER BY id")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(copy.into_iter().collect::<Vec<_>>(), mirror);
}

#[tokio::test]
async fn old_events_are_removed_in_order_and_a_lagging_consumer_is_logged() {
    let scene = crate::scene::Scene::new().await;
    let mut program = scene.program();
    program.set("ROSTERD__OUTBOX__RETENTION", "2s").set("ROSTERD__RETENTION__CYCLES", "2s");
    // Registered before the first event can be old enough to be removed.
    program.call(&["migrate"]).await.expect(0);
    scene.execute("SELECT FROM roster.outbox_fetch('payroll', 1)").await;
    let mut daemon = program.start();
    let (mut removed, mut lagging) = (0, false);
    // On a slow machine the first events are removed before the first warning.
    while removed < 60 || !lagging {
        let entry = daemon
            .until_entry("consumer.behind or outbox.trimmed", |entry| {
                entry["event"] == "consumer.behind" || entry["event"] == "outbox.trimmed"
            })
            .await;
        if entry["event"] == "consumer.behind" {
            assert_eq!(entry["consumer"], "payroll");
            lagging = true;
        } else {
            removed += entry["events"].as_i64().unwrap();
            assert_eq!(entry["floor_seq"], removed);
        }
    }
    scene.until("SELECT count(*) = 0 FROM roster.cycles").await;
    scene.sim.create_user("Nora", "Next");
    while daemon.until("cycle.finished").await["events"] != 1 {}
    assert_eq!(scene.number("SELECT seq FROM roster.outbox_head").await, 61, "event numbers do not continue");
    program.until_metrics(&["rosterd_outbox_consumer_lag{consumer=\"payroll\"} 61\n"]).await;
    let status = program.call(&["status"]).await;
    assert!(
        status.expect(0).stdout().contains("consumer payroll: acknowledged 0, lag 61 events"),
        "{}",
        status.stdout()
    );
}
