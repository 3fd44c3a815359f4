//! Runs one cycle.
//!
//! An incremental cycle reads Harvest's totals and what changed since the watermark. If a total differs from the expected one,
//! or a clock moved, it turns into a full cycle. A full cycle reads everything, replaces newer rows too, and decides on absent
//! records. A cycle can be dropped at any point: no page is half-written, and records read again compare equal.

use chrono::TimeDelta;

use super::count_check;
use super::cycle::{Cycle, Lookups};
use super::deletions::{self, TokenAccess};
use super::error::{CycleError, FullReadReason};
use super::mirror::Mirror;
use super::report::{CycleMode, CycleReport};
use super::{company, lookups, read_list, roles};
use crate::harvest::client::TokenOwner;
use crate::roster::{Assignment, Resource, User};
use crate::store::state::{AccountState, AccountUpdate, Owner};

impl<M: Mirror> Cycle<'_, M> {
    /// Runs the cycle from the account's known state. A failure is in the report.
    pub async fn run(&mut self, mode: CycleMode, known: AccountState) -> CycleReport {
        let before = self.client.requests();
        let mut report = CycleReport::new(self.client.account(), mode, self.clock.now());
        let mut end = AccountUpdate::default();
        self.memory.lookups = Lookups::default();
        self.memory.company_is_known = false;
        report.outcome = Box::pin(self.read(&known, &mut report, &mut end)).await;
        lookups::log_users_not_found(self, &report);
        report.requests = self.client.requests() - before;
        report.finished_at = Some(self.clock.now());
        if let Err(error) = self.mirror.finish(&report, end).await
            && report.outcome.is_ok()
        {
            report.outcome = Err(error.into());
        }
        report
    }

    async fn read(
        &mut self,
        known: &AccountState,
        report: &mut CycleReport,
        end: &mut AccountUpdate,
    ) -> Result<(), CycleError> {
        let read = self.read_due_lists(known, report, end).await;
        // Once the token sees the right lists again, everything must be read.
        if matches!(read, Err(CycleError::LostAdministrator { .. } | CycleError::OtherCompany { .. })) {
            end.next_full_at = Some(report.started_at);
        }
        read?;
        if self.rules.with_roles { roles::read(self, report).await } else { Ok(()) }
    }

    async fn read_due_lists(
        &mut self,
        known: &AccountState,
        report: &mut CycleReport,
        end: &mut AccountUpdate,
    ) -> Result<(), CycleError> {
        if report.mode == CycleMode::Incremental {
            let Some(reason) = self.incremental(known, report).await? else { return Ok(()) };
            tracing::info!(
                account_id = self.client.account().0,
                cycle_id = %report.id,
                "reading everything: {reason}"
            );
            report.mode = CycleMode::Full;
        } else {
            self.memory.ask_again();
        }
        self.full(known, report, end).await
    }

    /// Reads what changed. Returns the reason if a full read is necessary.
    async fn incremental(
        &mut self,
        known: &AccountState,
        report: &mut CycleReport,
    ) -> Result<Option<FullReadReason>, CycleError> {
        let priority = read_list::priority(report.mode, known, self.rules);
        // Before anything is read: if the token lost rights, a total is smaller, and nothing may be stored.
        let totals = count_check::totals(self, priority).await?;
        if let Some(reason) = count_check::rows_vanished(self, known, &totals).await? {
            return Ok(Some(reason));
        }
        if let Err(reason) = read_list::list::<_, User>(self, known, true, report).await? {
            return Ok(Some(reason));
        }
        if let Err(reason) = read_list::list::<_, Assignment>(self, known, true, report).await? {
            return Ok(Some(reason));
        }
        let reason = count_check::counts_differ(self, known, totals, priority).await?;
        // A full read shows restored and refused records by itself. Otherwise rosterd requests the first by id and stores the
        // second again.
        if reason.is_none() {
            deletions::resolve_pending(self, known, priority, report).await?;
            let with_pay = self.client.with_pay_data();
            if known.list(Resource::Users).has_refused {
                self.mirror.retry_refused::<User>(with_pay, report).await?;
            }
            if known.list(Resource::Assignments).has_refused {
                self.mirror.retry_refused::<Assignment>(with_pay, report).await?;
            }
        }
        Ok(reason)
    }

    /// Reads everything, and decides on records that the lists do not show.
    async fn full(
        &mut self,
        known: &AccountState,
        report: &mut CycleReport,
        end: &mut AccountUpdate,
    ) -> Result<(), CycleError> {
        self.memory.looked_up_users.clear();
        let priority = read_list::priority(report.mode, known, self.rules);
        let me = self.unless_stopped(self.client.me(priority)).await?;
        let lost_rights = known.is_administrator() && !me.is_administrator();
        let company = company::read(self, priority).await?;
        if company.differs(&known.company) {
            company::refuse_other(self, priority, report).await?;
        }
        // A full read has no filter and knows the company, so it never returns a reason.
        let mut users =
            read_list::list::<_, User>(self, known, !lost_rights, report).await?.unwrap_or_default();
        let assignments =
            read_list::list::<_, Assignment>(self, known, !lost_rights, report).await?.unwrap_or_default();
        // Users created during the read, whom their assignments named.
        for id in self.memory.looked_up_users.drain(..) {
            users.total = users.total.map(|total| total + u64::from(users.ids.insert(id)));
        }
        // The token's owner when the mirror was last known to be complete.
        let owner = known.owner.as_ref().map_or(me.id, |owner| owner.id);
        let token = TokenAccess { owner, sees_all: me.is_administrator() };
        let all_asked = deletions::reconcile(self, token, [&users, &assignments], priority, report).await?;
        if lost_rights {
            return Err(CycleError::LostAdministrator { account: self.client.account(), user: me.id });
        }
        if assignments.is_empty() && self.has_rows(Resource::Assignments).await? {
            return Err(CycleError::EmptyAssignmentList);
        }
        let lists = [(Resource::Users, &users), (Resource::Assignments, &assignments)];
        count_check::note_unexplained(self, known, lists, all_asked).await?;
        // If the token has a new owner, absent records were only held: the next cycle decides on them.
        let rest = if owner == me.id { self.rules.full_interval } else { TimeDelta::zero() };
        let TokenOwner { id, access_roles } = me;
        *end = AccountUpdate {
            owner: Some(Owner { id, access_roles }),
            company,
            full: true,
            next_full_at: Some(self.clock.now() + rest),
            error: None,
        };
        Ok(())
    }
}
