//! A proxy to a PostgreSQL server that parses the protocol. It records the statements of all connections, and can hold a
//! statement before it reaches the server, or hold the server's response after the statement was executed.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::program::STUCK;

/// When a statement is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The server has not received it.
    Before,
    /// The server has executed it, and the client has not received the response.
    After,
}

/// A statement as the client sent it for execution.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The number of the connection, in the order of their opening.
    pub connection: usize,
    pub sql: String,
}

/// Runs until the test's runtime ends or the proxy is closed.
#[derive(Clone)]
pub struct StatementProxy {
    url: String,
    server: SocketAddr,
    state: Arc<Mutex<State>>,
    closed: CancellationToken,
}

struct State {
    statements: Vec<Statement>,
    traps: Vec<Trap>,
    connections: usize,
    /// Cancels all open connections.
    cut: CancellationToken,
    refuses: bool,
}

struct Trap {
    /// Only statements of this connection, if set.
    connection: Option<usize>,
    when: When,
    /// How many matching statements remain until it holds one.
    left: usize,
    text: String,
    caught: oneshot::Sender<Held>,
}

impl StatementProxy {
    /// Starts a proxy to the server of this URL.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy_url = Url::parse(url).unwrap();
        let server = proxy_url.socket_addrs(|| Some(5432)).expect("a server that listens on TCP")[0];
        proxy_url.set_ip_host(address.ip()).unwrap();
        proxy_url.set_port(Some(address.port())).unwrap();
        let state = State {
            statements: Vec::new(),
            traps: Vec::new(),
            connections: 0,
            cut: CancellationToken::new(),
            refuses: false,
        };
        let (state, closed) = (Arc::new(Mutex::new(state)), CancellationToken::new());
        let proxy = Self { url: proxy_url.into(), server, state, closed: closed.clone() };
        let serving = proxy.clone().serve(listener);
        tokio::spawn(async move { closed.run_until_cancelled(serving).await });
        proxy
    }

    /// The URL of the server through this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All statements until now, in the order in which the proxy received them.
    pub fn statements(&self) -> Vec<Statement> {
        self.state.lock().unwrap().statements.clone()
    }

    /// The number of statements until now.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().statements.len()
    }

    /// Holds the `nth` statement from now whose text contains `text`. The next statement is number 1, and "" matches all.
    pub fn catch(&self, when: When, nth: usize, text: &str) -> Catch {
        self.catch_of(None, when, nth, text)
    }

    fn catch_of(&self, connection: Option<usize>, when: When, nth: usize, text: &str) -> Catch {
        let (caught, held) = oneshot::channel();
        let trap = Trap { connection, when, left: nth, text: text.to_owned(), caught };
        self.state.lock().unwrap().traps.push(trap);
        Catch(held)
    }

    /// Closes all connections on both sides. Clients can connect again.
    pub fn cut(&self) {
        std::mem::take(&mut self.state.lock().unwrap().cut).cancel();
    }

    /// Stops the proxy and closes all connections.
    pub fn close(&self) {
        self.closed.cancel();
        self.cut();
    }

    /// Refuses new connections, or accepts them again.
    pub fn refuse(&self, refuses: bool) {
        self.state.lock().unwrap().refuses = refuses;
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            let (number, cut) = {
                let mut state = self.state.lock().unwrap();
                if state.refuses {
                    continue;
                }
                state.connections += 1;
                (state.connections, state.cut.child_token())
            };
            let proxy = self.clone();
            tokio::spawn(async move {
                let connection = Connection { proxy, number, cut: cut.clone(), withheld: Mutex::default() };
                // If one side closes, or the connection is cut, both sides are closed.
                cut.run_until_cancelled(connection.run(client)).await
            });
        }
    }
}

/// A statement that the proxy will hold.
pub struct Catch(oneshot::Receiver<Held>);

impl Catch {
    /// Waits for the statement. Returns `None` if the proxy stops before.
    pub async fn caught_if_ever(self) -> Option<Held> {
        self.0.await.ok()
    }

    /// Waits for the statement, which must arrive.
    pub async fn caught(self) -> Held {
        timeout(STUCK, self.0)
            .await
            .expect("no such statement")
            .expect("the proxy runs until the end of the test")
    }
}

/// A held statement; its connection waits with it. When dropped, the statement continues.
pub struct Held {
    pub statement: Statement,
    proxy: StatementProxy,
    cut: CancellationToken,
    _continues_when_dropped: oneshot::Sender<()>,
}

impl Held {
    /// Lets the statement continue. It reaches the server even if the client was killed meanwhile.
    pub fn go_on(self) {
        drop(self);
    }

    /// Continues, and holds the next statement of this connection whose text contains `text`.
    pub fn then(self, when: When, text: &str) -> Catch {
        self.proxy.catch_of(Some(self.statement.connection), when, 1, text)
    }

    /// Closes the connection on both sides. The held message is lost.
    pub fn cut(self) {
        self.cut.cancel();
    }
}

/// One connection. An exchange is what a client sends up to a Query or Sync, and the response up to `ReadyForQuery`.
/// Responses come in order; clients may send several exchanges ahead.
struct Connection {
    proxy: StatementProxy,
    number: usize,
    cut: CancellationToken,
    /// The exchanges whose responses will be held.
    withheld: Mutex<VecDeque<(u64, Statement, oneshot::Sender<Held>)>>,
}

