//! Compares Harvest's totals with the mirror's row counts.
//!
//! Harvest has no record of deletions, but it reports the number of rows of a list. With one request per list, a difference is
//! found within a poll instead of within hours.

use std::collections::HashMap;

use super::cycle::Cycle;
use super::error::{CycleError, FullReadReason};
use super::mirror::{ListContents, Mirror};
use crate::harvest::rate_limit::Priority;
use crate::roster::Resource;
use crate::store::StoreError;
use crate::store::row_counts::RowCounts;
use crate::store::state::AccountState;

/// Each list's total, if Harvest reports it.
pub(super) type Totals = HashMap<Resource, u64>;

/// Requests each list's total. A list that does not answer is left out: reading it will fail for the same reason. Without a
/// token no request succeeds.
pub(super) async fn totals<M: Mirror>(
    cycle: &Cycle<'_, M>,
    priority: Priority,
) -> Result<Totals, CycleError> {
    let mut totals = Totals::new();
    if cycle.rules.count_probe {
        for resource in Resource::LISTS {
            totals.extend(total(cycle, resource, priority).await?.map(|total| (resource, total)));
        }
    }
    Ok(totals)
}

async fn total<M: Mirror>(
    cycle: &Cycle<'_, M>,
    resource: Resource,
    priority: Priority,
) -> Result<Option<u64>, CycleError> {
    match cycle.unless_stopped(cycle.client.total(resource, priority)).await {
        Err(CycleError::Harvest(error)) if !error.is_without_token() => {
            tracing::debug!(
                account_id = cycle.client.account().0,
                error = %crate::telemetry::chain(&error),
                "no total of {}", resource.name()
            );
            Ok(None)
        }
        total => total,
    }
}

/// Whether rows vanished. Before the changes are read, new rows can only have increased a total. If the token's owner is not
/// an administrator, totals are smaller for other reasons.
pub(super) async fn rows_vanished<M: Mirror>(
    cycle: &Cycle<'_, M>,
    known: &AccountState,
    totals: &Totals,
) -> Result<Option<FullReadReason>, StoreError> {
    if totals.is_empty() || !known.is_administrator() {
        return Ok(None);
    }
    let counts = cycle.mirror.row_counts().await?;
    // A list without any row fails each cycle, even if its deletions are held.
    let is_empty = |resource: &Resource| {
        totals.get(resource) == Some(&0) && counts.get(resource).is_some_and(RowCounts::has_some)
    };
    if let Some(resource) = Resource::LISTS.into_iter().find(is_empty) {
        return Ok(Some(FullReadReason::Empty { resource }));
    }
    Ok(differences(known, &counts, totals).find(|(_, total, expected)| total < expected).map(reason))
}

/// Whether totals differ from the expected ones after the changes were read. Rows may have changed since the totals were
/// requested, so a total that differs is requested once more.
pub(super) async fn counts_differ<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    known: &AccountState,
    mut totals: Totals,
    priority: Priority,
) -> Result<Option<FullReadReason>, CycleError> {
    if totals.is_empty() {
        return Ok(None);
    }
    let counts = cycle.mirror.row_counts().await?;
    for (resource, reported) in &mut totals {
        if *reported != expected(&counts, *resource)
            && let Some(total) = total(cycle, *resource, priority).await?
        {
            *reported = total;
        }
        // Later changes explain the difference: absent records are listed again, and may be deleted later.
        if *reported == expected(&counts, *resource) && known.list(*resource).unexplained.is_some() {
            cycle.memory.not_gone.retain(|(list, _)| list != resource);
            cycle.mirror.set_unexplained(*resource, None).await?;
        }
    }
    let sees_all = known.is_administrator();
    let mut differences = differences(known, &counts, &totals);
    Ok(differences.find(|(_, total, expected)| sees_all || total > expected).map(reason))
}

/// After a full read: a total that still differs is logged once, and starts no other full read until it changes. Without
/// `all_asked` some absent records were not requested, so the difference may have an explanation.
pub(super) async fn note_unexplained<M: Mirror>(
    cycle: &Cycle<'_, M>,
    known: &AccountState,
    lists: [(Resource, &ListContents); 2],
    all_asked: bool,
) -> Result<(), StoreError> {
    // Before the count: rejected records that were not listed no longer exist.
    for (resource, listed) in lists {
        cycle.mirror.forget_absent_rejections(resource, listed).await?;
    }
    let counts = cycle.mirror.row_counts().await?;
    for (resource, listed) in lists {
        let before = known.list(resource).unexplained;
        let expected = expected(&counts, resource);
        let now = match listed.total {
            Some(total) if total != expected && all_asked => Some((total, expected)),
            Some(_) => None,
            // The list changed during pagination, or reports no total.
            None => before,
        };
        if let Some((total, expected)) = now.filter(|_| now != before) {
            tracing::warn!(
                event = "drift.found",
                account_id = cycle.client.account().0,
                resource = resource.name(),
                total,
                expected,
                "Harvest reports {total} {}, but {expected} are expected, and a full read does not explain the difference",
                resource.name()
            );
        }
        cycle.mirror.set_unexplained(resource, now).await?;
    }
    Ok(())
}

fn expected(counts: &HashMap<Resource, RowCounts>, resource: Resource) -> u64 {
    counts.get(&resource).map_or(0, RowCounts::expected)
}

/// Totals that differ from the expected ones, except those that a full read did not explain either.
fn differences<'a>(
    known: &'a AccountState,
    counts: &'a HashMap<Resource, RowCounts>,
    totals: &'a Totals,
) -> impl Iterator<Item = (Resource, u64, u64)> + use<'a> {
    Resource::LISTS
        .into_iter()
        .filter_map(|resource| Some((resource, *totals.get(&resource)?, expected(counts, resource))))
        .filter(|(resource, total, expected)| {
            total != expected && known.list(*resource).unexplained != Some((*total, *expected))
        })
}

fn reason((resource, total, expected): (Resource, u64, u64)) -> FullReadReason {
    FullReadReason::Count { resource, total, expected }
}
