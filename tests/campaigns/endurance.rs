//! As many polls as in a day, without pauses: the resources of the daemon must not grow.

use std::fs;
use std::time::Duration;

use harvest_sim::{Company, Options, Request};
use tokio::time::{Instant, sleep};

use crate::program::STUCK;
use crate::scene::Scene;

/// One poll per minute for a day.
const POLLS: usize = 24 * 60;

/// The resources of a process and its database.
#[derive(Debug)]
struct Resources {
    memory_kib: i64,
    files: usize,
    connections: i64,
    /// The size of the tables that polls, heartbeats and changes update in place.
    table_bytes: i64,
}

impl Resources {
    async fn of(pid: u32, scene: &Scene) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            memory_kib: memory.trim().trim_end_matches(" kB").parse().unwrap(),
            files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            connections: scene
                .number("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
                .await,
            table_bytes: scene
                .number(
                    "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
                      WHERE relnamespace = 'roster'::regnamespace
                        AND relname IN ('accounts', 'watermarks', 'outbox_head', 'replicas', 'rate_permits', 'requests')",
                )
                .await,
        }
    }
}

/// Waits for the response to the last request of a poll.
async fn polled(scene: &Scene) {
    let give_up = Instant::now() + STUCK;
    let is_last = |it: &Request| it.status.is_some() && it.path.contains("/user_assignments?updated_since");
    while !scene.sim.requests().iter().any(is_last) {
        assert!(Instant::now() < give_up, "no poll");
        sleep(Duration::from_millis(1)).await;
    }
    scene.sim.clear_requests();
}

#[tokio::test]
async fn day_of_polls_does_not_grow_memory_connections_files_or_tables() {
    let scene = Scene::of(Company::seeded(6, 50, 200), Options { limit: None, ..Options::default() }).await;
    let mut program = scene.program();
    program.set("ROSTERD__RATE_LIMIT__REQUESTS", "100000").set("ROSTERD__RATE_LIMIT__WINDOW", "1s");
    program.set("ROSTERD__SYNC__POLL_INTERVAL", "1h");
    let daemon = program.start();
    let pid = daemon.child.id();
    scene.until("SELECT EXISTS (SELECT FROM roster.accounts WHERE last_full_at IS NOT NULL)").await;
    let users = scene.sim.user_ids();
    let mut early = None;
    for poll in 0..POLLS {
        if poll % 20 == 0 {
            scene.sim.edit_user(users[poll % users.len()], |user| user.telephone.push('1'));
        }
        daemon.signal("-HUP");
        polled(&scene).await;
        if poll % (POLLS / 24) == 0 {
            // Autovacuum runs more often in a day.
            scene.execute("VACUUM roster.rate_permits").await;
        }
        if poll == POLLS / 6 {
            early = Some(Resources::of(pid, &scene).await);
        }
    }
    let (early, late) = (early.unwrap(), Resources::of(pid, &scene).await);
    scene.expect_right().await;
    let measured = format!("{early:?}, then {late:?}");
    eprintln!("{POLLS} polls: {measured}");
    assert!(late.memory_kib < early.memory_kib + 4096, "{measured}");
    assert!(late.files <= early.files + 2, "{measured}");
    assert!(late.connections <= early.connections + 1, "{measured}");
    assert!(late.table_bytes <= early.table_bytes + (256 << 10), "{measured}");
}
