//! Decides whether a request may be sent now: back-off and permits together. Plain values; the callers wait.

use std::collections::VecDeque;
use std::mem::take;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::backoff::Backoff;
use super::limits::{Priority, RateLimits};
use crate::roster::permits::{PermitRequest, Returned, Taken};

/// Permits taken at once: as many as an idle poll has requests.
const PERMITS_AT_ONCE: u32 = 4;

pub(super) enum Wait {
    Until(Instant),
    /// Permits must be taken first.
    Take(Box<PermitRequest>),
}

pub(super) struct State {
    pub(super) limits: RateLimits,
    pub(super) backoff: Backoff,
    /// By priority: permits that no request has used yet, and until when one may use them; the oldest first.
    unused: [VecDeque<(Uuid, Instant)>; 3],
    /// Permits whose requests were answered, and when.
    answered: Vec<(Uuid, Instant)>,
    expired: Vec<Uuid>,
    /// When the next poll is due; `None` if no poll can be waiting.
    pub(super) next_poll: Option<Instant>,
    pub(super) closed: bool,
}

impl State {
    pub(super) fn new(limits: RateLimits, jitter: Duration, now: Instant) -> Self {
        let backoff = Backoff::new(limits.permits(), jitter);
        let (unused, answered, expired) = Default::default();
        Self { limits, backoff, unused, answered, expired, next_poll: Some(now), closed: false }
    }

    pub(super) fn grant(&mut self, now: Instant, priority: Priority) -> Result<Uuid, Wait> {
        self.check(now, priority, 1)?;
        let granted = self.unused[priority as usize].pop_front();
        granted.map(|(id, _)| id).ok_or(Wait::Until(now))
    }

    /// Whether so many requests could be sent. More than a priority may ever send count as that.
    pub(super) fn check(&mut self, now: Instant, priority: Priority, requests: u32) -> Result<(), Wait> {
        if let Some(end) = self.backoff.pause_end(now) {
            return Err(Wait::Until(end));
        }
        if self.closed {
            return Err(Wait::Until(now + self.limits.retry_interval()));
        }
        self.expire(now);
        let of = self.backoff.usable(now);
        let background = match priority {
            Priority::Poll => None,
            Priority::Background => Some((of - of.div_ceil(3)).max(1)),
            Priority::Write => Some(of.saturating_sub(PERMITS_AT_ONCE).max(1)),
        };
        let unused = u32::try_from(self.unused[priority as usize].len()).unwrap_or(u32::MAX);
        let missing = requests.min(background.unwrap_or(of)).saturating_sub(unused);
        if missing == 0 {
            return Ok(());
        }
        let at_once = missing.max(PERMITS_AT_ONCE.min(self.limits.burst()));
        let ids = (0..at_once).map(|_| Uuid::new_v4()).collect();
        let polls_soon = self.next_poll.is_some_and(|at| at <= now + self.limits.window);
        let (hold, returned) = (self.limits.hold(), self.take_returned(now));
        Err(Wait::Take(Box::new(PermitRequest { ids, of, background, polls_soon, hold, returned })))
    }

    /// Adds permits that were requested at `asked`. Returns until when to wait.
    pub(super) fn add(
        &mut self,
        priority: Priority,
        asked: Instant,
        ids: Vec<Uuid>,
        taken: Option<Taken>,
    ) -> Instant {
        let (now, retry_interval) = (Instant::now(), self.limits.retry_interval());
        let Some(Taken { permits, pause, next_free }) = taken else { return now + retry_interval };
        // Not from the answer on, because the table began to count earlier.
        let until = asked + self.limits.use_within();
        self.unused[priority as usize].extend(ids.into_iter().take(permits).map(|id| (id, until)));
        if !pause.is_zero() {
            self.backoff.pause_until(now + pause);
        }
        let retry_in = next_free.unwrap_or_default().clamp(Duration::from_millis(1), retry_interval);
        if permits > 0 { now } else { now + retry_in }
    }

    pub(super) fn answered(&mut self, id: Uuid) {
        self.answered.push((id, Instant::now()));
    }

    /// The permits that this process does not need any more.
    pub(super) fn take_returned(&mut self, now: Instant) -> Returned {
        self.expire(now);
        let free_in = |at: Instant| self.limits.cooldown().as_secs_f64() - (now - at).as_secs_f64();
        let (answered, free_in) =
            take(&mut self.answered).into_iter().map(|(id, at)| (id, free_in(at))).unzip();
        Returned { answered, free_in, unused: take(&mut self.expired) }
    }

    /// Removes the permits whose time to be used has passed.
    fn expire(&mut self, now: Instant) {
        for unused in &mut self.unused {
            while let Some((id, _)) = unused.pop_front_if(|(_, until)| self.closed || *until <= now) {
                self.expired.push(id);
            }
        }
    }
}
