//! Faults that look like good answers, or like Harvest's own refusals.

use harvest_sim::{Company, Fault, Options};
use reqwest::StatusCode;

use super::{Desk, header, ids, keys};

async fn crowd() -> Desk {
    let options = Options { limit: None, ..Options::default() };
    Desk::open(Company::seeded(1, 25, 40), options).await
}

#[tokio::test]
async fn a_refusal_is_harvests_own_whatever_was_asked() {
    let desk = Desk::quiet().await;
    for status in [401, 403, 404, 410] {
        desk.sim.inject(Fault::refusal(status).on("/users"));
    }
    let refused = desk.get("/users").await;
    assert_eq!((refused.status().as_u16(), header(&refused, "content-type")), (401, "application/json"));
    assert!(header(&refused, "www-authenticate").starts_with("Bearer realm="));
    assert!(
        refused.text().await.unwrap().starts_with(r#"{"error":"invalid_token","error_description":"The"#)
    );
    let refused = desk.get("/users/me").await;
    assert_eq!((refused.status().as_u16(), header(&refused, "hint")), (403, "Not authorized!"));
    assert_eq!(refused.text().await.unwrap(), r#"{"message":"Not authorized!"}"#);
    let refused = desk.get("/users").await;
    assert_eq!(header(&refused, "content-type"), "application/json; charset=UTF-8");
    assert_eq!(refused.status().as_u16(), 404);
    assert_eq!(refused.text().await.unwrap(), r#"{"status":404,"error":"Not Found"}"#);
    let refused = desk.get("/users").await;
    assert_eq!(refused.status().as_u16(), 410);
    assert_eq!(refused.text().await.unwrap(), r#"{"status":410,"error":"Gone"}"#);
    assert_eq!(desk.get("/users").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_can_be_any_bytes() {
    let desk = Desk::quiet().await;
    let id = desk.sim.token_owner().to_string();
    // Injected first, it still has the last word.
    desk.sim.inject(Fault::edit_bytes(move |body| {
        let text = String::from_utf8(std::mem::take(body)).unwrap();
        let text = text.replace(&id, "123456789012345678901234567890").replace("marked", "\\ud800");
        *body = text.into_bytes();
        body.extend(b" \xff");
    }));
    desk.sim.inject(Fault::field("first_name", "marked"));
    let answer = desk.get("/users/me").await;
    assert_eq!((answer.status(), answer.content_length().is_some()), (StatusCode::OK, true));
    let bytes = answer.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#""id":123456789012345678901234567890"#), "{text}");
    assert!(text.contains(r#""first_name":"\ud800""#), "{text}");
    assert!(bytes.ends_with(b"} \xff"));
    desk.sim.inject(Fault::edit_bytes(Vec::clear).times(2));
    assert_eq!(
        desk.get("/nowhere").await.text().await.unwrap().chars().next(),
        Some('<'),
        "good answers only"
    );
    assert_eq!(desk.text("/users").await, "");
}

#[tokio::test]
async fn hidden_records_are_on_no_page_and_in_no_count() {
    let desk = crowd().await;
    let all = desk.sim.user_ids();
    let hidden = [all[3].0, all[4].0, all[20].0, 7];
    desk.sim.inject(Fault::hide(hidden).on("/v2/users").forever());
    let pages = desk.walk("/users?per_page=10").await;
    let expected: Vec<i64> = all.iter().rev().map(|id| id.0).filter(|id| !hidden.contains(id)).collect();
    assert_eq!(ids(&pages, "users"), expected);
    assert!(pages.iter().all(|page| page["total_entries"] == 22), "of those that are there");
    let lengths: Vec<usize> = pages.iter().map(|page| page["users"].as_array().unwrap().len()).collect();
    assert_eq!(lengths, [9, 10, 3], "the pages are those of the whole list");
    assert_eq!(keys(&desk.text("/users").await, "")[1], "per_page", "the keys keep their order");
    assert_eq!(desk.json(&format!("/users/{}", all[3])).await["id"], all[3].0, "lists only");
    assert_eq!(desk.json("/user_assignments").await["total_entries"], 40);
}

#[tokio::test]
async fn what_is_filtered_out_is_not_hidden_twice() {
    let desk = crowd().await;
    let all = desk.sim.user_ids();
    desk.sim.deactivate(all[5]);
    let active = desk.json("/users?is_active=true").await["total_entries"].as_u64().unwrap();
    desk.sim.inject(Fault::hide([all[5].0, desk.sim.token_owner().0]));
    assert_eq!(desk.json("/users?is_active=true").await["total_entries"], active - 1);
}

#[tokio::test]
async fn a_total_can_be_wrong_by_some() {
    let desk = crowd().await;
    desk.sim.inject(Fault::total(3));
    desk.sim.inject(Fault::total(-25));
    desk.sim.inject(Fault::total(-1).on("/company"));
    let list = desk.json("/users?per_page=10").await;
    assert_eq!((list["total_entries"].as_i64(), list["users"].as_array().unwrap().len()), (Some(3), 10));
    assert_eq!(list["total_pages"], 3);
    assert!(desk.json("/company").await.get("total_entries").is_none());
}

#[tokio::test]
async fn another_company_is_shown_to_the_same_token_and_the_first_one_again() {
    let desk = Desk::open(Company::seeded(5, 20, 40), Options { limit: None, ..Options::default() }).await;
    let (owner, users) = (desk.sim.token_owner(), desk.sim.user_ids());
    let other = Company::seeded_elsewhere(6, 20, 40).with_name("Another Works");
    let first = desk.sim.replace_company(other);
    assert_eq!(desk.json("/users/me").await["id"], owner.0);
    assert_eq!(desk.json("/company").await["name"], "Another Works");
    let strangers = desk.sim.user_ids();
    assert_eq!(strangers.len(), 20);
    assert!(strangers.iter().all(|user| *user == owner || !users.contains(user)));
    desk.sim.replace_company(first);
    assert_eq!(desk.sim.user_ids(), users);
}
