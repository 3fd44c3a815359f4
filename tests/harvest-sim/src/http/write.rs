//! Requests that change the company: route, permission, record, fields.

mod assignments;
mod rates;
mod roles;
mod users;

use axum::http::Method;
use serde::Serialize;

use super::World;
use super::call::{Call, admit};
use super::fields::Fields;
use super::response::Response;
use crate::state::{AssignmentId, Moment, ProjectId, RateKind, RoleId, UserId};

/// The response to a request with a method other than GET that the rate limit admitted. Only administrators may
/// write.
pub(super) fn write(world: &mut World, origin: &str, call: &Call, fields: Option<&Fields>) -> Response {
    let result = admit(world, call).and_then(|visibility| {
        let target = Target::of(&call.method, &call.path).ok_or_else(Response::no_route)?;
        if !visibility.sees_all() {
            return Err(Response::not_authorized());
        }
        let fields = fields.ok_or_else(Response::bad_request)?;
        match target {
            Target::NewUser => users::create(world, origin, fields),
            Target::EditUser(id) => users::edit(world, id, fields),
            Target::DeleteUser(id) => users::delete(world, id),
            Target::NewRate(id, kind) => rates::create(world, origin, id, kind, fields),
            Target::NewAssignment(project) => assignments::create(world, origin, project, fields),
            Target::EditAssignment(project, id) => assignments::edit(world, project, id, fields),
            Target::DeleteAssignment(project, id) => assignments::delete(world, project, id),
            Target::NewRole => roles::create(world, origin, fields),
            Target::EditRole(id) => roles::edit(world, id, fields),
            Target::DeleteRole(id) => roles::delete(world, id),
        }
    });
    result.unwrap_or_else(|refusal| refusal)
}

/// The requested change.
#[derive(Clone, Copy)]
enum Target {
    NewUser,
    EditUser(UserId),
    DeleteUser(UserId),
    NewRate(UserId, RateKind),
    NewAssignment(ProjectId),
    EditAssignment(ProjectId, AssignmentId),
    DeleteAssignment(ProjectId, AssignmentId),
    NewRole,
    EditRole(RoleId),
    DeleteRole(RoleId),
}

impl Target {
    fn of(method: &Method, path: &str) -> Option<Self> {
        let path = path.strip_prefix("/api").unwrap_or(path).strip_prefix("/v2/")?;
        // As for GET, an id that is not a number finds no record.
        let id = |text: &str| text.parse().unwrap_or(0);
        let segments: Vec<&str> = path.split('/').collect();
        if segments.contains(&"") {
            return None;
        }
        Some(match (method.as_str(), segments.as_slice()) {
            ("POST", ["users"]) => Self::NewUser,
            ("PATCH", ["users", user]) => Self::EditUser(UserId(id(user))),
            ("DELETE", ["users", user]) => Self::DeleteUser(UserId(id(user))),
            ("POST", ["users", user, "billable_rates"]) => {
                Self::NewRate(UserId(id(user)), RateKind::Billable)
            }
            ("POST", ["users", user, "cost_rates"]) => Self::NewRate(UserId(id(user)), RateKind::Cost),
            ("POST", ["projects", project, "user_assignments"]) => {
                Self::NewAssignment(ProjectId(id(project)))
            }
            ("PATCH", ["projects", project, "user_assignments", assignment]) => {
                Self::EditAssignment(ProjectId(id(project)), AssignmentId(id(assignment)))
            }
            ("DELETE", ["projects", project, "user_assignments", assignment]) => {
                Self::DeleteAssignment(ProjectId(id(project)), AssignmentId(id(assignment)))
            }
            ("POST", ["roles"]) => Self::NewRole,
            ("PATCH", ["roles", role]) => Self::EditRole(RoleId(id(role))),
            ("DELETE", ["roles", role]) => Self::DeleteRole(RoleId(id(role))),
            _ => return None,
        })
    }
}

fn now(world: &World) -> Moment {
    Moment::at(world.clock.now())
}

fn created(body: &impl Serialize, origin: &str, path: &str) -> Response {
    Response::created(body, &format!("{origin}/api/v2/{path}"))
}
