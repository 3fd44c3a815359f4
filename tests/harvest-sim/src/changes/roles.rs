//! Changes of job roles. A user's `updated_at` changes only with [`Options::roles_touch_users`](crate::Options).

use crate::sim::Sim;
use crate::state::{RoleId, User, UserId};

impl Sim {
    /// Creates a role with these users.
    pub fn create_role(&self, name: &str, users: &[UserId]) -> RoleId {
        self.change(|company, moment, options| {
            let id = company.new_role(name, moment);
            company.set_members(id, users, moment.keeping_updated_at_unless(options.roles_touch_users));
            id
        })
    }

    /// Gives the role to exactly these users.
    pub fn set_role_users(&self, role: RoleId, users: &[UserId]) {
        self.change(|company, moment, options| {
            company.set_members(role, users, moment.keeping_updated_at_unless(options.roles_touch_users));
        });
    }

    /// Deletes a role.
    pub fn delete_role(&self, role: RoleId) {
        self.change(|company, moment, options| {
            company.delete_role(role, moment.keeping_updated_at_unless(options.roles_touch_users));
        });
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
