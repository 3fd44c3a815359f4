//! Decides on rates that their users' complete lists did not show: applies the guard over all users, and requests each rate by
//! id.
//!
//! The lists are read one after the other, over many polls in a large company. A gateway that answers with empty lists would
//! pass the guard user by user, so nothing is decided before all due lists were read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout_at};

use super::confirm::{self, ConfirmationRound, Confirmations};
use super::cycle::Cycle;
use super::deletions::{self, TokenAccess};
use super::error::CycleError;
use super::mirror::{DeletionResults, Mirror};
use super::report::CycleReport;
use super::wake::ReadUntil;
use crate::harvest::Decode;
use crate::harvest::client::Lookup;
use crate::harvest::rate_limit::Priority;
use crate::roster::{
    AbsentRecord, AbsentState, Action, BillableRate, CostRate, HoldReason, Observation, Resource,
};
use crate::store::MirrorTable;
use crate::store::rates::AbsentRates;

/// Rates, with two requests each at most, between two checks of the token.
const RATES_PER_CHECK: usize = 100;

/// How long rates are not read after Harvest repeatedly failed to answer.
pub(super) const RATES_PAUSE: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, Default)]
pub(super) struct AbsentRatesFilter {
    pub found_before: Option<DateTime<Utc>>,
    pub user: Option<i64>,
    /// Also held ones, whose number may no longer exceed the guard.
    pub held: bool,
}

/// Decides on absent rates found by earlier reads, for a plan that reads none itself.
pub async fn resolve_all<M: Mirror>(
    mut cycle: Cycle<'_, M>,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let priority = Priority::Background;
    resolve(&mut cycle, AbsentRatesFilter::default(), priority, None, report).await
}

pub(super) async fn resolve<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    filter: AbsentRatesFilter,
    priority: Priority,
    until: Option<ReadUntil<'_>>,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let mut absent = cycle.mirror.absent_rates(filter.found_before).await?;
    for absent in absent.values_mut() {
        absent.candidates.retain(|it| {
            filter.user.is_none_or(|user| it.user_id == Some(user))
                && (filter.held || !matches!(it.state, AbsentState::Held(_)))
        });
    }
    let mut of = |resource| absent.remove(&resource).unwrap_or_default();
    let (billable, cost) = (of(Resource::BillableRates), of(Resource::CostRates));
    resolve_kind::<_, BillableRate>(cycle, billable, priority, until, report).await?;
    resolve_kind::<_, CostRate>(cycle, cost, priority, until, report).await
}

pub(super) async fn resolve_kind<M: Mirror, R: Decode + MirrorTable>(
    cycle: &mut Cycle<'_, M>,
    absent: AbsentRates,
    priority: Priority,
    until: Option<ReadUntil<'_>>,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let AbsentRates { mut candidates, undecided, live } = absent;
    let not_gone = &cycle.memory.not_gone;
    candidates.retain(|it| it.state != AbsentState::Kept && !not_gone.contains(&(R::RESOURCE, it.id)));
    if cycle.rules.guard.holds(undecided, live) {
        let too_many: Vec<_> = candidates.extract_if(.., |it| it.state != AbsentState::Accepted).collect();
        let held = DeletionResults::held(&too_many, HoldReason::Guard);
        cycle.mirror.record_results::<R>(held, report).await?;
    }
    if candidates.is_empty() {
        return Ok(());
    }
    let now = deletions::harvest_now(cycle).await?;
    candidates.retain(|it| it.step(Observation::NotFound(now)) != Action::Wait);
    let Some(token) = TokenAccess::known(&cycle.mirror.account().await?) else { return Ok(()) };
    for candidates in candidates.chunks(RATES_PER_CHECK) {
        if !is_trusted::<_, R>(cycle, token, candidates, priority, report).await? {
            return Ok(());
        }
        let (mut round, mut users) = (ConfirmationRound::new(priority, now), HashMap::new());
        let (mut answers, mut in_time) = (Confirmations::default(), true);
        for candidate in candidates {
            if let Some(until) = until {
                in_time = has_time(cycle, until).await?;
            }
            if !in_time || round.is_unanswered() {
                break;
            }
            ask_for_rate::<_, R>(cycle, candidate, &mut users, &mut round, &mut answers).await?;
        }
        // Harvest also answers 404 to a token that may no longer see the user.
        if answers.results.rest_on_404()
            && !is_trusted::<_, R>(cycle, token, candidates, priority, report).await?
        {
            return Ok(());
        }
        deletions::record(cycle, answers, report).await?;
        if round.is_unanswered() {
            cycle.memory.rates_pause = Some(Instant::now() + RATES_PAUSE);
        }
        if round.is_unanswered() || !in_time {
            return Ok(());
        }
    }
    Ok(())
}

