//! `rosterd outbox tail`: events as JSON lines, each once and in order, also after an interruption of the database.

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
async fn outbox_tail_prints_events_from_a_given_seq_and_by_type() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    let all = program.call(&["outbox", "tail"]).await.expect(0).stdout();
    assert_eq!(seqs(&all), (1..=60).collect::<Vec<_>>());
    let first: Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
    assert_eq!((&first["type"], &first["payload"]["version"]), (&"user.created".into(), &1.into()));
    assert_eq!(seqs(&program.call(&["outbox", "tail", "--from", "59"]).await.expect(0).stdout()), [59, 60]);
    let assignments =
        program.call(&["outbox", "tail", "--type", "user_assignment.*"]).await.expect(0).stdout();
    assert_eq!(seqs(&assignments).len(), 40);
    for unknown in ["users.*", "user", "cost_rate.deactivated"] {
        let refused = program.call(&["outbox", "tail", "--type", unknown]).await;
        let error = refused.expect(2).stderr();
        assert!(error.contains("user.created") && error.contains("cost_rate.deleted"), "{error}");
    }
    scene
        .execute("DELETE FROM roster.outbox WHERE seq <= 10; UPDATE roster.outbox_head SET floor_seq = 10")
        .await;
    assert_eq!(seqs(&program.call(&["outbox", "tail"]).await.expect(0).stdout())[0], 11);
    let removed = program.call(&["outbox", "tail", "--from", "5"]).await;
    assert!(removed.expect(1).sentence().contains("were removed"), "{}", removed.stderr());
}

#[tokio::test]
async fn outbox_tail_since_starts_at_an_age_or_a_time() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    let tail = async |since: &str| {
        seqs(&program.call(&["outbox", "tail", "--since", since]).await.expect(0).stdout())
    };
    assert_eq!(tail("1h").await.len(), 60);
    // Event 20 was recorded 40 hours ago, and event 60 now.
    scene.execute("UPDATE roster.outbox SET recorded_at = now() - (60 - seq) * interval '1 hour'").await;
    for (since, first) in [("90m", 59), ("40h 30m", 20), ("10 days", 1)] {
        assert_eq!(tail(since).await, (first..=60).collect::<Vec<_>>(), "{since}");
    }
    assert_eq!(tail("2020-01-01T00:00:00Z").await.len(), 60);
    assert_eq!(tail("2120-01-01T00:00:00+02:00").await, [0; 0]);
    scene
        .execute("DELETE FROM roster.outbox WHERE seq <= 30; UPDATE roster.outbox_head SET floor_seq = 30")
        .await;
    assert_eq!(
        tail("40h 30m").await,
        (31..=60).collect::<Vec<_>>(),
        "starts at the oldest event that is kept"
    );
    program.call(&["outbox", "tail", "--since", "1h", "--from", "3"]).await.expect(2);
}

#[tokio::test]
async fn outbox_tail_follow_continues_after_an_outage_and_exits_at_a_new_stream() {
    let scene = Scene::new().await;
    let program = scene.program();
    let mut command = program.command(&["outbox", "tail", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    program.call(&["sync"]).await.expect(0);
    let next_seqs = |count: usize| -> Vec<i64> {
        (0..count).flat_map(|_| seqs(&lines.recv_timeout(STUCK).expect("no more events"))).collect()
    };
    assert_eq!(next_seqs(60), (1..=60).collect::<Vec<_>>());
    // The command reconnects after the server has closed all connections.
    scene
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    scene.sim.create_user("Nora", "Next");
    program.call(&["sync"]).await.expect(0);
    assert_eq!(next_seqs(1), [61]);
    program.call(&["outbox", "new-stream", "--yes"]).await.expect(0);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("a new stream has begun"));
}
