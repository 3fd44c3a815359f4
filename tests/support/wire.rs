//! A TCP proxy to a PostgreSQL server. A test can cut it, stall it, point it to another server, and make it lose its
//! connections silently.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use url::Url;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Data is delivered only after the proxy is open again.
    Held,
    /// Open connections are closed and new ones refused.
    Cut,
}

/// Runs until the test's runtime ends.
pub struct Wire {
    url: String,
    address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    state: watch::Sender<State>,
    /// How often [`Self::lose_connections`] was called.
    losses: watch::Sender<u64>,
}

impl Wire {
    /// Starts a proxy to the server of this URL.
    pub fn to(url: &str) -> Self {
        let reserved = socket(([127, 0, 0, 1], 0).into());
        let address = reserved.local_addr().unwrap();
        let server = Arc::new(Mutex::new(server_address(url)));
        let (state, watched) = watch::channel(State::Open);
        let (losses, lost) = watch::channel(0);
        let mut proxy_url = Url::parse(url).unwrap();
        proxy_url.set_ip_host(address.ip()).unwrap();
        proxy_url.set_port(Some(address.port())).unwrap();
        tokio::spawn(serve(reserved, server.clone(), watched, lost));
        Self { url: proxy_url.into(), address, server, state, losses }
    }

    /// The URL of the server through this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Behaves like a stopped server.
    pub async fn cut(&self) {
        self.state.send_replace(State::Cut);
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// Behaves like a server or network that stalls.
    pub fn hold(&self) {
        self.state.send_replace(State::Held);
    }

    /// Behaves like a firewall that forgets the open connections: no data arrives any more, not even that a
    /// connection was closed, and neither end notices. New connections work.
    pub fn lose_connections(&self) {
        self.losses.send_modify(|losses| *losses += 1);
    }

    /// Ends [`Self::cut`] and [`Self::hold`].
    pub fn restore(&self) {
        self.state.send_replace(State::Open);
    }

    /// Directs new connections to another server. Open connections stay.
    pub fn lead_to(&self, url: &str) {
        *self.server.lock().unwrap() = server_address(url);
    }
}

fn server_address(url: &str) -> SocketAddr {
    Url::parse(url).unwrap().socket_addrs(|| Some(5432)).expect("a server that listens on TCP")[0]
}

/// A socket that is bound and does not listen yet.
fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// Listens on the address of `reserved`, which keeps the port from other processes while the proxy does not listen.
async fn serve(
    reserved: TcpSocket,
    server: Arc<Mutex<SocketAddr>>,
    mut state: watch::Receiver<State>,
    losses: watch::Receiver<u64>,
) {
    let (address, mut cut) = (reserved.local_addr().unwrap(), state.clone());
    loop {
        let listener = socket(address).listen(64).unwrap();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let target = *server.lock().unwrap();
                    // A held proxy accepts connections, too, because a kernel does so even if the server stalls.
                    let Ok(stream) = TcpStream::connect(target).await else { continue };
                    let (client_in, client_out) = accepted.unwrap().0.into_split();
                    let (server_in, server_out) = stream.into_split();
                    let connection = Connection { losses: losses.clone(), losses_before: *losses.borrow() };
                    tokio::spawn(pump(client_in, server_out, state.clone(), connection.clone()));
                    tokio::spawn(pump(server_in, client_out, state.clone(), connection));
                }
                () = until(&mut cut, |state| state == State::Cut) => break,
            }
        }
        drop(listener);
        until(&mut state, |state| state != State::Cut).await;
    }
}

#[derive(Clone)]
struct Connection {
    losses: watch::Receiver<u64>,
    /// The number of losses when the connection was opened.
    losses_before: u64,
}

impl Connection {
    fn is_lost(&self) -> bool {
        *self.losses.borrow() > self.losses_before
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    connection: Connection,
) {
    let mut cut = state.clone();
    let flow = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            until(&mut state, |state| state == State::Open).await;
            if connection.is_lost() {
                continue;
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
        if connection.is_lost() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = flow => {}
        () = until(&mut cut, |state| state == State::Cut) => {}
    }
}

/// Waits for a state. Once the test has dropped the proxy, its state does not change any more.
async fn until(state: &mut watch::Receiver<State>, wanted: impl Fn(State) -> bool) {
    if state.wait_for(|state| wanted(*state)).await.is_err() {
        std::future::pending::<()>().await;
    }
}
