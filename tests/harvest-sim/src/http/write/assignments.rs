//! Places on projects.

use super::super::World;
use super::super::answer::Answer;
use super::super::fields::{Fields, Reader};
use super::super::view::Lens;
use super::{created, now};
use crate::state::{Assignment, AssignmentId, ProjectId, Sight, UserId};

pub(super) fn create(
    world: &mut World,
    origin: &str,
    project: ProjectId,
    fields: &Fields,
) -> Result<Answer, Answer> {
    world.company.project(project).ok_or_else(Answer::no_record)?;
    let mut reader = fields.reader();
    let user = reader.id("user_id").map(UserId);
    let wanted = Wanted::read(&mut reader);
    match user.map(|id| (id, world.company.user(id))) {
        None => reader.fault("user_id", "can't be blank"),
        Some((_, None)) => reader.fault("user_id", "must exist"),
        Some((_, Some(user))) if !user.is_active => reader.fault("user_id", "must be active"),
        Some((id, Some(_))) => {
            let same = |held: &Assignment| held.is_active && (held.user, held.project) == (id, project);
            if world.company.assignments().rows().iter().any(same) {
                reader.fault("user_id", "has already been taken");
            }
        }
    }
    reader.finish()?;
    let user = user.ok_or_else(Answer::no_record)?;
    let moment = now(world);
    let id = world.company.assign(user, project, moment);
    world.company.edit_assignment(id, moment, |held| wanted.apply(held));
    let held = world.company.assignment(id).ok_or_else(Answer::no_record)?;
    let lens = Lens::new(&world.company, &Sight::Everything, world.options.records);
    Ok(created(&lens.assignment(held), origin, &format!("projects/{project}/user_assignments/{id}")))
}

pub(super) fn edit(
    world: &mut World,
    project: ProjectId,
    id: AssignmentId,
    fields: &Fields,
) -> Result<Answer, Answer> {
    let before = find(world, project, id)?.clone();
    let mut reader = fields.reader();
    let wanted = Wanted::read(&mut reader);
    reader.finish()?;
    let mut after = before.clone();
    wanted.apply(&mut after);
    // What changes nothing moves no stamp.
    if after != before {
        let moment = now(world);
        world.company.edit_assignment(id, moment, |held| wanted.apply(held));
    }
    shown(world, project, id)
}

pub(super) fn delete(world: &mut World, project: ProjectId, id: AssignmentId) -> Result<Answer, Answer> {
    let user = find(world, project, id)?.user;
    if world.company.has_time(|someone, on| (someone, on) == (user, project)) {
        let message = "This user assignment is not removable. It still has time entries and/or expenses.";
        return Err(Answer::unprocessable(message));
    }
    let moment = now(world);
    world.company.edit_assignment(id, moment, |_| ());
    let last = shown(world, project, id);
    world.company.delete_assignment(id, moment);
    last
}

fn find(world: &World, project: ProjectId, id: AssignmentId) -> Result<&Assignment, Answer> {
    let held = world.company.assignment(id).filter(|held| held.project == project);
    held.ok_or_else(Answer::no_record)
}

fn shown(world: &World, project: ProjectId, id: AssignmentId) -> Result<Answer, Answer> {
    let held = find(world, project, id)?;
    let lens = Lens::new(&world.company, &Sight::Everything, world.options.records);
    Ok(Answer::ok(&lens.assignment(held)))
}

/// The fields that a request names.
#[expect(clippy::option_option, reason = "not named, unset and set are three different requests")]
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

    fn apply(&self, held: &mut Assignment) {
        held.is_active = self.is_active.unwrap_or(held.is_active);
        held.is_project_manager = self.is_project_manager.unwrap_or(held.is_project_manager);
        held.use_default_rates = self.use_default_rates.unwrap_or(held.use_default_rates);
        held.hourly_rate = self.hourly_rate.unwrap_or(held.hourly_rate);
        held.budget = self.budget.unwrap_or(held.budget);
    }
}
