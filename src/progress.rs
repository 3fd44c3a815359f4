//! Whether the work for an account gets on: whether statements finish and responses arrive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Counts as progress: the end of a statement, a response from Harvest, and a wait that another timeout ends. Clones are
/// the same one.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    last: Instant,
    /// Waits under way that another timeout ends.
    waits: u32,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { last: Instant::now(), waits: 0 })))
    }
}

impl Progress {
    /// Records progress now.
    pub fn made(&self) {
        self.with(|state| state.last = Instant::now());
    }

    /// Waits for something that has its own timeout, such as a permit or the end of a back-off: this is no stall.
    pub async fn waits_for<T>(&self, wait: impl Future<Output = T>) -> T {
        let _wait = Wait::begin(self);
        wait.await
    }

    /// Ends when there was no progress for this long.
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

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ends the wait also when the future that waits is dropped.
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
    async fn waits_with_their_own_timeout_are_no_stall() {
        let progress = Progress::default();
        let wait = progress.waits_for(sleep(LIMIT * 5));
        tokio::select! {
            () = wait => {}
            () = progress.stalled(LIMIT) => panic!("the wait has its own timeout"),
        }
        let given_up = timeout(LIMIT, progress.waits_for(std::future::pending::<()>())).await;
        assert!(given_up.is_err());
        let began = Instant::now();
        progress.stalled(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT, "a wait that was dropped counts no more");
    }
}
