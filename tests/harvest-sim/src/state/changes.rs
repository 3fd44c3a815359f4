//! Changes of a company.
//!
//! An unknown id is an error in the calling test, so the functions panic and name the id.

use std::fmt;

use serde_json::Map;

use super::company::Company;
use super::moment::Moment;
use super::records::{Assignment, AssignmentId, Project, ProjectId, User, UserId};

impl Company {
    pub(crate) fn create_user(&mut self, first: &str, last: &str, moment: Moment) -> UserId {
        let id = self.users.add(moment.visible_from, |key| User {
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
            created_at: moment.now,
            updated_at: moment.now,
        });
        UserId(id)
    }

    pub(crate) fn invite(&mut self, email: &str) {
        self.invitations.push(email.to_owned());
    }

    pub(crate) fn edit_user(&mut self, id: UserId, moment: Moment, edit: impl FnOnce(&mut User)) {
        let mut roles = Vec::new();
        let found = self.users.edit(id.0, moment.visible_from, |user| {
            edit(user);
            moment.touch(&mut user.updated_at);
            roles.clone_from(&user.roles);
        });
        known(found.then_some(()), "user", id);
        self.adopt_roles(&roles, moment);
    }

    /// `administrator`, `manager` and `member` replace the access roles. Any other access role makes the user a
    /// manager and is added.
    pub(crate) fn promote(&mut self, id: UserId, access_role: &str, moment: Moment) {
        self.edit_user(id, moment, |user| match access_role {
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

    /// Archives a user and the user's active assignments.
    pub(crate) fn archive_user(&mut self, id: UserId, moment: Moment) {
        self.edit_user(id, moment, |user| user.is_active = false);
        for key in self.assignments.keys(|assignment| assignment.user == id) {
            if self.assignments.newest(key).is_some_and(|assignment| assignment.is_active) {
                self.edit_assignment(AssignmentId(key), moment, |assignment| {
                    assignment.is_active = false;
                });
            }
        }
    }

    /// Removes a user with all assignments and rates.
    pub(crate) fn delete_user(&mut self, id: UserId, moment: Moment) {
        known(self.users.newest(id.0), "user", id);
        self.when_due(moment.visible_from, move |company| {
            company.users.remove(id.0);
            company.assignments.retain(|assignment| assignment.user != id);
            company.time.retain(|&(user, _)| user != id);
            company.billable_rates.remove(id);
            company.cost_rates.remove(id);
            company.teammates.remove(&id);
            for teammates in company.teammates.values_mut() {
                teammates.remove(&id);
            }
        });
    }

    pub(crate) fn set_teammates(
        &mut self,
        manager: UserId,
        teammates: impl IntoIterator<Item = UserId>,
        moment: Moment,
    ) {
        let teammates = teammates.into_iter().collect();
        self.when_due(moment.visible_from, move |company| {
            company.teammates.insert(manager, teammates);
        });
    }

    /// Makes the token's owner a manager who sees every second user.
    pub(crate) fn demote_token(&mut self, moment: Moment) {
        let owner = self.token_owner();
        self.promote(owner, "manager", moment);
        let others: Vec<UserId> =
            self.users.rows().iter().map(User::id).filter(|&id| id != owner).step_by(2).collect();
        self.set_teammates(owner, others, moment);
    }

    pub(crate) fn new_project(&mut self, name: &str, code: Option<&str>, moment: Moment) -> ProjectId {
        let id = self.projects.add(moment.visible_from, |key| Project {
            id: ProjectId(key),
            name: name.to_owned(),
            code: code.map(str::to_owned),
            is_active: true,
            is_billable: true,
            client_id: 10_748_671,
            client_name: "Example Client".to_owned(),
            created_at: moment.now,
            updated_at: moment.now,
        });
        ProjectId(id)
    }

    pub(crate) fn edit_project(&mut self, id: ProjectId, moment: Moment, edit: impl FnOnce(&mut Project)) {
        let found = self.projects.edit(id.0, moment.visible_from, |project| {
            edit(project);
            moment.touch(&mut project.updated_at);
        });
        known(found.then_some(()), "project", id);
    }

    /// Removes a project and its assignments.
    pub(crate) fn delete_project(&mut self, id: ProjectId, moment: Moment) {
        known(self.projects.newest(id.0), "project", id);
        self.when_due(moment.visible_from, move |company| {
            company.projects.remove(id.0);
            company.assignments.retain(|assignment| assignment.project != id);
            company.time.retain(|&(_, project)| project != id);
        });
    }

    /// Assigns a user to a project. Managers and administrators become project managers.
    pub(crate) fn assign(&mut self, user: UserId, project: ProjectId, moment: Moment) -> AssignmentId {
        known(self.projects.newest(project.0), "project", project);
        let leads = !known(self.users.newest(user.0), "user", user).has_access("member");
        let id = self.assignments.add(moment.visible_from, |key| Assignment {
            id: AssignmentId(key),
            user,
            project,
            is_project_manager: leads,
            is_active: true,
            use_default_rates: true,
            budget: None,
            hourly_rate: None,
            created_at: moment.now,
            updated_at: moment.now,
        });
        AssignmentId(id)
    }

    /// After this, a request cannot delete the user or the assignment.
    pub(crate) fn track_time(&mut self, user: UserId, project: ProjectId) {
        known(self.users.newest(user.0), "user", user);
        known(self.projects.newest(project.0), "project", project);
        self.time.insert((user, project));
    }

    pub(crate) fn edit_assignment(
        &mut self,
        id: AssignmentId,
        moment: Moment,
        edit: impl FnOnce(&mut Assignment),
    ) {
        let found = self.assignments.edit(id.0, moment.visible_from, |assignment| {
            edit(assignment);
            moment.touch(&mut assignment.updated_at);
        });
        known(found.then_some(()), "assignment", id);
    }

    pub(crate) fn delete_assignment(&mut self, id: AssignmentId, moment: Moment) {
        known(self.assignments.newest(id.0), "assignment", id);
        self.when_due(moment.visible_from, move |company| company.assignments.remove(id.0));
    }
}

/// `first.last@example.com`, with only the ASCII letters and digits of the names.
pub(super) fn address(first: &str, last: &str) -> String {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let parts: Vec<String> = [first, last].map(plain).into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return "user@example.com".to_owned();
    }
    format!("{}@example.com", parts.join("."))
}

#[expect(clippy::panic, reason = "a test that names an unknown record is wrong and must fail")]
pub(super) fn known<T>(found: Option<T>, what: &str, id: impl fmt::Display) -> T {
    found.unwrap_or_else(|| panic!("the company has no {what} with id {id}"))
}
