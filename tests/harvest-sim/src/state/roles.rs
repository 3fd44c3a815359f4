//! Job roles. A user record contains the names of its roles. A role record does not contain its users. The records of
//! users keep their `updated_at`.

use super::company::Company;
use super::moment::{Moment, VisibleFrom};
use super::records::{RoleId, UserId};
use super::table::{Keyed, Table};
use crate::clock::Timestamp;

/// A job role.
#[derive(Clone)]
pub(crate) struct Role {
    pub id: RoleId,
    pub name: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Keyed for Role {
    fn key(&self) -> i64 {
        self.id.0
    }
}

impl Company {
    pub(crate) fn roles(&self) -> &Table<Role> {
        &self.roles
    }

    pub(crate) fn role(&self, id: RoleId) -> Option<&Role> {
        self.roles.get(id.0)
    }

    pub(crate) fn new_role(&mut self, name: &str, moment: Moment) -> RoleId {
        let (name, created_at, updated_at) = (name.to_owned(), moment.now, moment.now);
        RoleId(self.roles.add(VisibleFrom::Now, |key| Role { id: RoleId(key), name, created_at, updated_at }))
    }

    /// Creates a role for each name that no role has yet.
    pub(super) fn adopt_roles(&mut self, names: &[String], moment: Moment) {
        for name in names {
            if !self.roles.rows().iter().any(|role| role.name == *name) {
                self.new_role(name, moment);
            }
        }
    }

    /// Renames a role, also in the records of its users.
    pub(crate) fn rename_role(&mut self, id: RoleId, name: &str, moment: Moment) {
        let Some(old) = self.role(id).map(|role| role.name.clone()).filter(|old| old != name) else { return };
        self.roles.edit(id.0, VisibleFrom::Now, |role| {
            name.clone_into(&mut role.name);
            moment.touch(&mut role.updated_at);
        });
        self.edit_members(&old, moment, |roles| {
            for role in roles.iter_mut().filter(|role| **role == old) {
                name.clone_into(role);
            }
        });
    }

    /// Gives the role to exactly these users. The role's `updated_at` does not change (recorded).
    pub(crate) fn set_members(&mut self, id: RoleId, members: &[UserId], moment: Moment) {
        let Some(name) = self.role(id).map(|role| role.name.clone()) else { return };
        for key in self.users.keys(|user| user.roles.contains(&name) != members.contains(&user.id)) {
            self.edit_user(UserId(key), moment.keeping_updated_at(), |user| {
                let had = user.roles.len();
                user.roles.retain(|role| *role != name);
                if user.roles.len() == had {
                    user.roles.push(name.clone());
                }
            });
        }
    }

    /// Deletes a role and removes its name from all user records.
    pub(crate) fn delete_role(&mut self, id: RoleId, moment: Moment) {
        let Some(name) = self.role(id).map(|role| role.name.clone()) else { return };
        self.edit_members(&name, moment, |roles| roles.retain(|role| *role != name));
        self.roles.remove(id.0);
    }

    fn edit_members(&mut self, name: &str, moment: Moment, edit: impl Fn(&mut Vec<String>)) {
        for key in self.users.keys(|user| user.roles.iter().any(|role| role == name)) {
            self.edit_user(UserId(key), moment.keeping_updated_at(), |user| edit(&mut user.roles));
        }
    }
}
