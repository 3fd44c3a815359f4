//! Requests to the URL of `monitoring.ping_url_file`, with a real receiver.

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use rosterd::daemon::health::Health;
use rosterd::daemon::ping::{self, PingClient};
use rosterd::sync::concerns::Limits;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Duration, timeout};

use crate::program::{Program, STUCK};
use crate::scene::Scene;

const LOST_CONSUMER: &str =
    "INSERT INTO roster.consumers (name, stream_id) VALUES ('payroll', gen_random_uuid())";

/// Answers all requests with `status`.
struct Receiver {
    base: String,
    requests: UnboundedReceiver<String>,
}

impl Receiver {
    async fn answering(status: StatusCode) -> Self {
        let (sender, requests) = unbounded_channel();
        let answer = move |method: Method, uri: Uri| {
            let _ = sender.send(format!("{method} {uri}"));
            async move { status }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { base, requests }
    }

    async fn next(&mut self) -> String {
        timeout(STUCK, self.requests.recv()).await.expect("a request should arrive").unwrap()
    }
}

fn program(scene: &Scene, url: &str) -> (Program, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{url}\n")).unwrap();
    let mut program = scene.program();
    program
        .set("ROSTERD__MONITORING__PING_URL_FILE", file.path().to_str().unwrap())
        .set("RUST_LOG", "trace,hyper=trace,reqwest=trace");
    (program, file)
}

#[tokio::test]
async fn successful_cycles_request_the_ping_url_once_a_minute_and_no_log_line_has_its_path() {
    let mut receiver = Receiver::answering(StatusCode::OK).await;
    let scene = Scene::new().await;
    let (program, _file) = program(&scene, &format!("{}/canary-path?create=1", receiver.base));
    let mut daemon = program.start();
    assert_eq!(receiver.next().await, "GET /canary-path?create=1");
    for _ in 0..3 {
        daemon.until("cycle.finished").await;
    }
    assert!(receiver.requests.try_recv().is_err(), "a second request within a minute");
    assert!(!daemon.log().contains("canary-path"), "{}", daemon.log());
}

#[tokio::test]
async fn critical_concern_requests_fail_and_an_error_answer_is_logged_without_the_url() {
    let mut receiver = Receiver::answering(StatusCode::NOT_FOUND).await;
    let scene = Scene::new().await;
    let (program, _file) = program(&scene, &format!("{}/canary-path/?create=1", receiver.base));
    program.call(&["sync"]).await.expect(0);
    scene.execute(LOST_CONSUMER).await;
    let mut daemon = program.start();
    assert_eq!(receiver.next().await, "GET /canary-path/fail?create=1");
    let logged = daemon.until("ping.failed").await;
    assert_eq!(logged["error"], "the server answered 404 Not Found");
    assert!(!daemon.log().contains("canary-path"), "{}", daemon.log());
    daemon.until("cycle.finished").await;
}

#[tokio::test]
async fn critical_concern_is_reported_without_a_successful_cycle_of_this_process() {
    let mut receiver = Receiver::answering(StatusCode::OK).await;
    let scene = Scene::new().await;
    scene.program().call(&["sync"]).await.expect(0);
    let client = PingClient::new(&receiver.base.clone().into()).unwrap();
    let limits = Limits {
        poll_interval: Duration::from_mins(1),
        retention: Duration::from_hours(720),
        accounts: vec![],
    };
    let run = ping::run(client, scene.store.clone(), Health::default(), limits, Duration::from_millis(50));
    let task = tokio::spawn(run);
    scene.execute(LOST_CONSUMER).await;
    assert_eq!(receiver.next().await, "GET /fail");
    task.abort();
}
