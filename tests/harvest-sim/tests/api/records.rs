//! The keys of all record types, in the recorded order.

use harvest_sim::{Options, Records};
use serde_json::{Value, json};

use super::{TestClient, keys};

const USER_OF_2022: [&str; 21] = [
    "id",
    "first_name",
    "last_name",
    "email",
    "telephone",
    "timezone",
    "weekly_capacity",
    "has_access_to_all_future_projects",
    "is_contractor",
    "is_active",
    "calendar_integration_enabled",
    "calendar_integration_source",
    "created_at",
    "updated_at",
    "can_create_projects",
    "default_hourly_rate",
    "cost_rate",
    "roles",
    "access_roles",
    "permissions_claims",
    "avatar_url",
];

const USER_OF_2019: [&str; 21] = [
    "id",
    "first_name",
    "last_name",
    "email",
    "telephone",
    "timezone",
    "weekly_capacity",
    "has_access_to_all_future_projects",
    "is_contractor",
    "is_admin",
    "is_project_manager",
    "can_see_rates",
    "can_create_projects",
    "can_create_invoices",
    "is_active",
    "created_at",
    "updated_at",
    "default_hourly_rate",
    "cost_rate",
    "roles",
    "avatar_url",
];

#[tokio::test]
async fn user_has_the_recorded_keys_of_each_record_format() {
    let client = TestClient::quiet().await;
    assert_eq!(keys(&client.text("/users/me").await, ""), USER_OF_2022);
    assert_eq!(keys(&client.text("/users").await, r#""users":["#), USER_OF_2022);
    client.sim.configure(|options: &mut Options| options.records = Records::Of2019);
    assert_eq!(keys(&client.text("/users/me").await, ""), USER_OF_2019);
    assert_eq!(client.json("/users/me").await["is_admin"], true);
}

#[tokio::test]
async fn new_user_has_the_recorded_values() {
    let client = TestClient::quiet().await;
    let jane = client.sim.create_user("Jane", "Doe");
    let shown = client.json(&format!("/users/{jane}")).await;
    let expected = json!({
        "first_name": "Jane", "last_name": "Doe", "email": "jane.doe@example.com", "telephone": "",
        "timezone": "Eastern Time (US & Canada)", "weekly_capacity": 126_000, "is_contractor": false,
        "is_active": true, "calendar_integration_enabled": false, "calendar_integration_source": null,
        "can_create_projects": false, "default_hourly_rate": null, "cost_rate": null, "roles": [],
        "access_roles": ["member"],
        "permissions_claims": ["expenses:read:own", "expenses:write:own", "timers:read:own", "timers:write:own"],
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[key], value, "{key}");
    }
}

#[tokio::test]
async fn assignment_has_the_recorded_keys_and_shows_the_default_rate() {
    let client = TestClient::quiet().await;
    let jane = client.sim.create_user("Jane", "Doe");
    client.sim.set_rate(jane, Some(175.0));
    let project = client.sim.new_project("Road Building", "RB");
    let assignment = client.sim.assign(jane, project);
    let path = format!("/projects/{project}/user_assignments/{assignment}");
    let text = client.text(&path).await;
    let expected = [
        "id",
        "is_project_manager",
        "is_active",
        "use_default_rates",
        "budget",
        "created_at",
        "updated_at",
        "hourly_rate",
        "project",
        "user",
    ];
    assert_eq!(keys(&text, ""), expected);
    assert_eq!(keys(&text, r#""project":"#), ["id", "name", "code"]);
    assert_eq!(keys(&text, r#""user":"#), ["id", "name"]);
    assert!(text.contains(r#""hourly_rate":175.0"#), "amounts are written with a fraction");
    client.sim.edit_assignment(assignment, |assignment| {
        assignment.use_default_rates = false;
        assignment.hourly_rate = Some(87.35);
    });
    assert!(client.text(&path).await.contains(r#""hourly_rate":87.35"#));
}

#[tokio::test]
async fn assigned_administrator_or_manager_is_project_manager() {
    let client = TestClient::quiet().await;
    let project = client.sim.new_project("Road Building", "");
    client.sim.assign(client.sim.create_user("Jane", "Doe"), project);
    client.sim.assign(client.sim.token_owner(), project);
    let assignments = client.sim.assignments_json();
    let leads: Vec<&Value> = assignments.iter().map(|assignment| &assignment["is_project_manager"]).collect();
    assert_eq!(leads, [true, false]);
    assert_eq!(assignments[0]["project"]["code"], "");
}

#[tokio::test]
async fn access_roles_determine_permissions_claims() {
    let client = TestClient::quiet().await;
    let jane = client.sim.create_user("Jane", "Doe");
    client.sim.promote(jane, "people_manager");
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!(shown["access_roles"], json!(["manager", "people_manager"]));
    assert_eq!(shown["permissions_claims"][0], "expenses:read:managed");
    client.sim.promote(jane, "administrator");
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!(shown["access_roles"], json!(["administrator"]));
    assert_eq!(shown["permissions_claims"].as_array().unwrap().len(), 24);
    client.sim.promote(jane, "member");
    assert_eq!(client.json(&format!("/users/{jane}")).await["access_roles"], json!(["member"]));
}

#[tokio::test]
async fn user_can_have_an_undocumented_field() {
    let client = TestClient::quiet().await;
    let jane = client.sim.create_user("Jane", "Doe");
    client.sim.edit_user(jane, |user| {
        user.extra.insert("employee_id".to_owned(), "E-7".into());
    });
    let users = client.json("/users").await;
    assert_eq!(users["users"][0]["employee_id"], "E-7");
    assert!(users["users"][1].get("employee_id").is_none());
}

#[tokio::test]
async fn company_and_project_have_the_recorded_keys() {
    let client = TestClient::quiet().await;
    let road = client.sim.new_project("Road Building", "RB");
    let company = [
        "base_uri",
        "full_domain",
        "name",
        "is_active",
        "week_start_day",
        "wants_timestamp_timers",
        "time_format",
        "date_format",
        "plan_type",
        "expense_feature",
        "invoice_feature",
        "estimate_feature",
        "team_feature",
        "weekly_capacity",
        "approval_feature",
        "clock",
        "currency",
        "currency_code_display",
        "currency_symbol_display",
        "decimal_symbol",
        "thousands_separator",
        "color_scheme",
    ];
    assert_eq!(keys(&client.text("/company").await, ""), company);
    let project = [
        "id",
        "name",
        "code",
        "is_active",
        "is_billable",
        "is_fixed_fee",
        "bill_by",
        "budget",
        "budget_by",
        "budget_is_monthly",
        "notify_when_over_budget",
        "over_budget_notification_percentage",
        "show_budget_to_all",
        "created_at",
        "updated_at",
        "starts_on",
        "ends_on",
        "over_budget_notification_date",
        "notes",
        "cost_budget",
        "cost_budget_include_expenses",
        "hourly_rate",
        "fee",
        "client",
    ];
    assert_eq!(keys(&client.text("/projects").await, r#""projects":["#), project);
    assert_eq!(keys(&client.text(&format!("/projects/{road}")).await, ""), project);
}
