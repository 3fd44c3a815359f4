//! Reads job roles, which SCIM shows as groups, at the end of each cycle.
//!
//! One request a poll: Harvest does not filter roles by time, and a change of a role's users changes no `updated_at`, so the
//! list is the only place that shows the change before the next full read. A list without a role is not enough to delete the
//! role: rosterd requests it by id, and then the token's owner, because a token that lost rights could see fewer roles.

use std::collections::BTreeSet;
use std::mem;

use super::cycle::Cycle;
use super::error::CycleError;
use super::mirror::{Mirror, PageRead, RolesRead};
use super::report::CycleReport;
use crate::harvest::HarvestError;
use crate::harvest::client::Lookup;
use crate::harvest::rate_limit::Priority;
use crate::roster::{Role, User};

/// If more users gain or lose a role at once, a full read is cheaper than a request for each.
const MAX_USERS: usize = 20;

/// Reads the roles, and the users whose roles have changed.
pub(super) async fn read<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    report: &mut CycleReport,
) -> Result<(), CycleError> {
    let priority = Priority::Poll;
    let Some(known) = cycle.mirror.known_roles().await? else { return Ok(()) };
    let listed = cycle.unless_stopped(cycle.client.roles(priority)).await?;
    let unreadable_before = mem::replace(&mut cycle.memory.unreadable_roles, listed.unreadable);
    if listed.unreadable > 0 && unreadable_before == 0 {
        tracing::warn!(
            event = "roles.unreadable",
            account_id = report.account.0,
            roles = listed.unreadable,
            "rosterd cannot read some of Harvest's job roles, so SCIM does not show them as groups"
        );
    }
    let changed = listed.readable.iter().filter(|role| known.roles.get(&role.id) != Some(*role));
    let mut read = RolesRead { changed: changed.cloned().collect(), ..RolesRead::default() };
    let ids: BTreeSet<i64> = listed.readable.iter().map(|role| role.id).collect();
    for id in known.roles.keys().filter(|id| !ids.contains(*id)) {
        match cycle.unless_stopped(cycle.client.role(*id, priority)).await {
            Ok(None) => read.gone.push(*id),
            Ok(Some(role)) if known.roles.get(id) == Some(&role) => {}
            Ok(Some(role)) => read.changed.push(role),
            // rosterd cannot read it.
            Err(CycleError::Harvest(HarvestError::Protocol { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    if !read.gone.is_empty() && !cycle.unless_stopped(cycle.client.me(priority)).await?.is_administrator() {
        read.gone.clear();
    }
    if known.is_read && read.changed.is_empty() && read.gone.is_empty() {
        return Ok(());
    }
    // The first list changes no user.
    if known.is_read {
        let changed = read.changed.iter().map(|role| (known.roles.get(&role.id), Some(role)));
        let gone = read.gone.iter().map(|id| (known.roles.get(id), None));
        let affected =
            changed.chain(gone).flat_map(|(before, after)| Role::affected(before, after)).collect();
        // Before the roles are stored, because afterwards no list shows that the users were not read.
        read.needs_full_read = !read_users(cycle, &affected, priority, report).await?;
    }
    cycle.mirror.store_roles(&read, known.asked_at).await?;
    Ok(())
}

/// Reads users whose roles have changed, so that the mirror has the names of their roles, and each its event. Returns false
/// without reading any if they are many.
pub(crate) async fn read_users<M: Mirror>(
    cycle: &Cycle<'_, M>,
    ids: &BTreeSet<i64>,
    priority: Priority,
    report: &mut CycleReport,
) -> Result<bool, CycleError> {
    if ids.len() > MAX_USERS {
        return Ok(false);
    }
    for id in ids {
        // Only full reads and their lookups decide about deletions.
        if let Lookup::Found(user) = cycle.unless_stopped(cycle.client.user(*id, priority)).await? {
            cycle.mirror.apply(PageRead::<User>::from(*user), None, report).await?;
        }
    }
    Ok(true)
}
