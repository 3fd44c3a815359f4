//! Requests whose client gives up, and which it then repeats.

use futures::future::join_all;
use harvest_sim::Fault;
use rosterd::roster::AccountId;
use rosterd::scim::ResourceType;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Directory, answer, patch, user};

const DONE: &str = "SELECT count(*) = 1 FROM roster.writes WHERE kind = 'user_create' AND outcome = 'done'";

#[tokio::test(flavor = "multi_thread")]
async fn creation_given_up_and_repeated_is_201_with_one_user_and_409_once_answered() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let held = CancellationToken::new();
    directory.scene.sim.inject(Fault::hold_response(held.clone()).on("POST /v2/users"));
    let nora = user("Nora", "New");
    let given_up = directory.begin("POST", "/Users", &nora).await;
    directory.scene.until_asked("/v2/users").await;
    directory.scene.until("SELECT count(*) = 1 FROM roster.writes WHERE sent_at IS NOT NULL").await;
    drop(given_up);
    held.cancel();
    directory.scene.until(DONE).await;
    let again = directory.send("POST", "/Users", nora.clone()).await.expect(201);
    assert_eq!((&again.body["externalId"], &again.body["active"]), (&json!("ext-Nora"), &json!(true)));
    directory.send("POST", "/Users", nora).await.expect(409);
    assert_eq!((directory.sent().len(), directory.scene.sim.invitations().len()), (1, 1));
    directory.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creation_repeated_while_it_is_open_joins_and_both_clients_get_the_same_user() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let held = CancellationToken::new();
    directory.scene.sim.inject(Fault::hold_response(held.clone()).on("POST /v2/users"));
    let nora = user("Nora", "New");
    let first = directory.begin("POST", "/Users", &nora).await;
    directory.scene.until("SELECT count(*) = 1 FROM roster.writes WHERE sent_at IS NOT NULL").await;
    let second = directory.begin("POST", "/Users", &nora).await;
    // The same address with other values is another request.
    let mut other = nora.clone();
    other["name"]["familyName"] = json!("Other");
    let refused = directory.send("POST", "/Users", other).await.expect(503);
    assert_eq!(refused.header("retry-after").as_deref(), Some("60"));
    held.cancel();
    let ids = [answer(first).await.expect(201).id(), answer(second).await.expect(201).id()];
    assert_eq!(ids[0], ids[1]);
    assert_eq!((directory.sent().len(), directory.scene.sim.invitations().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rehire_given_up_and_repeated_is_201_with_the_same_id() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let nora = user("Nora", "New");
    let id = directory.send("POST", "/Users", nora.clone()).await.expect(201).id();
    directory.delete(&id).await.expect(204);
    let held = CancellationToken::new();
    let path = format!("PATCH /v2/users/{id}");
    directory.scene.sim.inject(Fault::hold_response(held.clone()).on(&path));
    let given_up = directory.begin("POST", "/Users", &nora).await;
    directory
        .scene
        .until(
            "SELECT count(*) = 1 FROM roster.writes WHERE kind = 'user_reactivate' AND sent_at IS NOT NULL",
        )
        .await;
    drop(given_up);
    held.cancel();
    directory.scene.until("SELECT count(*) = 0 FROM roster.writes WHERE done_at IS NULL").await;
    assert_eq!(directory.send("POST", "/Users", nora.clone()).await.expect(201).id(), id);
    directory.send("POST", "/Users", nora).await.expect(409);
    directory.sent();
    directory.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn change_that_outlasts_the_patience_is_finished_and_its_repetition_finds_it() {
    let mut directory = Directory::new().await;
    directory.program.set("ROSTERD__WRITE__PATIENCE", "1s");
    let _daemon = directory.start().await;
    let held = CancellationToken::new();
    directory.scene.sim.inject(Fault::hold_response(held.clone()).on("PATCH /v2/users"));
    let id = directory.scene.any_user().to_string();
    let path = format!("/Users/{id}");
    // A write that a slow machine does not send in time is withdrawn, and repeated as a directory does.
    loop {
        let late = directory.send("PATCH", &path, patch("name.givenName", json!("Zoe"))).await.expect(503);
        let detail = late.body["detail"].as_str().unwrap();
        if detail.contains("continues") {
            break;
        }
        assert!(detail.contains("withdrawn"), "{detail}");
    }
    held.cancel();
    directory.scene.until("SELECT count(*) = 0 FROM roster.writes WHERE done_at IS NULL").await;
    let again = directory.send("PATCH", &path, patch("name.givenName", json!("Zoe"))).await.expect(200);
    assert_eq!(again.body["name"]["givenName"], "Zoe");
    assert_eq!(directory.sent().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_links_set_at_the_same_time_do_not_conflict() {
    let directory = Directory::new().await;
    directory.program.call(&["sync"]).await.expect(0);
    let (account, store) = (AccountId(directory.scene.sim.account_id()), &directory.scene.store);
    for user in 1..=200 {
        let link = json!({"external_id": format!("ext-{user}"), "user_name": format!("name-{user}")});
        let set = (0..3).map(|_| {
            let (store, link) = (store.clone(), link.clone());
            tokio::spawn(async move {
                store.scim_link_set(account, ResourceType::User, user, &link).await.unwrap()
            })
        });
        assert!(join_all(set).await.into_iter().all(Result::unwrap), "{user}");
    }
}
