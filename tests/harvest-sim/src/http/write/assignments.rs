//! Requests that change user assignments.

use super::super::World;
use super::super::fields::{Fields, Reader};
use super::super::response::Response;
use super::super::view::Renderer;
use super::{created, now};
use crate::state::{Assignment, AssignmentId, ProjectId, UserId, Visibility};

pub(super) fn create(
    world: &mut World,
    origin: &str,
    project: ProjectId,
    fields: &Fields,
) -> Result<Response, Response> {
    world.company.project(project).ok_or_else(Response::no_record)?;
    let mut reader = fields.reader();
    let user = reader.id("user_id").map(UserId);
    let wanted = Wanted::read(&mut reader);
    match user.map(|id| (id, world.company.user(id))) {
        None => reader.add_error("user_id", "can't be blank"),
        Some((_, None)) => reader.add_error("user_id", "must exist"),
        Some((_, Some(user))) if !user.is_active => reader.add_error("user_id", "must be active"),
        Some((id, Some(_))) => {
            let same = |assignment: &Assignment| {
                assignment.is_active && (assignment.user, assignment.project) == (id, project)
            };
            if world.company.assignments().rows().iter().any(same) {
                reader.add_error("user_id", "has already been taken");
            }
        }
    }
    reader.finish()?;
    let user = user.ok_or_else(Response::no_record)?;
    let moment = now(world);
    let id = world.company.assign(user, project, moment);
    world.company.edit_assignment(id, moment, |assignment| wanted.apply(assignment));
    let assignment = world.company.assignment(id).ok_or_else(Response::no_record)?;
    let renderer = Renderer::new(&world.company, &Visibility::All, world.options.records);
    Ok(created(
        &renderer.assignment(assignment),
        origin,
        &format!("projects/{project}/user_assignments/{id}"),
    ))
}

pub(super) fn edit(
    world: &mut World,
    project: ProjectId,
    id: AssignmentId,
    fields: &Fields,
) -> Result<Response, Response> {
    let before = find(world, project, id)?.clone();
    let mut reader = fields.reader();
    let wanted = Wanted::read(&mut reader);
    reader.finish()?;
    let mut after = before.clone();
    wanted.apply(&mut after);
    // A request that changes no value keeps `updated_at`.
    if after != before {
        let moment = now(world);
        world.company.edit_assignment(id, moment, |assignment| wanted.apply(assignment));
    }
    shown(world, project, id)
}

pub(super) fn delete(world: &mut World, project: ProjectId, id: AssignmentId) -> Result<Response, Response> {
    let user = find(world, project, id)?.user;
    if world.company.has_time(|timed_user, timed_project| (timed_user, timed_project) == (user, project)) {
        let message = "This user assignment is not removable. It still has time entries and/or expenses.";
        return Err(Response::unprocessable(message));
    }
    let moment = now(world);
    world.company.edit_assignment(id, moment, |_| ());
    let last = shown(world, project, id);
    world.company.delete_assignment(id, moment);
    last
}

fn find(world: &World, project: ProjectId, id: AssignmentId) -> Result<&Assignment, Response> {
    let assignment = world.company.assignment(id).filter(|assignment| assignment.project == project);
    assignment.ok_or_else(Response::no_record)
}

fn shown(world: &World, project: ProjectId, id: AssignmentId) -> Result<Response, Response> {
    let assignment = find(world, project, id)?;
    let renderer = Renderer::new(&world.company, &Visibility::All, world.options.records);
    Ok(Response::ok(&renderer.assignment(assignment)))
}

/// The fields in a request.
#[expect(clippy::option_option, reason = "missing, null and a value are three different requests")]
struct Wanted {
    is_active: Option<bool>,
    is_project_manager: Option<bool>,
    use_default_rates: Option<bool>,
    hourly_rate: Option<Option<f64>>,
    budget: Option<Option<f64>>,
}

impl Wanted {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            is_active: reader.flag("is_active"),
            is_project_manager: reader.flag("is_project_manager"),
            use_default_rates: reader.flag("use_default_rates"),
            hourly_rate: reader.amount("hourly_rate"),
            budget: reader.amount("budget"),
        }
    }

    fn apply(&self, assignment: &mut Assignment) {
        assignment.is_active = self.is_active.unwrap_or(assignment.is_active);
        assignment.is_project_manager = self.is_project_manager.unwrap_or(assignment.is_project_manager);
        assignment.use_default_rates = self.use_default_rates.unwrap_or(assignment.use_default_rates);
        assignment.hourly_rate = self.hourly_rate.unwrap_or(assignment.hourly_rate);
        assignment.budget = self.budget.unwrap_or(assignment.budget);
    }
}
