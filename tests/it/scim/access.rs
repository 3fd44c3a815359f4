//! Tokens: what opens an account, and what the listener gives to everyone else.

use serde_json::{Value, json};

use super::{Directory, READER, WRITER, patch, user};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_token_wrong_account_and_no_token_get_one_401_for_every_path() {
    let directory = Directory::new().await;
    let account = directory.scene.sim.account_id();
    let other = account + 1;
    directory.set_tokens(&format!("{account} okta write {WRITER}\n{other} audit read {READER}\n"));
    let _daemon = directory.start().await;
    let mut bodies = Vec::<Value>::new();
    let wrong = "wrong-0123456789abcdef0123456789abcdef".to_owned();
    for token in [None, Some(wrong.as_str()), Some(READER), Some("")] {
        for path in [
            "/Users",
            "/Users/1",
            "/ServiceProviderConfig",
            "/Nothing",
            "/scim/v2/x/Users",
            "/metrics",
            "/scim",
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let refused = directory.send_as(token, method, path, None).await.expect(401);
                assert_eq!(refused.header("www-authenticate").as_deref(), Some("bearer"), "{path}");
                bodies.push(refused.body);
            }
        }
    }
    let mine = format!("/scim/v2/{other}/Users");
    bodies.push(directory.send_as(Some(WRITER), "GET", &mine, None).await.expect(401).body);
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(bodies[0]["status"], "401");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_token_lists_and_changes_nothing() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    directory.send_as(Some(READER), "GET", "/Users", None).await.expect(200);
    let search = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "count": 1});
    directory.send_as(Some(READER), "POST", "/Users/.search", Some(&search)).await.expect(200);
    let path = format!("/Users/{}", directory.scene.any_user());
    for (method, path, body) in [
        ("POST", "/Users", user("Nora", "New")),
        ("PUT", &path, user("Nora", "New")),
        ("PATCH", &path, patch("active", json!(false))),
        ("DELETE", &path, Value::Null),
    ] {
        let refused = directory.send_as(Some(READER), method, path, Some(&body)).await.expect(403);
        assert_eq!(refused.body["detail"], "this token may only read");
    }
    assert_eq!(directory.scene.number("SELECT count(*) FROM roster.writes").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_responses_come_from_the_settings_and_not_from_headers() {
    let directory = Directory::new().await;
    let _daemon = directory.start().await;
    let (account, id) = (directory.scene.sim.account_id(), directory.scene.any_user());
    for path in [format!("Users/{id}"), "Users".to_owned(), "Schemas".to_owned(), "ResourceTypes".to_owned()]
    {
        let answer = directory
            .send_raw(&format!(
                "GET /scim/v2/{account}/{path} HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: evil.test\r\n\
                 X-Forwarded-Proto: http\r\nForwarded: host=evil.test\r\nConnection: close\r\n\
                 Authorization: Bearer {WRITER}\r\n\r\n"
            ))
            .await
            .expect(200);
        let text = answer.body.to_string();
        assert!(text.contains("https://scim.test/scim/v2/") && !text.contains("evil"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_replaces_tokens_and_a_wrong_file_leaves_them() {
    let directory = Directory::new().await;
    let mut daemon = directory.start().await;
    let account = directory.scene.sim.account_id();
    let made = directory.program.call(&["scim", "token", &account.to_string(), "okta"]).await;
    let printed = made.expect(0).stdout();
    let (token, line) = printed.trim_end().split_once('\n').unwrap();
    // Both tokens are valid while the directory changes to the new one.
    directory.set_tokens(&format!("{account} okta write {WRITER}\n{line}\n"));
    daemon.signal("-HUP");
    daemon.until("scim.tokens_read").await;
    for token in [WRITER, token] {
        directory.send_as(Some(token), "GET", "/Users", None).await.expect(200);
    }
    directory.set_tokens("nonsense");
    daemon.signal("-HUP");
    let refused = daemon.until("scim.tokens_refused").await;
    assert!(refused["message"].as_str().unwrap().contains("line 1"), "{refused}");
    directory.send_as(Some(token), "GET", "/Users", None).await.expect(200);
    directory.set_tokens(line);
    daemon.signal("-HUP");
    daemon.until("scim.tokens_read").await;
    directory.send_as(Some(WRITER), "GET", "/Users", None).await.expect(401);
    directory.send_as(Some(token), "GET", "/Users", None).await.expect(200);
    assert!(!daemon.log().contains(token));
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_token_files_stop_the_start_and_fail_the_check() {
    let directory = Directory::new().await;
    let account = directory.scene.sim.account_id();
    directory.program.call(&["sync"]).await.expect(0);
    let checked = directory.program.call(&["check"]).await.expect(0).stdout();
    assert!(checked.contains("✓ scim: 2 tokens for https://scim.test on 127.0.0.1"), "{checked}");
    directory.set_tokens(&format!("{} okta write {WRITER}", account + 1));
    let checked = directory.program.call(&["check"]).await.expect(0).stdout();
    assert!(
        checked.contains(&format!("names account {}, which is not in the settings", account + 1)),
        "{checked}"
    );
    directory.set_tokens(&format!("{account} okta write short"));
    for command in ["run", "check"] {
        let called = directory.program.call(&[command]).await;
        let text = called.expect(78).stdout() + &called.sentence();
        assert!(text.contains("line 1 has a token of less than 32 characters"), "{text}");
        assert!(!text.contains("short"), "{text}");
    }
    std::fs::remove_file(directory.tokens_file()).unwrap();
    assert!(directory.program.call(&["run"]).await.expect(78).sentence().contains("cannot be read"));
}
