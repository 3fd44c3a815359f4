//! Crashes and several processes: nothing is lost, one process delivers, and repeated events keep their ids.

use std::collections::BTreeMap;

use super::Hooks;
use crate::receiver::{Answer, Receiver};

/// Each event in the order of the first acceptance, and every repetition has the same id and body.
async fn expect_complete(hooks: &Hooks, receiver: &Receiver, first: i64) {
    let expected = hooks.seqs_after(first).await;
    receiver.until_accepted(expected.len()).await;
    assert_eq!(receiver.accepted(), expected);
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    for request in receiver.requests() {
        let body = bodies.entry(request.id().to_owned()).or_insert_with(|| request.body.clone());
        assert_eq!(*body, request.body);
    }
    assert_eq!(bodies.len(), expected.len());
}

#[tokio::test]
async fn killed_daemon_repeats_only_events_that_it_had_not_acknowledged() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    let first = hooks.head().await;
    for round in 0..4 {
        receiver.answer(Answer::Slow(std::time::Duration::from_millis(20 * round)));
        let head = hooks.head().await;
        hooks.edit(8);
        receiver.until("new event", |now| now.iter().any(|it| it.seq() > Some(head))).await;
        daemon.child.kill().unwrap();
        daemon.ended().await;
        daemon = program.start();
    }
    daemon.until("lease.acquired").await;
    let head = hooks.head().await;
    hooks.edit(1);
    hooks.scene.until(format!("SELECT seq > {head} FROM roster.outbox_head")).await;
    expect_complete(&hooks, &receiver, first).await;
    hooks.until_acked(head + 1).await;
}

#[tokio::test]
async fn standby_delivers_after_the_holder_stops_or_is_suspended() {
    let (hooks, receiver, _program, mut active) = Hooks::start("").await;
    let first = hooks.head().await;
    let mut standby = hooks.program().start();
    standby.until_said("started").await;
    hooks.edit(4);
    receiver.until_accepted(4).await;
    assert_eq!(receiver.requests().len(), 4, "one process delivers");
    // A process that slept longer than lease.ttl sends nothing more.
    active.signal("-STOP");
    let taken = "SELECT (SELECT count(*) FROM roster.replicas WHERE id = holder AND expires_at > now()) = 1
                        AND epoch > 1 FROM roster.webhooks";
    hooks.scene.until(taken).await;
    hooks.scene.until("SELECT holder IS NOT NULL AND EXISTS (SELECT FROM roster.replicas AS it WHERE it.id = accounts.holder AND it.expires_at > now()) FROM roster.accounts").await;
    hooks.edit(4);
    receiver.until_accepted(8).await;
    active.signal("-CONT");
    hooks.edit(2);
    receiver.until_accepted(10).await;
    standby.signal("-TERM");
    assert_eq!(standby.ended().await, Some(0));
    hooks.edit(3);
    receiver.until_accepted(13).await;
    expect_complete(&hooks, &receiver, first).await;
    active.signal("-TERM");
    assert_eq!(active.ended().await, Some(0));
}
