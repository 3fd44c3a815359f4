//! Receivers that fail: when rosterd tries again, and that no event is lost.

use std::time::Duration;

use super::{Hooks, listed};
use crate::receiver::{Answer, OK};

#[tokio::test]
async fn failed_event_is_sent_again_with_its_id_before_later_ones() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    receiver.answer_next([Answer::Status(503, "retry-after: 1\r\n"), Answer::Status(500, "")]);
    hooks.edit(3);
    let entry = daemon.until("webhook.failing").await;
    assert_eq!(entry["failure"], "status 503");
    let state = listed(&program).await;
    assert_eq!((&state["state"], &state["failed_seq"]), (&"on".into(), &(first + 1).into()));
    receiver.until_accepted(3).await;
    let entry = daemon.until("webhook.recovered").await;
    assert_eq!(entry["attempts"], 2);
    assert_eq!(receiver.accepted(), hooks.seqs_after(first).await);
    let requests = receiver.requests();
    assert!(requests[..3].iter().all(|request| request.id() == requests[0].id()), "one event at a time");
    assert!(requests[1].at - requests[0].at > Duration::from_millis(3900), "the schedule begins with 5 s");
    let timestamps: Vec<i64> =
        requests.iter().map(|it| it.headers["webhook-timestamp"].parse().unwrap()).collect();
    assert!(timestamps[1] > timestamps[0], "each attempt has its own time");
    assert_eq!(listed(&program).await["failing_since"], serde_json::Value::Null);
}

#[tokio::test]
async fn receiver_that_closes_connections_or_sends_large_bodies_gets_each_event() {
    let (hooks, receiver, _program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    let answers = [Answer::CloseLater, OK, Answer::Reset, OK, Answer::Large, Answer::Endless, Answer::Large];
    receiver.answer_next(answers);
    hooks.edit(6);
    receiver.until_accepted(6).await;
    assert_eq!(receiver.accepted(), hooks.seqs_after(first).await);
    assert!(!daemon.log().contains("webhook.failing"), "a lost connection is tried again at once");
}

#[tokio::test]
async fn redirect_is_a_failure_and_is_not_followed() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    receiver.answer(Answer::Status(308, "location: /elsewhere\r\n"));
    hooks.edit(1);
    assert_eq!(daemon.until("webhook.failing").await["failure"], "redirect 308");
    assert!(receiver.requests().iter().all(|request| request.path == "/hidden-path-canary"));
    let called = program.call(&["webhooks", "test", "bot"]).await;
    assert!(called.expect(69).stderr().contains("redirect 308; rosterd follows no redirect"));
}

#[tokio::test]
async fn receiver_that_answers_410_gets_nothing_until_retry() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    receiver.answer(Answer::Status(410, ""));
    hooks.edit(2);
    assert_eq!(daemon.until("webhook.stopped").await["cause"], "gone");
    let state = listed(&program).await;
    assert_eq!((&state["state"], &state["failure"]), (&"gone".into(), &"status 410".into()));
    hooks.edit(2);
    daemon.until("cycle.finished").await;
    assert_eq!(receiver.requests().len(), 1);
    receiver.answer(OK);
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    receiver.until_accepted(4).await;
    assert_eq!(receiver.accepted(), hooks.seqs_after(first).await);
}

#[tokio::test]
async fn refused_event_waits_by_default_and_is_passed_over_if_the_endpoint_says_so() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("refused = \"set_aside\"").await;
    let first = hooks.head().await;
    receiver.answer_if(format!("\"seq\":{},", first + 2), Answer::Status(422, ""));
    hooks.edit(3);
    assert_eq!(daemon.until("webhook.failing").await["failure"], "status 422");
    assert_eq!(receiver.accepted(), [first + 1]);
    // Eight refusals within half an hour.
    let earlier = "UPDATE roster.webhooks SET refusals = 20, refused_since = now() - interval '31 minutes'";
    hooks.scene.until("SELECT refusals > 0 FROM roster.webhooks").await;
    hooks.scene.execute(earlier).await;
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    assert_eq!(daemon.until("webhook.set_aside").await["seq"], first + 2);
    receiver.until_accepted(2).await;
    assert_eq!(receiver.accepted(), [first + 1, first + 3]);
    assert_eq!(listed(&program).await["set_aside"], serde_json::json!([first + 2]));
    program.until_metrics(&["rosterd_webhook_set_aside{webhook=\"bot\"} 1\n"]).await;
    receiver.clear_rules();
    let replay = program.call(&["webhooks", "replay", "bot", "--event", &(first + 2).to_string()]).await;
    replay.expect(0);
    assert_eq!(receiver.accepted(), [first + 1, first + 3, first + 2]);
    assert_eq!(listed(&program).await["set_aside"], serde_json::json!([]));
}

#[tokio::test]
async fn event_that_is_refused_without_set_aside_waits() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    receiver.answer(Answer::Status(422, ""));
    hooks.edit(2);
    daemon.until("webhook.failing").await;
    hooks.scene.until("SELECT refusals > 0 FROM roster.webhooks").await;
    let earlier = "UPDATE roster.webhooks SET refusals = 20, refused_since = now() - interval '31 minutes'";
    hooks.scene.execute(earlier).await;
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    hooks.scene.until("SELECT refusals > 20 FROM roster.webhooks").await;
    assert_eq!(receiver.accepted(), [0; 0]);
    assert_eq!(hooks.scene.number("SELECT count(*) FROM roster.webhook_skips").await, 0);
}

#[tokio::test]
async fn restart_keeps_the_time_of_the_next_attempt() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    receiver.answer(Answer::Status(500, "retry-after: 3000\r\n"));
    hooks.edit(1);
    daemon.until("webhook.failing").await;
    hooks.scene.until("SELECT next_attempt_at > now() + interval '40 minutes' FROM roster.webhooks").await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    let _daemon = program.start();
    hooks.scene.until("SELECT holder IS NOT NULL FROM roster.webhooks").await;
    let head = hooks.head().await;
    hooks.edit(1);
    hooks.scene.until(format!("SELECT seq > {head} FROM roster.outbox_head")).await;
    assert_eq!(receiver.requests().len(), 1);
}
