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
use crate::roster::DeletionGuard;
use crate::roster::write_policy::{WriteMode, WriteRules};
use crate::settings::{self, PollInterval, Scope, Settings};
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

    pub(crate) fn write_rules(&self) -> WriteRules {
        let write = &self.settings.write;
        WriteRules {
            mode: match write.mode {
                settings::WriteMode::Off => WriteMode::Off,
                settings::WriteMode::Dry => WriteMode::Dry,
                settings::WriteMode::On => WriteMode::On,
            },
            allow: write.allow.clone(),
            protected: write.protected.clone(),
            guard: DeletionGuard { fraction: write.guard.fraction, at_least: write.guard.at_least },
            with_pay_data: self.settings.rates.mirror,
        }
    }

    /// Sends the writes of an account. `None` if `write.mode` is `"off"`.
    pub(crate) fn write_sender(&self, client: &Client, wake: Arc<Notify>) -> Option<Arc<WriteSender>> {
        let rules = self.write_rules();
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
            guard: DeletionGuard {
                fraction: self.settings.sync.deletion_guard.fraction,
                at_least: self.settings.sync.deletion_guard.at_least,
            },
            alone: self.settings.accounts().len() == 1 || self.settings.rate_limit.scope == Scope::Token,
        }
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::roster::write::{Write, WriteFields, WriteKind};
    use crate::roster::write_policy::{Verdict, WriteFacts};
    use crate::roster::{ChangeKind, Resource};
    use crate::settings::PERMISSIONS;
    use crate::settings::glob::EVENT_TYPES;

    #[test]
    fn settings_know_every_type_of_event() {
        let archival = [ChangeKind::Deactivated, ChangeKind::Reactivated];
        let all = [ChangeKind::Created, ChangeKind::Updated, archival[0], archival[1], ChangeKind::Deleted];
        let types = Resource::ALL.into_iter().flat_map(|resource| {
            let is_rate = Resource::RATES.contains(&resource);
            let kinds = all.into_iter().filter(move |kind| !is_rate || !archival.contains(kind));
            kinds.map(move |kind| format!("{}.{}", resource.aggregate(), kind.name()))
        });
        assert_eq!(EVENT_TYPES.to_vec(), types.collect::<Vec<_>>());
    }

    #[test]
    fn settings_know_exactly_the_permissions_that_writes_need() {
        let write = |kind, fields| {
            Write::of_user(kind, Some(5), WriteFields::parse(kind, fields).expect("valid fields"))
        };
        let mut writes: Vec<_> =
            WriteKind::ALL.map(|kind| Write::of_user(kind, None, WriteFields::default())).into();
        writes.push(write(WriteKind::UserUpdate, json!({"access_roles": ["manager"]})));
        writes.push(write(WriteKind::AssignmentUpdate, json!({"hourly_rate": 1})));
        let facts = WriteFacts {
            user: None,
            owners: [Some(1); 2],
            active_users: 40,
            recent_losses: 0,
            is_deliberate: true,
        };
        let is_refused_without = |permission: &str| {
            let rules = WriteRules {
                mode: WriteMode::On,
                allow: PERMISSIONS.into_iter().filter(|it| *it != permission).map(str::to_owned).collect(),
                protected: BTreeSet::new(),
                guard: DeletionGuard { fraction: 1.0, at_least: 9 },
                with_pay_data: true,
            };
            writes.iter().any(|write| rules.decide(write, &facts) != Verdict::Allow)
        };
        assert!(!is_refused_without("nothing"));
        for permission in PERMISSIONS {
            assert!(is_refused_without(permission), "{permission}");
        }
    }
}
