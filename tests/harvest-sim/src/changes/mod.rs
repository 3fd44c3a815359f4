//! Changes of the running company, and the expected JSON for tests.
//!
//! Each change has the simulator's current time. The change is visible at once, or after the delay of
//! [`Sim::with_visibility_delay`]. The functions panic if a record does not exist.

mod rates;
mod roles;

use serde_json::Value;

use crate::http::{assignment_values, user_values};
use crate::options::Options;
use crate::sim::Sim;
use crate::state::{
    Assignment, AssignmentId, Company, Moment, Project, ProjectId, User, UserId, VisibleFrom,
};

impl Sim {
    /// Creates a user: a member without rates.
    pub fn create_user(&self, first_name: &str, last_name: &str) -> UserId {
        self.change(|company, moment| company.create_user(first_name, last_name, moment))
    }

    /// Renames a user. The user's assignments show the new name immediately and keep their `updated_at`.
    pub fn rename(&self, user: UserId, first_name: &str, last_name: &str) {
        self.edit_user(user, |user| {
            first_name.clone_into(&mut user.first_name);
            last_name.clone_into(&mut user.last_name);
        });
    }

    /// Changes a user's e-mail address.
    pub fn set_email(&self, user: UserId, email: &str) {
        self.edit_user(user, |user| email.clone_into(&mut user.email));
    }

    /// Gives a user an access role. `administrator`, `manager` and `member` replace all access roles. Any other
    /// access role makes the user a manager and is added.
    pub fn promote(&self, user: UserId, access_role: &str) {
        self.change(|company, moment| company.promote(user, access_role, moment));
    }

    /// Archives a user and the user's active assignments.
    pub fn archive_user(&self, user: UserId) {
        self.change(|company, moment| company.archive_user(user, moment));
    }

    /// Restores an archived user. The user's assignments stay archived.
    pub fn restore_user(&self, user: UserId) {
        self.edit_user(user, |user| user.is_active = true);
    }

    /// Sets or clears the default billable rate, without a change of the list of rates. `updated_at` does not
    /// change.
    pub fn set_rate(&self, user: UserId, rate: Option<f64>) {
        self.edit_user_keeping_updated_at(user, |user| user.default_hourly_rate = rate);
    }

    /// Sets or clears the cost rate, without a change of the list of rates. `updated_at` does not change.
    pub fn set_cost_rate(&self, user: UserId, rate: Option<f64>) {
        self.edit_user_keeping_updated_at(user, |user| user.cost_rate = rate);
    }

    /// Sets the job roles by name. `updated_at` does not change.
    pub fn set_roles(&self, user: UserId, roles: &[&str]) {
        self.edit_user_keeping_updated_at(user, |user| {
            user.roles = roles.iter().map(|&role| role.to_owned()).collect();
        });
    }

    /// Deletes a user permanently, with all assignments and rates.
    pub fn delete_user(&self, user: UserId) {
        self.change(|company, moment| company.delete_user(user, moment));
    }

    /// Changes a user and sets `updated_at`.
    pub fn edit_user(&self, user: UserId, edit: impl FnOnce(&mut User)) {
        self.change(|company, moment| company.edit_user(user, moment, edit));
    }

    /// Changes a user and keeps `updated_at`, unless `edit` sets it.
    pub fn edit_user_keeping_updated_at(&self, user: UserId, edit: impl FnOnce(&mut User)) {
        self.change(|company, moment| company.edit_user(user, moment.keeping_updated_at(), edit));
    }

    /// Sets the users whom a manager sees.
    pub fn set_teammates(&self, manager: UserId, teammates: &[UserId]) {
        self.change(|company, moment| company.set_teammates(manager, teammates.iter().copied(), moment));
    }

    /// Makes the token's owner a manager who sees every second user. Harvest then returns fewer records without an
    /// error.
    pub fn demote_token(&self) {
        self.change(Company::demote_token);
    }

    /// Gives the token's owner an access role, as [`promote`](Self::promote) does.
    pub fn set_token_role(&self, access_role: &str) {
        self.promote(self.token_owner(), access_role);
    }

    /// The user who owns the token.
    pub fn token_owner(&self) -> UserId {
        self.read(|company, _| company.token_owner())
    }

