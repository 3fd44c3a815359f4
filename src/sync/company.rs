//! Checks which company an account shows.
//!
//! A deletion can be held for review, a creation cannot: consumers create accounts for new users. If the account shows another
//! company and most users are absent, no record is stored, and the deletions of the absent users are held.

use std::collections::HashSet;

use super::cycle::Cycle;
use super::error::CycleError;
use super::mirror::{DeletionResults, ListContents, Mirror};
use super::report::CycleReport;
use crate::harvest::rate_limit::Priority;
use crate::roster::{AbsentState, Company, HoldReason, Resource, User};
use crate::store::state::AccountState;

/// The company, as far as the token may see it. Only administrators may; a failure to read the company is ignored.
pub(super) async fn read<M: Mirror>(cycle: &Cycle<'_, M>, priority: Priority) -> Result<Company, CycleError> {
    match cycle.unless_stopped(cycle.client.company(priority)).await {
        Err(CycleError::Harvest(_)) => Ok(Company::default()),
        answered => answered,
    }
}

/// Whether the account shows another company than at the last full read. Requested once per cycle, before new users are
/// stored.
pub(crate) async fn is_other<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    known: &AccountState,
    priority: Priority,
) -> Result<bool, CycleError> {
    if cycle.memory.company_is_known || known.company == Company::default() {
        return Ok(false);
    }
    let differs = read(cycle, priority).await?.differs(&known.company);
    cycle.memory.company_is_known = !differs;
    Ok(differs)
}

/// Reads the users without storing them, when the company has another name or address than before. If most users of the mirror
/// are absent, it is another company and their deletions are held. Otherwise the company was renamed.
///
/// # Errors
/// [`CycleError::OtherCompany`].
pub(super) async fn refuse_other<M: Mirror>(
    cycle: &Cycle<'_, M>,
    priority: Priority,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let mut pages = cycle.client.list::<User>(None, priority);
    while cycle.unless_stopped(pages.next()).await?.is_some() {}
    let (ids, total) = pages.into_seen();
    let listed = ListContents { ids, without_id: HashSet::new(), total };
    let mut absent = cycle.mirror.absent_records(Resource::Users, &listed).await?;
    absent.retain(|it| !matches!(it.state, AbsentState::Accepted | AbsentState::Kept));
    let live = cycle.mirror.row_counts().await?.get(&Resource::Users).map_or(0, |counts| counts.live);
    if absent.len() as u64 * 2 <= live {
        return Ok(());
    }
    cycle.mirror.record_results::<User>(DeletionResults::held(&absent, HoldReason::Guard), report).await?;
    Err(CycleError::OtherCompany { account: cycle.client.account(), absent: absent.len(), live })
}
