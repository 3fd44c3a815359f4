//! Order, content and signatures of what is delivered.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Hooks;
use crate::receiver::{Answer, OK, Receiver, secret};

#[tokio::test]
async fn new_endpoint_gets_later_events_once_and_in_order() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    assert!(first > 8, "the first read emits events");
    hooks.edit(5);
    receiver.until_accepted(5).await;
    let expected = hooks.seqs_after(first).await;
    assert_eq!(receiver.accepted(), expected);
    hooks.until_acked(expected[4]).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 5, "each event is sent once, and none of the first read");
    let events = hooks.scene.events_since(first).await;
    for (request, event) in requests.iter().zip(&events) {
        let message = request.json();
        assert_eq!(request.id(), event.id.to_string());
        assert_eq!(
            (message["type"].as_str(), message["seq"].as_i64()),
            (Some(&*event.r#type), Some(event.seq))
        );
        assert_eq!(message["data"]["id"], event.payload["id"]);
        assert_eq!(message["data"]["after"]["email"], event.payload["after"]["email"]);
        assert_eq!(request.headers["content-type"], "application/json");
        assert!(request.headers["user-agent"].starts_with("rosterd/"));
        assert_eq!(request.path, "/hidden-path-canary");
    }
    let lines = [
        r#"rosterd_webhook_deliveries_total{webhook="bot",outcome="delivered"} 5"#,
        r#"rosterd_webhook_state{webhook="bot",state="on"} 1"#,
        r#"rosterd_webhook_state{webhook="bot",state="gone"} 0"#,
        r#"rosterd_webhook_oldest_seconds{webhook="bot"} 0"#,
        r#"rosterd_webhook_set_aside{webhook="bot"} 0"#,
        r#"rosterd_webhook_delivery_seconds_count{webhook="bot"} 5"#,
    ];
    program.until_metrics(&lines).await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
}

#[tokio::test]
async fn endpoint_from_the_beginning_gets_all_events_of_its_types_and_accounts() {
    let (mut hooks, receiver) = (Hooks::new().await, Receiver::start("bot").await);
    hooks.scene.program().call(&["sync"]).await.expect(0);
    let users = Receiver::start("users").await;
    hooks.endpoint("bot", &receiver.url(), "start = \"beginning\"");
    hooks.endpoint("users", &users.url(), "start = \"beginning\"\ntypes = [\"user.*\"]");
    let elsewhere = Receiver::start("elsewhere").await;
    hooks.endpoint("elsewhere", &elsewhere.url(), "start = \"beginning\"\naccounts = [1]");
    let _daemon = hooks.program().start();
    let events = hooks.scene.events_since(0).await;
    receiver.until_accepted(events.len()).await;
    assert_eq!(receiver.accepted(), (1..=hooks.head().await).collect::<Vec<_>>());
    let of_users: Vec<_> =
        events.iter().filter(|it| it.r#type.starts_with("user.")).map(|it| it.seq).collect();
    users.until_accepted(of_users.len()).await;
    assert_eq!(users.accepted(), of_users);
    hooks.scene.until("SELECT acked_seq = seq FROM roster.consumers, roster.outbox_head WHERE name = 'webhook:elsewhere'").await;
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn several_in_flight_keep_the_order_of_each_record() {
    let (hooks, receiver, _program, _daemon) = Hooks::start("in_flight = 4").await;
    receiver.answer(Answer::Slow(Duration::from_millis(30)));
    let first = hooks.head().await;
    for _ in 0..3 {
        hooks.edit(6);
        let head = hooks.head().await;
        hooks.scene.until(format!("SELECT seq >= {} FROM roster.outbox_head", head + 6)).await;
    }
    let expected = hooks.seqs_after(first).await;
    receiver.until_accepted(expected.len()).await;
    let mut versions: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for request in receiver.requests() {
        let data = &request.json()["data"];
        versions.entry(data["id"].as_i64().unwrap()).or_default().push(data["version"].as_i64().unwrap());
    }
    assert!(versions.values().all(|versions| versions.is_sorted()), "{versions:?}");
    let mut accepted = receiver.accepted();
    accepted.sort_unstable();
    assert_eq!(accepted, expected);
}

#[tokio::test]
async fn messages_of_both_secrets_and_an_authorization_are_sent_during_a_rotation() {
    let (mut hooks, old) = (Hooks::new().await, Receiver::start("old").await);
    let new = super::write(hooks.dir.path(), "new.secret", &secret("bot"));
    let former = super::write(hooks.dir.path(), "old.secret", &secret("old"));
    let authorization = super::write(hooks.dir.path(), "authorization", "Bearer canary-authorization");
    let lines =
        format!("[webhooks.bot]\nurl = \"{}\"\nsecret_files = [\"{new}\", \"{former}\"]\n", old.url());
    hooks.sections.insert("bot".to_owned(), format!("{lines}authorization_file = \"{authorization}\"\n"));
    let mut daemon = hooks.program().start();
    daemon.until("cycle.finished").await;
    hooks.edit(1);
    old.until_accepted(1).await;
    let request = &old.requests()[0];
    assert_eq!(request.headers["authorization"], "Bearer canary-authorization");
    assert_eq!(request.headers["webhook-signature"].split(' ').count(), 2);
    assert!(!daemon.log().contains("canary"), "{}", daemon.log());
}

#[tokio::test]
async fn hanging_endpoint_does_not_delay_the_others() {
    let mut hooks = Hooks::new().await;
    let mut receivers = Vec::new();
    for place in 0..32 {
        let name = format!("bot-{place}");
        let receiver = Receiver::start(&name).await;
        hooks.endpoint(&name, &receiver.url(), "timeout = \"60s\"");
        receivers.push(receiver);
    }
    receivers[0].answer(Answer::Hang);
    let mut daemon = hooks.program().start();
    daemon.until("cycle.finished").await;
    hooks.edit(3);
    for receiver in &receivers[1..] {
        receiver.until_accepted(3).await;
    }
    receivers[0].until("request", |requests| !requests.is_empty()).await;
    assert_eq!(receivers[0].requests().len(), 1, "one attempt hangs");
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0), "the daemon stops although a receiver hangs");
    receivers[0].answer(OK);
}
