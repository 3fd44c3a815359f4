//! Responses to GET requests: route, permission, record.

use std::collections::HashSet;

use axum::http::Method;

use super::World;
use super::call::{Call, admit};
use super::company;
use super::list::{List, RowFilter};
use super::page::Rows;
use super::rates;
use super::response::Response;
use super::roles;
use super::view::Renderer;
use crate::options::Paging;
use crate::state::{
    Assignment, AssignmentId, Keyed as _, Project, ProjectId, RateId, RateKind, RoleId, User, UserId,
    Visibility,
};

/// The response to a GET request that the rate limit admitted. Lists omit the records with the `hidden` ids.
pub(super) fn respond(world: &World, base_url: &str, call: &Call, hidden: &HashSet<i64>) -> Response {
    let result = admit(world, call).and_then(|visibility| serve(world, &visibility, base_url, call, hidden));
    result.unwrap_or_else(|refusal| refusal)
}

/// The paths under `/v2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Me,
    Users,
    User(UserId),
    Rates(UserId, RateKind),
    Rate(UserId, RateKind, RateId),
    Assignments,
    ProjectAssignments(ProjectId),
    ProjectAssignment(ProjectId, AssignmentId),
    Projects,
    Project(ProjectId),
    Roles,
    Role(RoleId),
    Company,
}

impl Route {
    fn of(method: &Method, path: &str) -> Option<Self> {
        if method != Method::GET {
            return None;
        }
        let path = path.strip_prefix("/api").unwrap_or(path).strip_prefix("/v2/")?;
        // Rails reads an id that is not a number as 0, which finds no record.
        let id = |text: &str| text.parse().unwrap_or(0);
        match *path.split('/').collect::<Vec<_>>().as_slice() {
            ["users", "me"] => Some(Self::Me),
            ["users"] => Some(Self::Users),
            ["users", user] if !user.is_empty() => Some(Self::User(UserId(id(user)))),
            ["users", user, kind] if !user.is_empty() => {
                Some(Self::Rates(UserId(id(user)), rates::kind(kind)?))
            }
            ["users", user, kind, rate] if !user.is_empty() && !rate.is_empty() => {
                Some(Self::Rate(UserId(id(user)), rates::kind(kind)?, RateId(id(rate))))
            }
            ["user_assignments"] => Some(Self::Assignments),
            ["projects"] => Some(Self::Projects),
            ["projects", project] if !project.is_empty() => Some(Self::Project(ProjectId(id(project)))),
            ["projects", project, "user_assignments"] if !project.is_empty() => {
                Some(Self::ProjectAssignments(ProjectId(id(project))))
            }
            ["projects", project, "user_assignments", assignment]
                if !project.is_empty() && !assignment.is_empty() =>
            {
                Some(Self::ProjectAssignment(ProjectId(id(project)), AssignmentId(id(assignment))))
            }
            ["roles"] => Some(Self::Roles),
            ["roles", role] if !role.is_empty() => Some(Self::Role(RoleId(id(role)))),
            ["company"] => Some(Self::Company),
            _ => None,
        }
    }
}

