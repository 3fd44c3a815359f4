//! Reads everything and compares it with the mirror, for `rosterd verify`.

use chrono::TimeDelta;

use super::absent_rates;
use super::cycle::Cycle;
use super::error::CycleError;
use super::mirror::verify::{Verify, undecided};
use super::rates;
use super::report::{CycleMode, CycleReport};
use crate::harvest::Decode;
use crate::harvest::rate_limit::Priority;
use crate::roster::{BillableRate, CostRate, IdSet, Resource};
use crate::store::MirrorTable;
use crate::store::rates::{AbsentRates, RateIds};
use crate::store::state::AccountState;

/// Compares both lists; with `with_rates`, also each user's rates, with two requests per user.
pub async fn verify(mut cycle: Cycle<'_, Verify<'_>>, known: AccountState, with_rates: bool) -> CycleReport {
    let mut report = cycle.run(CycleMode::Full, known).await;
    if report.outcome.is_ok() {
        cycle.mirror.report_unconfirmed();
        if with_rates {
            report.outcome = compare_rates(&mut cycle, &mut report).await;
        }
    }
    report
}

async fn compare_rates(
    cycle: &mut Cycle<'_, Verify<'_>>,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let Verify { store, account, .. } = *cycle.mirror;
    let priority = Priority::Background;
    let users = store.unseen_ids(account, Resource::Users, &IdSet::default()).await?;
    let all = users.len() as u64;
    let (mut absent_billable, mut absent_cost) = (Vec::new(), Vec::new());
    for (user, done) in users.into_iter().zip(1..) {
        let RateIds { billable, cost } = store.rates_of(account, &[user]).await?;
        let billable = rates::read_kind::<_, BillableRate>(cycle, user, billable, priority, report).await?;
        absent_billable.extend(billable);
        absent_cost.extend(rates::read_kind::<_, CostRate>(cycle, user, cost, priority, report).await?);
        (cycle.progress)(Resource::BillableRates, done, Some(all));
    }
    compare_absent::<BillableRate>(cycle, &absent_billable, priority, report).await?;
    compare_absent::<CostRate>(cycle, &absent_cost, priority, report).await?;
    cycle.mirror.report_unconfirmed();
    Ok(())
}

/// Reports rates that no list shows.
async fn compare_absent<R: Decode + MirrorTable>(
    cycle: &mut Cycle<'_, Verify<'_>>,
    ids: &[i64],
    priority: Priority,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let (mirror, resource) = (cycle.mirror, R::RESOURCE);
    let candidates = mirror.store.candidates(mirror.account, resource, ids, TimeDelta::zero()).await?;
    mirror.unconfirmed.lock().extend(candidates.iter().map(|it| (resource, it.id)));
    let candidates = undecided(candidates);
    let live = mirror.store.live_rates(mirror.account, resource).await?;
    let absent = AbsentRates { undecided: candidates.len(), candidates, live };
    absent_rates::resolve_kind::<_, R>(cycle, absent, priority, None, report).await
}
