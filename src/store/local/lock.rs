//! Taking turns: several rosterd processes share one directory.
//!
//! `turn` is held for the short time in which somebody starts or stops the server; `users` is held, shared,
//! by everybody who uses it, and joined or left only by the one whose turn it is. Two files, because a lock
//! cannot go from exclusive to shared without a moment of being neither. The kernel lets go of both when a
//! process dies, however it dies.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::place::Place;
use super::{LocalError, Patience};

/// How long a start waits for its turn: somebody else's start may have a recovery to wait for.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long a stop waits for its turn. A process that is starting in the meantime will stop the server in our stead.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// The same for a drop.
const DROP_LIMIT: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(50);

/// Opens a lock file, making it where it is missing.
pub(super) fn open(path: &Path) -> Result<File, LocalError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| LocalError::files("open the lock file", path, error))
}

/// Waits for the turn to start the server.
pub(super) async fn take_turn(place: &Place) -> Result<File, LocalError> {
    let (path, deadline) = (place.turn(), Instant::now() + START_LIMIT);
    let turn = open(&path)?;
    while !try_lock(&turn, &path, deadline)? {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(turn)
}

/// Waits for the turn to stop the server, blocking.
pub(super) fn take_turn_to_stop(place: &Place, patience: Patience) -> Result<File, LocalError> {
    let limit = match patience {
        Patience::Stop => STOP_LIMIT,
        Patience::Drop => DROP_LIMIT,
    };
    let (path, deadline) = (place.turn(), Instant::now() + limit);
    let turn = open(&path)?;
    while !try_lock(&turn, &path, deadline)? {
        thread::sleep(PAUSE);
    }
    Ok(turn)
}

/// Whether the lock is ours now; an error when it still is not at the deadline. (The kernel's way to wait for a
/// lock knows no deadline.)
fn try_lock(file: &File, path: &Path, deadline: Instant) -> Result<bool, LocalError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) if Instant::now() < deadline => Ok(false),
        Err(TryLockError::WouldBlock) => {
            Err(LocalError::Busy { dir: path.parent().unwrap_or(path).to_owned() })
        }
        Err(TryLockError::Error(error)) => Err(LocalError::files("lock", path, error)),
    }
}

/// Becomes a user of the server. Only in one's turn, when nobody can hold `users` for himself alone.
pub(super) fn join(users: &File, place: &Place) -> Result<(), LocalError> {
    users.lock_shared().map_err(|error| LocalError::files("lock", &place.users(), error))
}

/// Ceases to be a user, in one's turn; true for the last one.
pub(super) fn leave_last(users: &File, place: &Place) -> Result<bool, LocalError> {
    let failed = |error| LocalError::files("unlock", &place.users(), error);
    users.unlock().map_err(failed)?;
    match users.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
