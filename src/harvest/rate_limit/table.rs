//! The permits of a budget that are in use: a table in the database (`daemon::limiter`), or in memory.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::roster::permits::{PermitRequest, Taken};

pub(crate) trait PermitTable: Send + Sync {
    /// Takes as many permits as are requested and free; `None` without an answer.
    fn take<'a>(&'a self, request: &'a PermitRequest) -> BoxFuture<'a, Option<Taken>>;
}

/// A table for one process, with the rules of `store::permits`: when each permit in use becomes free, and whether it is
/// for long reads.
#[derive(Default)]
pub(super) struct LocalTable(Mutex<Vec<(Uuid, Instant, bool)>>);

impl LocalTable {
    pub(super) fn take_now(&self, request: &PermitRequest, now: Instant) -> Taken {
        let mut rows = self.0.lock();
        let PermitRequest { ids, returned, .. } = request;
        for (id, free_in) in returned.answered.iter().zip(&returned.free_in) {
            let free_at = now + Duration::try_from_secs_f64(*free_in).unwrap_or_default();
            rows.iter_mut().filter(|row| row.0 == *id).for_each(|row| row.1 = free_at);
        }
        rows.retain(|(id, free_at, _)| *free_at > now && !returned.unused.contains(id));
        let free = |most: u32, used: usize| usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(used);
        let mut permits = free(request.of, rows.len()).min(ids.len());
        if let Some(most) = request.background.filter(|_| request.polls_soon) {
            permits = permits.min(free(most, rows.iter().filter(|row| row.2).count()));
        }
        let next_free = rows.iter().map(|row| row.1 - now).min();
        let taken = ids.iter().take(permits);
        rows.extend(taken.map(|id| (*id, now + request.hold, request.background.is_some())));
        Taken { permits, pause: Duration::ZERO, next_free }
    }
}

impl PermitTable for LocalTable {
    fn take<'a>(&'a self, request: &'a PermitRequest) -> BoxFuture<'a, Option<Taken>> {
        ready(Some(self.take_now(request, Instant::now()))).boxed()
    }
}
