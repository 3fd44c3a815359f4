//! Changes that are stamped when they happen and show only later.

use std::time::Duration;

use serde_json::Value;

use super::{Desk, ids};

const MINUTE: Duration = Duration::from_mins(1);

async fn still() -> Desk {
    let desk = Desk::quiet().await;
    desk.sim.freeze_clock();
    desk
}

async fn status(desk: &Desk, path: &str) -> u16 {
    desk.get(path).await.status().as_u16()
}

async fn listed(desk: &Desk, resource: &str) -> Vec<i64> {
    ids(&[desk.json(&format!("/{resource}")).await], resource)
}

#[tokio::test]
async fn what_is_created_late_is_nowhere_until_then_and_has_the_stamp_of_its_making() {
    let desk = still().await;
    let (owner, made) = (desk.sim.token_owner(), desk.sim.now());
    let jane = desk.sim.later(MINUTE).hire("Jane", "Doe");
    let john = desk.sim.hire("John", "Smith");
    desk.sim.advance_clock(Duration::from_secs(59));
    assert_eq!(listed(&desk, "users").await, [john.0, owner.0]);
    assert_eq!(status(&desk, &format!("/users/{jane}")).await, 404);
    assert_eq!(desk.sim.users_json().len(), 2, "the truth is what shows");
    assert_eq!(desk.sim.user_ids(), [owner, john]);
    desk.sim.advance_clock(Duration::from_secs(1));
    assert_eq!(listed(&desk, "users").await, [john.0, jane.0, owner.0], "in the place of its id");
    let shown = desk.json(&format!("/users/{jane}")).await;
    assert_eq!(
        (&shown["created_at"], &shown["updated_at"]),
        (&made.to_string().into(), &shown["created_at"])
    );
    let since = format!("/users?updated_since={}", made.plus(1));
    assert_eq!(desk.json(&since).await["total_entries"], 0, "who has walked past that second misses both");
}

#[tokio::test]
async fn what_is_changed_late_is_what_it_was_until_then() {
    let desk = still().await;
    let jane = desk.sim.hire("Jane", "Doe");
    let held = desk.sim.assign(jane, desk.sim.new_project("Road Building", None));
    let before = (desk.sim.users_json(), desk.sim.assignments_json());
    desk.sim.advance_clock(Duration::from_secs(5));
    let changed = Value::from(desk.sim.now().to_string());
    desk.sim.later(MINUTE).rename(jane, "Jane", "Smith");
    desk.sim.later(MINUTE).edit_assignment(held, |held| held.budget = Some(7.5));
    assert_eq!((desk.sim.users_json(), desk.sim.assignments_json()), before);
    desk.sim.shift_clock(chrono::TimeDelta::minutes(1));
    let user = desk.json(&format!("/users/{jane}")).await;
    assert_eq!((&user["last_name"], &user["updated_at"]), (&"Smith".into(), &changed));
    let held = desk.sim.assignments_json().remove(0);
    assert_eq!((&held["budget"], &held["updated_at"]), (&7.5.into(), &changed));
}

#[tokio::test]
async fn of_two_late_changes_the_later_one_stays_whichever_shows_first() {
    let desk = still().await;
    let jane = desk.sim.hire("Jane", "Doe");
    desk.sim.later(2 * MINUTE).rename(jane, "Jane", "First");
    desk.sim.advance_clock(Duration::from_secs(5));
    let second = Value::from(desk.sim.now().to_string());
    desk.sim.later(MINUTE).rename(jane, "Jane", "Second");
    for _ in 0..2 {
        desk.sim.advance_clock(MINUTE);
        let shown = desk.json(&format!("/users/{jane}")).await;
        assert_eq!((&shown["last_name"], &shown["updated_at"]), (&"Second".into(), &second));
    }
}

#[tokio::test]
async fn a_change_that_shows_at_once_brings_along_what_waited() {
    let desk = still().await;
    let jane = desk.sim.hire("Jane", "Doe");
    desk.sim.later(MINUTE).rename(jane, "Jane", "Smith");
    desk.sim.set_email(jane, "jane@example.org");
    let shown = desk.sim.users_json();
    assert_eq!((&shown[0]["last_name"], &shown[0]["email"]), (&"Smith".into(), &"jane@example.org".into()));
    desk.sim.advance_clock(MINUTE);
    assert_eq!(desk.sim.users_json(), shown);
}

