//! New streams, events that retention removed, first reads of further accounts, and other logins.

use super::{Hooks, listed};
use crate::receiver::{Answer, OK};

#[tokio::test]
async fn new_stream_is_announced_and_then_delivered() {
    let (hooks, receiver, program, _daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    hooks.edit(2);
    receiver.until_accepted(2).await;
    hooks.until_acked(first + 2).await;
    program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
    receiver
        .until("message", |requests| requests.iter().any(|it| it.r#type() == "rosterd.stream_begun"))
        .await;
    hooks.edit(2);
    receiver.until_accepted(4).await;
    assert_eq!(receiver.accepted(), hooks.seqs_after(first).await, "no event is lost or sent twice");
    let requests = receiver.requests();
    assert_eq!(requests[2].r#type(), "rosterd.stream_begun");
    let head: String = sqlx::query_scalar("SELECT stream_id::text FROM roster.outbox_head")
        .fetch_one(hooks.scene.store.pool())
        .await
        .unwrap();
    assert_eq!(requests[2].json()["data"]["stream_id"], head);
    assert_eq!(requests.len(), 5);
}

#[tokio::test]
async fn events_of_the_new_stream_that_precede_its_announcement_are_delivered() {
    let (hooks, receiver, program, _daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    receiver.answer(Answer::Status(500, ""));
    hooks.edit(2);
    hooks.scene.until("SELECT failed_seq IS NOT NULL FROM roster.webhooks").await;
    program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
    hooks.edit(3);
    hooks.scene.until(format!("SELECT seq = {} FROM roster.outbox_head", first + 5)).await;
    receiver
        .until("refused announcement", |requests| {
            requests.iter().any(|it| it.r#type() == "rosterd.stream_begun")
        })
        .await;
    receiver.answer(OK);
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    receiver.until_accepted(5).await;
    assert_eq!(receiver.accepted(), hooks.seqs_after(first).await);
    let accepted: Vec<_> = receiver.requests().into_iter().filter(|it| it.is_accepted).collect();
    assert_eq!(accepted[0].r#type(), "rosterd.stream_begun");
}

#[tokio::test]
async fn endpoint_whose_events_were_removed_stops_until_replay() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    hooks.until_acked(first).await;
    program.call(&["webhooks", "pause", "bot"]).await.expect(0);
    hooks.edit(3);
    hooks.scene.until(format!("SELECT seq = {} FROM roster.outbox_head", first + 3)).await;
    let trim = format!(
        "DELETE FROM roster.outbox WHERE seq <= {0}; UPDATE roster.outbox_head SET floor_seq = {0}",
        first + 1
    );
    hooks.scene.execute(trim).await;
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    assert_eq!(daemon.until("webhook.stopped").await["cause"], "lost");
    assert_eq!(listed(&program).await["state"], "lost");
    let refused = program.call(&["webhooks", "retry", "bot"]).await;
    assert!(refused.expect(1).sentence().contains("rosterd webhooks replay"));
    assert!(receiver.requests().is_empty());
    program.call(&["webhooks", "replay", "bot", "--from", "oldest"]).await.expect(0);
    receiver.until_accepted(2).await;
    assert_eq!(receiver.accepted(), [first + 2, first + 3]);
}

#[tokio::test]
async fn first_read_is_passed_over_also_if_it_happens_later() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    // As for an account that is added later: its events are emitted while it has no complete read.
    program.call(&["webhooks", "pause", "bot"]).await.expect(0);
    hooks.scene.execute("UPDATE roster.accounts SET first_full_at = NULL").await;
    hooks.edit(2);
    hooks.scene.until(format!("SELECT seq = {} FROM roster.outbox_head", first + 2)).await;
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    hooks.until_acked(first + 2).await;
    hooks.scene.execute("UPDATE roster.accounts SET first_full_at = clock_timestamp()").await;
    hooks.edit(1);
    receiver.until_accepted(1).await;
    assert_eq!(receiver.accepted(), [first + 3]);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
}

#[tokio::test]
async fn consumer_of_an_endpoint_belongs_to_the_owner_of_the_schema() {
    let (hooks, _receiver, _program, _daemon) = Hooks::start("").await;
    let owned = "SELECT count(*) FROM roster.consumers, pg_namespace
                  WHERE nspname = 'roster' AND owner = pg_get_userbyid(nspowner) AND name = 'webhook:bot'";
    assert_eq!(hooks.scene.number(owned).await, 1);
}
