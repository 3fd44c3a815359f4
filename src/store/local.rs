//! A private PostgreSQL for people who have none configured.
//!
//! The server's programs are found on this machine, a cluster is made once, and every rosterd that is given
//! the same directory shares one running server: the first starts it, the last one out stops it. What a
//! `kill -9` leaves behind, of us or of the server, is taken up by the next start.
//!
//! ```text
//! data_dir/
//!   turn         locked while somebody starts or stops the server
//!   users        locked (shared) by everybody who uses it
//!   pgpass       the password, as libpq reads it
//!   server/      made whole under another name, then renamed
//!     data/      the cluster
//!     log        what the server says
//! ```
//!
//! The server listens on loopback TCP alone and asks for a random password (SCRAM). A Unix socket would have
//! to fit into 107 bytes (103 on macOS), which a data directory deep in somebody's home does not.

mod binaries;
mod cluster;
mod error;
mod lock;
mod place;
mod programs;
mod server;

use std::fs::File;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

pub use self::error::LocalError;
use self::place::Place;
use self::programs::RunAs;
use self::server::{HOST, NAME, Server};

/// What kind of server to have, and where.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The directory that everything is kept in; it is made where it is missing.
    pub data_dir: PathBuf,
    /// False for a server of tests: quick to make and to write to, worth nothing after a power cut.
    pub durable: bool,
    /// How many sessions the server takes.
    pub max_connections: u16,
}

impl LocalOptions {
    /// A small, durable server in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), durable: true, max_connections: 40 }
    }
}

/// A share in the running server. Giving up the last one, by [`stop`](Self::stop) or by dropping it, stops it.
#[derive(Debug)]
pub struct LocalPostgres {
    server: Server,
    /// Our place among the users of the server; `None` once we have left.
    users: Option<File>,
    url: SecretString,
    port: u16,
    notes: Vec<String>,
}

/// How long giving up a share may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// Until the server has stopped, for some seconds.
    Stop,
    /// A second, since a drop blocks the thread that everything else runs on: a server that takes longer stops later.
    Drop,
}

impl LocalPostgres {
    /// Starts the server of `data_dir`, or joins it where it is running already.
    pub async fn start(data_dir: &Path) -> Result<Self, LocalError> {
        Self::start_with(&LocalOptions::new(data_dir)).await
    }

    /// As [`start`](Self::start), with everything spelled out.
    pub async fn start_with(options: &LocalOptions) -> Result<Self, LocalError> {
        let run_as = RunAs::choose()?;
        let (place, note) = Place::choose(&options.data_dir, &run_as)?;
        // Nothing is made on a machine that has no server to run in it.
        let binaries = binaries::find(&binaries::Places::of_this_machine(), &run_as, &place).await?;
        let place = place.create(&run_as)?;

        let users = lock::open(&place.users())?;
        let server = Server {
            binaries,
            place,
            run_as,
            durable: options.durable,
            max_connections: options.max_connections,
        };
        // Built before the server is started, so that a start given up half-way is stopped by `Drop`; the turn
        // is declared after it, and so given back before `Drop` asks for it.
        let mut local = Self {
            server,
            users: None,
            url: SecretString::default(),
            port: 0,
            notes: note.into_iter().collect(),
        };
        let _turn = lock::take_turn(&local.server.place).await?;
        lock::join(&users, &local.server.place)?;
        local.users = Some(users);

        let password = cluster::ensure(&local.server).await?;
        local.port = local.server.ensure_running(&password).await?;
        // The password is alphanumeric: nothing in it needs escaping.
        local.url =
            format!("postgres://{NAME}:{}@{HOST}:{}/{NAME}", password.expose_secret(), local.port).into();
        Ok(local)
    }

    /// The connection URL, password included.
    pub fn url(&self) -> &SecretString {
        &self.url
    }

    /// The directory of the server, which is not that of the options if the server's user cannot enter that.
    pub fn data_dir(&self) -> &Path {
        self.server.place.dir()
    }

    /// A line for a person's shell that opens psql on this database. It names the password file, not the
    /// password, which would stay in the shell's history.
    pub fn psql_hint(&self) -> String {
        format!(
            "PGPASSFILE={} {} -h {HOST} -p {} -U {NAME} {NAME}",
            shell_word(&self.server.place.pgpass()),
            shell_word(&self.server.binaries.psql()),
            self.port,
        )
    }

    /// The psql program that fits the server.
    pub fn psql(&self) -> PathBuf {
        self.server.binaries.psql()
    }

    /// What the person who asked for the server should know, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Gives up our share; the server is stopped when it was the last.
    pub async fn stop(mut self) -> Result<(), LocalError> {
        let dir = self.server.place.dir().to_owned();
        let stopping = tokio::task::spawn_blocking(move || self.leave(Patience::Stop));
        stopping
            .await
            .unwrap_or_else(|error| Err(LocalError::files("stop the server in", &dir, error.into())))
    }

    /// Blocking, because `Drop` has no other way; bounded by `patience`.
    fn leave(&mut self, patience: Patience) -> Result<(), LocalError> {
        let Some(users) = self.users.take() else { return Ok(()) };
        let place = &self.server.place;
        let _turn = lock::take_turn_to_stop(place, patience)?;
        if lock::leave_last(&users, place)? { self.server.stop(patience) } else { Ok(()) }
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        if let Err(error) = self.leave(Patience::Drop) {
            // The next start adopts what is left running.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the private PostgreSQL was not stopped"
            );
        }
    }
}

/// `path` as one word of a POSIX shell.
fn shell_word(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@+".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_and_quotes_is_one_word_of_the_shell() {
        assert_eq!(shell_word(Path::new("/var/lib/postgresql@17/pgpass")), "/var/lib/postgresql@17/pgpass");
        assert_eq!(shell_word(Path::new("/Jane's Data/pgpass")), r"'/Jane'\''s Data/pgpass'");
    }
}
