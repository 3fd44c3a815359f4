//! The queue of lines for stderr. A thread of its own writes them, so that a full pipe or a stopped terminal blocks no
//! other thread.
//!
//! The queue is bounded. If it is full, a line is dropped and counted, and the number is logged as soon as lines are
//! written again.

use std::{
    io::{self, Write},
    mem,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

/// So many lines wait at the most: hours of a daemon's log at `info`, and about 2 MiB.
const LINES: usize = 4096;
/// How long the process waits before it exits for the lines that are left to be written.
const LIMIT: Duration = Duration::from_secs(1);
/// How often a process that exits tries to say how many lines were dropped, while the queue is full.
const AGAIN: Duration = Duration::from_millis(10);

static QUEUE: OnceLock<Queue> = OnceLock::new();

struct Queue {
    writer: NonBlocking,
    /// `None` once the process has flushed the queue for the last time.
    guard: Mutex<Option<WorkerGuard>>,
    /// Lines that stderr refused, such as on a full disk.
    refused: AtomicUsize,
    /// How many of the lines that were dropped or refused have been logged, and notices that were dropped themselves.
    reported: Mutex<usize>,
}

impl Queue {
    fn start() -> Self {
        let builder =
            NonBlockingBuilder::default().buffered_lines_limit(LINES).lossy(true).thread_name("stderr");
        let (writer, guard) = builder.finish(Stderr { works: false });
        let (refused, reported) = (AtomicUsize::new(0), Mutex::new(0));
        Self { writer, guard: Mutex::new(Some(guard)), refused, reported }
    }

    fn lost(&self) -> usize {
        self.writer.error_counter().dropped_lines().saturating_add(self.refused.load(Ordering::Relaxed))
    }

    /// Logs how many lines were lost since the last report; false if the queue had no room for that line either.
    fn report(&self) -> bool {
        let mut reported = lock(&self.reported);
        let lost = self.lost();
        let lines = lost.saturating_sub(*reported);
        if lines == 0 {
            return true;
        }
        tracing::warn!(
            event = "log.dropped",
            lines,
            "{lines} log lines were dropped: stderr did not take them, or not quickly enough"
        );
        let is_queued = self.lost() == lost;
        *reported = if is_queued { lost } else { *reported + 1 };
        is_queued
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the queue's thread writes to.
struct Stderr {
    /// Whether the last line was written: only then is there a reader for a report.
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

    /// The queue's thread calls this whenever it has written all lines that waited.
    fn flush(&mut self) -> io::Result<()> {
        if self.works
            && let Some(queue) = QUEUE.get()
        {
            queue.report();
        }
        Ok(())
    }
}

/// Writes to stderr through the queue. Each call of `write` must be given whole lines. Never blocks.
pub fn stderr() -> NonBlocking {
    QUEUE.get_or_init(Queue::start).writer.clone()
}

/// How many lines were lost since the process started.
pub(super) fn lost() -> usize {
    QUEUE.get().map_or(0, Queue::lost)
}

/// Waits until all lines are written, but no longer than `limit`. What is logged afterwards is lost.
pub fn flush(limit: Duration) {
    let give_up = Instant::now() + limit;
    let Some(queue) = QUEUE.get() else { return };
    let Some(guard) = lock(&queue.guard).take() else { return };
    while !queue.report() {
        if Instant::now() >= give_up {
            // On a full queue the guard would write a complaint to stdout.
            mem::forget(guard);
            return;
        }
        thread::sleep(AGAIN);
    }
    // The guard itself waits for up to 1.1 s.
    let (sender, flushed) = mpsc::channel::<()>();
    let flushing = thread::Builder::new().spawn(move || {
        drop(guard);
        drop(sender);
    });
    if flushing.is_ok() {
        let _ = flushed.recv_timeout(give_up.saturating_duration_since(Instant::now()));
    }
}

/// [Flushes](flush) when it is dropped, also by a panic.
#[derive(Debug, Default)]
pub struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush(LIMIT);
    }
}
