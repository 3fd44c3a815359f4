//! The text of `rosterd status`, its exit codes, and log lines on a terminal.

use crate::scene::Scene;
use crate::terminal;

#[tokio::test]
async fn status_fits_80_columns_and_prints_ages_in_words() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    scene
        .execute(
            "UPDATE roster.accounts SET name = repeat('Longname ', 12), last_error = repeat('a reason ', 30);
             UPDATE roster.watermarks SET last_success_at = now() - interval '74 hours',
                                          next_full_at = now() + interval '23 hours 59 minutes 30 seconds'",
        )
        .await;
    let status = program.call(&["status"]).await.expect(0).stdout();
    assert!(status.lines().all(|line| line.chars().count() <= 80), "{status}");
    assert!(status.contains("3 d 2 h ago") && status.contains("in 23 h 59 min"), "{status}");
    assert!(status.contains("last cycle failed: a reason"), "{status}");
}

#[tokio::test]
async fn status_begins_with_what_is_wrong_and_the_command_to_type() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    let well = program.call(&["status"]).await.expect(0).stdout();
    assert!(well.starts_with("nothing is wrong\naccount "), "{well}");
    scene
        .execute(
            "UPDATE roster.watermarks SET last_success_at = now() - interval '74 hours';
             UPDATE roster.accounts SET last_full_at = NULL;
             INSERT INTO roster.cycles (id, account_id, mode, started_at, users_seen, assignments_seen)
             SELECT gen_random_uuid(), account_id, 'full', now(), 12, 3 FROM roster.accounts;
             INSERT INTO roster.consumers (name, stream_id) VALUES (E'pay\\u202eroll', gen_random_uuid())",
        )
        .await;
    let ill = program.call(&["status"]).await.expect(0).stdout();
    let stale =
        format!("critical: account {} was last read 3 d 2 h ago\n  rosterd check\n", scene.sim.account_id());
    assert!(ill.starts_with(&stale), "{ill}");
    assert!(ill.contains("consumer pay\\u202eroll has lost events"), "{ill}");
    assert!(ill.contains("first read: 12 users and 3 assignments so far"), "{ill}");
    let json = program.call(&["status", "--json"]).await.expect(0).stdout();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let concern = &json["concerns"][0];
    assert_eq!((&concern["severity"], &concern["kind"]), (&"critical".into(), &"stale".into()), "{json}");
    assert_eq!(json["accounts"][0]["first_read"]["users"], 12, "{json}");
}

#[tokio::test]
async fn status_exits_with_1_if_the_mirror_is_older_than_fresh_within() {
    let scene = Scene::new().await;
    let program = scene.program();
    let status_fresh_within = &["status", "--fresh-within", "15m"];
    let unread = program.call(status_fresh_within).await;
    assert!(unread.expect(1).sentence().contains("has not been read completely yet"), "{}", unread.stderr());
    program.call(&["sync"]).await.expect(0);
    program.call(status_fresh_within).await.expect(0);
    scene
        .execute(
            "UPDATE roster.watermarks SET last_success_at = now() - interval '74 hours' WHERE resource = 'user_assignments'",
        )
        .await;
    let stale = program.call(status_fresh_within).await;
    let sentence =
        format!("rosterd: the mirror of account {} is 3 d 2 h old, more than 15 min", scene.sim.account_id());
    assert_eq!(stale.expect(1).sentence(), sentence);
    assert!(stale.stdout().contains("user_assignments"), "stdout has the table, too");
    let json = program.call(&["status", "--fresh-within", "15m", "--json"]).await;
    assert!(serde_json::from_str::<serde_json::Value>(&json.expect(1).stdout()).is_ok());
    program.call(&["status", "--fresh-within", "4d"]).await.expect(0);
    program.call(&["status", "--fresh-within", "soon"]).await.expect(2);
}

#[tokio::test]
async fn log_lines_are_pretty_on_a_terminal_and_json_otherwise() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    program.set("RUST_LOG", "debug");
    let shown = terminal::call(&program, &["sync"], "").await;
    assert!(shown.expect(0).text.contains("cycle finished") && !shown.text.contains("{\""), "{}", shown.text);
    let asked = terminal::call(&program, &["--log-format", "json", "sync"], "").await;
    assert!(asked.expect(0).text.contains("{\"timestamp\""), "{}", asked.text);
    let piped = program.call(&["sync"]).await;
    assert!(piped.expect(0).stderr().contains("{\"timestamp\""), "{}", piped.stderr());
    let pretty = program.call(&["--log-format", "pretty", "sync"]).await;
    assert!(!pretty.expect(0).stderr().contains("{\""), "{}", pretty.stderr());
}
