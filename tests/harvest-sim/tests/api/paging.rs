//! Pagination by cursor and by page number.

use harvest_sim::{Company, Options, Paging};
use serde_json::{Value, json};

use super::{TestClient, ids, keys};

async fn client(paging: Paging) -> TestClient {
    let options = Options { limit: None, paging, ..Options::default() };
    TestClient::open(Company::seeded(5, 41, 230), options).await
}

fn numbers(page: &Value) -> Value {
    json!([page["page"], page["next_page"], page["previous_page"]])
}

#[tokio::test]
async fn cursor_pagination_returns_each_record_once_newest_first() {
    let client = client(Paging::Cursor).await;
    let pages = client.read_all_pages("/users?per_page=10").await;
    let expected: Vec<i64> = client.sim.user_ids().into_iter().rev().map(i64::from).collect();
    assert_eq!(ids(&pages, "users"), expected);
    let found: Vec<Value> = pages.iter().map(numbers).collect();
    let middle = json!([null, null, null]);
    assert_eq!(found, [json!([1, 2, null]), middle.clone(), middle.clone(), middle, json!([5, null, 4])]);
    assert!(pages.iter().all(|page| page["total_entries"] == 41 && page["total_pages"] == 5));
}

#[tokio::test]
async fn links_are_absolute_and_keep_filters_and_have_a_ref() {
    let client = client(Paging::Cursor).await;
    let url = client.sim.base_url();
    let page = client.json("/user_assignments?is_active=true&per_page=20").await;
    let links = &page["links"];
    assert_eq!(links["first"], format!("{url}/user_assignments?is_active=true&page=1&per_page=20&ref=first"));
    let next = links["next"].as_str().unwrap();
    assert!(next.starts_with(&format!("{url}/user_assignments?cursor=")), "{next}");
    assert!(next.ends_with("&is_active=true&per_page=20&ref=next_cursor"), "{next}");
    assert_eq!(links["previous"], Value::Null);
    let second = client.json(next).await;
    let previous = second["links"]["previous"].as_str().unwrap();
    assert!(previous.ends_with("ref=previous_cursor"));
    assert_eq!(ids(&[client.json(previous).await], "user_assignments"), ids(&[page], "user_assignments"));
    let last = client.json(second["links"]["last"].as_str().unwrap()).await;
    assert_eq!(last["page"], last["total_pages"]);
    assert_eq!(last["links"]["next"], Value::Null);
}

#[tokio::test]
async fn cursor_takes_precedence_over_page() {
    let client = client(Paging::Cursor).await;
    let first = client.json("/users?per_page=10").await;
    let next = first["links"]["next"].as_str().unwrap();
    assert_eq!(client.json(&format!("{next}&page=4")).await["users"], client.json(next).await["users"]);
}

#[tokio::test]
async fn page_number_pagination_returns_each_record_once_with_page_numbers() {
    let client = client(Paging::Number).await;
    let pages = client.read_all_pages("/users?per_page=20").await;
    let expected: Vec<i64> = client.sim.user_ids().into_iter().rev().map(i64::from).collect();
    assert_eq!(ids(&pages, "users"), expected);
    let found: Vec<Value> = pages.iter().map(numbers).collect();
    assert_eq!(found, [json!([1, 2, null]), json!([2, 3, 1]), json!([3, null, 2])]);
    let next = pages[0]["links"]["next"].as_str().unwrap();
    assert!(next.ends_with("/users?page=2&per_page=20&ref=next"));
}

#[tokio::test]
async fn project_assignments_are_always_paged_by_number() {
    let client = client(Paging::Cursor).await;
    let project = client.sim.project_ids()[0];
    let pages = client.read_all_pages(&format!("/projects/{project}/user_assignments?per_page=10")).await;
    assert!(pages.len() > 2);
    assert_eq!(numbers(&pages[1]), json!([2, 3, 1]));
    assert!(
        pages
            .iter()
            .flat_map(|page| page["user_assignments"].as_array().unwrap())
            .all(|assignment| assignment["project"]["id"] == project.0)
    );
}

#[tokio::test]
async fn deletion_during_pagination_skips_a_record_only_with_page_numbers() {
    for (paging, skipped) in [(Paging::Number, 1), (Paging::Cursor, 0)] {
        let client = client(paging).await;
        let before = client.sim.user_ids();
        let first = client.json("/users?per_page=10").await;
        client.sim.delete_user(before[before.len() - 1]);
        let rest = client.read_all_pages(first["links"]["next"].as_str().unwrap()).await;
        let seen = ids(&[vec![first], rest].concat(), "users");
        assert_eq!(before.iter().filter(|id| !seen.contains(&id.0)).count(), skipped, "{paging:?}");
    }
}

#[tokio::test]
async fn envelope_has_the_recorded_keys_in_order() {
    let client = client(Paging::Cursor).await;
    let expected =
        ["users", "per_page", "total_pages", "total_entries", "next_page", "previous_page", "page", "links"];
    assert_eq!(keys(&client.text("/users").await, ""), expected);
    let links = ["first", "next", "previous", "last"];
    assert_eq!(keys(&client.text("/users").await, r#""links":"#), links);
}

#[tokio::test]
async fn empty_list_has_one_page() {
    let client = TestClient::quiet().await;
    let list = client.json("/user_assignments").await;
    assert_eq!(list["user_assignments"], json!([]));
    assert_eq!((&list["total_pages"], &list["total_entries"]), (&json!(1), &json!(0)));
    assert_eq!(numbers(&list), json!([1, null, null]));
    assert!(list["links"]["first"].is_string() && list["links"]["last"].is_string());
}
