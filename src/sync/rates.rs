//! Reads the billable and cost rates of users, with two requests per user.
//!
//! A rate does not change its user's `updated_at`. A user's rates are due when the user is new or changed, and after each full
//! read. Rates that their user's list does not show are recorded as absent; `absent_rates.rs` decides on them after all due
//! lists were read.

use tokio::time::Instant;

use super::absent_rates::{self, AbsentRatesFilter, RATES_PAUSE, has_time};
use super::cycle::Cycle;
use super::error::CycleError;
use super::mirror::{DeletionResults, Mirror, PostgresMirror};
use super::read_list;
use super::report::{CycleMode, CycleReport};
use super::wake::ReadUntil;
use crate::harvest::rate_limit::Priority;
use crate::harvest::{Decode, HarvestError};
use crate::roster::{BillableRate, CostRate, Resource};
use crate::store::MirrorTable;
use crate::store::rates::RateIds;

/// Due users read from the database at once.
const USERS_PER_QUERY: i64 = 100;
/// After this many consecutive users whose rates could not be read, reading pauses.
const MAX_UNANSWERED: u32 = 3;

/// Reads the due rates, one user after the other. At the time limit, the current user is read to the end.
pub async fn read_due(mut cycle: Cycle<'_, PostgresMirror<'_>>, until: Option<ReadUntil<'_>>) -> CycleReport {
    let before = cycle.client.requests();
    let mut report = CycleReport::new(cycle.client.account(), CycleMode::Full, cycle.clock.now());
    let is_paused = cycle.memory.rates_pause.is_some_and(|pause| Instant::now() < pause);
    if !cycle.memory.rates_refused && !is_paused {
        report.outcome = read_due_users(&mut cycle, until, &mut report).await;
    }
    // A token that may read users but not rates is no failure of the mirror.
    if let Err(CycleError::Harvest(error @ HarvestError::Forbidden { .. })) = &report.outcome {
        cycle.memory.rates_refused = true;
        tracing::warn!(
            account_id = cycle.client.account().0,
            error = %error,
            "rates are not read until the next full read"
        );
        report.outcome = Ok(());
    }
    note(&cycle, &mut report, before).await;
    report
}

async fn read_due_users(
    cycle: &mut Cycle<'_, PostgresMirror<'_>>,
    until: Option<ReadUntil<'_>>,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let (store, account) = (cycle.mirror.store, cycle.client.account());
    let priority = Priority::Background;
    let (mut done, mut unanswered, mut refused) = (0, 0, Vec::new());
    loop {
        let unread: Vec<i64> = cycle.memory.rates_unread.iter().chain(&refused).copied().collect();
        let due = store.rates_due(account, &unread, USERS_PER_QUERY).await?;
        // Before all lists that are due are complete, it is unknown whether too many rates are absent.
        let filter = AbsentRatesFilter {
            found_before: due.oldest_read,
            held: done > 0,
            ..AbsentRatesFilter::default()
        };
        absent_rates::resolve(cycle, filter, priority, until, report).await?;
        if due.users.is_empty() {
            return Ok(());
        }
        let all = done + due.all;
        for user in due.users {
            if let Some(until) = until
                && !has_time(cycle, until).await?
            {
                return Ok(());
            }
            let refused_before = report.rates.refused;
            match read_user(cycle, user, priority, report).await {
                // Records that PostgreSQL refused are read again after the next poll.
                Ok(()) if report.rates.refused > refused_before => refused.push(user),
                Ok(()) => {
                    unanswered = 0;
                    store.record_rates_read(account, user, due.as_of).await?;
                }
                Err(error) if !error.is_unanswered() => return Err(error),
                // One failure does not hold up the other users. After several consecutive failures Harvest is unavailable.
                Err(error) if unanswered + 1 >= MAX_UNANSWERED => {
                    cycle.memory.rates_unread.clear();
                    cycle.memory.rates_pause = Some(Instant::now() + RATES_PAUSE);
                    return Err(error);
                }
                Err(error) => {
                    unanswered += 1;
                    cycle.memory.rates_unread.insert(user);
                    tracing::warn!(
                        account_id = account.0,
                        user_id = user,
                        error = %crate::telemetry::chain(&error),
                        "this user's rates cannot be read; trying again after the next full read"
                    );
                }
            }
            done += 1;
            (cycle.progress)(Resource::BillableRates, done, Some(all));
        }
    }
}

pub(super) async fn read_user(
    cycle: &Cycle<'_, PostgresMirror<'_>>,
    user: i64,
    priority: Priority,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let known = cycle.mirror.store.rates_of(cycle.client.account(), &[user]).await?;
    let RateIds { billable, cost } = known;
    let absent = |first_404| DeletionResults { first_404, ..DeletionResults::default() };
    let billable = read_kind::<_, BillableRate>(cycle, user, billable, priority, report).await?;
    cycle.mirror.record_results::<BillableRate>(absent(billable), report).await?;
    let cost = read_kind::<_, CostRate>(cycle, user, cost, priority, report).await?;
    cycle.mirror.record_results::<CostRate>(absent(cost), report).await?;
    Ok(())
}

/// Reads one kind of rates of one user. Returns the live rates of the mirror (`known`) that the list does not show.
pub(super) async fn read_kind<M: Mirror, R: Decode + MirrorTable>(
    cycle: &Cycle<'_, M>,
    user: i64,
    mut known: Vec<i64>,
    priority: Priority,
    report: &mut CycleReport,
) -> Result<Vec<i64>, CycleError> {
    let client = cycle.client;
    let pages = || client.rates_of::<R>(user, priority);
    let listed = match read_list::short_list(cycle, pages, user, report).await {
        Ok(listed) => listed,
        // The user was deleted a moment ago, which the lists of users will show.
        Err(CycleError::Harvest(HarvestError::UnknownAccount { .. })) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    known.retain(|id| !listed.ids.contains(*id));
    // A record without an id may be any of them.
    Ok(if listed.without_id.is_empty() { known } else { Vec::new() })
}

/// Ends a read that is not a cycle of the lists: it gets a row if it wrote something, and does not change the freshness.
pub(super) async fn note(
    cycle: &Cycle<'_, PostgresMirror<'_>>,
    report: &mut CycleReport,
    requests_before: u64,
) {
    report.requests = cycle.client.requests() - requests_before;
    report.finished_at = Some(cycle.clock.now());
    if !report.wrote() && report.held() == 0 {
        return;
    }
    let write = async {
        let mut tx = cycle.mirror.store.begin(&cycle.mirror.fence).await?;
        tx.record_cycle(&report.row()).await?;
        tx.commit().await
    };
    if let Err(error) = write.await
        && report.outcome.is_ok()
    {
        report.outcome = Err(error.into());
    }
}
