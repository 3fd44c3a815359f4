//! Faults before, during and after the processing of write requests.

use std::time::Duration;

use harvest_sim::{Fault, RetryAfter};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::lost_responses::until;
use super::writes::{george, json_of};
use super::{TestClient, header};

const CREATION: &str = "POST /v2/users";

impl TestClient {
    /// The status of a creation; `None` if the connection failed.
    async fn create_george(&self) -> Option<u16> {
        let sent = self.request(Method::POST, "/users").json(&george()).send().await;
        sent.ok().map(|response| response.status().as_u16())
    }

    fn number_of_georges(&self) -> usize {
        self.sim.users_json().iter().filter(|user| user["first_name"] == "George").count()
    }
}

#[tokio::test]
async fn fault_before_processing_changes_nothing_and_after_processing_keeps_the_change() {
    let fault = |status| Fault::html(status).on(CREATION);
    for (fault, status, processed) in [
        (fault(500), Some(500), false),
        (fault(429).retry_after(RetryAfter::Seconds(2)), Some(429), false),
        (Fault::reset().on(CREATION), None, false),
        (fault(500).after_processing(), Some(500), true),
        (Fault::refusal(503).on(CREATION).after_processing(), Some(503), true),
        (Fault::reset().on(CREATION).after_processing(), None, true),
        (Fault::lost_response().on(CREATION), None, true),
    ] {
        let client = TestClient::quiet().await;
        let name = format!("{fault:?}, processed: {processed}");
        client.sim.inject(fault);
        assert_eq!(client.create_george().await, status, "{name}");
        assert_eq!(client.number_of_georges(), usize::from(processed), "{name}");
        assert_eq!(client.sim.invitations().len(), usize::from(processed), "{name}");
        let write = client.sim.take_writes().remove(0);
        assert_eq!((write.status, write.processed), (status, processed.then_some(201)), "{name}");
        let again = if processed { 422 } else { 201 };
        assert_eq!(client.create_george().await, Some(again), "{name}");
    }
}

#[tokio::test]
async fn every_kind_of_write_keeps_its_change_after_a_lost_response() {
    let client = TestClient::quiet().await;
    let (jane, project) =
        (client.sim.create_user("Jane", "Doe"), client.sim.new_project("Road Building", "RB"));
    let assignment = client.sim.assign(jane, project);
    let joe = client.sim.create_user("Joe", "Doe");
    let list = format!("/projects/{project}/user_assignments");
    for (method, path, body) in [
        (Method::PATCH, format!("/users/{jane}"), json!({ "last_name": "Roe" })),
        (Method::POST, list.clone(), json!({ "user_id": joe.0 })),
        (Method::PATCH, format!("{list}/{assignment}"), json!({ "budget": 7 })),
        (Method::DELETE, format!("{list}/{assignment}"), json!({})),
        (Method::DELETE, format!("/users/{jane}"), json!({})),
    ] {
        client.sim.inject(Fault::lost_response().on(format!("{method} ")));
        assert!(client.request(method, &path).json(&body).send().await.is_err());
    }
    let processed: Vec<_> = client.sim.take_writes().iter().map(|it| it.processed).collect();
    assert_eq!(processed, [200, 201, 200, 200, 200].map(Some));
    assert!(!client.sim.user_ids().contains(&jane) && !client.sim.assignment_ids().contains(&assignment));
    assert_eq!(client.sim.assignments_json()[0]["user"]["id"], joe.0);
}

#[tokio::test]
async fn late_response_arrives_after_its_change_is_visible() {
    let client = TestClient::quiet().await;
    let release = CancellationToken::new();
    client.sim.inject(Fault::hold_response(release.clone()).on(CREATION));
    let sending = client.request(Method::POST, "/users").json(&george()).send();
    let waiting = tokio::spawn(sending);
    until(|| client.sim.writes().first().is_some_and(|it| it.processed == Some(201))).await;
    assert_eq!(client.number_of_georges(), 1);
    assert_eq!(client.sim.writes()[0].status, None);
    release.cancel();
    let created = json_of(waiting.await.unwrap().unwrap(), StatusCode::CREATED).await;
    assert_eq!(created["first_name"], "George");
    assert_eq!(client.sim.take_writes().remove(0).status, Some(201));
}