#[tokio::test]
async fn a_late_stamp_never_goes_back() {
    let desk = still().await;
    let jane = desk.sim.hire("Jane", "Doe");
    let hired = desk.sim.now();
    desk.sim.shift_clock(chrono::TimeDelta::minutes(-10));
    desk.sim.later(MINUTE).rename(jane, "Jane", "Smith");
    desk.sim.advance_clock(MINUTE);
    let shown = desk.json(&format!("/users/{jane}")).await;
    assert_eq!((&shown["last_name"], &shown["updated_at"]), (&"Smith".into(), &hired.to_string().into()));
}

#[tokio::test]
async fn an_assignment_can_show_before_its_person_and_its_project() {
    let desk = still().await;
    let later = desk.sim.later(MINUTE);
    let (jane, project) = (later.hire("Jane", "Doe"), later.new_project("Road Building", "RB"));
    let held = desk.sim.assign(jane, project);
    let shown = desk.json("/user_assignments").await["user_assignments"][0].clone();
    assert_eq!((&shown["id"], &shown["user"]["name"]), (&held.0.into(), &"Jane Doe".into()));
    assert_eq!((&shown["user"]["id"], &shown["project"]["code"]), (&jane.0.into(), &"RB".into()));
    assert_eq!(status(&desk, &format!("/projects/{project}/user_assignments")).await, 404);
    desk.sim.rename(jane, "Jane", "Smith");
    assert_eq!(status(&desk, &format!("/users/{jane}")).await, 404, "a change is no creation");
    desk.sim.advance_clock(MINUTE);
    assert_eq!(desk.json(&format!("/users/{jane}")).await["last_name"], "Smith");
    assert_eq!(listed(&desk, "projects").await, [project.0]);
}

#[tokio::test]
async fn what_is_deleted_or_archived_late_is_there_until_then() {
    let desk = still().await;
    let (jane, john) = (desk.sim.hire("Jane", "Doe"), desk.sim.hire("John", "Smith"));
    let project = desk.sim.new_project("Road Building", None);
    let (hers, his) = (desk.sim.assign(jane, project), desk.sim.assign(john, project));
    let archived = desk.sim.now();
    desk.sim.later(MINUTE).delete_user(jane);
    desk.sim.later(MINUTE).deactivate(john);
    let also_hers = desk.sim.assign(jane, desk.sim.new_project("Castle Building", None));
    desk.sim.rename(jane, "Jane", "Smith");
    assert_eq!(listed(&desk, "user_assignments").await, [also_hers.0, his.0, hers.0]);
    assert!(desk.sim.users_json().iter().all(|user| user["is_active"] == true));
    desk.sim.advance_clock(MINUTE);
    assert_eq!(listed(&desk, "user_assignments").await, [his.0]);
    assert_eq!(status(&desk, &format!("/users/{jane}")).await, 404);
    let held = desk.sim.assignments_json().remove(0);
    assert_eq!((&held["is_active"], &held["updated_at"]), (&false.into(), &archived.to_string().into()));
    desk.sim.later(MINUTE).delete_user(john);
    desk.sim.delete_user(john);
    desk.sim.advance_clock(MINUTE);
    assert_eq!(listed(&desk, "users").await, [desk.sim.token_owner().0], "gone is gone");
}

#[tokio::test]
async fn everything_late_can_be_made_to_show_at_once() {
    let desk = still().await;
    let later = desk.sim.later(Duration::MAX);
    let jane = later.hire("Jane", "Doe");
    let held = later.assign(jane, desk.sim.new_project("Road Building", None));
    let john = desk.sim.hire("John", "Smith");
    desk.sim.later(MINUTE).delete_user(john);
    desk.sim.later(2 * MINUTE).rename(jane, "Jane", "Smith");
    assert_eq!(listed(&desk, "users").await, [john.0, desk.sim.token_owner().0]);
    desk.sim.surface_all();
    assert_eq!(listed(&desk, "users").await, [jane.0, desk.sim.token_owner().0]);
    assert_eq!(listed(&desk, "user_assignments").await, [held.0]);
    assert_eq!(desk.json(&format!("/users/{jane}")).await["last_name"], "Smith");
}

#[tokio::test]
#[should_panic(expected = "there is no person 7 in this company")]
async fn naming_a_record_that_is_not_there_is_a_mistake_at_once() {
    still().await.sim.later(MINUTE).delete_user(harvest_sim::UserId(7));
}
