//! A host of archives on the loopback address, with the faults of real ones.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the host answers requests.
#[derive(Clone)]
pub enum Answer {
    Sent(Vec<u8>),
    /// The first address redirects to the archive.
    Redirected(Vec<u8>),
    /// Half of the body, then the end of the connection.
    Cut(Vec<u8>),
    /// Half of the body, then nothing.
    Stalled(Vec<u8>),
    /// The archive, after [`Host::proceed`].
    Delayed(Vec<u8>),
    /// 404.
    Refused,
}

#[derive(Default)]
struct Seen {
    paths: Vec<String>,
    archives: usize,
    has_stalled: bool,
    may_proceed: bool,
}

pub struct Host {
    address: std::net::SocketAddr,
    answer: Arc<Mutex<Answer>>,
    seen: watch::Sender<Seen>,
}

impl Host {
    pub async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, seen) = (Arc::new(Mutex::new(answer)), watch::Sender::new(Seen::default()));
        let (current, progress) = (answer.clone(), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = current.lock().unwrap().clone();
                // A client that gives up closes its connection.
                let progress = progress.clone();
                tokio::spawn(async move { drop(serve(stream, answer, progress).await) });
            }
        });
        Self { address, answer, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}/releases", self.address)
    }

    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The path of the first request.
    pub fn first_path(&self) -> String {
        self.seen.borrow().paths[0].clone()
    }

    /// How many complete archives were sent.
    pub fn archives_sent(&self) -> usize {
        self.seen.borrow().archives
    }

    /// Waits for a request.
    pub async fn requested(&self) {
        self.seen.subscribe().wait_for(|seen| !seen.paths.is_empty()).await.unwrap();
    }

    /// Waits until half of a body was sent.
    pub async fn stalled(&self) {
        self.seen.subscribe().wait_for(|seen| seen.has_stalled).await.unwrap();
    }

    pub fn proceed(&self) {
        self.seen.send_modify(|seen| seen.may_proceed = true);
    }
}

async fn serve(mut stream: TcpStream, answer: Answer, seen: watch::Sender<Seen>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
    seen.send_modify(|seen| seen.paths.push(path.clone()));
    match answer {
        Answer::Redirected(_) if path != "/storage" => {
            stream
                .write_all(b"HTTP/1.1 302 Found\r\nLocation: /storage\r\nContent-Length: 0\r\n\r\n")
                .await?;
            stream.shutdown().await
        }
        Answer::Sent(body) | Answer::Redirected(body) => whole(&mut stream, &body, &seen).await,
        Answer::Cut(body) => half(&mut stream, &body).await,
        Answer::Stalled(body) => {
            half(&mut stream, &body).await?;
            seen.send_modify(|seen| seen.has_stalled = true);
            std::future::pending().await
        }
        Answer::Delayed(body) => {
            let _ = seen.subscribe().wait_for(|seen| seen.may_proceed).await;
            whole(&mut stream, &body, &seen).await
        }
        Answer::Refused => {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
            stream.shutdown().await
        }
    }
}

async fn head(stream: &mut TcpStream, length: usize) -> std::io::Result<()> {
    // Some servers mark archives as compressed for the transport.
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Encoding: gzip\r\n\r\n");
    stream.write_all(head.as_bytes()).await
}

async fn whole(stream: &mut TcpStream, body: &[u8], seen: &watch::Sender<Seen>) -> std::io::Result<()> {
    head(stream, body.len()).await?;
    stream.write_all(body).await?;
    seen.send_modify(|seen| seen.archives += 1);
    stream.shutdown().await
}

async fn half(stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    head(stream, body.len()).await?;
    stream.write_all(&body[..body.len() / 2]).await?;
    stream.flush().await
}
