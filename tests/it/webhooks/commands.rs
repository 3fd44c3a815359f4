//! `rosterd webhooks`: each command changes only what it says, and nothing that is under way can undo it.

use std::time::Duration;

use super::{Hooks, listed};
use crate::receiver::{Answer, OK, Receiver};

#[tokio::test]
async fn test_message_is_signed_and_moves_nothing() {
    let (hooks, receiver, program, _daemon) = Hooks::start("").await;
    let before = hooks.scene.number("SELECT epoch FROM roster.webhooks").await;
    let called = program.call(&["webhooks", "test", "bot", "--json"]).await;
    let printed: serde_json::Value = serde_json::from_str(&called.expect(0).stdout()).unwrap();
    assert_eq!(
        (&printed["status"], &printed["result"], &printed["body"]),
        (&200.into(), &"delivered".into(), &"body".into())
    );
    let request = &receiver.requests()[0];
    assert_eq!(
        (request.r#type(), request.json()["data"]["webhook"].as_str()),
        ("rosterd.test".to_owned(), Some("bot"))
    );
    assert_eq!(hooks.scene.number("SELECT epoch FROM roster.webhooks").await, before);
    assert_eq!(hooks.scene.number("SELECT delivered FROM roster.webhooks").await, 0);
    program.call(&["webhooks", "test", "absent"]).await.expect(1);
    for command in ["retry", "pause", "remove"] {
        program.call(&["webhooks", command, "absent"]).await.expect(1);
    }
    program.call(&["webhooks", "replay", "absent", "--from", "now"]).await.expect(1);
    program.call(&["webhooks", "skip", "absent", "--seq", "1"]).await.expect(1);
}

#[tokio::test]
async fn paused_endpoint_gets_nothing_until_retry() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    hooks.until_acked(first).await;
    program.call(&["webhooks", "pause", "bot", "--reason", "receiver moves"]).await.expect(0);
    hooks.edit(3);
    hooks.scene.until(format!("SELECT seq = {} FROM roster.outbox_head", first + 3)).await;
    daemon.until("cycle.finished").await;
    let state = listed(&program).await;
    assert_eq!(
        (&state["state"], &state["reason"], &state["behind"]),
        (&"paused".into(), &"receiver moves".into(), &3.into())
    );
    assert!(receiver.requests().is_empty());
    let lines = program.call(&["webhooks", "list"]).await.expect(0).stdout();
    assert!(lines.contains("paused by ") && lines.contains("3 events after it"), "{lines}");
    assert!(!lines.contains("hidden-path-canary"), "{lines}");
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    receiver.until_accepted(3).await;
    assert_eq!(listed(&program).await["state_by"].as_str().unwrap().split('@').count(), 2);
}

#[tokio::test]
async fn skip_passes_over_the_failing_event_only() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    receiver.answer_if(format!("\"seq\":{},", first + 2), Answer::Status(500, ""));
    hooks.edit(3);
    daemon.until("webhook.failing").await;
    hooks.scene.until("SELECT failed_seq IS NOT NULL FROM roster.webhooks").await;
    let skip = async |seq: i64| program.call(&["webhooks", "skip", "bot", "--seq", &seq.to_string()]).await;
    let refused = skip(first + 3).await;
    assert!(refused.expect(1).sentence().contains("does not fail"));
    skip(first + 2).await.expect(0);
    receiver.until_accepted(2).await;
    assert_eq!(receiver.accepted(), [first + 1, first + 3]);
    assert_eq!(listed(&program).await["set_aside"], serde_json::json!([]), "an operator has decided");
    let kept =
        "SELECT count(*) FROM roster.webhook_skips WHERE skipped_by LIKE '%@%' AND failure = 'status 500'";
    assert_eq!(hooks.scene.number(kept).await, 1);
}

#[tokio::test]
async fn replay_during_a_delivery_is_not_undone_by_its_acknowledgement() {
    let (hooks, receiver, program, _daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    hooks.edit(4);
    receiver.until_accepted(4).await;
    hooks.until_acked(first + 4).await;
    receiver.answer_next([Answer::Slow(Duration::from_secs(3))]);
    hooks.edit(1);
    receiver.until("slow request", |requests| requests.len() == 5).await;
    program.call(&["webhooks", "replay", "bot", "--from", &(first + 1).to_string()]).await.expect(0);
    receiver.until("replay", |requests| requests.len() >= 10).await;
    hooks.until_acked(first + 5).await;
    let seqs: Vec<_> = receiver.requests().iter().filter_map(crate::receiver::Request::seq).collect();
    let all: Vec<_> = (first + 1..=first + 5).collect();
    assert_eq!((&seqs[..5], &seqs[5..]), (&*all, &*all), "all events again, in order");
}

#[tokio::test]
async fn replay_since_a_time_and_from_now_move_the_position() {
    let (hooks, receiver, program, _daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    hooks.edit(2);
    receiver.until_accepted(2).await;
    hooks.until_acked(first + 2).await;
    // The events of the first read are older than an hour, and the others are not.
    hooks
        .scene
        .execute(format!(
            "UPDATE roster.outbox SET recorded_at = recorded_at - interval '2 hours' WHERE seq <= {first}"
        ))
        .await;
    program.call(&["webhooks", "replay", "bot", "--since", "1h"]).await.expect(0);
    receiver.until("replay", |requests| requests.len() == 4).await;
    hooks.until_acked(first + 2).await;
    let beyond = program.call(&["webhooks", "replay", "bot", "--from", "1000000"]).await;
    assert!(beyond.expect(1).sentence().contains("the outbox has the events 1 to"));
    receiver.answer(Answer::Status(500, ""));
    hooks.edit(1);
    hooks.scene.until("SELECT failed_seq IS NOT NULL FROM roster.webhooks").await;
    program.call(&["webhooks", "replay", "bot", "--from", "now"]).await.expect(0);
    receiver.answer(OK);
    hooks.edit(1);
    receiver.until_accepted(3).await;
    assert_eq!(receiver.accepted(), [first + 1, first + 2, first + 4]);
}

#[tokio::test]
async fn endpoint_without_a_section_is_reported_and_can_be_removed() {
    let (mut hooks, _receiver, program, mut daemon) = Hooks::start("").await;
    let refused = program.call(&["webhooks", "remove", "bot"]).await;
    assert!(refused.expect(1).sentence().contains("remove the section"));
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    hooks.sections.clear();
    let other = Receiver::start("other").await;
    hooks.endpoint("other", &other.url(), "");
    let program = hooks.program();
    let mut daemon = program.start();
    assert_eq!(daemon.until("webhook.unset").await["webhook"], "bot");
    assert_eq!(listed(&program).await["origin"], serde_json::Value::Null);
    program.call(&["webhooks", "remove", "bot", "--json"]).await.expect(0);
    assert_eq!(
        hooks.scene.number("SELECT count(*) FROM roster.consumers WHERE name = 'webhook:bot'").await,
        0
    );
    assert_eq!(hooks.scene.number("SELECT count(*) FROM roster.webhooks").await, 1);
}
