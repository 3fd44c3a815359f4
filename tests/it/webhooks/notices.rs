//! Notices: one message when an operator is needed, and one when that is over; no event waits for them.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::Hooks;
use crate::program::Program;
use crate::receiver::{Answer, Receiver, Request};

/// An endpoint `bot` that gets notices, and an endpoint `other` whose pause is a concern.
async fn hooks(lines: &str) -> (Hooks, Receiver) {
    let (mut hooks, receiver) = (Hooks::new().await, Receiver::start("bot").await);
    hooks.endpoint("bot", &receiver.url(), &format!("notices = true\n{lines}"));
    hooks.endpoint("other", "http://127.0.0.1:9/", "");
    (hooks, receiver)
}

async fn pause_other(program: &Program) {
    program.call(&["webhooks", "pause", "other"]).await.expect(0);
}

async fn retry_other(program: &Program) {
    program.call(&["webhooks", "retry", "other"]).await.expect(0);
}

impl Hooks {
    /// Waits until the concern's row satisfies the condition.
    pub async fn until_notice(&self, condition: &str) {
        self.scene.until(format!("SELECT count(*) > 0 FROM roster.webhook_notices WHERE {condition}")).await;
    }

    /// Waits until a running process delivers for each endpoint.
    async fn until_all_are_held(&self) {
        let held = "SELECT count(*) = (SELECT count(*) FROM roster.webhooks)
                      FROM roster.webhooks JOIN roster.replicas ON replicas.id = holder AND expires_at > now()";
        self.scene.until(held).await;
    }

    /// As if two minutes had passed, so that a concern has begun or has ended; wakes the process.
    pub async fn pass_two_minutes(&self) {
        self.scene
            .execute(
                "UPDATE roster.webhook_notices SET began_at = began_at - interval '2 minutes' WHERE state = 'new';
                 UPDATE roster.webhook_notices SET absent_since = absent_since - interval '2 minutes';
                 SELECT pg_notify('roster_outbox', '')",
            )
            .await;
    }
}

/// The messages about concerns.
fn notices(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.r#type().starts_with("rosterd.attention_")).collect()
}

