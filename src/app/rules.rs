//! The rules of sync cycles, from the settings.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Notify, OnceCell};

use super::context::App;
use crate::daemon::schedule::Interval;
use crate::harvest::Client;
use crate::harvest::transport::WriteAccess;
use crate::provision::WriteSender;
use crate::roster::write_policy::WriteMode;
use crate::settings::{PollInterval, Scope, Settings};
use crate::sync::concerns::Limits;
use crate::sync::cycle::SyncRules;

impl App {
    /// Time after which a second 404 of a recently created record confirms its deletion.
    pub(crate) fn again_after(&self) -> TimeDelta {
        delta(self.settings.sync.poll_interval.slowest)
    }

    /// How long a cycle may go without progress. Each statement and each request has a shorter timeout.
    pub(super) fn stall_limit(&self) -> Duration {
        (self.settings.database.statement_timeout + self.settings.harvest.request_timeout) * 3
    }

    pub(crate) fn concern_limits(&self) -> Limits {
        Limits {
            poll_interval: self.settings.sync.poll_interval.slowest,
            retention: self.settings.outbox.retention,
            accounts: self.settings.accounts().iter().map(|account| account.id).collect(),
        }
    }

    /// The poll interval of one of `accounts` accounts that share a request budget.
    pub(super) fn interval(&self, accounts: u32) -> Interval {
        let Settings { sync, rate_limit, .. } = &self.settings;
        let PollInterval { quickest, slowest } = sync.poll_interval;
        Interval::within(quickest, slowest, rate_limit.requests, rate_limit.window, accounts)
    }

    /// Sends the writes of an account. `None` if `write.mode` is `"off"`.
    pub(crate) fn write_sender(&self, client: &Client, wake: Arc<Notify>) -> Option<Arc<WriteSender>> {
        let rules = self.settings.write.rules.clone();
        if rules.mode == WriteMode::Off {
            return None;
        }
        // The only place that grants the right to send anything but GET.
        let writer = (rules.mode == WriteMode::On).then(|| client.writer(WriteAccess::granted()));
        Some(Arc::new(WriteSender {
            store: self.store.clone(),
            client: client.clone(),
            writer,
            clock: self.clock.clone(),
            rules,
            guard_window: self.settings.write.guard_window,
            sync: self.rules(),
            again_after: self.again_after(),
            wake,
            owner: OnceCell::new(),
        }))
    }

    pub(crate) fn rules(&self) -> SyncRules {
        SyncRules {
            skew_buffer: delta(self.settings.sync.skew_buffer),
            full_interval: delta(self.settings.sync.full_interval),
            count_probe: self.settings.sync.count_probe,
            with_roles: self.settings.scim.with_roles,
            guard: self.settings.sync.deletion_guard,
            alone: self.settings.accounts().len() == 1 || self.settings.rate_limit.scope == Scope::Token,
        }
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
