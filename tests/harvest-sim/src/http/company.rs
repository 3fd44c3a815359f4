//! JSON of the company and of projects. Most fields have constant values.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::state::{Company, Project, ProjectId};

/// `/company`, with the keys as recorded in 2022.
pub(super) fn company(company: &Company) -> CompanyView<'_> {
    let domain = format!("account-{}.harvest.example.com", company.account_id());
    CompanyView {
        base_uri: format!("https://{domain}"),
        full_domain: domain,
        name: company.name(),
        is_active: true,
        week_start_day: "Monday",
        wants_timestamp_timers: false,
        time_format: "hours_minutes",
        date_format: "%m/%d/%Y",
        plan_type: "simple-v4",
        expense_feature: true,
        invoice_feature: true,
        estimate_feature: true,
        team_feature: true,
        weekly_capacity: 126_000,
        approval_feature: true,
        clock: "12h",
        currency: "USD",
        currency_code_display: "iso_code_none",
        currency_symbol_display: "symbol_before",
        decimal_symbol: ".",
        thousands_separator: ",",
        color_scheme: "orange",
    }
}

#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "Harvest's own flags")]
pub(super) struct CompanyView<'a> {
    base_uri: String,
    full_domain: String,
    name: &'a str,
    is_active: bool,
    week_start_day: &'a str,
    wants_timestamp_timers: bool,
    time_format: &'a str,
    date_format: &'a str,
    plan_type: &'a str,
    expense_feature: bool,
    invoice_feature: bool,
    estimate_feature: bool,
    team_feature: bool,
    weekly_capacity: i64,
    approval_feature: bool,
    clock: &'a str,
    currency: &'a str,
    currency_code_display: &'a str,
    currency_symbol_display: &'a str,
    decimal_symbol: &'a str,
    thousands_separator: &'a str,
    color_scheme: &'a str,
}

/// A project, with the keys as recorded in 2022.
pub(super) fn project(project: &Project) -> ProjectView<'_> {
    ProjectView {
        id: project.id(),
        name: &project.name,
        code: project.code.as_deref(),
        is_active: project.is_active,
        is_billable: project.is_billable,
        is_fixed_fee: false,
        bill_by: if project.is_billable { "People" } else { "none" },
        budget: None,
        budget_by: "none",
        budget_is_monthly: false,
        notify_when_over_budget: false,
        over_budget_notification_percentage: 80.0,
        show_budget_to_all: false,
        created_at: project.created_at,
        updated_at: project.updated_at,
        starts_on: None,
        ends_on: None,
        over_budget_notification_date: None,
        notes: None,
        cost_budget: None,
        cost_budget_include_expenses: false,
        hourly_rate: None,
        fee: None,
        client: Client { id: project.client_id, name: &project.client_name, currency: "USD" },
    }
}

#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "Harvest's own flags")]
pub(super) struct ProjectView<'a> {
    id: ProjectId,
    name: &'a str,
    code: Option<&'a str>,
    is_active: bool,
    is_billable: bool,
    is_fixed_fee: bool,
    bill_by: &'a str,
    budget: Option<f64>,
    budget_by: &'a str,
    budget_is_monthly: bool,
    notify_when_over_budget: bool,
    over_budget_notification_percentage: f64,
    show_budget_to_all: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    starts_on: Option<&'a str>,
    ends_on: Option<&'a str>,
    over_budget_notification_date: Option<&'a str>,
    notes: Option<&'a str>,
    cost_budget: Option<f64>,
    cost_budget_include_expenses: bool,
    hourly_rate: Option<f64>,
    fee: Option<f64>,
    client: Client<'a>,
}

#[derive(Serialize)]
struct Client<'a> {
    id: i64,
    name: &'a str,
    currency: &'a str,
}
