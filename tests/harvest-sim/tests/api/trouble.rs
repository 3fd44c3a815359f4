//! Faults, as a client meets them.

use std::time::{Duration, Instant};

use harvest_sim::{Company, Fault, Options, RetryAfter, Sim};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Desk, header, ids};

#[tokio::test]
async fn a_throttle_may_say_seconds_a_date_or_nothing() {
    let desk = Desk::quiet().await;
    desk.sim.freeze_clock();
    desk.sim.inject(Fault::html(429));
    desk.sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(7)));
    desk.sim.inject(Fault::html(429).retry_after(RetryAfter::Date(Duration::from_secs(30))));
    assert!(desk.get("/users").await.headers().get("retry-after").is_none());
    assert_eq!(header(&desk.get("/users").await, "retry-after"), "7");
    let answer = desk.get("/users").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let until = |name| httpdate::parse_http_date(header(&answer, name)).unwrap();
    assert_eq!(until("retry-after").duration_since(until("date")).unwrap(), Duration::from_secs(30));
    assert_eq!(desk.get("/users").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_outage_lasts_until_it_is_cleared() {
    let desk = Desk::quiet().await;
    desk.sim.inject(Fault::html(503).forever());
    for path in ["/users", "/company", "/nowhere"] {
        let answer = desk.get(path).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (503, "text/html"));
    }
    desk.sim.clear_faults();
    assert_eq!(desk.get("/users").await.status(), StatusCode::OK);
    assert_eq!(desk.sim.requests()[0].status, Some(503));
}

#[tokio::test]
async fn a_reset_connection_gives_no_answer() {
    let desk = Desk::quiet().await;
    desk.sim.inject(Fault::reset().times(2));
    for _ in 0..2 {
        let error = desk.ask("/users").send().await.unwrap_err();
        assert!(error.is_request(), "{error:?}");
    }
    assert_eq!(desk.get("/users").await.status(), StatusCode::OK);
    assert_eq!(desk.sim.requests()[0].status, None);
}

#[tokio::test]
async fn a_cut_body_follows_a_good_head() {
    let desk = Desk::quiet().await;
    desk.sim.inject(Fault::cut().on("/users"));
    let answer = desk.get("/users").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.is_err());
    assert_eq!(desk.json("/users").await["total_entries"], 1);
}

#[tokio::test]
async fn a_delayed_answer_is_late_and_right() {
    let desk = Desk::quiet().await;
    desk.sim.inject(Fault::delay(Duration::from_millis(120)));
    let asked = Instant::now();
    assert_eq!(desk.get("/users").await.status(), StatusCode::OK);
    assert!(asked.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn a_list_can_be_empty_when_it_should_not_be() {
    let options = Options { limit: None, ..Options::default() };
    let desk = Desk::open(Company::seeded(1, 20, 0), options).await;
    desk.sim.inject(Fault::empty_list().on("/users"));
    let list = desk.json("/users?per_page=5").await;
    assert_eq!((&list["users"], &list["total_entries"]), (&json!([]), &json!(0)));
    assert_eq!(
        (&list["page"], &list["next_page"], &list["links"]["next"]),
        (&json!(1), &Value::Null, &Value::Null)
    );
    assert_eq!(desk.json("/users?per_page=5").await["total_entries"], 20);
}

#[tokio::test]
async fn links_can_lead_elsewhere() {
    let options = Options { limit: None, ..Options::default() };
    let desk = Desk::open(Company::seeded(1, 20, 0), options).await;
    desk.sim.inject(Fault::links_to("https://harvest.example.net/v2"));
    let next = desk.json("/users?per_page=5").await["links"]["next"].as_str().unwrap().to_owned();
    assert!(next.starts_with("https://harvest.example.net/v2/users?cursor="), "{next}");
}

#[tokio::test]
async fn fields_come_go_and_change() {
    let desk = Desk::quiet().await;
    desk.sim.inject(Fault::field("nickname", "Al"));
    desk.sim.inject(Fault::field("is_active", Value::Null));
    desk.sim.inject(Fault::without_field("telephone"));
    let user = desk.json("/users").await["users"][0].clone();
    assert_eq!((&user["nickname"], &user["is_active"]), (&json!("Al"), &Value::Null));
    assert!(user.get("telephone").is_none() && user.get("email").is_some());
    desk.sim.inject(Fault::without_field("id").on("/users/me"));
    assert!(desk.json("/users/me").await.get("id").is_none());
}

#[tokio::test]
async fn something_can_happen_in_the_middle_of_a_walk() {
    let options = Options { limit: None, ..Options::default() };
    let desk = Desk::open(Company::seeded(1, 12, 0), options).await;
    let (sim, oldest) = (desk.sim.clone(), desk.sim.token_owner());
    desk.sim.inject(Fault::meanwhile(move || sim.rename(oldest, "New", "Name")).on("/users").skipping(1));
    let pages = desk.walk("/users?per_page=5").await;
    assert_eq!(ids(&pages, "users").len(), 12);
    assert_eq!(pages[2]["users"][1]["first_name"], "New");
}

#[tokio::test]
async fn a_stopped_simulator_refuses_connections_and_another_can_take_its_place() {
    let desk = Desk::quiet().await;
    desk.get("/users").await;
    desk.sim.stop().await;
    assert!(desk.ask("/users").send().await.is_err());
    let address = desk.sim.address();
    let again = Sim::start_at(address, Company::new(), Options::default()).await.unwrap();
    assert_eq!(again.base_url(), desk.sim.base_url());
    assert_eq!(desk.get("/users").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_big_company_is_walked_in_pages() {
    let options = Options { limit: None, ..Options::default() };
    let desk = Desk::open(Company::seeded(1, 2_000, 20_000), options).await;
    let pages = desk.walk("/user_assignments").await;
    assert_eq!((pages.len(), ids(&pages, "user_assignments").len()), (10, 20_000));
}
