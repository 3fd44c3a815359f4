//! List filters, and the changes that set `updated_at`.

use std::time::Duration;

use harvest_sim::Options;
use serde_json::Value;

use super::{TestClient, ids};

async fn found(client: &TestClient, path: &str, resource: &str) -> Vec<i64> {
    ids(&[client.json(path).await], resource)
}

#[tokio::test]
async fn updated_since_excludes_equal_times_unless_the_option_is_set() {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    let early = client.sim.create_user("Jane", "Doe");
    let second = client.sim.now();
    client.sim.advance_clock(Duration::from_secs(1));
    let late = client.sim.create_user("John", "Smith");
    let path = format!("/users?updated_since={second}");
    assert_eq!(found(&client, &path, "users").await, [late.0]);
    client.sim.configure(|options| options.updated_since_inclusive = true);
    assert_eq!(found(&client, &path, "users").await, [late.0, early.0]);
}

#[tokio::test]
async fn list_without_is_active_includes_archived_records() {
    let client = TestClient::quiet().await;
    let (jane, owner) = (client.sim.create_user("Jane", "Doe"), client.sim.token_owner());
    client.sim.archive_user(jane);
    assert_eq!(found(&client, "/users", "users").await, [jane.0, owner.0]);
    assert_eq!(found(&client, "/users?is_active=true", "users").await, [owner.0]);
    assert_eq!(found(&client, "/users?is_active=false", "users").await, [jane.0]);
    assert_eq!(
        found(&client, "/users?is_active=True", "users").await.len(),
        2,
        "True is not a boolean in Harvest"
    );
}

#[tokio::test]
async fn assignments_are_filtered_by_user() {
    let client = TestClient::quiet().await;
    let (jane, john) = (client.sim.create_user("Jane", "Doe"), client.sim.create_user("John", "Smith"));
    let project = client.sim.new_project("Road Building", "RB");
    let (hers, _) = (client.sim.assign(jane, project), client.sim.assign(john, project));
    for list in ["/user_assignments".to_owned(), format!("/projects/{project}/user_assignments")] {
        assert_eq!(found(&client, &format!("{list}?user_id={jane}"), "user_assignments").await, [hers.0]);
    }
}

#[tokio::test]
async fn archiving_a_user_archives_assignments_and_restoring_leaves_them_archived() {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    let jane = client.sim.create_user("Jane", "Doe");
    let assignment = client.sim.assign(jane, client.sim.new_project("Road Building", ""));
    let before = client.sim.now();
    client.sim.advance_clock(Duration::from_mins(1));
    client.sim.archive_user(jane);
    let path = format!("/user_assignments?updated_since={before}");
    assert_eq!(found(&client, &path, "user_assignments").await, [assignment.0]);
    client.sim.restore_user(jane);
    let all = client.json("/user_assignments").await;
    assert_eq!(all["user_assignments"][0]["is_active"], false);
    assert_eq!(client.json(&format!("/users/{jane}")).await["is_active"], true);
}

#[tokio::test]
async fn rename_shows_in_assignments_and_changes_only_its_own_updated_at() {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    let jane = client.sim.create_user("Jane", "Doe");
    let project = client.sim.new_project("Road Building", None);
    let assignment = client.sim.assign(jane, project);
    let before = client.sim.now();
    client.sim.advance_clock(Duration::from_secs(5));
    client.sim.rename(jane, "Jane", "Smith-Doe");
    client.sim.rename_project(project, "Castle Building");
    let shown = client.json(&format!("/projects/{project}/user_assignments/{assignment}")).await;
    assert_eq!(shown["user"]["name"], "Jane Smith-Doe");
    assert_eq!(shown["project"]["name"], "Castle Building");
    assert_eq!(shown["updated_at"], before.to_string());
    let user = client.json(&format!("/users/{jane}")).await;
    assert_eq!(user["updated_at"], client.sim.now().to_string());
    assert_eq!(user["created_at"], before.to_string());
}

#[tokio::test]
async fn deleted_records_disappear_from_lists_at_once() {
    let client = TestClient::quiet().await;
    let (jane, john) = (client.sim.create_user("Jane", "Doe"), client.sim.create_user("John", "Smith"));
    let project = client.sim.new_project("Road Building", None);
    let (hers, his) = (client.sim.assign(jane, project), client.sim.assign(john, project));
    let other = client.sim.new_project("Castle Building", None);
    let elsewhere = client.sim.assign(john, other);
    client.sim.delete_project(other);
    client.sim.delete_user(jane);
    client.sim.delete_assignment(his);
    assert_eq!(found(&client, "/user_assignments", "user_assignments").await, [0_i64; 0]);
    assert_eq!(found(&client, "/projects", "projects").await, [project.0]);
    for path in [
        format!("/users/{jane}"),
        format!("/projects/{project}/user_assignments/{hers}"),
        format!("/projects/{other}/user_assignments"),
        format!("/projects/{other}/user_assignments/{elsewhere}"),
    ] {
        assert_eq!(client.get(&path).await.status().as_u16(), 404, "{path}");
    }
    assert!(client.sim.create_user("Third", "Person") > john, "ids are not reused");
}

#[tokio::test]
async fn rate_and_role_changes_keep_updated_at() {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    let jane = client.sim.create_user("Jane", "Doe");
    let hired = client.sim.now();
    client.sim.advance_clock(Duration::from_secs(5));
    client.sim.set_rate(jane, Some(175.0));
    client.sim.set_cost_rate(jane, Some(60.5));
    client.sim.set_roles(jane, &["Senior"]);
    client.sim.edit_user_keeping_updated_at(jane, |user| user.telephone = "555".to_owned());
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!((&shown["roles"][0], &shown["telephone"]), (&"Senior".into(), &"555".into()));
    assert_eq!(shown["updated_at"], hired.to_string());
}

#[tokio::test]
async fn json_functions_equal_the_lists_of_an_administrator() {
    let options = Options { limit: None, ..Options::default() };
    let client = TestClient::open(harvest_sim::Company::seeded(9, 30, 120), options).await;
    assert_eq!(client.json("/users").await["users"], Value::Array(client.sim.users_json()));
    let assignments = Value::Array(client.sim.assignments_json());
    assert_eq!(client.json("/user_assignments").await["user_assignments"], assignments);
    client.sim.set_token_role("member");
    assert_eq!(client.sim.users_json().len(), 30, "independent of the token");
}
