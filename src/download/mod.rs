//! Installs an archive (.tar.gz) from another host: downloads it, verifies its SHA-256, unpacks it, and renames the result
//! when it is complete. A failure leaves nothing behind. Several processes that install the same directory download once.

mod archive;
mod error;
mod fetch;
mod progress;
mod source;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::error::DownloadError;
use self::progress::Progress;
pub use self::progress::Report;
pub(crate) use self::source::Archive;

/// The longest wait for another process that downloads.
const LOCK_LIMIT: Duration = Duration::from_mins(15);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A file or directory that is removed on drop.
struct Temporary(PathBuf);

impl Temporary {
    /// Removes what a killed process left under this name.
    fn new(path: PathBuf) -> Self {
        remove(&path);
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Failures are ignored: the next attempt to create the file reports them.
fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

/// Installs the archive as the directory `into`, unless it exists. Its parent directory must exist.
pub(crate) async fn install(archive: &Archive, into: &Path, report: Report) -> Result<(), DownloadError> {
    let parent = into.parent().unwrap_or(into);
    let lock = take_lock(&parent.join("lock"), archive, report).await?;
    if into.exists() {
        return Ok(());
    }
    let file = Temporary::new(parent.join("archive.part"));
    let unpacked = Temporary::new(parent.join("unpacked.part"));
    fetch::fetch(archive, &file.0, Progress::new(report, archive, parent)).await?;

    let (archive, into) = (archive.clone(), into.to_owned());
    // The lock and the temporary files belong to the thread, which goes on if this future is dropped.
    let installing = tokio::task::spawn_blocking(move || {
        let _lock = lock;
        let root = archive::unpack(&file.0, &unpacked.0)?;
        fs::rename(&root, &into).map_err(|error| DownloadError::files("rename", &root, error))?;
        report.finished(&archive, &into);
        Ok(())
    });
    installing.await.unwrap_or_else(|error| Err(DownloadError::Archive { reason: error.to_string() }))
}

/// Waits until no other process downloads into the directory. The kernel releases the lock of a process that dies.
async fn take_lock(path: &Path, archive: &Archive, report: Report) -> Result<File, DownloadError> {
    let failed = |error| DownloadError::files("lock", path, error);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let (file, deadline) = (file.map_err(failed)?, Instant::now() + LOCK_LIMIT);
    let mut is_waiting = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(DownloadError::Busy { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut is_waiting, true) {
                    report.waiting(archive);
                }
                sleep(RETRY_INTERVAL).await;
            }
        }
    }
}
