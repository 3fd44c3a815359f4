//! Changes with the current time that become visible later.

use std::time::Duration;

use serde_json::Value;

use super::{TestClient, ids};

const MINUTE: Duration = Duration::from_mins(1);

async fn with_frozen_clock() -> TestClient {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    client
}

async fn status(client: &TestClient, path: &str) -> u16 {
    client.get(path).await.status().as_u16()
}

async fn listed(client: &TestClient, resource: &str) -> Vec<i64> {
    ids(&[client.json(&format!("/{resource}")).await], resource)
}

#[tokio::test]
async fn delayed_creation_is_invisible_until_due_and_keeps_its_created_at() {
    let client = with_frozen_clock().await;
    let (owner, made) = (client.sim.token_owner(), client.sim.now());
    let jane = client.sim.with_visibility_delay(MINUTE).create_user("Jane", "Doe");
    let john = client.sim.create_user("John", "Smith");
    client.sim.advance_clock(Duration::from_secs(59));
    assert_eq!(listed(&client, "users").await, [john.0, owner.0]);
    assert_eq!(status(&client, &format!("/users/{jane}")).await, 404);
    assert_eq!(client.sim.users_json().len(), 2, "the JSON functions omit pending records");
    assert_eq!(client.sim.user_ids(), [owner, john]);
    client.sim.advance_clock(Duration::from_secs(1));
    assert_eq!(listed(&client, "users").await, [john.0, jane.0, owner.0], "in the order of ids");
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!(
        (&shown["created_at"], &shown["updated_at"]),
        (&made.to_string().into(), &shown["created_at"])
    );
    let since = format!("/users?updated_since={}", made.plus(1));
    assert_eq!(client.json(&since).await["total_entries"], 0, "a later `updated_since` finds neither");
}

#[tokio::test]
async fn delayed_change_is_invisible_until_due() {
    let client = with_frozen_clock().await;
    let jane = client.sim.create_user("Jane", "Doe");
    let assignment = client.sim.assign(jane, client.sim.new_project("Road Building", None));
    let before = (client.sim.users_json(), client.sim.assignments_json());
    client.sim.advance_clock(Duration::from_secs(5));
    let changed = Value::from(client.sim.now().to_string());
    client.sim.with_visibility_delay(MINUTE).rename(jane, "Jane", "Smith");
    client
        .sim
        .with_visibility_delay(MINUTE)
        .edit_assignment(assignment, |assignment| assignment.budget = Some(7.5));
    assert_eq!((client.sim.users_json(), client.sim.assignments_json()), before);
    client.sim.shift_clock(chrono::TimeDelta::minutes(1));
    let user = client.json(&format!("/users/{jane}")).await;
    assert_eq!((&user["last_name"], &user["updated_at"]), (&"Smith".into(), &changed));
    let assignment = client.sim.assignments_json().remove(0);
    assert_eq!((&assignment["budget"], &assignment["updated_at"]), (&7.5.into(), &changed));
}

#[tokio::test]
async fn later_of_two_delayed_changes_wins() {
    let client = with_frozen_clock().await;
    let jane = client.sim.create_user("Jane", "Doe");
    client.sim.with_visibility_delay(2 * MINUTE).rename(jane, "Jane", "First");
    client.sim.advance_clock(Duration::from_secs(5));
    let second = Value::from(client.sim.now().to_string());
    client.sim.with_visibility_delay(MINUTE).rename(jane, "Jane", "Second");
    for _ in 0..2 {
        client.sim.advance_clock(MINUTE);
        let shown = client.json(&format!("/users/{jane}")).await;
        assert_eq!((&shown["last_name"], &shown["updated_at"]), (&"Second".into(), &second));
    }
}

#[tokio::test]
async fn immediate_change_applies_pending_changes_of_the_record() {
    let client = with_frozen_clock().await;
    let jane = client.sim.create_user("Jane", "Doe");
    client.sim.with_visibility_delay(MINUTE).rename(jane, "Jane", "Smith");
    client.sim.set_email(jane, "jane@example.org");
    let shown = client.sim.users_json();
    assert_eq!((&shown[0]["last_name"], &shown[0]["email"]), (&"Smith".into(), &"jane@example.org".into()));
    client.sim.advance_clock(MINUTE);
    assert_eq!(client.sim.users_json(), shown);
}