/// Waits for this number of notices that the receiver accepted; returns the type and the data of each.
async fn until_notices(receiver: &Receiver, count: usize) -> Vec<(String, Value)> {
    let accepted =
        |requests: &[Request]| notices(requests).into_iter().filter(|it| it.is_accepted).count() >= count;
    receiver.until("notice", accepted).await;
    let requests = receiver.requests();
    let accepted = notices(&requests).into_iter().filter(|it| it.is_accepted);
    accepted.map(|request| (request.r#type(), request.json()["data"].clone())).collect()
}

#[tokio::test]
async fn concern_that_lasts_is_accepted_once_and_its_end_once_also_after_a_restart() {
    let (hooks, receiver) = hooks("").await;
    let program = hooks.program();
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let head = hooks.head().await;
    pause_other(&program).await;
    hooks.until_notice("state = 'new'").await;
    hooks.pass_two_minutes().await;
    let sent = until_notices(&receiver, 1).await;
    let data = &sent[0].1;
    assert_eq!(sent[0].0, "rosterd.attention_needed");
    let expected = json!({
        "webhook": "bot", "kind": "webhook_paused", "severity": "warning", "name": "other",
        "sentence": "webhook other is paused", "command": "rosterd webhooks list", "began_at": data["began_at"],
    });
    assert_eq!(*data, expected);
    assert_eq!(daemon.until("webhook.notified").await["concern"], "webhook_paused/other");
    hooks.until_notice("is_accepted").await;
    // The concern lasts over a restart.
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));
    let _daemon = program.start();
    hooks.until_all_are_held().await;
    retry_other(&program).await;
    hooks.until_notice("absent_since IS NOT NULL").await;
    hooks.pass_two_minutes().await;
    let sent = until_notices(&receiver, 2).await;
    assert_eq!((sent.len(), sent[1].0.as_str()), (2, "rosterd.attention_over"));
    // The first two minutes are lost if the notifier stored the notice at the same time.
    let time = |value: &Value| value.as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let latest_end = time(&sent[1].1["ended_at"]) + TimeDelta::minutes(2);
    assert!(latest_end > time(&data["began_at"]), "{:?}", sent[1].1);
    hooks.scene.until("SELECT count(*) = 0 FROM roster.webhook_notices").await;
    program.until_metrics(&[r#"rosterd_webhook_notices_total{webhook="bot",outcome="delivered"} 1"#]).await;
    assert_eq!(hooks.head().await, head, "notices are no events");
    assert_eq!(hooks.scene.number("SELECT delivered FROM roster.webhooks WHERE name = 'bot'").await, 0);
}

#[tokio::test]
async fn concern_that_comes_and_goes_within_a_minute_is_not_sent() {
    let (hooks, receiver) = hooks("").await;
    let program = hooks.program();
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    for _ in 0..2 {
        pause_other(&program).await;
        hooks.until_notice("state = 'new' AND absent_since IS NULL").await;
        retry_other(&program).await;
        hooks.until_notice("absent_since IS NOT NULL").await;
    }
    hooks.pass_two_minutes().await;
    hooks.scene.until("SELECT count(*) = 0 FROM roster.webhook_notices").await;
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn failing_notice_is_repeated_with_its_id_and_delays_no_event() {
    let (hooks, receiver) = hooks("").await;
    let program = hooks.program();
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let first = hooks.head().await;
    receiver.answer_if("rosterd.attention_", Answer::Status(410, ""));
    pause_other(&program).await;
    hooks.until_notice("state = 'new'").await;
    hooks.pass_two_minutes().await;
    let failed = daemon.until("webhook.notice_failed").await;
    assert_eq!(
        (&failed["failure"], &failed["type"]),
        (&"status 410".into(), &"rosterd.attention_needed".into())
    );
    hooks.edit(3);
    receiver.until_accepted(3).await;
    assert_eq!(receiver.accepted(), hooks.seqs_after(first).await);
    // And the other way round: an event that fails delays no notice.
    receiver.clear_rules();
    receiver.answer_if("\"seq\":", Answer::Status(500, ""));
    hooks.edit(1);
    daemon.until("webhook.failing").await;
    let sent = until_notices(&receiver, 1).await;
    assert_eq!(sent[0].0, "rosterd.attention_needed");
    let requests = receiver.requests();
    let (ids, bodies): (Vec<_>, Vec<_>) = notices(&requests).iter().map(|it| (it.id(), &it.body)).unzip();
    assert!(ids.len() > 1 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    hooks.scene.until("SELECT bool_and(is_accepted) FROM roster.webhook_notices").await;
    assert_eq!(hooks.scene.number("SELECT count(*) FROM roster.webhooks WHERE state = 'gone'").await, 0);
}

#[tokio::test]
async fn held_deletions_are_sent_with_account_and_list_to_endpoints_of_the_account() {
    let (mut hooks, receiver) = hooks("types = []").await;
    let (own, elsewhere) = (Receiver::start("own").await, Receiver::start("elsewhere").await);
    let account = hooks.scene.sim.account_id();
    hooks.endpoint("own", &own.url(), &format!("notices = true\naccounts = [{account}]"));
    hooks.endpoint("elsewhere", &elsewhere.url(), "notices = true\naccounts = [1]");
    let mut program = hooks.program();
    program.set("ROSTERD__SYNC__DELETION_GUARD__AT_LEAST", "1");
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let owner = hooks.scene.sim.token_owner();
    let users: Vec<_> = hooks.scene.sim.user_ids().into_iter().filter(|user| *user != owner).collect();
    for user in &users[..4] {
        hooks.scene.sim.delete_user(*user);
    }
    pause_other(&program).await;
    let all = "SELECT count(*) = 2 FROM roster.webhook_notices WHERE concern LIKE 'deletions_held/%/users'";
    hooks.scene.until(all).await;
    hooks.until_notice("name = 'bot' AND concern = 'webhook_paused/other'").await;
    hooks.pass_two_minutes().await;
    for receiver in [&receiver, &own] {
        receiver
            .until("notice of users", |requests| {
                requests.iter().any(|it| it.json()["data"]["resource"] == "users")
            })
            .await;
        let requests = receiver.requests();
        let data = notices(&requests)
            .iter()
            .map(|it| it.json()["data"].clone())
            .find(|it| it["resource"] == "users");
        let data = data.unwrap();
        assert_eq!(
            (&data["account_id"], &data["command"]),
            (&account.into(), &"rosterd deletions list".into())
        );
        assert_eq!(
            data["sentence"],
            format!("account {account}: 4 deletions of users are held for review (guard)")
        );
    }
    receiver
        .until("notice of the pause", |all| {
            all.iter().any(|it| it.json()["data"]["kind"] == "webhook_paused")
        })
        .await;
    assert!(
        own.requests().iter().all(|it| it.json()["data"]["account_id"] == account),
        "of its account only"
    );
    assert!(elsewhere.requests().is_empty());
    // Nothing of the users.
    for user in hooks.scene.sim.users_json() {
        let body = receiver.requests().iter().map(|it| it.body.clone()).collect::<String>();
        assert!(!body.contains(user["email"].as_str().unwrap()), "{body}");
    }
}

#[tokio::test]
async fn notice_is_sent_by_one_of_two_processes_and_by_the_other_after_a_kill() {
    let (hooks, receiver) = hooks("").await;
    let program = hooks.program();
    let mut active = program.start();
    active.until("cycle.finished").await;
    let mut standby = hooks.program().start();
    standby.until_said("started").await;
    pause_other(&program).await;
    hooks.until_notice("state = 'new'").await;
    hooks.pass_two_minutes().await;
    until_notices(&receiver, 1).await;
    hooks.until_notice("is_accepted").await;
    active.child.kill().unwrap();
    active.ended().await;
    hooks.until_all_are_held().await;
    retry_other(&program).await;
    hooks.until_notice("absent_since IS NOT NULL").await;
    hooks.pass_two_minutes().await;
    let sent = until_notices(&receiver, 2).await;
    let types: Vec<_> = sent.iter().map(|(r#type, _)| r#type.as_str()).collect();
    assert_eq!(types, ["rosterd.attention_needed", "rosterd.attention_over"]);
}