#[tokio::test]
async fn held_request_is_processed_after_the_client_disconnected_and_a_delayed_one_is_not() {
    let client = TestClient::quiet().await;
    let release = CancellationToken::new();
    client.sim.inject(Fault::hold_request(release.clone()).on(CREATION));
    client.sim.inject(Fault::delay_request(Duration::from_mins(10)).on("PATCH"));
    let jane = client.sim.create_user("Jane", "Doe");
    let held = tokio::spawn(client.request(Method::POST, "/users").json(&george()).send());
    let renaming = json!({ "last_name": "Roe" });
    let delayed =
        tokio::spawn(client.request(Method::PATCH, &format!("/users/{jane}")).json(&renaming).send());
    until(|| client.sim.writes().iter().filter(|it| it.fields.is_some()).count() == 2).await;
    held.abort();
    delayed.abort();
    assert!(held.await.is_err() && delayed.await.is_err());
    // A new connection: the client sees no George, although the request is still at Harvest.
    assert_eq!(client.json("/users").await["total_entries"], 2);
    release.cancel();
    until(|| client.number_of_georges() == 1).await;
    assert_eq!(client.json(&format!("/users/{jane}")).await["last_name"], "Doe");
    let writes = client.sim.take_writes();
    let write = writes.iter().find(|it| it.method == "POST").unwrap();
    assert_eq!(write.status, None);
    assert_eq!(writes.iter().find(|it| it.method == "PATCH").unwrap().processed, None);
}

#[tokio::test]
async fn created_user_with_an_unreadable_body_exists() {
    for fault in
        [Fault::edit_bytes(|body| body.truncate(40)), Fault::edit_bytes(Vec::clear), Fault::truncate_body()]
    {
        let client = TestClient::quiet().await;
        client.sim.inject(fault.on(CREATION));
        let response = client.post("/users", george()).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        assert!(header(&response, "location").contains("/v2/users/"));
        let body = response.text().await;
        assert!(body.map_or(true, |body| serde_json::from_str::<Value>(&body).is_err()));
        assert_eq!(client.number_of_georges(), 1);
    }
}

#[tokio::test]
async fn token_demoted_between_two_requests_or_during_a_write() {
    let client = TestClient::quiet().await;
    let demote = || {
        let sim = client.sim.clone();
        Fault::run_before_response(move || sim.demote_token())
    };
    client.sim.inject(demote().on("GET /v2/users"));
    assert_eq!(client.get("/users").await.status(), StatusCode::OK);
    assert_eq!(client.create_george().await, Some(403));
    client.sim.promote(client.sim.token_owner(), "administrator");

    client.sim.inject(demote().on(CREATION));
    assert_eq!(client.create_george().await, Some(201), "the write was processed before the demotion");
    assert_eq!(client.delete("/users/1").await.status(), StatusCode::FORBIDDEN);
    client.sim.promote(client.sim.token_owner(), "administrator");

    // The demotion happens while Harvest has the request and has not processed it.
    let release = CancellationToken::new();
    client.sim.inject(Fault::hold_request(release.clone()).on("PATCH"));
    let george = client.sim.user_ids()[1];
    let patch =
        client.request(Method::PATCH, &format!("/users/{george}")).json(&json!({ "is_active": false }));
    let waiting = tokio::spawn(patch.send());
    until(|| client.sim.writes().last().is_some_and(|it| it.method == "PATCH")).await;
    client.sim.demote_token();
    release.cancel();
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(client.sim.users_json()[0]["is_active"], true);
}

#[tokio::test]
async fn held_page_shows_the_state_before_a_write() {
    let client = TestClient::quiet().await;
    let release = CancellationToken::new();
    client.sim.inject(Fault::hold_response(release.clone()).on("GET /v2/users"));
    let page = tokio::spawn(client.ask("/users").send());
    until(|| client.sim.requests().last().is_some_and(|it| it.processed == Some(200))).await;
    assert_eq!(client.create_george().await, Some(201));
    release.cancel();
    let page = json_of(page.await.unwrap().unwrap(), StatusCode::OK).await;
    assert_eq!(page["total_entries"], 1);
}

#[tokio::test]
async fn created_user_is_hidden_from_lists_for_a_while() {
    let client = TestClient::quiet().await;
    let sim = client.sim.clone();
    client.sim.inject(
        Fault::run_before_response(move || {
            let created = sim.user_ids().last().copied().unwrap();
            sim.inject(Fault::hide_records([created.0]).on("GET /v2/users?").times(1));
        })
        .on(CREATION),
    );
    let created = json_of(client.post("/users", george()).await, StatusCode::CREATED).await;
    let since = "/users?updated_since=2018-01-01T00:00:00Z";
    assert_eq!(client.json(since).await["total_entries"], 1);
    assert_eq!(client.json(&format!("/users/{}", created["id"])).await, created);
    assert_eq!(client.json(since).await["users"][0], created);
}