#[tokio::test]
async fn delayed_change_never_decreases_updated_at() {
    let client = with_frozen_clock().await;
    let jane = client.sim.create_user("Jane", "Doe");
    let hired = client.sim.now();
    client.sim.shift_clock(chrono::TimeDelta::minutes(-10));
    client.sim.with_visibility_delay(MINUTE).rename(jane, "Jane", "Smith");
    client.sim.advance_clock(MINUTE);
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!((&shown["last_name"], &shown["updated_at"]), (&"Smith".into(), &hired.to_string().into()));
}

#[tokio::test]
async fn assignment_can_be_visible_before_its_user_and_project() {
    let client = with_frozen_clock().await;
    let later = client.sim.with_visibility_delay(MINUTE);
    let (jane, project) = (later.create_user("Jane", "Doe"), later.new_project("Road Building", "RB"));
    let assignment = client.sim.assign(jane, project);
    let shown = client.json("/user_assignments").await["user_assignments"][0].clone();
    assert_eq!((&shown["id"], &shown["user"]["name"]), (&assignment.0.into(), &"Jane Doe".into()));
    assert_eq!((&shown["user"]["id"], &shown["project"]["code"]), (&jane.0.into(), &"RB".into()));
    assert_eq!(status(&client, &format!("/projects/{project}/user_assignments")).await, 404);
    client.sim.rename(jane, "Jane", "Smith");
    assert_eq!(
        status(&client, &format!("/users/{jane}")).await,
        404,
        "a change does not make a pending record visible"
    );
    client.sim.advance_clock(MINUTE);
    assert_eq!(client.json(&format!("/users/{jane}")).await["last_name"], "Smith");
    assert_eq!(listed(&client, "projects").await, [project.0]);
}

#[tokio::test]
async fn delayed_deletion_or_archiving_is_invisible_until_due() {
    let client = with_frozen_clock().await;
    let (jane, john) = (client.sim.create_user("Jane", "Doe"), client.sim.create_user("John", "Smith"));
    let project = client.sim.new_project("Road Building", None);
    let (hers, his) = (client.sim.assign(jane, project), client.sim.assign(john, project));
    let archived = client.sim.now();
    client.sim.with_visibility_delay(MINUTE).delete_user(jane);
    client.sim.with_visibility_delay(MINUTE).archive_user(john);
    let also_hers = client.sim.assign(jane, client.sim.new_project("Castle Building", None));
    client.sim.rename(jane, "Jane", "Smith");
    assert_eq!(listed(&client, "user_assignments").await, [also_hers.0, his.0, hers.0]);
    assert!(client.sim.users_json().iter().all(|user| user["is_active"] == true));
    client.sim.advance_clock(MINUTE);
    assert_eq!(listed(&client, "user_assignments").await, [his.0]);
    assert_eq!(status(&client, &format!("/users/{jane}")).await, 404);
    let assignment = client.sim.assignments_json().remove(0);
    assert_eq!(
        (&assignment["is_active"], &assignment["updated_at"]),
        (&false.into(), &archived.to_string().into())
    );
    client.sim.with_visibility_delay(MINUTE).delete_user(john);
    client.sim.delete_user(john);
    client.sim.advance_clock(MINUTE);
    assert_eq!(
        listed(&client, "users").await,
        [client.sim.token_owner().0],
        "the pending deletion has no effect"
    );
}

#[tokio::test]
async fn show_pending_changes_applies_all_delayed_changes() {
    let client = with_frozen_clock().await;
    let later = client.sim.with_visibility_delay(Duration::MAX);
    let jane = later.create_user("Jane", "Doe");
    let assignment = later.assign(jane, client.sim.new_project("Road Building", None));
    let john = client.sim.create_user("John", "Smith");
    client.sim.with_visibility_delay(MINUTE).delete_user(john);
    client.sim.with_visibility_delay(2 * MINUTE).rename(jane, "Jane", "Smith");
    assert_eq!(listed(&client, "users").await, [john.0, client.sim.token_owner().0]);
    client.sim.show_pending_changes();
    assert_eq!(listed(&client, "users").await, [jane.0, client.sim.token_owner().0]);
    assert_eq!(listed(&client, "user_assignments").await, [assignment.0]);
    assert_eq!(client.json(&format!("/users/{jane}")).await["last_name"], "Smith");
}

#[tokio::test]
#[should_panic(expected = "the company has no user with id 7")]
async fn delayed_change_of_an_unknown_record_panics_at_once() {
    with_frozen_clock().await.sim.with_visibility_delay(MINUTE).delete_user(harvest_sim::UserId(7));
}
