//! A database query whose result concurrent and later requests share.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The query starts at most once in this time, however many requests arrive.
const MIN_INTERVAL: Duration = Duration::from_secs(2);

/// When the query started, and its result.
type Last<T> = (Instant, Shared<BoxFuture<'static, Option<T>>>);

pub(super) struct SharedQuery<T>(Mutex<Option<Last<T>>>);

impl<T> Default for SharedQuery<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> SharedQuery<T> {
    /// The result of the last query. If that query started two seconds ago or earlier, starts `query` and waits for its
    /// result. `None` if the query panicked. The query runs in its own task, so that a client that disconnects does not
    /// cancel it.
    pub(super) async fn get<F>(&self, query: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let shared = {
            let mut last = self.0.lock();
            match &*last {
                Some((started, shared)) if started.elapsed() < MIN_INTERVAL => shared.clone(),
                _ => {
                    let shared = tokio::spawn(query()).map(Result::ok).boxed().shared();
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
    async fn requests_within_two_seconds_share_one_query() {
        let (query, started) = (SharedQuery::default(), Arc::new(AtomicU32::new(0)));
        let get = || {
            query.get(|| {
                let nth = started.fetch_add(1, Ordering::SeqCst);
                async move {
                    sleep(Duration::from_secs(1)).await;
                    nth
                }
            })
        };
        // The first client disconnects before its query ends.
        assert!(timeout(Duration::from_millis(10), get()).await.is_err());
        assert_eq!(join_all((0..100).map(|_| get())).await, [Some(0); 100]);
        advance(Duration::from_millis(900)).await;
        assert_eq!((get().await, started.load(Ordering::SeqCst)), (Some(0), 1));
        advance(Duration::from_millis(200)).await;
        assert_eq!((get().await, started.load(Ordering::SeqCst)), (Some(1), 2));
    }
}
