//! A way to a PostgreSQL server that understands what goes over it: it sees the statements of every connection as their
//! text, and stops where a test says so, before a statement has arrived or after it is carried out.

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

/// Where a statement is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It does not arrive.
    Before,
    /// The server has carried it out, and its answer does not arrive.
    After,
}

/// A statement as it was sent to be carried out.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The how manieth connection sent it.
    pub connection: usize,
    pub sql: String,
}

/// Lasts as long as the test's runtime, or until it is closed.
#[derive(Clone)]
pub struct Tap {
    url: String,
    there: SocketAddr,
    state: Arc<Mutex<State>>,
    closed: CancellationToken,
}

struct State {
    statements: Vec<Statement>,
    traps: Vec<Trap>,
    connections: usize,
    /// All connections that are there end with it.
    cut: CancellationToken,
    refuses: bool,
}

struct Trap {
    /// Of which connection, where not of any.
    connection: Option<usize>,
    when: When,
    /// How many fitting statements it takes.
    left: usize,
    text: String,
    sprung: oneshot::Sender<Held>,
}

impl Tap {
    /// A way to the server of this URL.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let mut through = Url::parse(url).unwrap();
        let there = through.socket_addrs(|| Some(5432)).expect("a server that listens on TCP")[0];
        through.set_ip_host(here.ip()).unwrap();
        through.set_port(Some(here.port())).unwrap();
        let state = State {
            statements: Vec::new(),
            traps: Vec::new(),
            connections: 0,
            cut: CancellationToken::new(),
            refuses: false,
        };
        let (state, closed) = (Arc::new(Mutex::new(state)), CancellationToken::new());
        let tap = Self { url: through.into(), there, state, closed: closed.clone() };
        let serving = tap.clone().serve(listener);
        tokio::spawn(async move { closed.run_until_cancelled(serving).await });
        tap
    }

    /// How to connect through it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All statements until now, in the order of their arrival.
    pub fn statements(&self) -> Vec<Statement> {
        self.state.lock().unwrap().statements.clone()
    }

    /// How many statements there were until now.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().statements.len()
    }

    /// Will hold the `nth` statement from here on, 1 being the next, whose text contains this; "" is in all of them.
    pub fn catch(&self, when: When, nth: usize, text: &str) -> Catch {
        self.catch_of(None, when, nth, text)
    }

    fn catch_of(&self, connection: Option<usize>, when: When, nth: usize, text: &str) -> Catch {
        let (sprung, held) = oneshot::channel();
        let trap = Trap { connection, when, left: nth, text: text.to_owned(), sprung };
        self.state.lock().unwrap().traps.push(trap);
        Catch(held)
    }

    /// Ends all connections, on both sides; whoever connects again may.
    pub fn cut(&self) {
        std::mem::take(&mut self.state.lock().unwrap().cut).cancel();
    }

    /// Ends it, and all that goes over it.
    pub fn close(&self) {
        self.closed.cancel();
        self.cut();
    }

    /// Whoever connects from here on is sent away, or let in again.
    pub fn refuse(&self, refuses: bool) {
        self.state.lock().unwrap().refuses = refuses;
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            let (connection, cut) = {
                let mut state = self.state.lock().unwrap();
                if state.refuses {
                    continue;
                }
                state.connections += 1;
                (state.connections, state.cut.child_token())
            };
            let tap = self.clone();
            tokio::spawn(async move {
                let conversation =
                    Conversation { tap, connection, cut: cut.clone(), withheld: Mutex::default() };
                // Whoever goes, or is cut off, takes the other side along.
                cut.run_until_cancelled(conversation.between(client)).await
            });
        }
    }
}

/// What a test waits for.
pub struct Catch(oneshot::Receiver<Held>);

impl Catch {
    /// Waits for a statement that may never come.
    pub async fn caught_if_ever(self) -> Option<Held> {
        self.0.await.ok()
    }

    /// Waits for the statement.
    pub async fn caught(self) -> Held {
        timeout(STUCK, self.0).await.expect("no such statement").expect("a tap lasts as long as the test")
    }
}

/// A statement that waits, and its connection with it, for the test to say how it goes on; dropped, it just goes on.
pub struct Held {
    pub statement: Statement,
    tap: Tap,
    cut: CancellationToken,
    _goes_on_when_dropped: oneshot::Sender<()>,
}

impl Held {
    /// As if nothing had happened. Of a process that was killed meanwhile these were the last words.
    pub fn go_on(self) {
        drop(self);
    }

