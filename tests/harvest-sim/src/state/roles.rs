//! Job roles: names by which reports are filtered. A person's record has the names, so they say who has which.

use super::company::Company;
use super::moment::{Moment, Shows};
use super::records::{RoleId, UserId};
use super::table::{Keyed, Table};
use crate::clock::Stamp;

/// A job role.
#[derive(Clone)]
pub(crate) struct Role {
    pub id: RoleId,
    pub name: String,
    pub created_at: Stamp,
    pub updated_at: Stamp,
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
        RoleId(self.roles.add(Shows::AtOnce, |key| Role { id: RoleId(key), name, created_at, updated_at }))
    }

    /// A name that no role has makes a role.
    pub(super) fn adopt_roles(&mut self, names: &[String], moment: Moment) {
        for name in names {
            if !self.roles.rows().iter().any(|role| role.name == *name) {
                self.new_role(name, moment);
            }
        }
    }

    /// Another name, also in the records of those who have the role.
    pub(crate) fn rename_role(&mut self, id: RoleId, name: &str, moment: Moment, person: Moment) {
        let Some(old) = self.role(id).map(|role| role.name.clone()).filter(|old| old != name) else { return };
        self.roles.edit(id.0, Shows::AtOnce, |role| {
            name.clone_into(&mut role.name);
            moment.touch(&mut role.updated_at);
        });
        self.edit_members(&old, person, |roles| {
            for role in roles.iter_mut().filter(|role| **role == old) {
                name.clone_into(role);
            }
        });
    }

    /// Exactly these people have the role. The role's own `updated_at` stays, as was recorded.
    pub(crate) fn set_members(&mut self, id: RoleId, people: &[UserId], person: Moment) {
        let Some(name) = self.role(id).map(|role| role.name.clone()) else { return };
        for key in self.users.keys(|user| user.roles.contains(&name) != people.contains(&user.id)) {
            self.edit_user(UserId(key), person, |user| {
                let had = user.roles.len();
                user.roles.retain(|role| *role != name);
                if user.roles.len() == had {
                    user.roles.push(name.clone());
                }
            });
        }
    }

    /// Takes the role from everybody who has it.
    pub(crate) fn delete_role(&mut self, id: RoleId, person: Moment) {
        let Some(name) = self.role(id).map(|role| role.name.clone()) else { return };
        self.edit_members(&name, person, |roles| roles.retain(|role| *role != name));
        self.roles.remove(id.0);
    }

    fn edit_members(&mut self, name: &str, person: Moment, edit: impl Fn(&mut Vec<String>)) {
        for key in self.users.keys(|user| user.roles.iter().any(|role| role == name)) {
            self.edit_user(UserId(key), person, |user| edit(&mut user.roles));
        }
    }
}
