//! `rosterd outbox tail`: events as JSON lines, once each and in order, whatever happens to the database meanwhile.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;

use serde_json::Value;

use crate::program::STUCK;
use crate::scene::Scene;

fn seqs(lines: &str) -> Vec<i64> {
    lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn events_are_printed_from_anywhere_and_by_type() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    let all = program.call(&["outbox", "tail"]).await.expect(0).stdout();
    assert_eq!(seqs(&all), (1..=60).collect::<Vec<_>>());
    let first: Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
    assert_eq!((&first["type"], &first["payload"]["version"]), (&"user.created".into(), &1.into()));
    assert_eq!(seqs(&program.call(&["outbox", "tail", "--from", "59"]).await.expect(0).stdout()), [59, 60]);
    let places = program.call(&["outbox", "tail", "--type", "user_assignment.*"]).await.expect(0).stdout();
    assert_eq!(seqs(&places).len(), 40);
    for unknown in ["users.*", "user", "cost_rate.deactivated"] {
        let refused = program.call(&["outbox", "tail", "--type", unknown]).await;
        let said = refused.expect(2).stderr();
        assert!(said.contains("user.created") && said.contains("cost_rate.deleted"), "{said}");
    }
    scene
        .execute("DELETE FROM roster.outbox WHERE seq <= 10; UPDATE roster.outbox_head SET floor_seq = 10")
        .await;
    assert_eq!(seqs(&program.call(&["outbox", "tail"]).await.expect(0).stdout())[0], 11);
    let lost = program.call(&["outbox", "tail", "--from", "5"]).await;
    assert!(lost.expect(1).sentence().contains("were removed"), "{}", lost.stderr());
}

#[tokio::test]
async fn whoever_follows_is_woken_goes_on_after_an_outage_and_is_told_of_a_new_stream() {
    let scene = Scene::new().await;
    let program = scene.program();
    let mut command = program.command(&["outbox", "tail", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    program.call(&["sync"]).await.expect(0);
    let next = |count: usize| -> Vec<i64> {
        (0..count).flat_map(|_| seqs(&lines.recv_timeout(STUCK).expect("no more events"))).collect()
    };
    assert_eq!(next(60), (1..=60).collect::<Vec<_>>());
    // All connections are cut: it comes back by itself.
    scene
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    scene.sim.hire("Nora", "Next");
    program.call(&["sync"]).await.expect(0);
    assert_eq!(next(1), [61]);
    program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("a new stream has begun"));
}

#[tokio::test]
async fn a_row_is_explained_by_its_versions_cycles_requests_and_events() {
    let scene = Scene::new().await;
    let program = scene.program();
    let user = scene.sim.hire("Xenia", "Explained");
    program.call(&["sync"]).await.expect(0);
    scene.sim.set_email(user, "x@example.com");
    program.call(&["sync"]).await.expect(0);
    scene.sim.deactivate(user);
    program.call(&["sync"]).await.expect(0);
    let said = program.call(&["explain", "user", &user.to_string()]).await.expect(0).stdout();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].contains("version 1 ") && lines[0].contains("user.created (everything; event "),
        "{said}"
    );
    assert!(lines[0].ends_with("; GET /v2/users)"), "{said}");
    assert!(lines[1].contains("user.updated (email; event 62, incremental cycle "), "{said}");
    assert!(lines[1].contains("; GET /v2/users?updated_since=2"), "{said}");
    assert!(lines[2].contains("user.deactivated (is_active; event 63"), "{said}");
    assert!(!said.contains("Xenia") && !said.contains("example.com"), "{said}");
    let json = program.call(&["explain", "user", &user.to_string(), "--json"]).await.expect(0).stdout();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["versions"][1]["changed"], serde_json::json!(["email"]));
    let place = scene.sim.assignment_ids()[0].to_string();
    assert!(program.call(&["explain", "assignment", &place]).await.expect(0).stdout().contains(".created"));
    program.call(&["explain", "user", "1"]).await.expect(1);
}

#[tokio::test]
async fn a_user_is_explained_by_email_address_and_several_are_told_apart_by_ids() {
    let scene = Scene::new().await;
    let program = scene.program();
    let user = scene.sim.hire("Xenia", "Explained");
    scene.sim.set_email(user, "Xenia@Example.com");
    program.call(&["sync"]).await.expect(0);
    let by_id = program.call(&["explain", "user", &user.to_string()]).await.expect(0).stdout();
    let by_email = program.call(&["explain", "user", "xenia@example.COM"]).await;
    assert_eq!(by_email.expect(0).stdout(), by_id);
    let other = scene.sim.user_ids()[2];
    scene.sim.set_email(other, "xenia@example.com");
    program.call(&["sync"]).await.expect(0);
    let several = program.call(&["explain", "user", "xenia@example.com"]).await;
    let said = several.expect(1).sentence();
    for id in [user, other] {
        assert!(said.contains(&format!("user {id} of account {}", scene.sim.account_id())), "{said}");
    }
    let nobody = program.call(&["explain", "user", "nobody@example.net"]).await;
    assert!(nobody.expect(1).sentence().contains("no user in the mirror has this e-mail address"));
    for called in [by_email, several, nobody] {
        assert!(!called.stderr().to_lowercase().contains("@example"), "{}", called.stderr());
    }
    program.call(&["explain", "user", "Xenia"]).await.expect(2);
}

#[tokio::test]
async fn a_deletion_is_explained_by_the_question_that_confirmed_it() {
    let scene = Scene::new().await;
    let program = scene.program();
    let user = scene.sim.user_ids().into_iter().find(|user| *user != scene.sim.token_owner()).unwrap();
    let place = scene.sim.assign(user, scene.sim.project_ids()[0]);
    program.call(&["sync"]).await.expect(0);
    scene.sim.delete_user(user);
    program.call(&["sync"]).await.expect(0);
    for (kind, id) in [("user", user.0), ("assignment", place.0)] {
        let said = program.call(&["explain", kind, &id.to_string()]).await.expect(0).stdout();
        let told = said.lines().last().unwrap();
        assert!(told.contains(".deleted ") && told.ends_with(&format!("; GET /v2/users/{user})")), "{said}");
    }
}
