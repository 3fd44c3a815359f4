//! Faults that look like successful responses or like Harvest's errors.

use harvest_sim::{Company, Fault, Options};
use reqwest::StatusCode;

use super::{TestClient, header, ids, keys};

async fn seeded_client() -> TestClient {
    let options = Options { limit: None, ..Options::default() };
    TestClient::open(Company::seeded(1, 25, 40), options).await
}

#[tokio::test]
async fn refusal_fault_returns_harvests_error_body_for_any_path() {
    let client = TestClient::quiet().await;
    for status in [401, 403, 404, 410] {
        client.sim.inject(Fault::refusal(status).on("/users"));
    }
    let refused = client.get("/users").await;
    assert_eq!((refused.status().as_u16(), header(&refused, "content-type")), (401, "application/json"));
    assert!(header(&refused, "www-authenticate").starts_with("Bearer realm="));
    assert!(
        refused.text().await.unwrap().starts_with(r#"{"error":"invalid_token","error_description":"The"#)
    );
    let refused = client.get("/users/me").await;
    assert_eq!((refused.status().as_u16(), header(&refused, "hint")), (403, "Not authorized!"));
    assert_eq!(refused.text().await.unwrap(), r#"{"message":"Not authorized!"}"#);
    let refused = client.get("/users").await;
    assert_eq!(header(&refused, "content-type"), "application/json; charset=UTF-8");
    assert_eq!(refused.status().as_u16(), 404);
    assert_eq!(refused.text().await.unwrap(), r#"{"status":404,"error":"Not Found"}"#);
    let refused = client.get("/users").await;
    assert_eq!(refused.status().as_u16(), 410);
    assert_eq!(refused.text().await.unwrap(), r#"{"status":410,"error":"Gone"}"#);
    assert_eq!(client.get("/users").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn edit_bytes_fault_replaces_the_body() {
    let client = TestClient::quiet().await;
    let id = client.sim.token_owner().to_string();
    // The byte edit runs after the JSON edits, although it was injected first.
    client.sim.inject(Fault::edit_bytes(move |body| {
        let text = String::from_utf8(std::mem::take(body)).unwrap();
        let text = text.replace(&id, "123456789012345678901234567890").replace("marked", "\\ud800");
        *body = text.into_bytes();
        body.extend(b" \xff");
    }));
    client.sim.inject(Fault::set_field("first_name", "marked"));
    let response = client.get("/users/me").await;
    assert_eq!((response.status(), response.content_length().is_some()), (StatusCode::OK, true));
    let bytes = response.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#""id":123456789012345678901234567890"#), "{text}");
    assert!(text.contains(r#""first_name":"\ud800""#), "{text}");
    assert!(bytes.ends_with(b"} \xff"));
    client.sim.inject(Fault::edit_bytes(Vec::clear).times(2));
    assert_eq!(
        client.get("/nowhere").await.text().await.unwrap().chars().next(),
        Some('<'),
        "only successful responses are edited"
    );
    assert_eq!(client.text("/users").await, "");
}

#[tokio::test]
async fn hidden_records_are_absent_from_pages_and_totals() {
    let client = seeded_client().await;
    let all = client.sim.user_ids();
    let hidden = [all[3].0, all[4].0, all[20].0, 7];
    client.sim.inject(Fault::hide_records(hidden).on("/v2/users").forever());
    let pages = client.read_all_pages("/users?per_page=10").await;
    let expected: Vec<i64> = all.iter().rev().map(|id| id.0).filter(|id| !hidden.contains(id)).collect();
    assert_eq!(ids(&pages, "users"), expected);
    assert!(pages.iter().all(|page| page["total_entries"] == 22), "the total excludes hidden records");
    let lengths: Vec<usize> = pages.iter().map(|page| page["users"].as_array().unwrap().len()).collect();
    assert_eq!(lengths, [9, 10, 3], "the page boundaries are those of the complete list");
    assert_eq!(keys(&client.text("/users").await, "")[1], "per_page", "the keys keep their order");
    assert_eq!(client.json(&format!("/users/{}", all[3])).await["id"], all[3].0, "only lists hide records");
    assert_eq!(client.json("/user_assignments").await["total_entries"], 40);
}

#[tokio::test]
async fn hidden_record_excluded_by_a_filter_is_subtracted_once() {
    let client = seeded_client().await;
    let all = client.sim.user_ids();
    client.sim.archive_user(all[5]);
    let active = client.json("/users?is_active=true").await["total_entries"].as_u64().unwrap();
    client.sim.inject(Fault::hide_records([all[5].0, client.sim.token_owner().0]));
    assert_eq!(client.json("/users?is_active=true").await["total_entries"], active - 1);
}

#[tokio::test]
async fn wrong_total_fault_changes_total_entries() {
    let client = seeded_client().await;
    client.sim.inject(Fault::wrong_total(3));
    client.sim.inject(Fault::wrong_total(-25));
    client.sim.inject(Fault::wrong_total(-1).on("/company"));
    let list = client.json("/users?per_page=10").await;
    assert_eq!((list["total_entries"].as_i64(), list["users"].as_array().unwrap().len()), (Some(3), 10));
    assert_eq!(list["total_pages"], 3);
    assert!(client.json("/company").await.get("total_entries").is_none());
}

#[tokio::test]
async fn replaced_company_is_served_to_the_same_token_and_can_be_restored() {
    let client =
        TestClient::open(Company::seeded(5, 20, 40), Options { limit: None, ..Options::default() }).await;
    let (owner, users) = (client.sim.token_owner(), client.sim.user_ids());
    let other = Company::seeded_with_other_ids(6, 20, 40).with_name("Another Works");
    let first = client.sim.replace_company(other);
    assert_eq!(client.json("/users/me").await["id"], owner.0);
    assert_eq!(client.json("/company").await["name"], "Another Works");
    let other_users = client.sim.user_ids();
    assert_eq!(other_users.len(), 20);
    assert!(other_users.iter().all(|user| *user == owner || !users.contains(user)));
    client.sim.replace_company(first);
    assert_eq!(client.sim.user_ids(), users);
}