impl Connection {
    async fn run(&self, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(self.proxy.server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        self.start(&mut client, &mut server).await?;
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        tokio::select! {
            ended = self.forward_requests(BufReader::new(client_in), server_out) => ended,
            ended = self.forward_responses(BufReader::new(server_in), client_out) => ended,
        }
    }

    /// Forwards the first packet, which has no type (a start-up or a cancellation). Declines encryption.
    async fn start(&self, client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
        const SSL_REQUEST: u32 = 80_877_103;
        const GSSENC_REQUEST: u32 = 80_877_104;
        loop {
            let length = client.read_u32().await?;
            let mut packet = vec![0; usize::try_from(length).unwrap()];
            packet[..4].copy_from_slice(&length.to_be_bytes());
            client.read_exact(&mut packet[4..]).await?;
            match u32::from_be_bytes(packet[4..8].try_into().unwrap()) {
                SSL_REQUEST | GSSENC_REQUEST => client.write_all(b"N").await?,
                _ => return server.write_all(&packet).await,
            }
        }
    }

    async fn forward_requests(
        &self,
        mut client: BufReader<OwnedReadHalf>,
        mut server: OwnedWriteHalf,
    ) -> io::Result<()> {
        // The start-up is the first exchange.
        let mut exchange = 1;
        let mut prepared = Prepared::default();
        let mut out = Vec::new();
        loop {
            let message = read(&mut client).await?;
            if let Some(sql) = prepared.statement(&message)
                && let Some((statement, when, caught)) = self.record(sql)
            {
                match when {
                    When::Before => {
                        server.write_all(&std::mem::take(&mut out)).await?;
                        self.hold(statement, caught).await;
                    }
                    When::After => {
                        self.withheld.lock().unwrap().push_back((exchange, statement, caught));
                    }
                }
            }
            exchange += u64::from(matches!(message[0], b'Q' | b'S' | b'F'));
            out.extend(message);
            if client.buffer().is_empty() {
                server.write_all(&std::mem::take(&mut out)).await?;
            }
        }
    }

    async fn forward_responses(
        &self,
        mut server: BufReader<OwnedReadHalf>,
        mut client: OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut exchange = 0;
        let mut out = Vec::new();
        loop {
            let message = read(&mut server).await?;
            let is_last = message[0] == b'Z';
            // The client sends the data of a COPY only after this.
            let is_copy_response = message[0] == b'G';
            out.extend(message);
            let due = |withheld: &(u64, Statement, _)| withheld.0 == exchange;
            if is_last {
                let withheld = self.withheld.lock().unwrap().pop_front_if(|withheld| due(withheld));
                if let Some((_, statement, caught)) = withheld {
                    self.hold(statement, caught).await;
                }
            } else if self.withheld.lock().unwrap().front().is_some_and(due) && !is_copy_response {
                continue;
            }
            exchange += u64::from(is_last);
            if is_last || server.buffer().is_empty() {
                client.write_all(&std::mem::take(&mut out)).await?;
            }
        }
    }

    /// Records a statement, and returns the channel of the trap that holds it, if any.
    fn record(&self, sql: String) -> Option<(Statement, When, oneshot::Sender<Held>)> {
        let mut state = self.proxy.state.lock().unwrap();
        let statement = Statement { connection: self.number, sql };
        state.statements.push(statement.clone());
        // A trap without a receiver holds nothing.
        state.traps.retain(|trap| !trap.caught.is_closed());
        let fits = |trap: &Trap| {
            trap.connection.is_none_or(|of| of == statement.connection) && statement.sql.contains(&trap.text)
        };
        for trap in state.traps.iter_mut().filter(|trap| fits(trap)) {
            trap.left = trap.left.saturating_sub(1);
        }
        let at = state.traps.iter().position(|trap| trap.left == 0 && fits(trap))?;
        let Trap { when, caught, .. } = state.traps.remove(at);
        Some((statement, when, caught))
    }

    async fn hold(&self, statement: Statement, caught: oneshot::Sender<Held>) {
        let (continues, decided) = oneshot::channel();
        let held = Held {
            statement,
            proxy: self.proxy.clone(),
            cut: self.cut.clone(),
            _continues_when_dropped: continues,
        };
        // Dropping the receiver or the statement lets it continue, unless the connection is cut.
        let _ = caught.send(held);
        let _ = decided.await;
        if self.cut.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

/// The texts of a client's prepared statements and portals, by name.
#[derive(Default)]
struct Prepared {
    statements: HashMap<String, String>,
    portals: HashMap<String, String>,
}

impl Prepared {
    /// The statement that this message executes, if any.
    fn statement(&mut self, message: &[u8]) -> Option<String> {
        let mut texts =
            message[5..].split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        let mut text = || texts.next().unwrap_or_default();
        match message[0] {
            b'Q' => return Some(text()),
            b'E' => return self.portals.get(&text()).cloned(),
            b'P' => _ = self.statements.insert(text(), text()),
            b'B' => {
                let (portal, statement) = (text(), text());
                let sql = self.statements.get(&statement).cloned().unwrap_or_default();
                self.portals.insert(portal, sql);
            }
            _ => {}
        }
        None
    }
}

/// Reads a message: its type, its length and its body.
async fn read(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[1..].try_into().unwrap());
    message.resize(1 + usize::try_from(length).unwrap(), 0);
    from.read_exact(&mut message[5..]).await?;
    Ok(message)
}
