//! The functions of the permit table, `roster.rate_permits`.

use std::time::Duration;

use rosterd::roster::permits::{PermitRequest, Returned, Taken};
use rosterd::store::Pool;
use rosterd::store::permits;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::rate_limit::{LIMITS, MILLI, TTL, database, replica, until};

fn ask(permits: usize, hold: Duration) -> PermitRequest {
    let ids = (0..permits).map(|_| Uuid::new_v4()).collect();
    PermitRequest { ids, of: LIMITS.permits(), hold, ..PermitRequest::default() }
}

async fn take(pool: &Pool, budget: &str, request: &PermitRequest) -> Taken {
    permits::take(pool, Uuid::new_v4(), budget, request).await.unwrap()
}

async fn execute(pool: &Pool, statement: &'static str) {
    sqlx::query(statement).execute(pool).await.unwrap();
}

/// Also if the database's default would hide what others took while a process waited for the lock.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_takers_get_all_permits_and_no_more() {
    let (database, pool, budget) = database().await;
    let default = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''',
                                              current_database()); END $$";
    execute(&pool, default).await;
    let pool: Pool = PgPoolOptions::new().max_connections(20).connect(database.url()).await.unwrap().into();
    let mut takers = JoinSet::new();
    for _ in 0..30 {
        let (pool, budget) = (pool.clone(), budget.clone());
        takers.spawn(async move { take(&pool, &budget, &ask(4, 60_000 * MILLI)).await.permits });
    }
    let mut taken: Vec<usize> = takers.join_all().await;
    taken.retain(|permits| *permits > 0);
    assert_eq!(taken.iter().sum::<usize>(), LIMITS.permits() as usize);
    assert_eq!(taken.len(), 5, "the last taker should get the remainder: {taken:?}");
}

#[tokio::test]
async fn permit_without_a_response_is_free_after_its_hold() {
    let (_database, pool, budget) = database().await;
    assert_eq!(take(&pool, &budget, &ask(18, Duration::ZERO)).await.permits, 18);
    assert_eq!(take(&pool, &budget, &ask(18, 60_000 * MILLI)).await.permits, 18);
    let refused = take(&pool, &budget, &ask(1, MILLI)).await;
    assert_eq!(refused.permits, 0);
    assert!(refused.next_free.unwrap() > 50_000 * MILLI, "{refused:?}");
}

#[tokio::test]
async fn returned_permits_are_free_at_once_if_unused_and_after_the_window_if_answered() {
    let (_database, pool, budget) = database().await;
    let taken = ask(18, 60_000 * MILLI);
    take(&pool, &budget, &taken).await;
    let answered = taken.ids[..10].to_vec();
    let free_in = [[0.0; 3].as_slice(), &[-1.0; 3], &[50.0; 4]].concat();
    let returned = Returned { answered, free_in, unused: taken.ids[10..12].to_vec() };
    let again = take(&pool, &budget, &PermitRequest { returned, ..ask(18, 60_000 * MILLI) }).await;
    assert_eq!(again.permits, 8, "two unused and six answered long ago");
    let free_in = vec![0.0; 4];
    let returned = Returned { answered: taken.ids[6..10].to_vec(), free_in, unused: Vec::new() };
    permits::give_back(&pool, &returned).await.unwrap();
    assert_eq!(take(&pool, &budget, &ask(18, MILLI)).await.permits, 4);
}

#[tokio::test]
async fn long_reads_leave_permits_while_this_process_or_another_lease_holder_may_poll() {
    let (_database, pool, budget) = database().await;
    let long_read =
        |polls_soon| PermitRequest { background: Some(12), polls_soon, ..ask(14, Duration::ZERO) };
    for (polls_soon, permits) in [(true, 12), (false, 14)] {
        assert_eq!(take(&pool, &budget, &long_read(polls_soon)).await.permits, permits);
    }
    let (me, other) = (replica(), replica());
    permits::heartbeat(&pool, &other, 60_000 * MILLI).await.unwrap();
    sqlx::query("INSERT INTO roster.accounts (account_id, holder) VALUES (1, $1)")
        .bind(other.id)
        .execute(&pool)
        .await
        .unwrap();
    for (replica, permits) in [(me.id, 12), (other.id, 14)] {
        let taken = permits::take(&pool, replica, &budget, &long_read(false)).await.unwrap();
        assert_eq!(taken.permits, permits);
    }
}

#[tokio::test]
async fn after_a_crash_of_the_server_no_permit_is_taken_while_a_lost_one_may_count() {
    let (_database, pool, budget) = database().await;
    let tables =
        "SELECT relpersistence = 'u' FROM pg_class WHERE oid = 'roster.rate_permits'::regclass AND $1 <> ''";
    until(&pool, tables, &budget).await;
    take(&pool, &budget, &ask(18, 60_000 * MILLI)).await;
    // As a crash does with an unlogged table.
    execute(&pool, "TRUNCATE roster.rate_permits").await;
    for budget in [&*budget, "another"] {
        let refused = take(&pool, budget, &ask(1, 60_000 * MILLI)).await;
        assert_eq!(refused.permits, 0);
        assert!(refused.pause > 50_000 * MILLI, "{refused:?}");
    }
    execute(&pool, "UPDATE roster.rate_permits SET free_at = now() WHERE budget = ''").await;
    assert_eq!(take(&pool, &budget, &ask(18, MILLI)).await.permits, 18);
}

#[tokio::test]
async fn heartbeat_registers_and_reports_an_expired_registration() {
    let (_database, pool, _) = database().await;
    let me = replica();
    let beat = async |ttl| permits::heartbeat(&pool, &me, ttl).await.unwrap();
    assert!(!beat(60_000 * MILLI).await, "unknown");
    assert!(beat(Duration::ZERO).await);
    assert!(!beat(60_000 * MILLI).await, "expired");
    assert!(beat(60_000 * MILLI).await);
    permits::unregister(&pool, me.id).await.unwrap();
    assert!(!beat(TTL).await, "gone");
}
