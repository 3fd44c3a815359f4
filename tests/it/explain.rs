//! `rosterd explain`: the versions of a row, with the cycle, request and event of each.

use serde_json::Value;

use crate::scene::Scene;

#[tokio::test]
async fn explain_lists_the_versions_cycles_requests_and_events_of_a_row() {
    let scene = Scene::new().await;
    let program = scene.program();
    let user = scene.sim.create_user("Xenia", "Explained");
    program.call(&["sync"]).await.expect(0);
    scene.sim.set_email(user, "x@example.com");
    program.call(&["sync"]).await.expect(0);
    scene.sim.archive_user(user);
    program.call(&["sync"]).await.expect(0);
    let output = program.call(&["explain", "user", &user.to_string()]).await.expect(0).stdout();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert!(
        lines[0].contains("version 1 ") && lines[0].contains("user.created (everything; event "),
        "{output}"
    );
    assert!(lines[0].ends_with("; GET /v2/users)"), "{output}");
    assert!(lines[1].contains("user.updated (email; event 62, incremental cycle "), "{output}");
    assert!(lines[1].contains("; GET /v2/users?updated_since=2"), "{output}");
    assert!(lines[2].contains("user.deactivated (is_active; event 63"), "{output}");
    assert!(!output.contains("Xenia") && !output.contains("example.com"), "{output}");
    let json = program.call(&["explain", "user", &user.to_string(), "--json"]).await.expect(0).stdout();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["versions"][1]["changed"], serde_json::json!(["email"]));
    let assignment = scene.sim.assignment_ids()[0].to_string();
    assert!(
        program.call(&["explain", "assignment", &assignment]).await.expect(0).stdout().contains(".created")
    );
    program.call(&["explain", "user", "1"]).await.expect(1);
}

#[tokio::test]
async fn explain_accepts_an_email_address_and_lists_ids_if_several_users_match() {
    let scene = Scene::new().await;
    let program = scene.program();
    let user = scene.sim.create_user("Xenia", "Explained");
    scene.sim.set_email(user, "Xenia@Example.com");
    program.call(&["sync"]).await.expect(0);
    let by_id = program.call(&["explain", "user", &user.to_string()]).await.expect(0).stdout();
    let by_email = program.call(&["explain", "user", "xenia@example.COM"]).await;
    assert_eq!(by_email.expect(0).stdout(), by_id);
    let other = scene.sim.user_ids()[2];
    scene.sim.set_email(other, "xenia@example.com");
    program.call(&["sync"]).await.expect(0);
    let several = program.call(&["explain", "user", "xenia@example.com"]).await;
    let sentence = several.expect(1).sentence();
    for id in [user, other] {
        assert!(sentence.contains(&format!("user {id} of account {}", scene.sim.account_id())), "{sentence}");
    }
    let unknown = program.call(&["explain", "user", "unknown@example.net"]).await;
    assert!(unknown.expect(1).sentence().contains("no user in the mirror has this e-mail address"));
    for called in [by_email, several, unknown] {
        assert!(!called.stderr().to_lowercase().contains("@example"), "{}", called.stderr());
    }
    program.call(&["explain", "user", "Xenia"]).await.expect(2);
}

#[tokio::test]
async fn explain_of_a_deletion_names_the_request_that_confirmed_it() {
    let scene = Scene::new().await;
    let program = scene.program();
    let user = scene.sim.user_ids().into_iter().find(|user| *user != scene.sim.token_owner()).unwrap();
    let assignment = scene.sim.assign(user, scene.sim.project_ids()[0]);
    program.call(&["sync"]).await.expect(0);
    scene.sim.delete_user(user);
    program.call(&["sync"]).await.expect(0);
    for (kind, id) in [("user", user.0), ("assignment", assignment.0)] {
        let output = program.call(&["explain", kind, &id.to_string()]).await.expect(0).stdout();
        let last_line = output.lines().last().unwrap();
        assert!(
            last_line.contains(".deleted ") && last_line.ends_with(&format!("; GET /v2/users/{user})")),
            "{output}"
        );
    }
}
