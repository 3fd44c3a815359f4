//! Reads one user and their assignments again, for `rosterd sync --user`.

use super::absent_rates::{self, AbsentRatesFilter};
use super::cycle::Cycle;
use super::deletions::{self, Absent, TokenAccess};
use super::error::CycleError;
use super::mirror::{Mirror, PageRead, PostgresMirror};
use super::report::{CycleMode, CycleReport};
use super::{company, confirm, rates, read_list};
use crate::harvest::client::Lookup;
use crate::harvest::rate_limit::Priority;
use crate::roster::{AbsentRecord, AbsentState, HoldReason, Resource, User};

/// Reads the user with full authority. Also returns whether Harvest or the mirror knows the user.
pub async fn read(
    mut cycle: Cycle<'_, PostgresMirror<'_>>,
    id: i64,
    with_rates: bool,
) -> (CycleReport, bool) {
    let before = cycle.client.requests();
    let mut report = CycleReport::new(cycle.client.account(), CycleMode::Full, cycle.clock.now());
    let is_known = match Box::pin(read_user(&mut cycle, id, with_rates, &mut report)).await {
        Ok(is_known) => is_known,
        Err(error) => {
            report.outcome = Err(error);
            true
        }
    };
    rates::note(&cycle, &mut report, before).await;
    (report, is_known)
}

async fn read_user(
    cycle: &mut Cycle<'_, PostgresMirror<'_>>,
    id: i64,
    with_rates: bool,
    report: &mut CycleReport,
) -> Result<bool, CycleError> {
    let (store, again_after) = (cycle.mirror.store, cycle.mirror.again_after);
    let (client, account, priority) = (cycle.client, cycle.client.account(), Priority::Poll);
    cycle.memory.company_is_known = false;
    let known = cycle.mirror.account().await?;
    if company::is_other(cycle, &known, priority).await? {
        company::refuse_other(cycle, priority, report).await?;
    }
    let me = cycle.unless_stopped(client.me(priority)).await?;
    let mut absent = Absent::default();
    let page = match cycle.unless_stopped(client.user(id, priority)).await? {
        Lookup::Found(fetched) => PageRead::<User>::from(*fetched),
        Lookup::Unreadable(rejected) => PageRead::unreadable(rejected),
        Lookup::Gone(_) => {
            absent.users = store.candidates(account, Resource::Users, &[id], again_after).await?;
            PageRead::default()
        }
        Lookup::Unclear(error) => return Err(error.into()),
    };
    let exists = !page.records.is_empty() || !page.unreadable.is_empty();
    report.users.seen += u64::from(exists);
    let wrote = cycle.mirror.apply(page, None, report).await?;
    let listed = read_list::short_list(cycle, || client.assignments_of(id, priority), id, report).await?;
    report.assignments.seen += listed.ids.len() + listed.without_id.len() as u64;
    let mut unlisted = store.assignments_of(account, id).await?;
    unlisted.retain(|assignment| !listed.ids.contains(*assignment));
    absent.assignments = store.candidates(account, Resource::Assignments, &unlisted, again_after).await?;
    let is_known = wrote || exists || !absent.users.is_empty() || !absent.assignments.is_empty();
    // Deletions that the guard holds are released by `rosterd deletions accept` only.
    let is_open =
        |it: &AbsentRecord| !matches!(it.state, AbsentState::Held(HoldReason::Guard | HoldReason::EmptyList));
    absent.users.retain(is_open);
    absent.assignments.retain(is_open);
    // Earlier answers do not count: the administrator wants a current one.
    let not_gone = &mut cycle.memory.not_gone;
    not_gone.remove(&(Resource::Users, id));
    for assignment in &unlisted {
        not_gone.remove(&(Resource::Assignments, *assignment));
    }
    let token = TokenAccess { owner: me.id, sees_all: me.is_administrator() };
    let lists = [confirm::ListFacts::default(); 2];
    deletions::resolve(cycle, token, absent, lists, priority, report).await?;
    if with_rates && exists {
        rates::read_user(cycle, id, priority, report).await?;
        let filter = AbsentRatesFilter { user: Some(id), ..AbsentRatesFilter::default() };
        absent_rates::resolve(cycle, filter, priority, None, report).await?;
    }
    Ok(is_known)
}
