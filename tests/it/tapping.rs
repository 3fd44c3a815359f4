//! The tap itself: what it sees, and where it stops.

use std::fs;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::cluster::Cluster;
use crate::database::{TestDatabase, store};
use crate::program::STUCK;
use crate::tap::{Tap, When};

/// A tap before a database with an empty table.
async fn tapped() -> (TestDatabase, Tap) {
    let database = TestDatabase::blank().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    connection.execute("CREATE TABLE kept (n int8)").await.unwrap();
    let tap = Tap::to(database.url()).await;
    (database, tap)
}

/// What somebody else sees.
async fn kept(database: &TestDatabase) -> Vec<i64> {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query_scalar("SELECT n FROM kept ORDER BY n").fetch_all(&mut connection).await.unwrap()
}

/// Adds a number in a transaction, as a program does that may be interrupted.
fn add(tap: &Tap, n: i64) -> tokio::task::JoinHandle<sqlx::Result<()>> {
    let url = tap.url().to_owned();
    tokio::spawn(async move {
        let mut connection = PgConnection::connect(&url).await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("INSERT INTO kept VALUES ($1)").bind(n).execute(&mut *transaction).await?;
        transaction.commit().await
    })
}

#[tokio::test]
async fn statements_are_seen_by_their_text_whatever_way_they_are_sent() {
    let (_database, tap) = tapped().await;
    for mode in ["disable", "prefer"] {
        let mut connection = PgConnection::connect(&format!("{}?sslmode={mode}", tap.url())).await.unwrap();
        let before = tap.count();
        for n in 0..2 {
            sqlx::query("SELECT $1::int8").bind(n).execute(&mut connection).await.unwrap();
        }
        drop(connection.begin().await.unwrap());
        connection.execute("SELECT 'plain'").await.unwrap();
        let seen = tap.statements().split_off(before);
        let texts: Vec<&str> = seen.iter().map(|it| it.sql.as_str()).collect();
        assert_eq!(texts, ["SELECT $1::int8", "SELECT $1::int8", "BEGIN", "ROLLBACK", "SELECT 'plain'"]);
        assert!(seen.iter().all(|it| it.connection == seen[0].connection));
    }
}

#[tokio::test]
async fn a_commit_that_is_cut_before_it_arrives_was_never_said() {
    let (database, tap) = tapped().await;
    let insert = tap.catch(When::Before, 1, "INSERT INTO kept");
    let adding = add(&tap, 1);
    let insert = insert.caught().await;
    // Somebody else's is none of its business.
    add(&tap, 2).await.unwrap().unwrap();
    let held = insert.then(When::Before, "COMMIT").caught().await;
    assert_eq!(held.statement.sql, "COMMIT");
    held.cut();
    adding.await.unwrap().unwrap_err();
    assert_eq!(kept(&database).await, [2]);
}

