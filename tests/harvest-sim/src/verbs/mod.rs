//! What happens in the company while the simulator runs, and the truth that tests compare with.
//!
//! Each verb happens in the second the simulator's clock shows, and shows at once or, from a handle of
//! [`Sim::later`], later. Naming a record that is not there panics.

mod rates;

use serde_json::Value;

use crate::http::{World, assignment_values, user_values};
use crate::options::Options;
use crate::sim::Sim;
use crate::state::{Assignment, AssignmentId, Company, Moment, Project, ProjectId, Shows, User, UserId};

impl Sim {
    /// A new person, a member without rates.
    pub fn hire(&self, first_name: &str, last_name: &str) -> UserId {
        self.change(|company, moment, _| company.hire(first_name, last_name, moment))
    }

    /// A person takes another name. Shows at once in their assignments, whose `updated_at` stays.
    pub fn rename(&self, user: UserId, first_name: &str, last_name: &str) {
        self.edit_user(user, |user| {
            first_name.clone_into(&mut user.first_name);
            last_name.clone_into(&mut user.last_name);
        });
    }

    /// A person takes another address.
    pub fn set_email(&self, user: UserId, email: &str) {
        self.edit_user(user, |user| email.clone_into(&mut user.email));
    }

    /// Gives an access role: `administrator`, `manager` and `member` replace what was held, any other one
    /// makes a manager of the person and is added.
    pub fn promote(&self, user: UserId, access_role: &str) {
        self.change(|company, moment, _| company.promote(user, access_role, moment));
    }

    /// Makes a person a plain member.
    pub fn demote(&self, user: UserId) {
        self.promote(user, "member");
    }

    /// Archives a person, and with them their active assignments.
    pub fn deactivate(&self, user: UserId) {
        self.change(|company, moment, options| {
            let assignments = moment.silently_unless(options.archiving_touches_assignments);
            company.deactivate(user, moment, assignments);
        });
    }

    /// Takes a person back. Their assignments stay archived.
    pub fn reactivate(&self, user: UserId) {
        self.edit_user(user, |user| user.is_active = true);
    }

    /// Sets or unsets the default billable rate, whatever the list of rates says: silently, unless
    /// [`Options::rates_touch_users`].
    pub fn set_rate(&self, user: UserId, rate: Option<f64>) {
        self.change(|company, moment, options| {
            let moment = moment.silently_unless(options.rates_touch_users);
            company.edit_user(user, moment, |user| user.default_hourly_rate = rate);
        });
    }

    /// Sets or unsets the cost rate, whatever the list of rates says: silently, unless
    /// [`Options::rates_touch_users`].
    pub fn set_cost_rate(&self, user: UserId, rate: Option<f64>) {
        self.change(|company, moment, options| {
            let moment = moment.silently_unless(options.rates_touch_users);
            company.edit_user(user, moment, |user| user.cost_rate = rate);
        });
    }

    /// Sets the names of the job roles: silently, unless [`Options::roles_touch_users`].
    pub fn set_roles(&self, user: UserId, roles: &[&str]) {
        self.change(|company, moment, options| {
            let moment = moment.silently_unless(options.roles_touch_users);
            company.edit_user(user, moment, |user| {
                user.roles = roles.iter().map(|&role| role.to_owned()).collect();
            });
        });
    }

    /// Deletes a person, their assignments and their rates: gone at once, without a trace.
    pub fn delete_user(&self, user: UserId) {
        self.change(|company, moment, _| company.delete_user(user, moment));
    }

    /// Any other change of a person; moves `updated_at`.
    pub fn edit_user(&self, user: UserId, edit: impl FnOnce(&mut User)) {
        self.change(|company, moment, _| company.edit_user(user, moment, edit));
    }

    /// A change of a person that leaves `updated_at` alone, or sets it as it likes.
    pub fn edit_user_silently(&self, user: UserId, edit: impl FnOnce(&mut User)) {
        self.change(|company, moment, _| company.edit_user(user, moment.silently(), edit));
    }

    /// Whom a manager sees.
    pub fn set_teammates(&self, manager: UserId, teammates: &[UserId]) {
        self.change(|company, moment, _| company.set_teammates(manager, teammates.iter().copied(), moment));
    }

    /// Makes the token's owner a manager who sees every second person: the demotion that does not show.
    pub fn demote_token(&self) {
        self.change(|company, moment, _| company.demote_token(moment));
    }

