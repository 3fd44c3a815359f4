//! What messages and logs contain: no pay data by default, no value of an erased user, and no secret in any line.

use super::{Hooks, listed, secret};
use crate::receiver::{Answer, OK, Receiver};

/// Amounts that occur nowhere else.
const PAY: &str = "91743.57";

fn give_pay(hooks: &Hooks) {
    let user = hooks.scene.sim.user_ids()[2];
    hooks.scene.sim.edit_user(user, |user| {
        user.cost_rate = Some(91_743.57);
        user.weekly_capacity += 60;
    });
}

#[tokio::test]
async fn pay_data_is_sent_only_to_endpoints_that_ask_for_it() {
    let mut hooks = Hooks::new().await;
    let (plain, paid, ids) =
        (Receiver::start("plain").await, Receiver::start("paid").await, Receiver::start("ids").await);
    hooks.endpoint("plain", &plain.url(), "");
    hooks.endpoint("paid", &paid.url(), "include_pay = true");
    hooks.endpoint("ids", &ids.url(), "content = \"ids\"");
    let mut daemon = hooks.program().start();
    daemon.until("cycle.finished").await;
    give_pay(&hooks);
    for receiver in [&plain, &paid, &ids] {
        receiver.until_accepted(1).await;
    }
    let body = |receiver: &Receiver| receiver.requests()[0].body.clone();
    assert!(body(&paid).contains(PAY), "{}", body(&paid));
    assert!(!body(&plain).contains(PAY) && !body(&plain).contains("cost_rate"), "{}", body(&plain));
    let message = ids.requests()[0].json();
    let data = message["data"].as_object().unwrap();
    let keys: Vec<_> = data.keys().map(String::as_str).collect();
    assert_eq!(keys, ["account_id", "changed", "id", "stream_id", "type", "version"]);
    assert_eq!(data["changed"], serde_json::json!(["weekly_capacity"]), "without the names of pay data");
}

#[tokio::test]
async fn user_who_is_erased_while_an_event_waits_is_not_sent() {
    let (hooks, receiver, program, mut daemon) = Hooks::start("").await;
    receiver.answer(Answer::Status(500, ""));
    let user = hooks.scene.sim.user_ids()[3];
    hooks.scene.sim.edit_user(user, |user| "Zxqcanary".clone_into(&mut user.first_name));
    daemon.until("webhook.failing").await;
    hooks.scene.until("SELECT failed_seq IS NOT NULL FROM roster.webhooks").await;
    assert!(receiver.requests()[0].body.contains("Zxqcanary"));
    program.call(&["forget", "user", &user.to_string(), "--yes"]).await.expect(0);
    receiver.answer(OK);
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    receiver.until_accepted(1).await;
    let accepted: Vec<_> = receiver.requests().into_iter().filter(|it| it.is_accepted).collect();
    assert_eq!(accepted[0].id(), receiver.requests()[0].id());
    assert!(!accepted[0].body.contains("Zxqcanary"), "{}", accepted[0].body);
}

#[tokio::test]
async fn log_and_output_contain_no_secret_no_path_and_no_value() {
    let (mut hooks, receiver) = (Hooks::new().await, Receiver::start("bot").await);
    let authorization = super::write(hooks.dir.path(), "authorization", "Bearer zxq-authorization");
    let url = receiver.url().replace("hidden-path-canary", "zxq-path?key=zxq-query");
    hooks.endpoint("bot", &url, &format!("authorization_file = \"{authorization}\""));
    hooks.endpoint("away", "http://127.0.0.1:9/zxq-away", "timeout = \"1s\"");
    hooks.endpoint("unknown", "https://zxq-host.invalid/zxq-dns", "timeout = \"2s\"");
    let mut program = hooks.program();
    program.set("RUST_LOG", "trace,hyper=trace,reqwest=trace,rustls=trace,h2=trace,hyper_util=trace");
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    receiver.answer_next([Answer::Status(422, ""), Answer::Status(301, "location: /zxq-location\r\n")]);
    let user = hooks.scene.sim.user_ids()[3];
    hooks.scene.sim.edit_user(user, |user| "Zxqname".clone_into(&mut user.first_name));
    daemon.until_entry("failure", |entry| entry["webhook"] == "away" && entry["failure"] == "connect").await;
    hooks.scene.until("SELECT bool_and(failing_since IS NOT NULL) FROM roster.webhooks").await;
    let mut text = String::new();
    for arguments in [
        &["webhooks", "list"][..],
        &["webhooks", "list", "--json"],
        &["webhooks", "test", "bot"],
        &["webhooks", "test", "away"],
    ] {
        let called = program.call(arguments).await;
        text += &(called.stdout() + &called.stderr());
    }
    listed(&program).await;
    daemon.signal("-TERM");
    daemon.ended().await;
    text += &daemon.rest().join("\n");
    let key = &secret("bot")["whsec_".len()..];
    for line in text.lines() {
        let shown = line.to_lowercase().replace("zxq-host.invalid", "");
        assert!(!shown.contains("zxq"), "{line}");
        assert!(!line.contains(key) && !line.contains("whsec_"), "{line}");
    }
}