    /// Goes on to the next statement of this connection whose text contains this.
    pub fn then(self, when: When, text: &str) -> Catch {
        self.tap.catch_of(Some(self.statement.connection), when, 1, text)
    }

    /// Ends the connection on both sides: what was held arrives nowhere.
    pub fn cut(self) {
        self.cut.cancel();
    }
}

/// One connection. What a client sends up to a Query or Sync is answered up to one `ReadyForQuery`, in order: that counts
/// as one exchange, and clients may be some ahead.
struct Conversation {
    tap: Tap,
    connection: usize,
    cut: CancellationToken,
    /// Of which exchanges the answer is to be held.
    withheld: Mutex<VecDeque<(u64, Statement, oneshot::Sender<Held>)>>,
}

impl Conversation {
    async fn between(&self, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(self.tap.there).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        self.greet(&mut client, &mut server).await?;
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        tokio::select! {
            ended = self.ask(BufReader::new(client_in), server_out) => ended,
            ended = self.answer(BufReader::new(server_in), client_out) => ended,
        }
    }

    /// Passes on the first packet, which has no type (a start or a cancellation), and offers no encryption.
    async fn greet(&self, client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
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

    async fn ask(&self, mut client: BufReader<OwnedReadHalf>, mut server: OwnedWriteHalf) -> io::Result<()> {
        // The start is the first.
        let mut exchange = 1;
        let mut said = Said::default();
        let mut out = Vec::new();
        loop {
            let message = read(&mut client).await?;
            if let Some(sql) = said.hear(&message)
                && let Some((statement, when, sprung)) = self.met(sql)
            {
                match when {
                    When::Before => {
                        server.write_all(&std::mem::take(&mut out)).await?;
                        self.hold(statement, sprung).await;
                    }
                    When::After => {
                        self.withheld.lock().unwrap().push_back((exchange, statement, sprung));
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

    async fn answer(
        &self,
        mut server: BufReader<OwnedReadHalf>,
        mut client: OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut exchange = 0;
        let mut out = Vec::new();
        loop {
            let message = read(&mut server).await?;
            let is_last = message[0] == b'Z';
            out.extend(message);
            let due = |withheld: &(u64, Statement, _)| withheld.0 == exchange;
            if is_last {
                let withheld = self.withheld.lock().unwrap().pop_front_if(|withheld| due(withheld));
                if let Some((_, statement, sprung)) = withheld {
                    self.hold(statement, sprung).await;
                }
            } else if self.withheld.lock().unwrap().front().is_some_and(due) {
                continue;
            }
            exchange += u64::from(is_last);
            if is_last || server.buffer().is_empty() {
                client.write_all(&std::mem::take(&mut out)).await?;
            }
        }
    }

    /// Notes a statement; tells the trap that it has sprung.
    fn met(&self, sql: String) -> Option<(Statement, When, oneshot::Sender<Held>)> {
        let mut state = self.tap.state.lock().unwrap();
        let statement = Statement { connection: self.connection, sql };
        state.statements.push(statement.clone());
        // Of a catch that nobody waits for any more nothing is held.
        state.traps.retain(|trap| !trap.sprung.is_closed());
        let fits = |trap: &Trap| {
            trap.connection.is_none_or(|of| of == statement.connection) && statement.sql.contains(&trap.text)
        };
        for trap in state.traps.iter_mut().filter(|trap| fits(trap)) {
            trap.left = trap.left.saturating_sub(1);
        }
        let at = state.traps.iter().position(|trap| trap.left == 0 && fits(trap))?;
        let Trap { when, sprung, .. } = state.traps.remove(at);
        Some((statement, when, sprung))
    }

    async fn hold(&self, statement: Statement, sprung: oneshot::Sender<Held>) {
        let (goes_on, decided) = oneshot::channel();
        let held =
            Held { statement, tap: self.tap.clone(), cut: self.cut.clone(), _goes_on_when_dropped: goes_on };
        // Nobody waits for it, or lets it go: either way it goes on, unless the connection is cut.
        let _ = sprung.send(held);
        let _ = decided.await;
        if self.cut.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

/// The texts behind the names that a client has given.
#[derive(Default)]
struct Said {
    statements: HashMap<String, String>,
    portals: HashMap<String, String>,
}

impl Said {
    /// The statement that this message wants to be carried out.
    fn hear(&mut self, message: &[u8]) -> Option<String> {
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

/// A message: its type, its length, and the rest.
async fn read(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[1..].try_into().unwrap());
    message.resize(1 + usize::try_from(length).unwrap(), 0);
    from.read_exact(&mut message[5..]).await?;
    Ok(message)
}
