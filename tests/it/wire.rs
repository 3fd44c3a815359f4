//! The way to a PostgreSQL server, which a test can cut, hold, lead elsewhere, and let lose its connections silently.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use url::Url;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// As if it were not there.
    Open,
    /// Whatever is sent does not arrive, for as long as it lasts.
    Held,
    /// Connections are lost, and new ones refused.
    Cut,
}

/// Lasts as long as the test's runtime.
pub struct Wire {
    url: String,
    here: SocketAddr,
    there: Arc<Mutex<SocketAddr>>,
    is: watch::Sender<Is>,
    /// How often the connections were lost silently.
    losses: watch::Sender<u64>,
}

impl Wire {
    /// A way to the server of this URL.
    pub fn to(url: &str) -> Self {
        let place_holder = socket(([127, 0, 0, 1], 0).into());
        let here = place_holder.local_addr().unwrap();
        let there = Arc::new(Mutex::new(place(url)));
        let (is, watched) = watch::channel(Is::Open);
        let (losses, lost) = watch::channel(0);
        let mut through = Url::parse(url).unwrap();
        through.set_ip_host(here.ip()).unwrap();
        through.set_port(Some(here.port())).unwrap();
        tokio::spawn(serve(place_holder, there.clone(), watched, lost));
        Self { url: through.into(), here, there, is, losses }
    }

    /// How to connect through it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// As when the server is stopped.
    pub async fn cut(&self) {
        self.is.send_replace(Is::Cut);
        while TcpStream::connect(self.here).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// As when the server, or the network, stands still.
    pub fn hold(&self) {
        self.is.send_replace(Is::Held);
    }

    /// As when a firewall forgets the connections that there are: nothing sent on them arrives any more, not even that they
    /// are closed, and neither end learns of it. New ones work.
    pub fn lose_connections(&self) {
        self.losses.send_modify(|losses| *losses += 1);
    }

    /// It is well again.
    pub fn mend(&self) {
        self.is.send_replace(Is::Open);
    }

    /// Leads to another server from here on; what is connected stays.
    pub fn lead_to(&self, url: &str) {
        *self.there.lock().unwrap() = place(url);
    }
}

fn place(url: &str) -> SocketAddr {
    Url::parse(url).unwrap().socket_addrs(|| Some(5432)).expect("a server that listens on TCP")[0]
}

/// Bound, and not listening yet.
fn socket(at: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(at).unwrap();
    socket
}

/// Listens where `place_holder` is bound, which keeps the port from everybody else while nobody listens.
async fn serve(
    place_holder: TcpSocket,
    there: Arc<Mutex<SocketAddr>>,
    mut is: watch::Receiver<Is>,
    losses: watch::Receiver<u64>,
) {
    let (here, mut cut) = (place_holder.local_addr().unwrap(), is.clone());
    loop {
        let listener = socket(here).listen(64).unwrap();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let target = *there.lock().unwrap();
                    // Held or not: the server's kernel takes a connection whatever the server does.
                    let Ok(server) = TcpStream::connect(target).await else { continue };
                    let (client_in, client_out) = accepted.unwrap().0.into_split();
                    let (server_in, server_out) = server.into_split();
                    let fate = Fate { losses: losses.clone(), known: *losses.borrow() };
                    tokio::spawn(pump(client_in, server_out, is.clone(), fate.clone()));
                    tokio::spawn(pump(server_in, client_out, is.clone(), fate));
                }
                () = until(&mut cut, |is| is == Is::Cut) => break,
            }
        }
        drop(listener);
        until(&mut is, |is| is != Is::Cut).await;
    }
}

/// Whether a connection was lost silently.
#[derive(Clone)]
struct Fate {
    losses: watch::Receiver<u64>,
    known: u64,
}

impl Fate {
    fn is_lost(&self) -> bool {
        *self.losses.borrow() > self.known
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is: watch::Receiver<Is>, fate: Fate) {
    let mut cut = is.clone();
    let flow = async {
        let mut chunk = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut chunk).await {
            until(&mut is, |is| is == Is::Open).await;
            if fate.is_lost() {
                continue;
            }
            if to.write_all(&chunk[..read]).await.is_err() {
                return;
            }
        }
        if fate.is_lost() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = flow => {}
        () = until(&mut cut, |is| is == Is::Cut) => {}
    }
}

/// Once the test has let go of the wire, nothing changes any more.
async fn until(is: &mut watch::Receiver<Is>, wanted: impl Fn(Is) -> bool) {
    if is.wait_for(|is| wanted(*is)).await.is_err() {
        std::future::pending::<()>().await;
    }
}
