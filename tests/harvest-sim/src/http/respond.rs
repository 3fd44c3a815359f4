//! What is said to an admitted request: permission, route, record.

use std::collections::HashSet;

use axum::http::Method;

use super::World;
use super::answer::Answer;
use super::backdrop;
use super::call::{Call, admit};
use super::list::{Keep, List};
use super::page::Rows;
use super::rates;
use super::roles;
use super::view::Lens;
use crate::options::Paging;
use crate::state::{
    Assignment, AssignmentId, Keyed as _, Project, ProjectId, RateId, RateKind, RoleId, Sight, User, UserId,
};

/// What Harvest answers to a request that came through the throttle; no list shows what is `hidden`.
pub(super) fn respond(world: &World, base_url: &str, call: &Call, hidden: &HashSet<i64>) -> Answer {
    let answered = admit(world, call).and_then(|sight| serve(world, &sight, base_url, call, hidden));
    answered.unwrap_or_else(|refusal| refusal)
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
        // An id that is not a number finds no record, as in Rails, where it reads as 0.
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

/// Permission first, then the record: who may not look is not told what there is.
fn serve(
    world: &World,
    sight: &Sight,
    base_url: &str,
    call: &Call,
    hidden: &HashSet<i64>,
) -> Result<Answer, Answer> {
    let World { company, options, .. } = world;
    let route = Route::of(&call.method, &call.path).ok_or_else(Answer::no_route)?;
    let allowed = match route {
        Route::Me => true,
        Route::Users | Route::User(_) => sight.may_list_users(),
        Route::Assignments | Route::ProjectAssignments(_) | Route::ProjectAssignment(..) => {
            sight.may_list_assignments()
        }
        Route::Rates(_, RateKind::Billable) | Route::Rate(_, RateKind::Billable, _) => {
            sight.sees_billable_rates()
        }
        Route::Rates(_, RateKind::Cost) | Route::Rate(_, RateKind::Cost, _) => sight.sees_cost_rates(),
        Route::Projects | Route::Project(_) => sight.may_list_projects(),
        Route::Roles | Route::Role(_) | Route::Company => sight.sees_all(),
    };
    if !allowed {
        return Err(Answer::not_authorized());
    }
    let lens = Lens::new(company, sight, options.records);
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
            let owner = company.user(company.token_owner()).ok_or_else(Answer::invalid_token)?;
            Ok(Answer::ok(&lens.user(owner)))
        }
        Route::Users => {
            let seen = |user: &User| sight.sees_user(user);
            let keep = unless(sight.sees_all(), &seen);
            list("users", "users", options.paging)
                .answer(company.users().rows(), keep, |user| lens.user(user))
        }
        Route::User(id) => {
            let user = company.user(id).filter(|user| sight.sees_user(user));
            user.map(|user| Answer::ok(&lens.user(user))).ok_or_else(Answer::no_record)
        }
        Route::Rates(id, kind) => {
            company.user(id).filter(|user| sight.sees_user(user)).ok_or_else(Answer::no_record)?;
            let resource = rates::resource(kind);
            let placed = rates::placed(company, kind, id);
            list(resource, &format!("users/{id}/{resource}"), options.paging)
                .unfiltered(&Rows::All(&placed), rates::Placed::view)
        }
        Route::Rate(user, kind, id) => {
            company.user(user).filter(|user| sight.sees_user(user)).ok_or_else(Answer::no_record)?;
            let placed = rates::placed(company, kind, user);
            let rate = placed.iter().find(|rate| rate.id() == id.0);
            rate.map(|rate| Answer::ok(&rate.view())).ok_or_else(Answer::no_record)
        }
        Route::Assignments => {
            let seen = |held: &Assignment| {
                wanted.is_none_or(|user| held.user == user) && sight.sees_assignment(held)
            };
            let keep = unless(sight.sees_all() && wanted.is_none(), &seen);
            list("user_assignments", "user_assignments", options.paging).answer(
                company.assignments().rows(),
                keep,
                |held| lens.assignment(held),
            )
        }
        Route::ProjectAssignments(project) => {
            company.project(project).ok_or_else(Answer::no_record)?;
            let seen = |held: &Assignment| {
                held.project == project
                    && wanted.is_none_or(|user| held.user == user)
                    && sight.sees_assignment(held)
            };
            // This list never learned cursors.
            list("user_assignments", &format!("projects/{project}/user_assignments"), Paging::Number).answer(
                company.assignments().rows(),
                Some(&seen),
                |held| lens.assignment(held),
            )
        }
        Route::ProjectAssignment(project, id) => {
            let held = company.assignment(id).filter(|held| held.project == project);
            held.filter(|held| sight.sees_assignment(held))
                .map(|held| Answer::ok(&lens.assignment(held)))
                .ok_or_else(Answer::no_record)
        }
        Route::Projects => {
            let seen = |project: &Project| sight.sees_project(project);
            let keep = unless(sight.sees_all(), &seen);
            list("projects", "projects", options.paging).answer(
                company.projects().rows(),
                keep,
                backdrop::project,
            )
        }
        Route::Project(id) => {
            let project = company.project(id).filter(|project| sight.sees_project(project));
            project.map(|project| Answer::ok(&backdrop::project(project))).ok_or_else(Answer::no_record)
        }
        Route::Roles => list("roles", "roles", options.paging)
            .unfiltered(&Rows::All(company.roles().rows()), |role| roles::of(company, role)),
        Route::Role(id) => {
            roles::view(company, id).map(|role| Answer::ok(&role)).ok_or_else(Answer::no_record)
        }
        Route::Company => Ok(Answer::ok(&backdrop::company(company))),
    }
}

/// No filter at all when everything passes it: a list that is not filtered is never copied.
fn unless<'f, R>(all: bool, seen: &'f Keep<'f, R>) -> Option<&'f Keep<'f, R>> {
    (!all).then_some(seen)
}