/// Requests one rate if Harvest shows its user. Without the user, whose deletion includes the rates, a 404 says nothing about
/// the rate. A rate without an answer is not requested again until a full read is due.
async fn ask_for_rate<M: Mirror, R: Decode + MirrorTable>(
    cycle: &mut Cycle<'_, M>,
    candidate: &AbsentRecord,
    users: &mut HashMap<i64, bool>,
    round: &mut ConfirmationRound,
    answers: &mut Confirmations<R>,
) -> Result<(), CycleError> {
    let (client, id, Some(user)) = (cycle.client, candidate.id, candidate.user_id) else { return Ok(()) };
    let is_shown = if let Some(is_shown) = users.get(&user) {
        *is_shown
    } else {
        let answer = round.answered(cycle.unless_stopped(client.user(user, round.priority)).await)?;
        let is_shown = matches!(answer, Some(Lookup::Found(_) | Lookup::Unreadable(_)));
        *users.entry(user).or_insert(is_shown)
    };
    if is_shown {
        let request = client.rate::<R>(user, id, round.priority);
        confirm::ask(cycle, candidate, request, round, answers).await?;
    }
    let DeletionResults { gone, first_404, .. } = &answers.results;
    if let Some(fetched) = answers.found.iter_mut().find(|fetched| fetched.id() == id) {
        // A rate read by id does not name its user.
        Arc::make_mut(&mut fetched.record).set_user(user);
    } else if !first_404.contains(&id) && !gone.iter().any(|(gone, _)| *gone == id) {
        cycle.memory.not_gone.insert((R::RESOURCE, id));
    }
    Ok(())
}

/// Whether the token has the same owner, who sees all users. If not, the deletions are held.
async fn is_trusted<M: Mirror, R: Decode + MirrorTable>(
    cycle: &Cycle<'_, M>,
    token: TokenAccess,
    candidates: &[AbsentRecord],
    priority: Priority,
    report: &mut CycleReport,
) -> Result<bool, CycleError> {
    let me = cycle.unless_stopped(cycle.client.me(priority)).await?;
    if token.sees_all_as(&me) {
        return Ok(true);
    }
    deletions::hold_invisible::<_, R>(cycle, candidates, report).await?;
    token.ensure_rights_kept(&me, cycle.client.account())?;
    Ok(false)
}

/// Waits for permits for two requests. Returns false if the next poll or a notification comes first.
pub(super) async fn has_time<M: Mirror>(
    cycle: &Cycle<'_, M>,
    until: ReadUntil<'_>,
) -> Result<bool, CycleError> {
    let capacity = async {
        cycle.client.wait_for_capacity(Priority::Background, 2).await;
        Ok(())
    };
    tokio::select! {
        capacity = timeout_at(until.end(), cycle.unless_stopped(capacity)) => match capacity {
            Ok(capacity) => capacity.map(|()| true),
            Err(_) => Ok(false),
        },
        () = until.wake.notified() => {
            // The worker waits for the notification too.
            until.wake.notify();
            Ok(false)
        }
    }
}
