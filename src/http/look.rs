//! A look at the database that all callers share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// A look is begun at most this often, however many ask.
const EVERY: Duration = Duration::from_secs(2);

/// When a look began, and its result once there is one.
type Last<T> = (Instant, Shared<BoxFuture<'static, Option<T>>>);

/// The last look, for all callers.
pub(super) struct Look<T>(Mutex<Option<Last<T>>>);

impl<T> Default for Look<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Look<T> {
    /// The result of the last look, or of this one if the last began two seconds ago or earlier; `None` if it panicked. The
    /// look is a task of its own: a caller that disconnects ends no look, so that the next caller begins no other.
    pub async fn share<F>(&self, look: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let shared = {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some((begun, shared)) if begun.elapsed() < EVERY => shared.clone(),
                _ => {
                    let shared = tokio::spawn(look()).map(Result::ok).boxed().shared();
                    *last = Some((Instant::now(), shared.clone()));
                    shared
                }
            }
        };
        shared.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;
    use tokio::time::{advance, sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn callers_within_two_seconds_share_one_look() {
        let (look, begun) = (Look::default(), Arc::new(AtomicU32::new(0)));
        let ask = || {
            look.share(|| {
                let nth = begun.fetch_add(1, Ordering::SeqCst);
                async move {
                    sleep(Duration::from_secs(1)).await;
                    nth
                }
            })
        };
        // The first caller disconnects before its look has ended.
        assert!(timeout(Duration::from_millis(10), ask()).await.is_err());
        assert_eq!(join_all((0..100).map(|_| ask())).await, [Some(0); 100]);
        advance(Duration::from_millis(900)).await;
        assert_eq!((ask().await, begun.load(Ordering::SeqCst)), (Some(0), 1));
        advance(Duration::from_millis(200)).await;
        assert_eq!((ask().await, begun.load(Ordering::SeqCst)), (Some(1), 2));
    }
}
