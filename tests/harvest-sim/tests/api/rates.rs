//! Rates: start and end dates, lists, and the current rate in the user record.

use std::time::Duration;

use harvest_sim::{Fault, Paging, UserId};
use serde_json::{Value, json};

use super::{TestClient, header, ids, keys};

async fn with_jane() -> (TestClient, UserId) {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    let jane = client.sim.create_user("Jane", "Doe");
    (client, jane)
}

fn periods(rates: &[Value]) -> Vec<Value> {
    rates.iter().map(|rate| json!([rate["amount"], rate["start_date"], rate["end_date"]])).collect()
}

#[tokio::test]
async fn rate_has_the_recorded_keys_and_the_documented_envelope() {
    let (client, jane) = with_jane().await;
    for kind in ["billable_rates", "cost_rates"] {
        let path = format!("/users/{jane}/{kind}");
        let empty = client.json(&path).await;
        assert_eq!((&empty[kind], &empty["total_pages"]), (&json!([]), &json!(1)), "a new user has no rates");
        match kind {
            "cost_rates" => client.sim.add_cost_rate(jane, 60.0, None),
            _ => client.sim.add_billable_rate(jane, 175.0, None),
        };
        let text = client.text(&path).await;
        let envelope =
            [kind, "per_page", "total_pages", "total_entries", "next_page", "previous_page", "page", "links"];
        assert_eq!(keys(&text, ""), envelope);
        let rate = ["id", "amount", "start_date", "end_date", "created_at", "updated_at"];
        assert_eq!(keys(&text, &format!(r#""{kind}":["#)), rate);
        assert!(text.contains(r#".0,"start_date":null,"end_date":null,"#), "{text}");
    }
    let url = client.sim.base_url();
    let links = client.json(&format!("/users/{jane}/cost_rates")).await["links"].clone();
    assert_eq!(links["first"], format!("{url}/users/{jane}/cost_rates?page=1&per_page=2000&ref=first"));
}

#[tokio::test]
async fn rate_ends_the_day_before_the_next_and_gets_a_new_updated_at() {
    let (client, jane) = with_jane().await;
    let hired = client.sim.now();
    let since_ever = client.sim.add_billable_rate(jane, 8.25, None);
    client.sim.advance_clock(Duration::from_secs(8));
    let since_march = client.sim.add_billable_rate(jane, 9.5, Some("2024-03-01"));
    let rates = client.json(&format!("/users/{jane}/billable_rates")).await["billable_rates"].clone();
    let rates = rates.as_array().unwrap();
    assert_eq!(periods(rates), [json!([8.25, null, "2024-02-29"]), json!([9.5, "2024-03-01", null])]);
    assert_eq!((&rates[0]["id"], &rates[1]["id"]), (&since_ever.0.into(), &since_march.0.into()));
    let now = client.sim.now();
    assert_eq!(
        (&rates[0]["created_at"], &rates[0]["updated_at"]),
        (&hired.to_string().into(), &now.to_string().into())
    );
    assert_eq!(rates, &client.sim.billable_rates_json(jane), "equal to the list of an administrator");
    assert!(client.sim.cost_rates_json(jane).is_empty());
}

#[tokio::test]
async fn new_rate_replaces_rates_with_the_same_or_a_later_start() {
    let (client, jane) = with_jane().await;
    for (amount, start) in
        [(1.0, None), (2.0, Some("2021-01-01")), (3.0, Some("2022-01-01")), (4.0, Some("2023-01-01"))]
    {
        client.sim.add_cost_rate(jane, amount, start);
    }
    client.sim.add_cost_rate(jane, 5.0, Some("2022-01-01"));
    let expected = [
        json!([1.0, null, "2020-12-31"]),
        json!([2.0, "2021-01-01", "2021-12-31"]),
        json!([5.0, "2022-01-01", null]),
    ];
    assert_eq!(periods(&client.sim.cost_rates_json(jane)), expected);
    client.sim.add_cost_rate(jane, 6.0, Some("2020-06-01"));
    let expected = [json!([1.0, null, "2020-05-31"]), json!([6.0, "2020-06-01", null])];
    assert_eq!(periods(&client.sim.cost_rates_json(jane)), expected);
    client.sim.add_cost_rate(jane, 7.0, None);
    assert_eq!(periods(&client.sim.cost_rates_json(jane)), [json!([7.0, null, null])]);
}

#[tokio::test]
async fn changed_rate_keeps_updated_at_and_removed_rate_disappears() {
    let (client, jane) = with_jane().await;
    let first = client.sim.add_billable_rate(jane, 1.0, None);
    let second = client.sim.add_billable_rate(jane, 2.0, Some("2021-01-01"));
    let third = client.sim.add_billable_rate(jane, 3.0, Some("2022-01-01"));
    let before = client.sim.billable_rates_json(jane);
    client.sim.advance_clock(Duration::from_secs(5));
    client.sim.change_billable_rate(jane, second, 2.5);
    let changed = client.sim.billable_rates_json(jane);
    assert_eq!((&changed[1]["amount"], &changed[1]["updated_at"]), (&json!(2.5), &before[1]["updated_at"]));
    client.sim.remove_billable_rate(jane, second);
    let left = client.sim.billable_rates_json(jane);
    assert_eq!(periods(&left), [json!([1.0, null, "2021-12-31"]), json!([3.0, "2022-01-01", null])]);
    assert_eq!(left[0]["updated_at"], client.sim.now().to_string());
    client.sim.remove_billable_rate(jane, third);
    client.sim.remove_billable_rate(jane, first);
    assert!(client.sim.billable_rates_json(jane).is_empty());
    let cost = client.sim.add_cost_rate(jane, 1.0, None);
    client.sim.change_cost_rate(jane, cost, 1.5);
    assert_eq!(client.sim.cost_rates_json(jane)[0]["amount"], 1.5);
    client.sim.remove_cost_rate(jane, cost);
    assert!(client.sim.add_cost_rate(jane, 1.0, None) > cost, "ids are not reused");
}

#[tokio::test]
async fn current_rate_is_in_the_user_record_and_keeps_updated_at() {
    let (client, jane) = with_jane().await;
    let hired = client.sim.now();
    client.sim.advance_clock(Duration::from_secs(5));
    let next_year =
        (client.sim.now().datetime() + chrono::TimeDelta::days(365)).format("%Y-%m-%d").to_string();
    let since_ever = client.sim.add_billable_rate(jane, 100.0, None);
    client.sim.add_billable_rate(jane, 200.0, Some(&next_year));
    client.sim.add_cost_rate(jane, 60.0, Some("2021-01-01"));
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!((&shown["default_hourly_rate"], &shown["cost_rate"]), (&json!(100.0), &json!(60.0)));
    assert_eq!(shown["updated_at"], hired.to_string());
    client.sim.remove_billable_rate(jane, since_ever);
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!(
        (&shown["default_hourly_rate"], &shown["updated_at"]),
        (&Value::Null, &hired.to_string().into())
    );
}

#[tokio::test]
async fn rate_lists_are_paged_oldest_first_and_ignore_filters() {
    for (paging, middle) in [(Paging::Cursor, json!(null)), (Paging::Number, json!(2))] {
        let (client, jane) = with_jane().await;
        client.sim.configure(|options| options.paging = paging);
        let mut expected = vec![client.sim.add_billable_rate(jane, 1.0, None).0];
        for year in 2011..=2016 {
            expected.push(client.sim.add_billable_rate(jane, 2.5, Some(&format!("{year}-01-01"))).0);
        }
        let path = format!("/users/{jane}/billable_rates");
        let pages = client.read_all_pages(&format!("{path}?per_page=3")).await;
        assert_eq!(ids(&pages, "billable_rates"), expected);
        assert_eq!((pages.len(), &pages[1]["page"], &pages[2]["page"]), (3, &middle, &json!(3)));
        assert!(pages.iter().all(|page| page["total_entries"] == 7));
        let back = client.json(pages[2]["links"]["previous"].as_str().unwrap()).await;
        assert_eq!(back["billable_rates"], pages[1]["billable_rates"]);
        let unfiltered = client.json(&format!("{path}?is_active=false&updated_since=yesterday")).await;
        assert_eq!(unfiltered["total_entries"], 7);
        assert_eq!(client.get(&format!("{path}?per_page=0")).await.status().as_u16(), 422);
        client.sim.inject(Fault::hide_records([expected[1]]));
        assert_eq!(client.json(&path).await["total_entries"], 6, "hidden by id, not by position");
    }
}

#[tokio::test]
async fn deleted_user_has_no_rates_and_rate_ids_are_unique_per_kind() {
    let (client, jane) = with_jane().await;
    let john = client.sim.create_user("John", "Smith");
    let (hers, his) =
        (client.sim.add_billable_rate(jane, 1.0, None), client.sim.add_billable_rate(john, 1.0, None));
    client.sim.add_cost_rate(jane, 1.0, None);
    assert!(hers < his);
    client.sim.delete_user(jane);
    assert!(client.sim.billable_rates_json(jane).is_empty() && client.sim.cost_rates_json(jane).is_empty());
    assert_eq!(client.sim.billable_rates_json(john).len(), 1);
    for path in [format!("/users/{jane}/billable_rates"), "/users/7/cost_rates".to_owned()] {
        let response = client.get(&path).await;
        assert_eq!(response.status().as_u16(), 404);
        assert_eq!(header(&response, "content-type"), "application/json; charset=UTF-8");
    }
    assert_eq!(header(&client.get("/users//cost_rates").await, "content-type"), "text/html");
}

#[tokio::test]
async fn delayed_rate_leaves_earlier_rates_unchanged_until_due() {
    let (client, jane) = with_jane().await;
    let later = client.sim.with_visibility_delay(Duration::from_mins(1));
    later.add_cost_rate(jane, 60.0, None);
    assert!(client.sim.cost_rates_json(jane).is_empty());
    client.sim.add_billable_rate(jane, 100.0, None);
    let before = (client.sim.billable_rates_json(jane), client.sim.users_json());
    let changed_at = client.sim.now();
    client.sim.advance_clock(Duration::from_secs(5));
    let late = client.sim.with_visibility_delay(Duration::from_mins(1)).add_billable_rate(
        jane,
        200.0,
        Some("2021-01-01"),
    );
    client.sim.with_visibility_delay(Duration::from_mins(1)).change_billable_rate(jane, late, 250.0);
    assert_eq!((client.sim.billable_rates_json(jane), client.sim.users_json()), before);
    client.sim.show_pending_changes();
    let rates = client.sim.billable_rates_json(jane);
    assert_eq!(periods(&rates), [json!([100.0, null, "2020-12-31"]), json!([250.0, "2021-01-01", null])]);
    assert_eq!(rates[1]["created_at"], changed_at.plus(5).to_string());
    assert_eq!(client.sim.users_json()[0]["default_hourly_rate"], 250.0);
    assert_eq!(client.sim.cost_rates_json(jane)[0]["created_at"], changed_at.to_string());
}

#[tokio::test]
#[should_panic(expected = "\"2021-02-29\" is not a date")]
async fn invalid_start_date_panics() {
    let (client, jane) = with_jane().await;
    client.sim.add_cost_rate(jane, 1.0, Some("2021-02-29"));
}

#[tokio::test]
async fn rate_by_id_equals_the_list_entry_or_gets_404() {
    let (client, jane) = with_jane().await;
    let john = client.sim.create_user("John", "Doe");
    for kind in ["billable_rates", "cost_rates"] {
        let rate = match kind {
            "cost_rates" => client.sim.add_cost_rate(jane, 60.0, None),
            _ => client.sim.add_billable_rate(jane, 175.0, None),
        };
        let list = client.json(&format!("/users/{jane}/{kind}")).await[kind].clone();
        assert_eq!(client.json(&format!("/users/{jane}/{kind}/{rate}")).await, list[0]);
        for elsewhere in [format!("/users/{john}/{kind}/{rate}"), format!("/users/{jane}/{kind}/1")] {
            assert_eq!(client.ask(&elsewhere).send().await.unwrap().status(), 404, "{elsewhere}");
        }
        client.sim.inject(Fault::refusal(403).on(kind));
        assert_eq!(client.ask(&format!("/users/{jane}/{kind}/{rate}")).send().await.unwrap().status(), 403);
    }
    client.sim.set_token_role("member");
    assert_eq!(client.ask(&format!("/users/{jane}/cost_rates/1")).send().await.unwrap().status(), 403);
}
