//! Tests of the statement proxy (`tests/support/statement_proxy.rs`).

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
use crate::statement_proxy::{StatementProxy, When};

/// A proxy to a database with an empty table.
async fn proxied() -> (TestDatabase, StatementProxy) {
    let database = TestDatabase::blank().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    connection.execute("CREATE TABLE kept (n int8)").await.unwrap();
    let proxy = StatementProxy::to(database.url()).await;
    (database, proxy)
}

/// The numbers that another session sees.
async fn kept(database: &TestDatabase) -> Vec<i64> {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query_scalar("SELECT n FROM kept ORDER BY n").fetch_all(&mut connection).await.unwrap()
}

/// Adds a number in a transaction, on another task.
fn add(proxy: &StatementProxy, n: i64) -> tokio::task::JoinHandle<sqlx::Result<()>> {
    let url = proxy.url().to_owned();
    tokio::spawn(async move {
        let mut connection = PgConnection::connect(&url).await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("INSERT INTO kept VALUES ($1)").bind(n).execute(&mut *transaction).await?;
        transaction.commit().await
    })
}

#[tokio::test]
async fn statements_of_each_protocol_are_recorded_by_their_text() {
    let (_database, proxy) = proxied().await;
    for mode in ["disable", "prefer"] {
        let mut connection = PgConnection::connect(&format!("{}?sslmode={mode}", proxy.url())).await.unwrap();
        let before = proxy.count();
        for n in 0..2 {
            sqlx::query("SELECT $1::int8").bind(n).execute(&mut connection).await.unwrap();
        }
        drop(connection.begin().await.unwrap());
        connection.execute("SELECT 'plain'").await.unwrap();
        let seen = proxy.statements().split_off(before);
        let texts: Vec<&str> = seen.iter().map(|it| it.sql.as_str()).collect();
        assert_eq!(texts, ["SELECT $1::int8", "SELECT $1::int8", "BEGIN", "ROLLBACK", "SELECT 'plain'"]);
        assert!(seen.iter().all(|it| it.connection == seen[0].connection));
    }
}

#[tokio::test]
async fn commit_that_is_cut_before_it_arrives_is_not_executed() {
    let (database, proxy) = proxied().await;
    let insert = proxy.catch(When::Before, 1, "INSERT INTO kept");
    let adding = add(&proxy, 1);
    let insert = insert.caught().await;
    // The trap is for one connection. Statements of another connection pass.
    add(&proxy, 2).await.unwrap().unwrap();
    let held = insert.then(When::Before, "COMMIT").caught().await;
    assert_eq!(held.statement.sql, "COMMIT");
    held.cut();
    adding.await.unwrap().unwrap_err();
    assert_eq!(kept(&database).await, [2]);
}

#[tokio::test]
async fn commit_that_is_cut_after_its_execution_fails_at_the_client() {
    let (database, proxy) = proxied().await;
    let commit = proxy.catch(When::After, 2, "COMMIT");
    add(&proxy, 1).await.unwrap().unwrap();
    let adding = add(&proxy, 2);
    let held = commit.caught().await;
    assert_eq!(kept(&database).await, [1, 2]);
    assert!(!adding.is_finished(), "the client should have no response");
    held.cut();
    adding.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn released_statement_continues_unchanged() {
    let (database, proxy) = proxied().await;
    for (n, when) in [(1, When::Before), (2, When::After)] {
        let commit = proxy.catch(when, 1, "COMMIT");
        let adding = add(&proxy, n);
        commit.caught().await.go_on();
        adding.await.unwrap().unwrap();
    }
    // A dropped trap holds nothing.
    drop(proxy.catch(When::Before, 1, ""));
    add(&proxy, 3).await.unwrap().unwrap();
    assert_eq!(kept(&database).await, [1, 2, 3]);
}

#[tokio::test]
async fn each_statement_can_be_held_by_its_number() {
    let (database, proxy) = proxied().await;
    add(&proxy, 1).await.unwrap().unwrap();
    let statements = proxy.count();
    for (nth, when) in (1..=statements).flat_map(|nth| [(nth, When::Before), (nth, When::After)]) {
        let statement = proxy.catch(when, nth, "");
        let adding = add(&proxy, 2);
        statement.caught().await.cut();
        adding.await.unwrap().unwrap_err();
        let is_done = (nth, when) == (statements, When::After);
        assert_eq!(kept(&database).await.len(), 1 + usize::from(is_done), "{when:?} {nth}");
    }
}

#[tokio::test]
async fn cut_closes_all_connections_and_refuse_rejects_new_ones() {
    let (_database, proxy) = proxied().await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(PgConnection::connect(proxy.url()).await.unwrap());
    }
    proxy.refuse(true);
    PgConnection::connect(proxy.url()).await.unwrap_err();
    proxy.cut();
    for connection in &mut connections {
        connection.ping().await.unwrap_err();
    }
    proxy.refuse(false);
    PgConnection::connect(proxy.url()).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn pool_of_the_store_works_after_a_cut() {
    let database = TestDatabase::new().await;
    let proxy = StatementProxy::to(database.url()).await;
    let store = store(proxy.url());
    store.ping().await.unwrap();
    let ping = proxy.catch(When::After, 1, "SELECT 1");
    let pinging = tokio::spawn({
        let store = store.clone();
        async move { store.ping().await }
    });
    ping.caught().await.cut();
    pinging.await.unwrap().unwrap_err();
    store.ping().await.unwrap();
}

/// A client may send several statements before it reads a response.
#[tokio::test]
async fn held_statement_of_a_pipeline_delays_only_the_later_ones() {
    let cluster = Cluster::new().await;
    fs::write(cluster.data().join("pg_hba.conf"), "host all all 127.0.0.1/32 trust\n").unwrap();
    cluster.reload().await;
    let proxy = StatementProxy::to(cluster.url()).await;
    let url = Url::parse(proxy.url()).unwrap();
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
    let held = proxy.catch(When::After, 1, "two");
    let pipeline = [&one[..], &close, &sync, &two, &close, &three, &close, &sync, &one, &sync].concat();
    client.write_all(&pipeline).await.unwrap();
    assert!(until_ready(&mut client).await.contains("one"));
    let held = held.caught().await;
    let response = timeout(Duration::from_millis(100), client.read_u8()).await;
    response.expect_err("the held exchange and the later ones should wait");
    held.go_on();
    let answer = until_ready(&mut client).await;
    assert!(answer.contains("two") && answer.contains("three"), "{answer}");
    assert!(until_ready(&mut client).await.contains("one"));
}

/// The server's messages until it is ready for the next statement.
async fn until_ready(client: &mut TcpStream) -> String {
    let reading = async {
        let mut messages = String::new();
        loop {
            let kind = client.read_u8().await.unwrap();
            let length = client.read_u32().await.unwrap();
            let mut body = vec![0; usize::try_from(length).unwrap() - 4];
            client.read_exact(&mut body).await.unwrap();
            messages.push_str(&String::from_utf8_lossy(&body));
            if kind == b'Z' {
                return messages;
            }
        }
    };
    timeout(STUCK, reading).await.expect("the server should become ready")
}
