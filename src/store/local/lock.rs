//! The locks with which several rosterd processes share one directory.
//!
//! A process locks `turn` while it starts or stops the server. Each process that uses the server holds a shared lock of
//! `users`, and takes or releases it only while it holds `turn`. There are two files because a lock cannot change from
//! exclusive to shared atomically. The kernel releases both locks when a process dies.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::data_dir::DataDir;
use super::error::LocalError;

/// The longest wait of a start for its turn: another process's start may have to wait for the server's recovery.
const START_LIMIT: Duration = Duration::from_secs(90);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Opens a lock file; creates it if it does not exist.
pub(super) fn open(path: &Path) -> Result<File, LocalError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| LocalError::files("open the lock file", path, error))
}

/// Waits for the turn to start the server.
pub(super) async fn take_turn(data_dir: &DataDir) -> Result<File, LocalError> {
    let (path, deadline) = (data_dir.turn(), Instant::now() + START_LIMIT);
    let turn = open(&path)?;
    while !try_lock(&turn, &path, deadline)? {
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    Ok(turn)
}

/// Waits for the turn to stop the server. Blocks the thread for at most `limit`.
pub(super) fn take_turn_to_stop(data_dir: &DataDir, limit: Duration) -> Result<File, LocalError> {
    let (path, deadline) = (data_dir.turn(), Instant::now() + limit);
    let turn = open(&path)?;
    while !try_lock(&turn, &path, deadline)? {
        thread::sleep(RETRY_INTERVAL);
    }
    Ok(turn)
}

/// Tries to lock. After the deadline, a failed attempt is an error. The kernel's own wait for a lock has no deadline.
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

/// Becomes a user of the server. The caller holds the turn, so no other process holds `users` exclusively.
pub(super) fn join(users: &File, data_dir: &DataDir) -> Result<(), LocalError> {
    users.lock_shared().map_err(|error| LocalError::files("lock", &data_dir.users(), error))
}

/// Stops being a user of the server; true if this was the last one. The caller holds the turn.
pub(super) fn leave_last(users: &File, data_dir: &DataDir) -> Result<bool, LocalError> {
    let failed = |error| LocalError::files("unlock", &data_dir.users(), error);
    users.unlock().map_err(failed)?;
    match users.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