/// Checks the permission before the record, so that a response without permission does not reveal whether the
/// record exists.
fn serve(
    world: &World,
    visibility: &Visibility,
    base_url: &str,
    call: &Call,
    hidden: &HashSet<i64>,
) -> Result<Response, Response> {
    let World { company, options, .. } = world;
    let route = Route::of(&call.method, &call.path).ok_or_else(Response::no_route)?;
    let allowed = match route {
        Route::Me => true,
        Route::Users | Route::User(_) => visibility.may_list_users(),
        Route::Assignments | Route::ProjectAssignments(_) | Route::ProjectAssignment(..) => {
            visibility.may_list_assignments()
        }
        Route::Rates(_, RateKind::Billable) | Route::Rate(_, RateKind::Billable, _) => {
            visibility.sees_billable_rates()
        }
        Route::Rates(_, RateKind::Cost) | Route::Rate(_, RateKind::Cost, _) => visibility.sees_cost_rates(),
        Route::Projects | Route::Project(_) => visibility.may_list_projects(),
        Route::Roles | Route::Role(_) | Route::Company => visibility.sees_all(),
    };
    if !allowed {
        return Err(Response::not_authorized());
    }
    let renderer = Renderer::new(company, visibility, options.records);
    let list = |resource, path: &str, paging| List {
        resource,
        url: format!("{base_url}/{path}"),
        paging,
        query: &call.query,
        options,
        hidden,
    };
    let wanted = call.query.get("user_id").map(|id| UserId(id.parse().unwrap_or(0)));
    match route {
        Route::Me => {
            let owner = company.user(company.token_owner()).ok_or_else(Response::invalid_token)?;
            Ok(Response::ok(&renderer.user(owner)))
        }
        Route::Users => {
            let seen = |user: &User| visibility.sees_user(user);
            let keep = unless(visibility.sees_all(), &seen);
            list("users", "users", options.paging)
                .response(company.users().rows(), keep, |user| renderer.user(user))
        }
        Route::User(id) => {
            let user = company.user(id).filter(|user| visibility.sees_user(user));
            user.map(|user| Response::ok(&renderer.user(user))).ok_or_else(Response::no_record)
        }
        Route::Rates(id, kind) => {
            company.user(id).filter(|user| visibility.sees_user(user)).ok_or_else(Response::no_record)?;
            let resource = rates::resource(kind);
            let placed = rates::placed(company, kind, id);
            list(resource, &format!("users/{id}/{resource}"), options.paging)
                .unfiltered(&Rows::All(&placed), rates::PositionedRate::view)
        }
        Route::Rate(user, kind, id) => {
            company.user(user).filter(|user| visibility.sees_user(user)).ok_or_else(Response::no_record)?;
            let placed = rates::placed(company, kind, user);
            let rate = placed.iter().find(|rate| rate.id() == id.0);
            rate.map(|rate| Response::ok(&rate.view())).ok_or_else(Response::no_record)
        }
        Route::Assignments => {
            let seen = |assignment: &Assignment| {
                wanted.is_none_or(|user| assignment.user == user) && visibility.sees_assignment(assignment)
            };
            let keep = unless(visibility.sees_all() && wanted.is_none(), &seen);
            list("user_assignments", "user_assignments", options.paging).response(
                company.assignments().rows(),
                keep,
                |assignment| renderer.assignment(assignment),
            )
        }
        Route::ProjectAssignments(project) => {
            company.project(project).ok_or_else(Response::no_record)?;
            let seen = |assignment: &Assignment| {
                assignment.project == project
                    && wanted.is_none_or(|user| assignment.user == user)
                    && visibility.sees_assignment(assignment)
            };
            // Harvest has no cursors for this list.
            list("user_assignments", &format!("projects/{project}/user_assignments"), Paging::Number)
                .response(company.assignments().rows(), Some(&seen), |assignment| {
                    renderer.assignment(assignment)
                })
        }
        Route::ProjectAssignment(project, id) => {
            let assignment = company.assignment(id).filter(|assignment| assignment.project == project);
            assignment
                .filter(|assignment| visibility.sees_assignment(assignment))
                .map(|assignment| Response::ok(&renderer.assignment(assignment)))
                .ok_or_else(Response::no_record)
        }
        Route::Projects => {
            let seen = |project: &Project| visibility.sees_project(project);
            let keep = unless(visibility.sees_all(), &seen);
            list("projects", "projects", options.paging).response(
                company.projects().rows(),
                keep,
                company::project,
            )
        }
        Route::Project(id) => {
            let project = company.project(id).filter(|project| visibility.sees_project(project));
            project.map(|project| Response::ok(&company::project(project))).ok_or_else(Response::no_record)
        }
        Route::Roles => list("roles", "roles", options.paging)
            .unfiltered(&Rows::All(company.roles().rows()), |role| roles::of(company, role)),
        Route::Role(id) => {
            roles::view(company, id).map(|role| Response::ok(&role)).ok_or_else(Response::no_record)
        }
        Route::Company => Ok(Response::ok(&company::company(company))),
    }
}

/// Returns no filter if all rows are visible, because an unfiltered list is not copied.
fn unless<'f, R>(all: bool, seen: &'f RowFilter<'f, R>) -> Option<&'f RowFilter<'f, R>> {
    (!all).then_some(seen)
}
