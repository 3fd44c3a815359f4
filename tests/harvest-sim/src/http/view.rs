//! Records as they are sent: the recorded keys in the recorded order, and no key the caller may not see.

use serde::Serialize;
use serde_json::{Map, Value};

use super::rates::placed;
use crate::clock::Stamp;
use crate::options::Records;
use crate::state::{Assignment, AssignmentId, Company, ProjectId, RateKind, Sight, User, UserId, claims};

/// Records as one caller sees them.
pub(super) struct Lens<'a> {
    company: &'a Company,
    records: Records,
    billable_rates: bool,
    cost_rates: bool,
}

impl<'a> Lens<'a> {
    pub fn new(company: &'a Company, sight: &Sight, records: Records) -> Self {
        Self {
            company,
            records,
            billable_rates: sight.sees_billable_rates(),
            cost_rates: sight.sees_cost_rates(),
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

    /// The names are looked up now: a rename shows at once, and moves nobody's `updated_at`.
    pub fn assignment(&self, held: &'a Assignment) -> AssignmentView<'a> {
        let user = self.company.named_user(held.user);
        let default_rate = user.and_then(|user| user.default_hourly_rate);
        AssignmentView {
            id: held.id(),
            is_project_manager: held.is_project_manager,
            is_active: held.is_active,
            use_default_rates: (self.records == Records::Current).then_some(held.use_default_rates),
            budget: held.budget,
            created_at: held.created_at,
            updated_at: held.updated_at,
            hourly_rate: if held.use_default_rates { default_rate } else { held.hourly_rate },
            project: self.company.named_project(held.project).map(|project| ProjectEmbed {
                id: project.id(),
                name: &project.name,
                code: project.code.as_deref(),
            }),
            user: user.map(|user| UserEmbed { id: user.id(), name: user.name() }),
        }
    }
}

/// A person.
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
    created_at: Stamp,
    updated_at: Stamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_create_projects: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(clippy::option_option, reason = "not to be seen, not set and set are three different answers")]
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

/// What was there until the autumn of 2022.
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

/// A person's place on a project.
#[derive(Serialize)]
pub(super) struct AssignmentView<'a> {
    id: AssignmentId,
    is_project_manager: bool,
    is_active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_default_rates: Option<bool>,
    budget: Option<f64>,
    created_at: Stamp,
    updated_at: Stamp,
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

/// Every person as an administrator sees them, newest first.
pub(crate) fn user_values(company: &Company, records: Records) -> Vec<Value> {
    let lens = Lens::new(company, &Sight::Everything, records);
    company.users().rows().iter().rev().map(|user| value(&lens.user(user))).collect()
}

/// Every assignment as an administrator sees it, newest first.
pub(crate) fn assignment_values(company: &Company, records: Records) -> Vec<Value> {
    let lens = Lens::new(company, &Sight::Everything, records);
    company.assignments().rows().iter().rev().map(|held| value(&lens.assignment(held))).collect()
}

/// A person's rates as an administrator sees them, oldest first.
pub(crate) fn rate_values(company: &Company, kind: RateKind, user: UserId) -> Vec<Value> {
    placed(company, kind, user).iter().rev().map(|rate| value(&rate.view())).collect()
}

#[expect(clippy::expect_used, reason = "the views have string keys and nothing that can fail to be written")]
fn value(view: &impl Serialize) -> Value {
    serde_json::to_value(view).expect("a record of plain data can be written as JSON")
}
