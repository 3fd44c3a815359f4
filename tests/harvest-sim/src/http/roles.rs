//! JSON of job roles.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::state::{Company, Role, RoleId, User, UserId};

/// A role, with the keys as recorded in 2022.
#[derive(Serialize)]
pub(super) struct RoleView<'a> {
    id: RoleId,
    name: &'a str,
    created_at: Timestamp,
    updated_at: Timestamp,
    user_ids: Vec<UserId>,
}

pub(super) fn view(company: &Company, id: RoleId) -> Option<RoleView<'_>> {
    company.role(id).map(|role| of(company, role))
}

pub(super) fn of<'a>(company: &'a Company, role: &'a Role) -> RoleView<'a> {
    let members = company.users().rows().iter().filter(|user| user.roles.contains(&role.name));
    RoleView {
        id: role.id,
        name: &role.name,
        created_at: role.created_at,
        updated_at: role.updated_at,
        user_ids: members.map(User::id).collect(),
    }
}
