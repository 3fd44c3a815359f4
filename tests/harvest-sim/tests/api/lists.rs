//! Filters, and what moves `updated_at`.

use std::time::Duration;

use harvest_sim::Options;
use serde_json::Value;

use super::{Desk, ids};

async fn found(desk: &Desk, path: &str, resource: &str) -> Vec<i64> {
    ids(&[desk.json(path).await], resource)
}

#[tokio::test]
async fn updated_since_is_strictly_greater_unless_switched() {
    let desk = Desk::quiet().await;
    desk.sim.freeze_clock();
    let early = desk.sim.hire("Jane", "Doe");
    let second = desk.sim.now();
    desk.sim.advance_clock(Duration::from_secs(1));
    let late = desk.sim.hire("John", "Smith");
    let path = format!("/users?updated_since={second}");
    assert_eq!(found(&desk, &path, "users").await, [late.0]);
    desk.sim.configure(|options| options.updated_since_inclusive = true);
    assert_eq!(found(&desk, &path, "users").await, [late.0, early.0]);
}

#[tokio::test]
async fn a_list_shows_the_archived_unless_asked_not_to() {
    let desk = Desk::quiet().await;
    let (jane, owner) = (desk.sim.hire("Jane", "Doe"), desk.sim.token_owner());
    desk.sim.deactivate(jane);
    assert_eq!(found(&desk, "/users", "users").await, [jane.0, owner.0]);
    assert_eq!(found(&desk, "/users?is_active=true", "users").await, [owner.0]);
    assert_eq!(found(&desk, "/users?is_active=false", "users").await, [jane.0]);
    assert_eq!(found(&desk, "/users?is_active=True", "users").await.len(), 2, "not a boolean to Harvest");
}

#[tokio::test]
async fn assignments_are_filtered_by_person() {
    let desk = Desk::quiet().await;
    let (jane, john) = (desk.sim.hire("Jane", "Doe"), desk.sim.hire("John", "Smith"));
    let project = desk.sim.new_project("Road Building", "RB");
    let (hers, _) = (desk.sim.assign(jane, project), desk.sim.assign(john, project));
    for list in ["/user_assignments".to_owned(), format!("/projects/{project}/user_assignments")] {
        assert_eq!(found(&desk, &format!("{list}?user_id={jane}"), "user_assignments").await, [hers.0]);
    }
}

#[tokio::test]
async fn archiving_a_person_archives_their_assignments_and_restoring_does_not_bring_them_back() {
    for touches in [true, false] {
        let desk = Desk::quiet().await;
        desk.sim.configure(|options| options.archiving_touches_assignments = touches);
        desk.sim.freeze_clock();
        let jane = desk.sim.hire("Jane", "Doe");
        let held = desk.sim.assign(jane, desk.sim.new_project("Road Building", ""));
        let before = desk.sim.now();
        desk.sim.advance_clock(Duration::from_mins(1));
        desk.sim.deactivate(jane);
        let path = format!("/user_assignments?updated_since={before}");
        let expected = if touches { vec![held.0] } else { vec![] };
        assert_eq!(found(&desk, &path, "user_assignments").await, expected);
        desk.sim.reactivate(jane);
        let all = desk.json("/user_assignments").await;
        assert_eq!(all["user_assignments"][0]["is_active"], false);
        assert_eq!(desk.json(&format!("/users/{jane}")).await["is_active"], true);
    }
}

#[tokio::test]
async fn a_rename_shows_at_once_in_the_copies_and_moves_only_its_own_record() {
    let desk = Desk::quiet().await;
    desk.sim.freeze_clock();
    let jane = desk.sim.hire("Jane", "Doe");
    let project = desk.sim.new_project("Road Building", None);
    let held = desk.sim.assign(jane, project);
    let before = desk.sim.now();
    desk.sim.advance_clock(Duration::from_secs(5));
    desk.sim.rename(jane, "Jane", "Smith-Doe");
    desk.sim.rename_project(project, "Castle Building");
    let shown = desk.json(&format!("/projects/{project}/user_assignments/{held}")).await;
    assert_eq!(shown["user"]["name"], "Jane Smith-Doe");
    assert_eq!(shown["project"]["name"], "Castle Building");
    assert_eq!(shown["updated_at"], before.to_string());
    let user = desk.json(&format!("/users/{jane}")).await;
    assert_eq!(user["updated_at"], desk.sim.now().to_string());
    assert_eq!(user["created_at"], before.to_string());
}

#[tokio::test]
async fn what_is_deleted_is_gone_at_once_without_a_trace() {
    let desk = Desk::quiet().await;
    let (jane, john) = (desk.sim.hire("Jane", "Doe"), desk.sim.hire("John", "Smith"));
    let project = desk.sim.new_project("Road Building", None);
    let (hers, his) = (desk.sim.assign(jane, project), desk.sim.assign(john, project));
    let other = desk.sim.new_project("Castle Building", None);
    let elsewhere = desk.sim.assign(john, other);
    desk.sim.delete_project(other);
    desk.sim.delete_user(jane);
    desk.sim.delete_assignment(his);
    assert_eq!(found(&desk, "/user_assignments", "user_assignments").await, [0_i64; 0]);
    assert_eq!(found(&desk, "/projects", "projects").await, [project.0]);
    for path in [
        format!("/users/{jane}"),
        format!("/projects/{project}/user_assignments/{hers}"),
        format!("/projects/{other}/user_assignments"),
        format!("/projects/{other}/user_assignments/{elsewhere}"),
    ] {
        assert_eq!(desk.get(&path).await.status().as_u16(), 404, "{path}");
    }
    assert!(desk.sim.hire("Third", "Person") > john, "ids are not used twice");
}

#[tokio::test]
async fn rates_and_roles_change_silently_unless_switched() {
    let desk = Desk::quiet().await;
    desk.sim.freeze_clock();
    let jane = desk.sim.hire("Jane", "Doe");
    let hired = desk.sim.now();
    desk.sim.advance_clock(Duration::from_secs(5));
    desk.sim.set_rate(jane, Some(175.0));
    desk.sim.set_cost_rate(jane, Some(60.5));
    desk.sim.set_roles(jane, &["Senior"]);
    desk.sim.edit_user_silently(jane, |user| user.telephone = "555".to_owned());
    let shown = desk.json(&format!("/users/{jane}")).await;
    assert_eq!((&shown["roles"][0], &shown["telephone"]), (&"Senior".into(), &"555".into()));
    assert_eq!(shown["updated_at"], hired.to_string());
    desk.sim.configure(|options| options.rates_touch_users = true);
    desk.sim.set_rate(jane, None);
    let shown = desk.json(&format!("/users/{jane}")).await;
    assert_eq!(shown["default_hourly_rate"], Value::Null);
    assert_eq!(shown["updated_at"], desk.sim.now().to_string());
}

#[tokio::test]
async fn the_truth_is_what_an_administrator_reads() {
    let options = Options { limit: None, ..Options::default() };
    let desk = Desk::open(harvest_sim::Company::seeded(9, 30, 120), options).await;
    assert_eq!(desk.json("/users").await["users"], Value::Array(desk.sim.users_json()));
    let assignments = Value::Array(desk.sim.assignments_json());
    assert_eq!(desk.json("/user_assignments").await["user_assignments"], assignments);
    desk.sim.set_token_role("member");
    assert_eq!(desk.sim.users_json().len(), 30, "whatever the token may see");
}
