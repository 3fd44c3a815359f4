//! Whether the work for an account makes progress: whether statements finish and responses arrive.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The end of a statement, a response from Harvest, and a wait that another timeout ends count as progress. Clones
/// share their state.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    last: Instant,
    /// Current waits that another timeout ends.
    waits: u32,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { last: Instant::now(), waits: 0 })))
    }
}

impl Progress {
    pub fn made(&self) {
        self.with(|state| state.last = Instant::now());
    }

    /// Runs a wait that has its own timeout, such as for a permit or for the end of a back-off. It does not count as a
    /// stall.
    pub async fn waits_for<T>(&self, wait: impl Future<Output = T>) -> T {
        let _wait = Wait::begin(self);
        wait.await
    }

    /// Ends when there was no progress for `limit`.
    pub async fn stalled(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let deadline = self.with(|state| if state.waits > 0 { now } else { state.last } + limit);
            if deadline <= now {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        action(&mut self.0.lock())
    }
}

/// Ends the wait, also if the waiting future is dropped.
struct Wait<'p>(&'p Progress);

impl<'p> Wait<'p> {
    fn begin(progress: &'p Progress) -> Self {
        progress.with(|state| state.waits += 1);
        Self(progress)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.with(|state| {
            state.waits = state.waits.saturating_sub(1);
            state.last = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_mins(3);

    #[tokio::test(start_paused = true)]
    async fn work_without_progress_stalls_at_the_limit() {
        let (progress, began) = (Progress::default(), Instant::now());
        progress.stalled(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_defers_the_stall() {
        let progress = Progress::default();
        let work = async {
            for _ in 0..10 {
                sleep(LIMIT / 2).await;
                progress.made();
            }
        };
        tokio::select! {
            () = work => {}
            () = progress.stalled(LIMIT) => panic!("there was progress"),
        }
        let began = Instant::now();
        progress.stalled(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_with_their_own_timeout_do_not_stall() {
        let progress = Progress::default();
        let wait = progress.waits_for(sleep(LIMIT * 5));
        tokio::select! {
            () = wait => {}
            () = progress.stalled(LIMIT) => panic!("the wait has its own timeout"),
        }
        let timed_out = timeout(LIMIT, progress.waits_for(std::future::pending::<()>())).await;
        assert!(timed_out.is_err());
        let began = Instant::now();
        progress.stalled(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT, "a dropped wait no longer counts");
    }
}
