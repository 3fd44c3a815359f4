//! People's rates: their histories, their lists, and what the person's own record shows of them.

use std::time::Duration;

use harvest_sim::{Fault, Options, Paging, UserId};
use serde_json::{Value, json};

use super::{Desk, header, ids, keys};

async fn with_jane() -> (Desk, UserId) {
    let desk = Desk::quiet().await;
    desk.sim.freeze_clock();
    let jane = desk.sim.hire("Jane", "Doe");
    (desk, jane)
}

fn periods(rates: &[Value]) -> Vec<Value> {
    rates.iter().map(|rate| json!([rate["amount"], rate["start_date"], rate["end_date"]])).collect()
}

#[tokio::test]
async fn a_rate_has_the_recorded_keys_in_the_documented_envelope() {
    let (desk, jane) = with_jane().await;
    for kind in ["billable_rates", "cost_rates"] {
        let path = format!("/users/{jane}/{kind}");
        let empty = desk.json(&path).await;
        assert_eq!((&empty[kind], &empty["total_pages"]), (&json!([]), &json!(1)), "nobody starts with one");
        match kind {
            "cost_rates" => desk.sim.add_cost_rate(jane, 60.0, None),
            _ => desk.sim.add_billable_rate(jane, 175.0, None),
        };
        let text = desk.text(&path).await;
        let envelope =
            [kind, "per_page", "total_pages", "total_entries", "next_page", "previous_page", "page", "links"];
        assert_eq!(keys(&text, ""), envelope);
        let rate = ["id", "amount", "start_date", "end_date", "created_at", "updated_at"];
        assert_eq!(keys(&text, &format!(r#""{kind}":["#)), rate);
        assert!(text.contains(r#".0,"start_date":null,"end_date":null,"#), "{text}");
    }
    let url = desk.sim.base_url();
    let links = desk.json(&format!("/users/{jane}/cost_rates")).await["links"].clone();
    assert_eq!(links["first"], format!("{url}/users/{jane}/cost_rates?page=1&per_page=2000&ref=first"));
}

#[tokio::test]
async fn a_rate_ends_the_day_before_the_next_and_moves_then() {
    let (desk, jane) = with_jane().await;
    let hired = desk.sim.now();
    let since_ever = desk.sim.add_billable_rate(jane, 8.25, None);
    desk.sim.advance_clock(Duration::from_secs(8));
    let since_march = desk.sim.add_billable_rate(jane, 9.5, Some("2024-03-01"));
    let rates = desk.json(&format!("/users/{jane}/billable_rates")).await["billable_rates"].clone();
    let rates = rates.as_array().unwrap();
    assert_eq!(periods(rates), [json!([8.25, null, "2024-02-29"]), json!([9.5, "2024-03-01", null])]);
    assert_eq!((&rates[0]["id"], &rates[1]["id"]), (&since_ever.0.into(), &since_march.0.into()));
    let now = desk.sim.now();
    assert_eq!(
        (&rates[0]["created_at"], &rates[0]["updated_at"]),
        (&hired.to_string().into(), &now.to_string().into())
    );
    assert_eq!(rates, &desk.sim.billable_rates_json(jane), "the truth is what an administrator reads");
    assert!(desk.sim.cost_rates_json(jane).is_empty());
}

#[tokio::test]
async fn a_new_rate_replaces_those_that_begin_with_it_or_later() {
    let (desk, jane) = with_jane().await;
    for (amount, start) in
        [(1.0, None), (2.0, Some("2021-01-01")), (3.0, Some("2022-01-01")), (4.0, Some("2023-01-01"))]
    {
        desk.sim.add_cost_rate(jane, amount, start);
    }
    desk.sim.add_cost_rate(jane, 5.0, Some("2022-01-01"));
    let expected = [
        json!([1.0, null, "2020-12-31"]),
        json!([2.0, "2021-01-01", "2021-12-31"]),
        json!([5.0, "2022-01-01", null]),
    ];
    assert_eq!(periods(&desk.sim.cost_rates_json(jane)), expected);
    desk.sim.add_cost_rate(jane, 6.0, Some("2020-06-01"));
    let expected = [json!([1.0, null, "2020-05-31"]), json!([6.0, "2020-06-01", null])];
    assert_eq!(periods(&desk.sim.cost_rates_json(jane)), expected);
    desk.sim.add_cost_rate(jane, 7.0, None);
    assert_eq!(periods(&desk.sim.cost_rates_json(jane)), [json!([7.0, null, null])]);
}

#[tokio::test]
async fn a_rate_can_change_silently_and_go_without_a_trace() {
    let (desk, jane) = with_jane().await;
    let first = desk.sim.add_billable_rate(jane, 1.0, None);
    let second = desk.sim.add_billable_rate(jane, 2.0, Some("2021-01-01"));
    let third = desk.sim.add_billable_rate(jane, 3.0, Some("2022-01-01"));
    let before = desk.sim.billable_rates_json(jane);
    desk.sim.advance_clock(Duration::from_secs(5));
    desk.sim.change_billable_rate(jane, second, 2.5);
    let changed = desk.sim.billable_rates_json(jane);
    assert_eq!((&changed[1]["amount"], &changed[1]["updated_at"]), (&json!(2.5), &before[1]["updated_at"]));
    desk.sim.remove_billable_rate(jane, second);
    let left = desk.sim.billable_rates_json(jane);
    assert_eq!(periods(&left), [json!([1.0, null, "2021-12-31"]), json!([3.0, "2022-01-01", null])]);
    assert_eq!(left[0]["updated_at"], desk.sim.now().to_string());
    desk.sim.remove_billable_rate(jane, third);
    desk.sim.remove_billable_rate(jane, first);
    assert!(desk.sim.billable_rates_json(jane).is_empty());
    let cost = desk.sim.add_cost_rate(jane, 1.0, None);
    desk.sim.change_cost_rate(jane, cost, 1.5);
    assert_eq!(desk.sim.cost_rates_json(jane)[0]["amount"], 1.5);
    desk.sim.remove_cost_rate(jane, cost);
    assert!(desk.sim.add_cost_rate(jane, 1.0, None) > cost, "ids are not used twice");
}

#[tokio::test]
async fn the_rate_in_force_is_the_one_of_the_person_and_comes_silently_unless_switched() {
    let (desk, jane) = with_jane().await;
    let hired = desk.sim.now();
    desk.sim.advance_clock(Duration::from_secs(5));
    let next_year = (desk.sim.now().datetime() + chrono::TimeDelta::days(365)).format("%Y-%m-%d").to_string();
    let since_ever = desk.sim.add_billable_rate(jane, 100.0, None);
    desk.sim.add_billable_rate(jane, 200.0, Some(&next_year));
    desk.sim.add_cost_rate(jane, 60.0, Some("2021-01-01"));
    let shown = desk.json(&format!("/users/{jane}")).await;
    assert_eq!((&shown["default_hourly_rate"], &shown["cost_rate"]), (&json!(100.0), &json!(60.0)));
    assert_eq!(shown["updated_at"], hired.to_string());
    desk.sim.configure(|options: &mut Options| options.rates_touch_users = true);
    desk.sim.remove_billable_rate(jane, since_ever);
    let shown = desk.json(&format!("/users/{jane}")).await;
    assert_eq!(shown["default_hourly_rate"], Value::Null);
    assert_eq!(shown["updated_at"], desk.sim.now().to_string());
}

#[tokio::test]
async fn rates_are_paged_oldest_first_both_ways_and_know_no_filters() {
    for (paging, middle) in [(Paging::Cursor, json!(null)), (Paging::Number, json!(2))] {
        let (desk, jane) = with_jane().await;
        desk.sim.configure(|options| options.paging = paging);
        let mut expected = vec![desk.sim.add_billable_rate(jane, 1.0, None).0];
        for year in 2011..=2016 {
            expected.push(desk.sim.add_billable_rate(jane, 2.5, Some(&format!("{year}-01-01"))).0);
        }
        let path = format!("/users/{jane}/billable_rates");
        let pages = desk.walk(&format!("{path}?per_page=3")).await;
        assert_eq!(ids(&pages, "billable_rates"), expected);
        assert_eq!((pages.len(), &pages[1]["page"], &pages[2]["page"]), (3, &middle, &json!(3)));
        assert!(pages.iter().all(|page| page["total_entries"] == 7));
        let back = desk.json(pages[2]["links"]["previous"].as_str().unwrap()).await;
        assert_eq!(back["billable_rates"], pages[1]["billable_rates"]);
        let unfiltered = desk.json(&format!("{path}?is_active=false&updated_since=yesterday")).await;
        assert_eq!(unfiltered["total_entries"], 7);
        assert_eq!(desk.get(&format!("{path}?per_page=0")).await.status().as_u16(), 422);
        desk.sim.inject(Fault::hide([expected[1]]));
        assert_eq!(desk.json(&path).await["total_entries"], 6, "hidden by id, not by place");
    }
}

#[tokio::test]
async fn rates_go_with_their_person_and_ids_are_unique_within_their_kind() {
    let (desk, jane) = with_jane().await;
    let john = desk.sim.hire("John", "Smith");
    let (hers, his) =
        (desk.sim.add_billable_rate(jane, 1.0, None), desk.sim.add_billable_rate(john, 1.0, None));
    desk.sim.add_cost_rate(jane, 1.0, None);
    assert!(hers < his);
    desk.sim.delete_user(jane);
    assert!(desk.sim.billable_rates_json(jane).is_empty() && desk.sim.cost_rates_json(jane).is_empty());
    assert_eq!(desk.sim.billable_rates_json(john).len(), 1);
    for path in [format!("/users/{jane}/billable_rates"), "/users/7/cost_rates".to_owned()] {
        let answer = desk.get(&path).await;
        assert_eq!(answer.status().as_u16(), 404);
        assert_eq!(header(&answer, "content-type"), "application/json; charset=UTF-8");
    }
    assert_eq!(header(&desk.get("/users//cost_rates").await, "content-type"), "text/html");
}

#[tokio::test]
async fn rates_can_show_late_and_leave_the_earlier_ones_as_they_were_until_then() {
    let (desk, jane) = with_jane().await;
    let later = desk.sim.later(Duration::from_mins(1));
    later.add_cost_rate(jane, 60.0, None);
    assert!(desk.sim.cost_rates_json(jane).is_empty());
    desk.sim.add_billable_rate(jane, 100.0, None);
    let before = (desk.sim.billable_rates_json(jane), desk.sim.users_json());
    let stamp = desk.sim.now();
    desk.sim.advance_clock(Duration::from_secs(5));
    let late = desk.sim.later(Duration::from_mins(1)).add_billable_rate(jane, 200.0, Some("2021-01-01"));
    desk.sim.later(Duration::from_mins(1)).change_billable_rate(jane, late, 250.0);
    assert_eq!((desk.sim.billable_rates_json(jane), desk.sim.users_json()), before);
    desk.sim.surface_all();
    let rates = desk.sim.billable_rates_json(jane);
    assert_eq!(periods(&rates), [json!([100.0, null, "2020-12-31"]), json!([250.0, "2021-01-01", null])]);
    assert_eq!(rates[1]["created_at"], stamp.plus(5).to_string());
    assert_eq!(desk.sim.users_json()[0]["default_hourly_rate"], 250.0);
    assert_eq!(desk.sim.cost_rates_json(jane)[0]["created_at"], stamp.to_string());
}

#[tokio::test]
#[should_panic(expected = "there is no day \"2021-02-29\"")]
async fn a_day_that_never_was_is_a_mistake() {
    let (desk, jane) = with_jane().await;
    desk.sim.add_cost_rate(jane, 1.0, Some("2021-02-29"));
}

#[tokio::test]
async fn rate_by_id_is_the_one_of_the_list_or_a_404() {
    let (desk, jane) = with_jane().await;
    let john = desk.sim.hire("John", "Doe");
    for kind in ["billable_rates", "cost_rates"] {
        let rate = match kind {
            "cost_rates" => desk.sim.add_cost_rate(jane, 60.0, None),
            _ => desk.sim.add_billable_rate(jane, 175.0, None),
        };
        let list = desk.json(&format!("/users/{jane}/{kind}")).await[kind].clone();
        assert_eq!(desk.json(&format!("/users/{jane}/{kind}/{rate}")).await, list[0]);
        for elsewhere in [format!("/users/{john}/{kind}/{rate}"), format!("/users/{jane}/{kind}/1")] {
            assert_eq!(desk.ask(&elsewhere).send().await.unwrap().status(), 404, "{elsewhere}");
        }
        desk.sim.inject(Fault::refusal(403).on(kind));
        assert_eq!(desk.ask(&format!("/users/{jane}/{kind}/{rate}")).send().await.unwrap().status(), 403);
    }
    desk.sim.set_token_role("member");
    assert_eq!(desk.ask(&format!("/users/{jane}/cost_rates/1")).send().await.unwrap().status(), 403);
}
