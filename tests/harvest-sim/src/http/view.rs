//! JSON of the records: the recorded keys in the recorded order, without the keys that the caller may not see.

use serde::Serialize;
use serde_json::{Map, Value};

use super::rates::placed;
use crate::clock::Timestamp;
use crate::options::Records;
use crate::state::{
    Assignment, AssignmentId, Company, ProjectId, RateKind, User, UserId, Visibility, claims,
};

/// Renders records with the visibility of one caller.
pub(super) struct Renderer<'a> {
    company: &'a Company,
    records: Records,
    billable_rates: bool,
    cost_rates: bool,
}

impl<'a> Renderer<'a> {
    pub fn new(company: &'a Company, visibility: &Visibility, records: Records) -> Self {
        Self {
            company,
            records,
            billable_rates: visibility.sees_billable_rates(),
            cost_rates: visibility.sees_cost_rates(),
        }
    }

    pub fn user(&self, user: &'a User) -> UserView<'a> {
        let of_2019 = self.records == Records::Of2019;
        let administrator = user.has_access("administrator");
        let creates_projects = administrator || user.has_access("project_creator");
        UserView {
            id: user.id(),
            first_name: &user.first_name,
            last_name: &user.last_name,
            email: &user.email,
            telephone: &user.telephone,
            timezone: &user.timezone,
            weekly_capacity: user.weekly_capacity,
            has_access_to_all_future_projects: user.has_access_to_all_future_projects,
            is_contractor: user.is_contractor,
            flags: of_2019.then(|| Flags {
                is_admin: administrator,
                is_project_manager: user.has_access("manager"),
                can_see_rates: administrator || user.has_access("billable_rates_manager"),
                can_create_projects: creates_projects,
                can_create_invoices: administrator || user.has_access("managed_projects_invoice_manager"),
            }),
            is_active: user.is_active,
            calendar: (!of_2019).then(|| Calendar {
                calendar_integration_enabled: user.calendar_integration_source.is_some(),
                calendar_integration_source: user.calendar_integration_source.as_deref(),
            }),
            created_at: user.created_at,
            updated_at: user.updated_at,
            can_create_projects: (!of_2019).then_some(creates_projects),
            default_hourly_rate: self.billable_rates.then_some(user.default_hourly_rate),
            cost_rate: self.cost_rates.then_some(user.cost_rate),
            roles: &user.roles,
            access: (!of_2019)
                .then(|| Access { access_roles: &user.access_roles, permissions_claims: claims(user) }),
            avatar_url: &user.avatar_url,
            extra: &user.extra,
        }
    }

    /// Looks up the current names. A rename is therefore visible at once and does not change the assignment's
    /// `updated_at`.
    pub fn assignment(&self, assignment: &'a Assignment) -> AssignmentView<'a> {
        let user = self.company.named_user(assignment.user);
        let default_rate = user.and_then(|user| user.default_hourly_rate);
        AssignmentView {
            id: assignment.id(),
            is_project_manager: assignment.is_project_manager,
            is_active: assignment.is_active,
            use_default_rates: (self.records == Records::Current).then_some(assignment.use_default_rates),
            budget: assignment.budget,
            created_at: assignment.created_at,
            updated_at: assignment.updated_at,
            hourly_rate: if assignment.use_default_rates { default_rate } else { assignment.hourly_rate },
            project: self.company.named_project(assignment.project).map(|project| ProjectEmbed {
                id: project.id(),
                name: &project.name,
                code: project.code.as_deref(),
            }),
            user: user.map(|user| UserEmbed { id: user.id(), name: user.name() }),
        }
    }
}

#[derive(Serialize)]
pub(super) struct UserView<'a> {
    id: UserId,
    first_name: &'a str,
    last_name: &'a str,
    email: &'a str,
    telephone: &'a str,
    timezone: &'a str,
    weekly_capacity: i64,
    has_access_to_all_future_projects: bool,
    is_contractor: bool,
    #[serde(flatten)]
    flags: Option<Flags>,
    is_active: bool,
    #[serde(flatten)]
    calendar: Option<Calendar<'a>>,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_create_projects: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(clippy::option_option, reason = "hidden, null and a value are three different responses")]
    default_hourly_rate: Option<Option<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(clippy::option_option, reason = "as above")]
    cost_rate: Option<Option<f64>>,
    roles: &'a [String],
    #[serde(flatten)]
    access: Option<Access<'a>>,
    avatar_url: &'a str,
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

/// The fields that Harvest sent until the autumn of 2022.
#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "Harvest's own five flags")]
struct Flags {
    is_admin: bool,
    is_project_manager: bool,
    can_see_rates: bool,
    can_create_projects: bool,
    can_create_invoices: bool,
}

#[derive(Serialize)]
struct Calendar<'a> {
    calendar_integration_enabled: bool,
    calendar_integration_source: Option<&'a str>,
}

#[derive(Serialize)]
struct Access<'a> {
    access_roles: &'a [String],
    permissions_claims: &'a [&'a str],
}

#[derive(Serialize)]
pub(super) struct AssignmentView<'a> {
    id: AssignmentId,
    is_project_manager: bool,
    is_active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_default_rates: Option<bool>,
    budget: Option<f64>,
    created_at: Timestamp,
    updated_at: Timestamp,
    hourly_rate: Option<f64>,
    project: Option<ProjectEmbed<'a>>,
    user: Option<UserEmbed>,
}

#[derive(Serialize)]
struct ProjectEmbed<'a> {
    id: ProjectId,
    name: &'a str,
    code: Option<&'a str>,
}

#[derive(Serialize)]
struct UserEmbed {
    id: UserId,
    name: String,
}

/// All users as an administrator sees them, newest first.
pub(crate) fn user_values(company: &Company, records: Records) -> Vec<Value> {
    let renderer = Renderer::new(company, &Visibility::All, records);
    company.users().rows().iter().rev().map(|user| value(&renderer.user(user))).collect()
}

/// All assignments as an administrator sees them, newest first.
pub(crate) fn assignment_values(company: &Company, records: Records) -> Vec<Value> {
    let renderer = Renderer::new(company, &Visibility::All, records);
    company
        .assignments()
        .rows()
        .iter()
        .rev()
        .map(|assignment| value(&renderer.assignment(assignment)))
        .collect()
}

/// A user's rates as an administrator sees them, oldest first.
pub(crate) fn rate_values(company: &Company, kind: RateKind, user: UserId) -> Vec<Value> {
    placed(company, kind, user).iter().rev().map(|rate| value(&rate.view())).collect()
}

#[expect(
    clippy::expect_used,
    reason = "the views have string keys and only values that serialize without errors"
)]
fn value(view: &impl Serialize) -> Value {
    serde_json::to_value(view).expect("the record serializes to JSON")
}