#[tokio::test]
async fn a_commit_that_is_cut_after_it_was_carried_out_is_in_doubt() {
    let (database, tap) = tapped().await;
    let commit = tap.catch(When::After, 2, "COMMIT");
    add(&tap, 1).await.unwrap().unwrap();
    let adding = add(&tap, 2);
    let held = commit.caught().await;
    assert_eq!(kept(&database).await, [1, 2]);
    assert!(!adding.is_finished(), "nobody has told it");
    held.cut();
    adding.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn what_is_let_go_goes_on_as_if_nothing_had_happened() {
    let (database, tap) = tapped().await;
    for (n, when) in [(1, When::Before), (2, When::After)] {
        let commit = tap.catch(when, 1, "COMMIT");
        let adding = add(&tap, n);
        commit.caught().await.go_on();
        adding.await.unwrap().unwrap();
    }
    // One that nobody waits for any more holds nothing.
    drop(tap.catch(When::Before, 1, ""));
    add(&tap, 3).await.unwrap().unwrap();
    assert_eq!(kept(&database).await, [1, 2, 3]);
}

#[tokio::test]
async fn any_statement_can_be_held_by_its_number_alone() {
    let (database, tap) = tapped().await;
    add(&tap, 1).await.unwrap().unwrap();
    let statements = tap.count();
    for (nth, when) in (1..=statements).flat_map(|nth| [(nth, When::Before), (nth, When::After)]) {
        let statement = tap.catch(when, nth, "");
        let adding = add(&tap, 2);
        statement.caught().await.cut();
        adding.await.unwrap().unwrap_err();
        let is_done = (nth, when) == (statements, When::After);
        assert_eq!(kept(&database).await.len(), 1 + usize::from(is_done), "{when:?} {nth}");
    }
}

#[tokio::test]
async fn connections_are_cut_together_and_new_ones_sent_away() {
    let (_database, tap) = tapped().await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(PgConnection::connect(tap.url()).await.unwrap());
    }
    tap.refuse(true);
    PgConnection::connect(tap.url()).await.unwrap_err();
    tap.cut();
    for connection in &mut connections {
        connection.ping().await.unwrap_err();
    }
    tap.refuse(false);
    PgConnection::connect(tap.url()).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn the_daemons_own_pool_lives_on_after_a_cut() {
    let database = TestDatabase::new().await;
    let tap = Tap::to(database.url()).await;
    let store = store(tap.url());
    store.ping().await.unwrap();
    let ping = tap.catch(When::After, 1, "SELECT 1");
    let pinging = tokio::spawn({
        let store = store.clone();
        async move { store.ping().await }
    });
    ping.caught().await.cut();
    pinging.await.unwrap().unwrap_err();
    store.ping().await.unwrap();
}

/// Of a client that sends more before it has heard the answer to what it has sent.
#[tokio::test]
async fn in_a_pipeline_only_what_comes_after_waits() {
    let cluster = Cluster::new().await;
    fs::write(cluster.data().join("pg_hba.conf"), "host all all 127.0.0.1/32 trust\n").unwrap();
    cluster.reload().await;
    let tap = Tap::to(cluster.url()).await;
    let url = Url::parse(tap.url()).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    let start =
        [&3_u32.rotate_right(16).to_be_bytes()[..], b"user\0", url.username().as_bytes(), b"\0\0"].concat();
    client.write_u32(u32::try_from(start.len()).unwrap() + 4).await.unwrap();
    client.write_all(&start).await.unwrap();
    until_ready(&mut client).await;

    let message = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap() + 4;
        [&[kind], &length.to_be_bytes()[..], body].concat()
    };
    let asked = |sql: &str| {
        let parse = [sql.as_bytes(), b"\0\0\0"].concat();
        let (bind, execute) = (b"\0named\0\0\0\0\0\0\0", b"\0\0\0\0\0");
        [message(b'P', &[b"named\0", &parse[..]].concat()), message(b'B', bind), message(b'E', execute)]
            .concat()
    };
    let close = message(b'C', b"Snamed\0");
    let sync = message(b'S', b"");
    let (one, two, three) = (asked("SELECT 'one'"), asked("SELECT 'two'"), asked("SELECT 'three'"));
    let held = tap.catch(When::After, 1, "two");
    let pipeline = [&one[..], &close, &sync, &two, &close, &three, &close, &sync, &one, &sync].concat();
    client.write_all(&pipeline).await.unwrap();
    assert!(until_ready(&mut client).await.contains("one"));
    let held = held.caught().await;
    let silence = timeout(Duration::from_millis(100), client.read_u8()).await;
    silence.expect_err("its exchange waits, and what comes after it");
    held.go_on();
    let answer = until_ready(&mut client).await;
    assert!(answer.contains("two") && answer.contains("three"), "{answer}");
    assert!(until_ready(&mut client).await.contains("one"));
}

/// What the server says until it is ready for more.
async fn until_ready(client: &mut TcpStream) -> String {
    let said = async {
        let mut said = String::new();
        loop {
            let kind = client.read_u8().await.unwrap();
            let length = client.read_u32().await.unwrap();
            let mut body = vec![0; usize::try_from(length).unwrap() - 4];
            client.read_exact(&mut body).await.unwrap();
            said.push_str(&String::from_utf8_lossy(&body));
            if kind == b'Z' {
                return said;
            }
        }
    };
    timeout(STUCK, said).await.expect("the server does not get ready")
}
