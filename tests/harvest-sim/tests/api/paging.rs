//! The two ways through a list.

use harvest_sim::{Company, Options, Paging};
use serde_json::{Value, json};

use super::{Desk, ids, keys};

async fn desk(paging: Paging) -> Desk {
    let options = Options { limit: None, paging, ..Options::default() };
    Desk::open(Company::seeded(5, 41, 230), options).await
}

fn numbers(page: &Value) -> Value {
    json!([page["page"], page["next_page"], page["previous_page"]])
}

#[tokio::test]
async fn a_walk_by_cursor_sees_everyone_once_newest_first() {
    let desk = desk(Paging::Cursor).await;
    let pages = desk.walk("/users?per_page=10").await;
    let expected: Vec<i64> = desk.sim.user_ids().into_iter().rev().map(i64::from).collect();
    assert_eq!(ids(&pages, "users"), expected);
    let found: Vec<Value> = pages.iter().map(numbers).collect();
    let middle = json!([null, null, null]);
    assert_eq!(found, [json!([1, 2, null]), middle.clone(), middle.clone(), middle, json!([5, null, 4])]);
    assert!(pages.iter().all(|page| page["total_entries"] == 41 && page["total_pages"] == 5));
}

#[tokio::test]
async fn links_are_absolute_keep_the_filters_and_say_where_they_lead() {
    let desk = desk(Paging::Cursor).await;
    let url = desk.sim.base_url();
    let page = desk.json("/user_assignments?is_active=true&per_page=20").await;
    let links = &page["links"];
    assert_eq!(links["first"], format!("{url}/user_assignments?is_active=true&page=1&per_page=20&ref=first"));
    let next = links["next"].as_str().unwrap();
    assert!(next.starts_with(&format!("{url}/user_assignments?cursor=")), "{next}");
    assert!(next.ends_with("&is_active=true&per_page=20&ref=next_cursor"), "{next}");
    assert_eq!(links["previous"], Value::Null);
    let second = desk.json(next).await;
    let previous = second["links"]["previous"].as_str().unwrap();
    assert!(previous.ends_with("ref=previous_cursor"));
    assert_eq!(ids(&[desk.json(previous).await], "user_assignments"), ids(&[page], "user_assignments"));
    let last = desk.json(second["links"]["last"].as_str().unwrap()).await;
    assert_eq!(last["page"], last["total_pages"]);
    assert_eq!(last["links"]["next"], Value::Null);
}

#[tokio::test]
async fn the_cursor_wins_over_the_page() {
    let desk = desk(Paging::Cursor).await;
    let first = desk.json("/users?per_page=10").await;
    let next = first["links"]["next"].as_str().unwrap();
    assert_eq!(desk.json(&format!("{next}&page=4")).await["users"], desk.json(next).await["users"]);
}

#[tokio::test]
async fn a_walk_by_number_sees_everyone_once_and_has_numbers_throughout() {
    let desk = desk(Paging::Number).await;
    let pages = desk.walk("/users?per_page=20").await;
    let expected: Vec<i64> = desk.sim.user_ids().into_iter().rev().map(i64::from).collect();
    assert_eq!(ids(&pages, "users"), expected);
    let found: Vec<Value> = pages.iter().map(numbers).collect();
    assert_eq!(found, [json!([1, 2, null]), json!([2, 3, 1]), json!([3, null, 2])]);
    let next = pages[0]["links"]["next"].as_str().unwrap();
    assert!(next.ends_with("/users?page=2&per_page=20&ref=next"));
}

#[tokio::test]
async fn a_projects_team_is_paged_by_number_in_any_case() {
    let desk = desk(Paging::Cursor).await;
    let project = desk.sim.project_ids()[0];
    let pages = desk.walk(&format!("/projects/{project}/user_assignments?per_page=10")).await;
    assert!(pages.len() > 2);
    assert_eq!(numbers(&pages[1]), json!([2, 3, 1]));
    assert!(
        pages
            .iter()
            .flat_map(|page| page["user_assignments"].as_array().unwrap())
            .all(|held| held["project"]["id"] == project.0)
    );
}

#[tokio::test]
async fn rows_slide_under_a_walk_by_number_but_not_under_one_by_cursor() {
    for (paging, missed) in [(Paging::Number, 1), (Paging::Cursor, 0)] {
        let desk = desk(paging).await;
        let before = desk.sim.user_ids();
        let first = desk.json("/users?per_page=10").await;
        desk.sim.delete_user(before[before.len() - 1]);
        let rest = desk.walk(first["links"]["next"].as_str().unwrap()).await;
        let seen = ids(&[vec![first], rest].concat(), "users");
        assert_eq!(before.iter().filter(|id| !seen.contains(&id.0)).count(), missed, "{paging:?}");
    }
}

#[tokio::test]
async fn the_envelope_has_its_recorded_keys_in_their_order() {
    let desk = desk(Paging::Cursor).await;
    let expected =
        ["users", "per_page", "total_pages", "total_entries", "next_page", "previous_page", "page", "links"];
    assert_eq!(keys(&desk.text("/users").await, ""), expected);
    let links = ["first", "next", "previous", "last"];
    assert_eq!(keys(&desk.text("/users").await, r#""links":"#), links);
}

#[tokio::test]
async fn an_empty_list_has_one_page() {
    let desk = Desk::quiet().await;
    let list = desk.json("/user_assignments").await;
    assert_eq!(list["user_assignments"], json!([]));
    assert_eq!((&list["total_pages"], &list["total_entries"]), (&json!(1), &json!(0)));
    assert_eq!(numbers(&list), json!([1, null, null]));
    assert!(list["links"]["first"].is_string() && list["links"]["last"].is_string());
}
