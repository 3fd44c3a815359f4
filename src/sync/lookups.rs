//! Looks up users whom new assignments name and the mirror does not have, so that the outbox has users before their
//! assignments.

use super::cycle::{Cycle, Lookups};
use super::error::CycleError;
use super::mirror::{Mirror, PageRead};
use super::report::CycleReport;
use crate::harvest::client::Lookup;
use crate::harvest::rate_limit::Priority;
use crate::roster::User;

/// A cycle looks up at most this many users, with one request each.
const MAX_LOOKUPS: u32 = 200;

/// If Harvest does not show a user, or too many are new, the assignment is stored without the user. The list of users will
/// have the user later.
pub(super) async fn look_up_users<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    new: Vec<i64>,
    priority: Priority,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    for id in new {
        let lookups = &mut cycle.memory.lookups;
        if lookups.made >= MAX_LOOKUPS || lookups.failed {
            lookups.not_found += 1;
            continue;
        }
        lookups.made += 1;
        let page = match cycle.unless_stopped(cycle.client.user(id, priority)).await {
            Ok(Lookup::Found(fetched)) => PageRead::<User>::from(*fetched),
            Ok(Lookup::Unreadable(rejected)) => PageRead::unreadable(rejected),
            Ok(Lookup::Gone(_) | Lookup::Unclear(_)) => PageRead::default(),
            // A failed lookup does not hold up the page. Further lookups would fail for the same reason.
            Err(error) if error.is_unanswered() => {
                cycle.memory.lookups.failed = true;
                PageRead::default()
            }
            Err(error) => return Err(error),
        };
        if page.records.is_empty() {
            cycle.memory.lookups.not_found += 1;
        } else {
            cycle.memory.looked_up_users.push(id);
        }
        cycle.mirror.apply(page, None, report).await?;
    }
    Ok(())
}

/// Logs the number of users not found, at the end of a cycle.
pub(super) fn log_users_not_found<M>(cycle: &Cycle<'_, M>, report: &CycleReport) {
    let Lookups { made, not_found, .. } = cycle.memory.lookups;
    if not_found > 0 {
        tracing::warn!(
            account_id = cycle.client.account().0,
            cycle_id = %report.id,
            users = not_found,
            "new assignments name {not_found} users whom Harvest does not show ({made} were looked up by id); the \
             assignments are mirrored, and the users will be once Harvest lists them"
        );
    }
}
