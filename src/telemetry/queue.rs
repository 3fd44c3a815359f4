//! The queue of lines for stderr. One thread writes them, so that a full pipe or a stopped terminal blocks no other
//! thread.
//!
//! The queue is bounded. If it is full, a line is dropped and counted. The number is logged as soon as lines are
//! written again.

use std::{
    io::{self, Write},
    mem,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Length of the queue: hours of a daemon's log at `info`, and about 2 MiB.
const QUEUE_LINES: usize = 4096;
/// How long a process that exits waits until the last lines are written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a process that exits tries to report dropped lines while the queue is full.
const REPORT_RETRY_INTERVAL: Duration = Duration::from_millis(10);

static QUEUE: OnceLock<Queue> = OnceLock::new();

struct Queue {
    writer: NonBlocking,
    /// `None` once the process has flushed the queue for the last time.
    guard: Mutex<Option<WorkerGuard>>,
    /// Lines that could not be written, for example because the disk is full.
    refused: AtomicUsize,
    /// How many lost lines the log has reported, including reports that were lost themselves.
    reported: Mutex<usize>,
}

impl Queue {
    fn start() -> Self {
        let builder =
            NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES).lossy(true).thread_name("stderr");
        let (writer, guard) = builder.finish(Stderr { works: false });
        let (refused, reported) = (AtomicUsize::new(0), Mutex::new(0));
        Self { writer, guard: Mutex::new(Some(guard)), refused, reported }
    }

    fn lost(&self) -> usize {
        self.writer.error_counter().dropped_lines().saturating_add(self.refused.load(Ordering::Relaxed))
    }

    /// Logs how many lines were lost since the last report. Returns false if the queue is too full for the report.
    fn report(&self) -> bool {
        let mut reported = self.reported.lock();
        let lost = self.lost();
        let lines = lost.saturating_sub(*reported);
        if lines == 0 {
            return true;
        }
        tracing::warn!(
            event = "log.dropped",
            lines,
            "{lines} log lines were dropped because writing to stderr failed or was too slow"
        );
        let is_queued = self.lost() == lost;
        *reported = if is_queued { lost } else { *reported + 1 };
        is_queued
    }
}

/// The writer of the queue's thread.
struct Stderr {
    /// Whether the last write succeeded. If it failed, a report would be lost too.
    works: bool,
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.works = io::stderr().write_all(line).is_ok();
        if !self.works
            && let Some(queue) = QUEUE.get()
        {
            queue.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    /// The queue's thread calls this when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        if self.works
            && let Some(queue) = QUEUE.get()
        {
            queue.report();
        }
        Ok(())
    }
}

/// Writes to stderr through the queue and never blocks. Each call of `write` must contain whole lines.
pub(crate) fn stderr() -> NonBlocking {
    QUEUE.get_or_init(Queue::start).writer.clone()
}

/// The number of lines lost since the process started.
pub(super) fn lost() -> usize {
    QUEUE.get().map_or(0, Queue::lost)
}

/// Waits until all lines are written, but no longer than `limit`. Lines that are logged later are lost.
pub(crate) fn flush(limit: Duration) {
    let deadline = Instant::now() + limit;
    let Some(queue) = QUEUE.get() else { return };
    let Some(guard) = queue.guard.lock().take() else { return };
    while !queue.report() {
        if Instant::now() >= deadline {
            // If the queue is full, dropping the guard prints an error to stdout.
            mem::forget(guard);
            return;
        }
        thread::sleep(REPORT_RETRY_INTERVAL);
    }
    // Dropping the guard takes up to 1.1 s.
    let (sender, flushed) = mpsc::channel::<()>();
    let flushing = thread::Builder::new().spawn(move || {
        drop(guard);
        drop(sender);
    });
    if flushing.is_ok() {
        let _ = flushed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// [Flushes](flush) the log when it is dropped, also during a panic.
#[derive(Debug, Default)]
pub(crate) struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush(FLUSH_TIMEOUT);
    }
}
