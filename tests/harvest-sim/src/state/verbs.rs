//! How a company changes. Each verb takes the second in which it happens.
//!
//! An id that is not there is a mistake of the test that uses it, so it panics and says which.

use std::fmt;

use serde_json::Map;

use super::company::Company;
use super::records::{Assignment, AssignmentId, Project, ProjectId, User, UserId};
use crate::clock::Stamp;

/// Whether a change moves the record's `updated_at`: some changes in Harvest do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    At(Stamp),
    Silently,
}

impl Touch {
    /// `At(now)` when the switch is on.
    pub fn when(switch: bool, now: Stamp) -> Self {
        if switch { Self::At(now) } else { Self::Silently }
    }
}

impl Company {
    pub(crate) fn hire(&mut self, first: &str, last: &str, now: Stamp) -> UserId {
        let id = self.users.add(|key| User {
            id: UserId(key),
            first_name: first.to_owned(),
            last_name: last.to_owned(),
            email: address(first, last),
            telephone: String::new(),
            timezone: "Eastern Time (US & Canada)".to_owned(),
            weekly_capacity: 126_000,
            has_access_to_all_future_projects: false,
            is_contractor: false,
            is_active: true,
            calendar_integration_source: None,
            default_hourly_rate: None,
            cost_rate: None,
            roles: Vec::new(),
            access_roles: vec!["member".to_owned()],
            avatar_url: format!("https://avatars.example.com/{key}.png"),
            extra: Map::new(),
            created_at: now,
            updated_at: now,
        });
        UserId(id)
    }

    pub(crate) fn edit_user(&mut self, id: UserId, touch: Touch, edit: impl FnOnce(&mut User)) {
        let user = known(self.users.get_mut(id.0), "person", id);
        edit(user);
        if let Touch::At(now) = touch {
            user.updated_at = now;
        }
    }

    /// `administrator`, `manager` and `member` replace what was held; any other access role belongs to a
    /// manager and is added.
    pub(crate) fn promote(&mut self, id: UserId, access_role: &str, now: Stamp) {
        self.edit_user(id, Touch::At(now), |user| match access_role {
            "administrator" | "manager" | "member" => user.access_roles = vec![access_role.to_owned()],
            _ => {
                if !user.has_access("manager") {
                    user.access_roles = vec!["manager".to_owned()];
                }
                if !user.has_access(access_role) {
                    user.access_roles.push(access_role.to_owned());
                }
            }
        });
    }

    /// Archives a person, and with them their active assignments.
    pub(crate) fn deactivate(&mut self, id: UserId, now: Stamp, assignments: Touch) {
        self.edit_user(id, Touch::At(now), |user| user.is_active = false);
        for held in self.assignments.rows_mut() {
            if held.user == id && held.is_active {
                held.is_active = false;
                if let Touch::At(now) = assignments {
                    held.updated_at = now;
                }
            }
        }
    }

    /// Removes a person and their assignments, and leaves no trace.
    pub(crate) fn delete_user(&mut self, id: UserId) {
        known(self.users.remove(id.0).then_some(()), "person", id);
        self.assignments.retain(|held| held.user != id);
        self.teammates.remove(&id);
        for teammates in self.teammates.values_mut() {
            teammates.remove(&id);
        }
    }

    pub(crate) fn set_teammates(&mut self, manager: UserId, teammates: impl IntoIterator<Item = UserId>) {
        self.teammates.insert(manager, teammates.into_iter().collect());
    }

    /// Makes the token's owner a manager who sees every second person: the demotion that does not show.
    pub(crate) fn demote_token(&mut self, now: Stamp) {
        let owner = self.token_owner();
        self.promote(owner, "manager", now);
        let others: Vec<UserId> =
            self.users.rows().iter().map(User::id).filter(|&id| id != owner).step_by(2).collect();
        self.set_teammates(owner, others);
    }

    pub(crate) fn new_project(&mut self, name: &str, code: Option<&str>, now: Stamp) -> ProjectId {
        let id = self.projects.add(|key| Project {
            id: ProjectId(key),
            name: name.to_owned(),
            code: code.map(str::to_owned),
            is_active: true,
            is_billable: true,
            client_id: 10_748_671,
            client_name: "Example Client".to_owned(),
            created_at: now,
            updated_at: now,
        });
        ProjectId(id)
    }

    pub(crate) fn edit_project(&mut self, id: ProjectId, now: Stamp, edit: impl FnOnce(&mut Project)) {
        let project = known(self.projects.get_mut(id.0), "project", id);
        edit(project);
        project.updated_at = now;
    }

    /// Puts a person on a project; managers and administrators lead it by default.
    pub(crate) fn assign(&mut self, user: UserId, project: ProjectId, now: Stamp) -> AssignmentId {
        known(self.project(project), "project", project);
        let leads = !known(self.user(user), "person", user).has_access("member");
        let id = self.assignments.add(|key| Assignment {
            id: AssignmentId(key),
            user,
            project,
            is_project_manager: leads,
            is_active: true,
            use_default_rates: true,
            budget: None,
            hourly_rate: None,
            created_at: now,
            updated_at: now,
        });
        AssignmentId(id)
    }

    pub(crate) fn edit_assignment(
        &mut self,
        id: AssignmentId,
        touch: Touch,
        edit: impl FnOnce(&mut Assignment),
    ) {
        let assignment = known(self.assignments.get_mut(id.0), "assignment", id);
        edit(assignment);
        if let Touch::At(now) = touch {
            assignment.updated_at = now;
        }
    }

    pub(crate) fn delete_assignment(&mut self, id: AssignmentId) {
        known(self.assignments.remove(id.0).then_some(()), "assignment", id);
    }
}

/// `First.Last@example.com` in small letters, without what an address cannot hold.
pub(super) fn address(first: &str, last: &str) -> String {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let parts: Vec<String> = [first, last].map(plain).into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return "somebody@example.com".to_owned();
    }
    format!("{}@example.com", parts.join("."))
}

#[expect(
    clippy::panic,
    reason = "a test that names a record which is not there is wrong and must hear of it"
)]
fn known<T>(found: Option<T>, what: &str, id: impl fmt::Display) -> T {
    found.unwrap_or_else(|| panic!("there is no {what} {id} in this company"))
}
