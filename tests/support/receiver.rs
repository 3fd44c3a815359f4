//! A receiver of webhooks, written from the specification of Standard Webhooks and without code of rosterd. It answers as
//! a test says, and records and verifies each request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use crate::program::STUCK;

/// How the receiver answers a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status, with these header lines.
    Status(u16, &'static str),
    /// 200 after a pause.
    Slow(Duration),
    /// No answer.
    Hang,
    /// The connection is closed after the request was read.
    Reset,
    /// 200, and a body without end.
    Endless,
    /// 200, and a body of ten megabytes.
    Large,
    /// 200, and the connection is closed when it is used again.
    CloseLater,
}

pub const OK: Answer = Answer::Status(200, "");

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub path: String,
    pub at: Instant,
    /// Whether the answer was a 2xx.
    pub is_accepted: bool,
}

impl Request {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn seq(&self) -> Option<i64> {
        self.json()["seq"].as_i64()
    }

    pub fn r#type(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// Answers of the next requests.
    next: VecDeque<Answer>,
    /// Answers of requests whose body contains this text.
    rules: Vec<(String, Answer)>,
    default: Option<Answer>,
}

/// Stops when it is dropped.
pub struct Receiver {
    origin: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A signing secret that contains the name.
pub fn secret(name: &str) -> String {
    // Letters and digits are base64, and 44 of them are 33 bytes.
    format!("whsec_{:A<44}", name.replace('-', "x"))
}

impl Receiver {
    /// Verifies with the secret of this name.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, None).await
    }

    /// The same with TLS, if `tls` is given.
    pub async fn start_with(name: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (state, secret) = (Arc::<Mutex<State>>::default(), secret(name));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (shared, secret, tls) = (shared.clone(), secret.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, shared, secret).await,
                        Some(tls) => {
                            // A client that does not trust the certificate closes the connection.
                            let Ok(stream) = tls.accept(stream).await else { return };
                            serve(stream, shared, secret).await;
                        }
                    }
                });
            }
        });
        Self { origin, state, task }
    }

    /// The address, with a path that no log may show.
    pub fn url(&self) -> String {
        format!("{}/hidden-path-canary", self.origin)
    }

    /// Answers the next requests.
    pub fn answer_next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().next.extend(answers);
    }

    /// Answers all other requests from now on.
    pub fn answer(&self, answer: Answer) {
        self.state.lock().unwrap().default = Some(answer);
    }

    /// Answers requests whose body contains this text.
    pub fn answer_if(&self, text: impl Into<String>, answer: Answer) {
        self.state.lock().unwrap().rules.push((text.into(), answer));
    }

    pub fn clear_rules(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The numbers of the accepted events, in the order of their first acceptance.
    pub fn accepted(&self) -> Vec<i64> {
        let mut seqs = Vec::new();
        for request in self.requests().iter().filter(|request| request.is_accepted) {
            seqs.extend(request.seq().filter(|seq| !seqs.contains(seq)));
        }
        seqs
    }

    /// Waits until the recorded requests satisfy the condition.
    pub async fn until(&self, what: &str, condition: impl Fn(&[Request]) -> bool) {
        let give_up = Instant::now() + STUCK;
        while !condition(&self.requests()) {
            assert!(Instant::now() < give_up, "no {what} after {} requests", self.requests().len());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until this many events were accepted.
    pub async fn until_accepted(&self, events: usize) {
        let give_up = Instant::now() + STUCK;
        while self.accepted().len() < events {
            assert!(Instant::now() < give_up, "{:?} instead of {events} events", self.accepted());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>, secret: String) {
    let mut stream = BufReader::new(stream);
    while let Some((path, headers, body)) = read_request(&mut stream).await {
        let at = Instant::now();
        verify(&secret, &headers, &body);
        let answer = {
            let mut state = state.lock().unwrap();
            let next = state.next.pop_front();
            let rule = || state.rules.iter().find(|(text, _)| body.contains(text)).map(|(_, it)| it.clone());
            let answer = next.or_else(rule).or_else(|| state.default.clone()).unwrap_or(OK);
            let is_accepted = match answer {
                Answer::Status(status, _) => (200..300).contains(&status),
                Answer::Hang | Answer::Reset => false,
                _ => true,
            };
            state.requests.push(Request { headers, body, path, at, is_accepted });
            answer
        };
        if !respond(&mut stream, &answer).await {
            return;
        }
    }
}

/// Every request must verify with an independent library.
fn verify(secret: &str, headers: &BTreeMap<String, String>, body: &str) {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers = names.map(|name| (name.parse().unwrap(), headers[name].parse().unwrap()));
    let headers: reqwest::header::HeaderMap = headers.into_iter().collect();
    let webhook = Webhook::new(secret).unwrap();
    webhook.verify(body.as_bytes(), &headers).expect("a signed message");
    assert!(webhook.verify(format!("{body} ").as_bytes(), &headers).is_err());
}

async fn read_request(
    stream: &mut BufReader<impl AsyncRead + Unpin>,
) -> Option<(String, BTreeMap<String, String>, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    let headers: BTreeMap<_, _> = rest
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some((line.split(' ').nth(1).unwrap().to_owned(), headers, String::from_utf8(body).unwrap()))
}

/// False if the connection is closed.
async fn respond(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>, answer: &Answer) -> bool {
    let status =
        |status: u16, headers: &str| format!("HTTP/1.1 {status} X\r\n{headers}content-length: 4\r\n\r\nbody");
    let head = |length: &str| format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n");
    match answer {
        Answer::Status(code, headers) => send(stream, status(*code, headers).as_bytes()).await,
        Answer::Slow(pause) => {
            sleep(*pause).await;
            send(stream, status(200, "").as_bytes()).await
        }
        Answer::Hang => {
            sleep(STUCK).await;
            false
        }
        Answer::Reset => false,
        Answer::CloseLater => {
            let _ = stream.write_all(status(200, "").as_bytes()).await;
            let _ = stream.read_u8().await;
            false
        }
        Answer::Endless => {
            let _ = stream.write_all(head("transfer-encoding: chunked").as_bytes()).await;
            while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
            false
        }
        Answer::Large => {
            let _ = stream.write_all(head("content-length: 10000000").as_bytes()).await;
            stream.write_all(&vec![b'x'; 10_000_000]).await.is_ok()
        }
    }
}

/// False if the connection is closed. TLS sends what it has when it is flushed.
async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok()
}
