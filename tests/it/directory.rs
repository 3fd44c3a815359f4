//! What readers get: people, teams and their past, as they are, and no pay anywhere.

use std::time::Duration;

use chrono::{DateTime, Utc};
use harvest_sim::{Company, Options};
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::world::World;

/// The rows of a query as JSON, with the columns' own names.
async fn rows(world: &World, query: &str) -> Vec<Value> {
    let query = format!("SELECT to_jsonb(t) FROM ({query}) AS t");
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(world.store.pool()).await.unwrap()
}

async fn ids(world: &World, query: &str) -> Vec<i64> {
    let mut ids: Vec<i64> =
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(world.store.pool()).await.unwrap();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn views_answer_what_people_ask_and_show_no_pay() {
    let mut world = World::new().await;
    let (sim, project) = (world.sim.clone(), world.sim.project_ids()[0]);
    let [free, leaver, gone] = ["Free", "Leaver", "Gone"].map(|name| sim.hire("Zoe", name));
    let places = [leaver, gone].map(|user| sim.assign(user, project));
    sim.edit_user(free, |user| {
        user.is_contractor = true;
        user.cost_rate = Some(917.43);
        "zoe@example.com".clone_into(&mut user.email);
    });
    sim.set_email(leaver, "ZOE@example.com");
    sim.edit_assignment(places[0], |place| place.budget = Some(817.43));
    world.cycle().await;
    sim.edit_user_silently(leaver, |user| user.is_active = false);
    world.full_cycle().await;
    world.pass(chrono::TimeDelta::hours(1));
    sim.delete_user(gone);
    world.full_cycle().await;

    let contractors = ids(&world, "SELECT id FROM directory.contractors").await;
    assert!(contractors.contains(&free.0) && !contractors.contains(&leaver.0));
    assert!(ids(&world, "SELECT id FROM directory.people_without_assignments").await.contains(&free.0));
    assert_eq!(ids(&world, "SELECT user_id FROM directory.inactive_people_still_assigned").await, [leaver.0]);
    assert_eq!(ids(&world, "SELECT id FROM directory.deleted_users").await, [gone.0]);
    assert_eq!(ids(&world, "SELECT id FROM directory.deleted_assignments").await, [places[1].0]);
    let twice = rows(&world, "SELECT * FROM directory.duplicate_emails").await;
    assert_eq!(twice.len(), 1, "{twice:?}");
    assert_eq!((&twice[0]["email"], &twice[0]["people"]), (&"zoe@example.com".into(), &2.into()));
    assert_eq!(ids(&world, "SELECT user_id FROM directory.leavers").await, [leaver.0, gone.0]);
    assert!(ids(&world, "SELECT user_id FROM directory.all_joiners").await.contains(&free.0));
    assert!(!ids(&world, "SELECT id FROM directory.administrators").await.is_empty());
    let old = rows(&world, "SELECT * FROM directory.v1_user_assignments").await;
    assert!(old.iter().all(|row| row["deactivated"].is_boolean() && row["hourly_rate"].is_null()));
    let fresh =
        rows(&world, "SELECT resource, rows, lag < interval '1 minute' AS fresh FROM directory.sync_status")
            .await;
    assert!(fresh.iter().all(|row| row["fresh"] == true && row["rows"].as_i64().unwrap() > 0), "{fresh:?}");

    // All there is to select, and what functions give.
    let views: Vec<String> = sqlx::query_scalar(
        "SELECT format('SELECT * FROM directory.%I', viewname) FROM pg_views WHERE schemaname = 'directory'
         UNION ALL VALUES ('SELECT * FROM directory.outbox_fetch(''pay?'', 10000)'),
                          ('SELECT * FROM directory.users_as_of(now())'), ('SELECT * FROM directory.assignments_as_of(now())')",
    )
    .fetch_all(world.store.pool())
    .await
    .unwrap();
    assert!(views.len() > 20, "{views:?}");
    for view in views {
        let shown = Value::from(rows(&world, &view).await).to_string();
        for pay in ["917.43", "817.43", "\"cost_rate\"", "\"default_hourly_rate\"", "\"amount\""] {
            assert!(!shown.contains(pay), "{view} shows {pay}");
        }
        assert!(!shown.contains("\"raw\""), "{view} shows raw");
    }
    let pay_alone =
        "SELECT payload -> 'changed' AS changed FROM directory.events WHERE type = 'user.updated'";
    sim.set_cost_rate(free, Some(42.0));
    world.full_cycle().await;
    assert_eq!(rows(&world, pay_alone).await.last().unwrap()["changed"], serde_json::json!({}));
}

#[tokio::test]
async fn joiners_are_people_who_came_after_the_first_read() {
    let mut world = World::new().await;
    let sim = world.sim.clone();
    let joiners = "SELECT user_id FROM directory.joiners";
    world.cycle().await;
    let active = ids(&world, "SELECT id FROM directory.active_users").await;
    assert_eq!(ids(&world, joiners).await, [0; 0]);
    let initial = "SELECT user_id FROM directory.all_joiners WHERE how = 'initial'";
    assert_eq!(ids(&world, initial).await, active, "everybody who was active at the first read");

    let new = sim.hire("Nora", "New");
    // Created before the first read, and seen only later, as by a token that saw a part of the people at first.
    sim.shift_clock(chrono::TimeDelta::days(-2));
    let hidden = sim.hire("Hal", "Hidden");
    sim.shift_clock(chrono::TimeDelta::days(2));
    let back = active[3];
    sim.deactivate(harvest_sim::UserId(back));
    world.full_cycle().await;
    assert_eq!(ids(&world, joiners).await, [new.0]);
    assert!(ids(&world, initial).await.contains(&hidden.0));
    assert_eq!(ids(&world, "SELECT user_id FROM directory.leavers").await, [back]);

    sim.reactivate(harvest_sim::UserId(back));
    world.full_cycle().await;
    let mut both = [new.0, back];
    both.sort_unstable();
    assert_eq!(ids(&world, joiners).await, both);
    let joined = "SELECT sum(joined)::bigint FROM directory.joiners_and_leavers_by_day";
    assert_eq!(ids(&world, joined).await, [2]);
    let known = "SELECT count(*) FROM directory.accounts WHERE first_full_at = history_since";
    assert_eq!(ids(&world, known).await, [1]);
}

/// The past is what the events say of it, at any moment.
#[tokio::test]
async fn the_past_is_what_a_replay_to_that_moment_says() {
    let mut world = World::new().await;
    world.cycle().await;
    let users = world.sim.user_ids();
    let mut moments: Vec<DateTime<Utc>> = Vec::new();
    for round in 0..4 {
        world.sim.rename(users[round], "Round", "Robin");
        world.sim.hire("Rita", "Round");
        match round {
            1 => world.sim.deactivate(users[5]),
            2 => world.sim.delete_assignment(world.sim.assignment_ids()[0]),
            3 => world.sim.reactivate(users[5]),
            _ => {}
        }
        world.pass(chrono::TimeDelta::hours(1));
        world.full_cycle().await;
        moments.push(
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(world.store.pool()).await.unwrap(),
        );
    }
    expect_past_equals_replay(&world, &moments).await;
    let open = "SELECT id FROM roster.user_history WHERE valid_to IS NULL";
    assert_eq!(ids(&world, open).await, ids(&world, "SELECT id FROM roster.users").await);

    // What has ended is dropped, and the account says from when on the past is known.
    let last = moments.pop().unwrap();
    while world.store.trim_history(Duration::ZERO).await.unwrap() {}
    expect_past_equals_replay(&world, &[last]).await;
    let told = "SELECT count(*) FROM roster.accounts
                 WHERE history_since = (SELECT max(recorded_at) FROM roster.outbox WHERE version > 1)";
    assert_eq!(ids(&world, told).await, [1]);
    assert!(rows(&world, "SELECT * FROM roster.user_history WHERE valid_to IS NOT NULL").await.is_empty());
}

/// More people than one statement writes, all changed by one commit.
#[tokio::test]
async fn users_as_of_the_time_of_a_commit_shows_all_of_it() {
    let mut world = World::of(Company::seeded(1, 700, 0), Options::default()).await;
    world.cycle().await;
    world.news().await;
    for user in world.sim.user_ids() {
        world.sim.rename(user, "Rita", "Renamed");
    }
    world.cycle().await;
    assert_eq!(world.news().await.len(), 700);
    let commits =
        "SELECT recorded_at::text AS at, count(*) AS events FROM roster.outbox GROUP BY 1 ORDER BY 1";
    let commits = rows(&world, commits).await;
    assert_eq!(commits.iter().map(|row| row["events"].as_i64().unwrap()).collect::<Vec<_>>(), [700, 700]);
    let at = commits[1]["at"].as_str().unwrap();
    for (at, renamed) in [(format!("'{at}'"), 700), (format!("'{at}'::timestamptz - interval '1 us'"), 0)] {
        let seen = format!(
            "SELECT count(*) AS everybody, count(*) FILTER (WHERE last_name = 'Renamed') AS renamed
               FROM directory.users_as_of({at})"
        );
        let seen = rows(&world, &seen).await;
        assert_eq!((&seen[0]["everybody"], &seen[0]["renamed"]), (&700.into(), &renamed.into()), "{at}");
    }
}

async fn expect_past_equals_replay(world: &World, moments: &[DateTime<Utc>]) {
    for (what, aggregate, fields) in [
        ("users", "user", "first_name, last_name, email, is_active, roles, weekly_capacity"),
        ("assignments", "user_assignment", "user_id, project_id, is_active, is_project_manager"),
    ] {
        for moment in moments {
            let past =
                format!("SELECT id, version, {fields} FROM directory.{what}_as_of('{moment}') ORDER BY id");
            let image = fields.split(", ").map(|field| format!("payload -> 'after' -> '{field}' AS {field}"));
            let replayed = format!(
                "SELECT (payload ->> 'id')::bigint AS id, version, {}
                   FROM (SELECT DISTINCT ON (aggregateid) * FROM directory.events
                          WHERE aggregatetype = '{aggregate}' AND recorded_at <= '{moment}'
                          ORDER BY aggregateid, seq DESC) AS last
                  WHERE type <> '{aggregate}.deleted' ORDER BY 1",
                image.collect::<Vec<_>>().join(", ")
            );
            let (past, replayed) = (rows(world, &past).await, rows(world, &replayed).await);
            assert!(!past.is_empty());
            assert_eq!(past, replayed, "{what} at {moment}");
        }
    }
}
