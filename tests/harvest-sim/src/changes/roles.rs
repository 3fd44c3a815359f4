//! Changes of job roles. A user's `updated_at` does not change.

use crate::sim::Sim;
use crate::state::{RoleId, User, UserId};

impl Sim {
    /// Creates a role with these users.
    pub fn create_role(&self, name: &str, users: &[UserId]) -> RoleId {
        self.change(|company, moment| {
            let id = company.new_role(name, moment);
            company.set_members(id, users, moment);
            id
        })
    }

    /// Gives the role to exactly these users.
    pub fn set_role_users(&self, role: RoleId, users: &[UserId]) {
        self.change(|company, moment| company.set_members(role, users, moment));
    }

    /// Deletes a role.
    pub fn delete_role(&self, role: RoleId) {
        self.change(|company, moment| company.delete_role(role, moment));
    }

    /// The users who have a role with this name; `None` if there is none.
    pub fn users_of_role(&self, name: &str) -> Option<Vec<UserId>> {
        self.read(|company, _| {
            company.roles().rows().iter().find(|role| role.name == name)?;
            let has = |user: &&User| user.roles.iter().any(|role| role == name);
            let mut users: Vec<UserId> = company.users().rows().iter().filter(has).map(User::id).collect();
            users.sort_unstable();
            Some(users)
        })
    }
}
