//! Gate, trust, share and window together: whether a request may leave now. Plain values, no waiting.

use std::time::Duration;

use tokio::time::Instant;

use super::gate::Gate;
use super::share::Share;
use super::window::Window;
use super::{Lane, Limits, Throttle};

/// What a pace wants of its keeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Requests wait for permits that this process does not hold.
    pub permits: bool,
    /// Until when Harvest wants silence, where the other processes have not been told.
    pub pause: Option<Instant>,
}

pub(super) struct State {
    limits: Limits,
    window: Window,
    gate: Gate,
    share: Share,
    /// Permits of the budget that this process holds.
    held: u32,
    /// Until when they may be used; none where no budget can take them away.
    trusted_until: Option<Instant>,
    closed: bool,
    hungry: bool,
    /// When the keeper was last rung for permits.
    asked: Option<Instant>,
    /// The fewest idle permits since the last review.
    idle: u32,
}

impl State {
    pub(super) fn new(limits: Limits, jitter: Duration, now: Instant) -> Self {
        Self {
            limits,
            window: Window::new(limits.cooldown(), limits.grace),
            gate: Gate::new(jitter),
            share: Share::new(limits.permits()),
            held: 0,
            trusted_until: Some(now),
            closed: false,
            hungry: false,
            asked: None,
            idle: 0,
        }
    }

    pub(super) fn local(limits: Limits) -> Self {
        let held = limits.permits();
        Self { held, trusted_until: None, ..Self::new(limits, Duration::ZERO, Instant::now()) }
    }

    /// Grants one request, or says when to look again (sooner, if something changes). The flag beside it:
    /// ring the keeper.
    pub(super) fn grant(&mut self, now: Instant, lane: Lane) -> (Result<(), Instant>, bool) {
        let looked = self.room(now, lane, 1);
        if looked.0.is_ok() && self.window.take(now, lane, self.held) {
            self.idle = self.idle.min(self.held.saturating_sub(self.window.used(now)));
        }
        looked
    }

    /// Whether so many requests would be granted, likewise; grants none.
    pub(super) fn room(&mut self, now: Instant, lane: Lane, requests: u32) -> (Result<(), Instant>, bool) {
        if let Some(opens) = self.gate.closed_until(now) {
            return (Err(opens), false);
        }
        let later = now + self.patience();
        if self.closed || self.trusted_until.is_some_and(|until| now >= until) {
            return (Err(later), false);
        }
        let usable = self.share.usable(now);
        if self.window.has_room(now, lane, self.held.min(usable), requests) {
            return (Ok(()), false);
        }
        self.idle = 0;
        // With none to be had the keeper is asked again after a while, and not by every slot that frees.
        let ring = self.held < usable && self.asked.is_none_or(|at| now >= at + self.patience());
        if ring {
            self.hungry = true;
            self.asked = Some(now);
        }
        (Err(self.window.next_free().map_or(later, |at| at.min(later))), ring)
    }

    pub(super) fn answered(&mut self, lane: Lane, now: Instant) {
        self.window.answered(now, lane);
    }

    pub(super) fn abandoned(&mut self, lane: Lane, now: Instant) {
        self.window.abandoned(now, lane);
    }

    /// A response to a request granted at `granted` asks for silence. Returns the pause if it is news.
    pub(super) fn throttled(
        &mut self,
        throttle: Throttle,
        retry_after: Option<Duration>,
        granted: Instant,
        now: Instant,
    ) -> Option<Duration> {
        match throttle {
            Throttle::TooMany => self.share.refused(granted, now),
            Throttle::Unavailable => {}
        }
        self.gate.close(now, retry_after.unwrap_or(self.limits.window))
    }

    pub(super) fn add(&mut self, permits: u32) {
        self.held += permits;
        self.asked = None;
    }

    pub(super) fn withdraw(&mut self, permits: u32, now: Instant) -> bool {
        let idle = self.window.used(now) + permits <= self.held;
        if idle {
            self.held -= permits;
        }
        idle
    }

    pub(super) fn is_within(&mut self, now: Instant) -> bool {
        self.window.used(now) <= self.held
    }

    pub(super) fn lose(&mut self, permits: u32) {
        self.held = self.held.saturating_sub(permits);
    }

    pub(super) fn trust_until(&mut self, until: Instant) {
        self.trusted_until = self.trusted_until.max(Some(until));
    }

    pub(super) fn pause_until(&mut self, until: Instant) {
        self.gate.extend(until);
    }

    pub(super) fn pause_recorded(&mut self, until: Instant) {
        self.gate.recorded(until);
    }

    pub(super) fn needs(&mut self) -> Needs {
        Needs { permits: std::mem::take(&mut self.hungry), pause: self.gate.unrecorded() }
    }

    /// Permits that stayed idle since the last review; none when a request had to wait for one.
    pub(super) fn surplus(&mut self, now: Instant) -> u32 {
        let idle = self.held.saturating_sub(self.window.used(now));
        std::mem::replace(&mut self.idle, idle).min(idle)
    }

    pub(super) fn close(&mut self, now: Instant) -> Duration {
        self.closed = true;
        self.window.busy_for(now)
    }

    /// A waiting request looks again after this long, whether or not it was told of a change.
    fn patience(&self) -> Duration {
        self.limits.window / 15
    }
}
