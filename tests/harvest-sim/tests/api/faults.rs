//! Injected faults over real HTTP.

use std::time::{Duration, Instant};

use harvest_sim::{Company, Fault, Options, RetryAfter, Sim};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{TestClient, header, ids};

#[tokio::test]
async fn html_fault_sends_retry_after_as_seconds_as_date_or_not() {
    let client = TestClient::quiet().await;
    client.sim.freeze_clock();
    client.sim.inject(Fault::html(429));
    client.sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(7)));
    client.sim.inject(Fault::html(429).retry_after(RetryAfter::Date(Duration::from_secs(30))));
    assert!(client.get("/users").await.headers().get("retry-after").is_none());
    assert_eq!(header(&client.get("/users").await, "retry-after"), "7");
    let response = client.get("/users").await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let until = |name| httpdate::parse_http_date(header(&response, name)).unwrap();
    assert_eq!(until("retry-after").duration_since(until("date")).unwrap(), Duration::from_secs(30));
    assert_eq!(client.get("/users").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn forever_fault_applies_until_cleared() {
    let client = TestClient::quiet().await;
    client.sim.inject(Fault::html(503).forever());
    for path in ["/users", "/company", "/nowhere"] {
        let response = client.get(path).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (503, "text/html"));
    }
    client.sim.clear_faults();
    assert_eq!(client.get("/users").await.status(), StatusCode::OK);
    assert_eq!(client.sim.requests()[0].status, Some(503));
}

#[tokio::test]
async fn reset_fault_closes_the_connection_without_a_response() {
    let client = TestClient::quiet().await;
    client.sim.inject(Fault::reset().times(2));
    for _ in 0..2 {
        let error = client.ask("/users").send().await.unwrap_err();
        assert!(error.is_request(), "{error:?}");
    }
    assert_eq!(client.get("/users").await.status(), StatusCode::OK);
    assert_eq!(client.sim.requests()[0].status, None);
}

#[tokio::test]
async fn truncated_body_follows_complete_headers() {
    let client = TestClient::quiet().await;
    client.sim.inject(Fault::truncate_body().on("/users"));
    let response = client.get("/users").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.text().await.is_err());
    assert_eq!(client.json("/users").await["total_entries"], 1);
}

#[tokio::test]
async fn delayed_request_gets_the_correct_response_later() {
    let client = TestClient::quiet().await;
    client.sim.inject(Fault::delay_request(Duration::from_millis(120)));
    let asked = Instant::now();
    assert_eq!(client.get("/users").await.status(), StatusCode::OK);
    assert!(asked.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn empty_list_fault_removes_all_records() {
    let options = Options { limit: None, ..Options::default() };
    let client = TestClient::open(Company::seeded(1, 20, 0), options).await;
    client.sim.inject(Fault::empty_list().on("/users"));
    let list = client.json("/users?per_page=5").await;
    assert_eq!((&list["users"], &list["total_entries"]), (&json!([]), &json!(0)));
    assert_eq!(
        (&list["page"], &list["next_page"], &list["links"]["next"]),
        (&json!(1), &Value::Null, &Value::Null)
    );
    assert_eq!(client.json("/users?per_page=5").await["total_entries"], 20);
}

#[tokio::test]
async fn links_to_fault_changes_the_host_of_links() {
    let options = Options { limit: None, ..Options::default() };
    let client = TestClient::open(Company::seeded(1, 20, 0), options).await;
    client.sim.inject(Fault::links_to("https://harvest.example.net/v2"));
    let next = client.json("/users?per_page=5").await["links"]["next"].as_str().unwrap().to_owned();
    assert!(next.starts_with("https://harvest.example.net/v2/users?cursor="), "{next}");
}

#[tokio::test]
async fn field_faults_add_remove_and_change_fields() {
    let client = TestClient::quiet().await;
    client.sim.inject(Fault::set_field("nickname", "Al"));
    client.sim.inject(Fault::set_field("is_active", Value::Null));
    client.sim.inject(Fault::remove_field("telephone"));
    let user = client.json("/users").await["users"][0].clone();
    assert_eq!((&user["nickname"], &user["is_active"]), (&json!("Al"), &Value::Null));
    assert!(user.get("telephone").is_none() && user.get("email").is_some());
    client.sim.inject(Fault::remove_field("id").on("/users/me"));
    assert!(client.json("/users/me").await.get("id").is_none());
}

#[tokio::test]
async fn change_can_run_during_pagination() {
    let options = Options { limit: None, ..Options::default() };
    let client = TestClient::open(Company::seeded(1, 12, 0), options).await;
    let (sim, oldest) = (client.sim.clone(), client.sim.token_owner());
    client.sim.inject(
        Fault::run_before_response(move || sim.rename(oldest, "New", "Name")).on("/users").skip_first(1),
    );
    let pages = client.read_all_pages("/users?per_page=5").await;
    assert_eq!(ids(&pages, "users").len(), 12);
    assert_eq!(pages[2]["users"][1]["first_name"], "New");
}

#[tokio::test]
async fn stopped_simulator_refuses_connections_and_frees_its_address() {
    let client = TestClient::quiet().await;
    client.get("/users").await;
    client.sim.stop().await;
    assert!(client.ask("/users").send().await.is_err());
    let address = client.sim.address();
    let again = Sim::start_at(address, Company::new(), Options::default()).await.unwrap();
    assert_eq!(again.base_url(), client.sim.base_url());
    assert_eq!(client.get("/users").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn large_company_is_read_in_pages() {
    let options = Options { limit: None, ..Options::default() };
    let client = TestClient::open(Company::seeded(1, 2_000, 20_000), options).await;
    let pages = client.read_all_pages("/user_assignments").await;
    assert_eq!((pages.len(), ids(&pages, "user_assignments").len()), (10, 20_000));
}