    /// Gives the token's owner an access role, as [`promote`](Self::promote) does.
    pub fn set_token_role(&self, access_role: &str) {
        self.promote(self.token_owner(), access_role);
    }

    /// Whose token it is.
    pub fn token_owner(&self) -> UserId {
        self.read(|company, _| company.token_owner())
    }

    /// A new project; Harvest knows codes that are text, empty text and null.
    pub fn new_project<'c>(&self, name: &str, code: impl Into<Option<&'c str>>) -> ProjectId {
        let code = code.into();
        self.change(|company, moment, _| company.new_project(name, code, moment))
    }

    /// A project takes another name. Shows at once in its assignments, whose `updated_at` stays.
    pub fn rename_project(&self, project: ProjectId, name: &str) {
        self.edit_project(project, |project| name.clone_into(&mut project.name));
    }

    /// Any other change of a project; moves its `updated_at` and leaves its assignments alone.
    pub fn edit_project(&self, project: ProjectId, edit: impl FnOnce(&mut Project)) {
        self.change(|company, moment, _| company.edit_project(project, moment, edit));
    }

    /// Deletes a project and its assignments: gone at once, without a trace.
    pub fn delete_project(&self, project: ProjectId) {
        self.change(|company, moment, _| company.delete_project(project, moment));
    }

    /// Puts a person on a project.
    pub fn assign(&self, user: UserId, project: ProjectId) -> AssignmentId {
        self.change(|company, moment, _| company.assign(user, project, moment))
    }

    /// A person tracks time on a project: neither they nor their assignment can be deleted by a request any more.
    pub fn track_time(&self, user: UserId, project: ProjectId) {
        self.change(|company, _, _| company.track_time(user, project));
    }

    /// Takes a person off a project: the assignment is archived.
    pub fn unassign(&self, assignment: AssignmentId) {
        self.edit_assignment(assignment, |held| held.is_active = false);
    }

    /// Deletes an assignment: gone at once, without a trace.
    pub fn delete_assignment(&self, assignment: AssignmentId) {
        self.change(|company, moment, _| company.delete_assignment(assignment, moment));
    }

    /// Any other change of an assignment; moves `updated_at`.
    pub fn edit_assignment(&self, assignment: AssignmentId, edit: impl FnOnce(&mut Assignment)) {
        self.change(|company, moment, _| company.edit_assignment(assignment, moment, edit));
    }

    /// A change of an assignment that leaves `updated_at` alone, or sets it as it likes.
    pub fn edit_assignment_silently(&self, assignment: AssignmentId, edit: impl FnOnce(&mut Assignment)) {
        self.change(|company, moment, _| company.edit_assignment(assignment, moment.silently(), edit));
    }

    /// Every person exactly as an administrator sees them, newest first.
    pub fn users_json(&self) -> Vec<Value> {
        self.read(|company, options| user_values(company, options.records))
    }

    /// Every assignment exactly as an administrator sees it, newest first.
    pub fn assignments_json(&self) -> Vec<Value> {
        self.read(|company, options| assignment_values(company, options.records))
    }

    /// Everybody's id, oldest first.
    pub fn user_ids(&self) -> Vec<UserId> {
        self.read(|company, _| company.users().rows().iter().map(User::id).collect())
    }

    /// Every project's id, oldest first.
    pub fn project_ids(&self) -> Vec<ProjectId> {
        self.read(|company, _| company.projects().rows().iter().map(Project::id).collect())
    }

    /// Every assignment's id, oldest first.
    pub fn assignment_ids(&self) -> Vec<AssignmentId> {
        self.read(|company, _| company.assignments().rows().iter().map(Assignment::id).collect())
    }

    /// Lets something happen now; from a [`later`](Self::later) handle it shows later.
    fn change<T>(&self, change: impl FnOnce(&mut Company, Moment, &Options) -> T) -> T {
        let mut world = self.desk.world();
        let now = Moment::at(world.clock.now());
        let moment =
            if self.late.is_zero() { now } else { now.showing(Shows::From(world.clock.ahead(self.late))) };
        let World { company, options, .. } = &mut *world;
        change(company, moment, options)
    }

    fn read<T>(&self, read: impl FnOnce(&Company, &Options) -> T) -> T {
        let world = self.desk.world();
        read(&world.company, &world.options)
    }
}
