//! Job roles: read and changed by id, and in people's records by name.

use harvest_sim::Options;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::writes::{expect_refused, json_of};
use super::{Desk, header, ids, keys};

#[tokio::test]
async fn role_is_created_renamed_and_deleted_in_peoples_records_too() {
    let desk = Desk::quiet().await;
    let (jane, john) = (desk.sim.hire("Jane", "Doe"), desk.sim.hire("John", "Doe"));
    let roles_of = async |user| desk.json(&format!("/users/{user}")).await["roles"].clone();
    let wanted = json!({ "name": "Marketing", "user_ids": [jane.0, john.0] });
    let answer = desk.post("/roles", wanted).await;
    let location = header(&answer, "location").to_owned();
    let made = json_of(answer, StatusCode::CREATED).await;
    assert_eq!(made["user_ids"], json!([jane.0, john.0]));
    assert_eq!(desk.json(&location).await, made);
    assert_eq!(roles_of(jane).await, json!(["Marketing"]));

    desk.sim.advance_clock(std::time::Duration::from_mins(1));
    let path = format!("/roles/{}", made["id"]);
    let fewer = json_of(desk.patch(&path, json!({ "user_ids": [john.0] })).await, StatusCode::OK).await;
    assert_eq!((&fewer["user_ids"], &fewer["updated_at"]), (&json!([john.0]), &made["updated_at"]));
    assert_eq!(roles_of(jane).await, json!([]));
    let renamed = json_of(desk.patch(&path, json!({ "name": "HR" })).await, StatusCode::OK).await;
    assert_ne!(renamed["updated_at"], made["updated_at"]);
    assert_eq!(roles_of(john).await, json!(["HR"]));
    assert_eq!(json_of(desk.delete(&path).await, StatusCode::OK).await["id"], made["id"]);
    assert_eq!(roles_of(john).await, json!([]));
    assert_eq!(desk.get(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn membership_moves_the_stamp_of_people_only_if_the_switch_says_so() {
    let desk = Desk::quiet().await;
    let jane = desk.sim.hire("Jane", "Doe");
    let stamp = async || desk.json(&format!("/users/{jane}")).await["updated_at"].clone();
    let before = stamp().await;
    for (name, moves) in [("A", false), ("B", true)] {
        desk.sim.configure(|options: &mut Options| options.roles_touch_users = moves);
        desk.sim.advance_clock(std::time::Duration::from_mins(1));
        json_of(
            desk.post("/roles", json!({ "name": name, "user_ids": [jane.0] })).await,
            StatusCode::CREATED,
        )
        .await;
        assert_eq!(stamp().await != before, moves);
    }
}

#[tokio::test]
async fn roles_are_listed_newest_first_with_the_recorded_keys() {
    let desk = Desk::quiet().await;
    desk.sim.set_roles(desk.sim.token_owner(), &["Founder", "CEO"]);
    let list = desk.text("/roles").await;
    assert_eq!(keys(&list, r#""roles":["#), ["id", "name", "created_at", "updated_at", "user_ids"]);
    let pages = desk.walk("/roles?per_page=1").await;
    let names: Vec<&Value> = pages.iter().map(|page| &page["roles"][0]["name"]).collect();
    assert_eq!(names, ["CEO", "Founder"], "a name that no role had has made one");
    assert!(ids(&pages, "roles").is_sorted_by(|a, b| a > b));
}

#[tokio::test]
async fn role_without_a_name_or_with_a_taken_one_or_unknown_people_is_refused() {
    let desk = Desk::quiet().await;
    desk.sim.set_roles(desk.sim.token_owner(), &["CEO"]);
    expect_refused(desk.post("/roles", json!({})).await, "Name can't be blank").await;
    expect_refused(desk.post("/roles", json!({ "name": "CEO" })).await, "Name has already been taken").await;
    let unknown = desk.post("/roles", json!({ "name": "HR", "user_ids": [1] })).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    desk.sim.demote_token();
    assert_eq!(desk.get("/roles").await.status(), StatusCode::FORBIDDEN);
}