    /// Creates a project. Harvest has codes that are text, empty text and null.
    pub fn new_project<'c>(&self, name: &str, code: impl Into<Option<&'c str>>) -> ProjectId {
        let code = code.into();
        self.change(|company, moment| company.new_project(name, code, moment))
    }

    /// Renames a project. Its assignments show the new name immediately and keep their `updated_at`.
    pub fn rename_project(&self, project: ProjectId, name: &str) {
        self.edit_project(project, |project| name.clone_into(&mut project.name));
    }

    /// Changes a project and sets its `updated_at`. The assignments do not change.
    pub fn edit_project(&self, project: ProjectId, edit: impl FnOnce(&mut Project)) {
        self.change(|company, moment| company.edit_project(project, moment, edit));
    }

    /// Deletes a project permanently, with its assignments.
    pub fn delete_project(&self, project: ProjectId) {
        self.change(|company, moment| company.delete_project(project, moment));
    }

    /// Assigns a user to a project.
    pub fn assign(&self, user: UserId, project: ProjectId) -> AssignmentId {
        self.change(|company, moment| company.assign(user, project, moment))
    }

    /// Adds a time entry. After this, a request cannot delete the user or the assignment.
    pub fn track_time(&self, user: UserId, project: ProjectId) {
        self.change(|company, _| company.track_time(user, project));
    }

    /// Archives an assignment.
    pub fn archive_assignment(&self, assignment: AssignmentId) {
        self.edit_assignment(assignment, |assignment| assignment.is_active = false);
    }

    /// Deletes an assignment permanently.
    pub fn delete_assignment(&self, assignment: AssignmentId) {
        self.change(|company, moment| company.delete_assignment(assignment, moment));
    }

    /// Changes an assignment and sets `updated_at`.
    pub fn edit_assignment(&self, assignment: AssignmentId, edit: impl FnOnce(&mut Assignment)) {
        self.change(|company, moment| company.edit_assignment(assignment, moment, edit));
    }

    /// Changes an assignment and keeps `updated_at`, unless `edit` sets it.
    pub fn edit_assignment_keeping_updated_at(
        &self,
        assignment: AssignmentId,
        edit: impl FnOnce(&mut Assignment),
    ) {
        self.change(|company, moment| {
            company.edit_assignment(assignment, moment.keeping_updated_at(), edit);
        });
    }

    /// All visible users as an administrator sees them, newest first.
    pub fn users_json(&self) -> Vec<Value> {
        self.read(|company, options| user_values(company, options.records))
    }

    /// All visible assignments as an administrator sees them, newest first.
    pub fn assignments_json(&self) -> Vec<Value> {
        self.read(|company, options| assignment_values(company, options.records))
    }

    /// The ids of all users, oldest first.
    pub fn user_ids(&self) -> Vec<UserId> {
        self.read(|company, _| company.users().rows().iter().map(User::id).collect())
    }

    /// The ids of all projects, oldest first.
    pub fn project_ids(&self) -> Vec<ProjectId> {
        self.read(|company, _| company.projects().rows().iter().map(Project::id).collect())
    }

    /// The ids of all assignments, oldest first.
    pub fn assignment_ids(&self) -> Vec<AssignmentId> {
        self.read(|company, _| company.assignments().rows().iter().map(Assignment::id).collect())
    }

    /// The e-mail addresses to which Harvest sent an invitation, in order. Harvest sends one for each user that a
    /// request creates.
    pub fn invitations(&self) -> Vec<String> {
        self.read(|company, _| company.invitations().to_vec())
    }

    /// Applies a change now. With a
    /// [`with_visibility_delay`](Self::with_visibility_delay) handle, the change becomes visible later.
    fn change<T>(&self, change: impl FnOnce(&mut Company, Moment) -> T) -> T {
        let mut world = self.account_state.world();
        let now = Moment::at(world.clock.now());
        let moment = if self.visibility_delay.is_zero() {
            now
        } else {
            now.visible_from(VisibleFrom::Time(world.clock.ahead(self.visibility_delay)))
        };
        change(&mut world.company, moment)
    }

    fn read<T>(&self, read: impl FnOnce(&Company, &Options) -> T) -> T {
        let world = self.account_state.world();
        read(&world.company, &world.options)
    }
}
