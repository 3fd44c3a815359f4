//! The schema `directory`, which readers use: users, teams and their past, without pay data.

use std::time::Duration;

use chrono::{DateTime, Utc};
use harvest_sim::{Company, Options};
use rosterd::roster::model::{Assignment, Record, User};
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
async fn directory_views_show_the_expected_rows_and_no_pay_data() {
    let mut world = World::new().await;
    let (sim, project) = (world.sim.clone(), world.sim.project_ids()[0]);
    let [free, leaver, deleted] = ["Free", "Leaver", "Gone"].map(|name| sim.create_user("Zoe", name));
    let assignments = [leaver, deleted].map(|user| sim.assign(user, project));
    sim.edit_user(free, |user| {
        user.is_contractor = true;
        user.cost_rate = Some(917.43);
        "zoe@example.com".clone_into(&mut user.email);
    });
    sim.set_email(leaver, "ZOE@example.com");
    sim.edit_assignment(assignments[0], |assignment| assignment.budget = Some(817.43));
    world.cycle().await;
    sim.edit_user_keeping_updated_at(leaver, |user| user.is_active = false);
    world.full_cycle().await;
    world.pass(chrono::TimeDelta::hours(1));
    sim.delete_user(deleted);
    world.full_cycle().await;

    let contractors = ids(&world, "SELECT id FROM directory.contractors").await;
    assert!(contractors.contains(&free.0) && !contractors.contains(&leaver.0));
    assert!(ids(&world, "SELECT id FROM directory.people_without_assignments").await.contains(&free.0));
    assert_eq!(ids(&world, "SELECT user_id FROM directory.inactive_people_still_assigned").await, [leaver.0]);
    assert_eq!(ids(&world, "SELECT id FROM directory.deleted_users").await, [deleted.0]);
    assert_eq!(ids(&world, "SELECT id FROM directory.deleted_assignments").await, [assignments[1].0]);
    let duplicates = rows(&world, "SELECT * FROM directory.duplicate_emails").await;
    assert_eq!(duplicates.len(), 1, "{duplicates:?}");
    assert_eq!((&duplicates[0]["email"], &duplicates[0]["people"]), (&"zoe@example.com".into(), &2.into()));
    assert_eq!(ids(&world, "SELECT user_id FROM directory.leavers").await, [leaver.0, deleted.0]);
    assert!(ids(&world, "SELECT user_id FROM directory.all_joiners").await.contains(&free.0));
    assert!(!ids(&world, "SELECT id FROM directory.administrators").await.is_empty());
    let v1_rows = rows(&world, "SELECT * FROM directory.v1_user_assignments").await;
    assert!(v1_rows.iter().all(|row| row["deactivated"].is_boolean() && row["hourly_rate"].is_null()));
    let status =
        rows(&world, "SELECT resource, rows, lag < interval '1 minute' AS fresh FROM directory.sync_status")
            .await;
    assert!(status.iter().all(|row| row["fresh"] == true && row["rows"].as_i64().unwrap() > 0), "{status:?}");

    // Every view, and every function that returns rows.
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
    let changes = "SELECT payload -> 'changed' AS changed FROM directory.events WHERE type = 'user.updated'";
    sim.set_cost_rate(free, Some(42.0));
    world.full_cycle().await;
    assert_eq!(rows(&world, changes).await.last().unwrap()["changed"], serde_json::json!({}));
}

/// A view keeps the columns that `SELECT *` had when the view was created.
#[tokio::test]
async fn every_view_of_users_or_assignments_has_all_their_fields_except_pay_data() {
    let world = World::new().await;
    let (user, assignment) = (User::default(), Assignment::default());
    for (fields, column_of_them_all) in
        [(user.fields(), "telephone"), (assignment.fields(), "use_default_rates")]
    {
        let names: Vec<_> = fields.into_iter().map(|(name, _)| name).collect();
        let absent = format!(
            "SELECT format('%s.%s', view.table_name, field)
               FROM information_schema.columns AS view, unnest('{{{}}}'::text[]) AS field
              WHERE view.table_schema = 'directory' AND view.column_name = '{column_of_them_all}'
                AND field NOT IN ('default_hourly_rate', 'cost_rate', 'hourly_rate', 'budget')
                AND (view.table_name, field) NOT IN (SELECT table_name, column_name FROM information_schema.columns
                                                      WHERE table_schema = 'directory')",
            names.join(",")
        );
        let absent: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(absent)).fetch_all(world.store.pool()).await.unwrap();
        assert!(absent.is_empty(), "create these views again in a migration (CONTRIBUTING.md): {absent:#?}");
    }
}

#[tokio::test]
async fn joiners_are_users_created_or_reactivated_after_the_first_read() {
    let mut world = World::new().await;
    let sim = world.sim.clone();
    let joiners = "SELECT user_id FROM directory.joiners";
    world.cycle().await;
    let active = ids(&world, "SELECT id FROM directory.active_users").await;
    assert_eq!(ids(&world, joiners).await, [0; 0]);
    let initial = "SELECT user_id FROM directory.all_joiners WHERE how = 'initial'";
    assert_eq!(ids(&world, initial).await, active, "the users who were active at the first read");

    let new = sim.create_user("Nora", "New");
    // Created before the first read but seen later, as with a token that could not see all users at first.
    sim.shift_clock(chrono::TimeDelta::days(-2));
    let hidden = sim.create_user("Hal", "Hidden");
    sim.shift_clock(chrono::TimeDelta::days(2));
    let returning = active[3];
    sim.archive_user(harvest_sim::UserId(returning));
    world.full_cycle().await;
    assert_eq!(ids(&world, joiners).await, [new.0]);
    assert!(ids(&world, initial).await.contains(&hidden.0));
    assert_eq!(ids(&world, "SELECT user_id FROM directory.leavers").await, [returning]);

    sim.restore_user(harvest_sim::UserId(returning));
    world.full_cycle().await;
    let mut expected = [new.0, returning];
    expected.sort_unstable();
    assert_eq!(ids(&world, joiners).await, expected);
    let joined = "SELECT sum(joined)::bigint FROM directory.joiners_and_leavers_by_day";
    assert_eq!(ids(&world, joined).await, [2]);
    let complete_histories = "SELECT count(*) FROM directory.accounts WHERE first_full_at = history_since";
    assert_eq!(ids(&world, complete_histories).await, [1]);
}

#[tokio::test]
async fn past_state_equals_a_replay_of_the_events_to_that_moment() {
    let mut world = World::new().await;
    world.cycle().await;
    let users = world.sim.user_ids();
    let mut moments: Vec<DateTime<Utc>> = Vec::new();
    for round in 0..4 {
        world.sim.rename(users[round], "Round", "Robin");
        world.sim.create_user("Rita", "Round");
        match round {
            1 => world.sim.archive_user(users[5]),
            2 => world.sim.delete_assignment(world.sim.assignment_ids()[0]),
            3 => world.sim.restore_user(users[5]),
            _ => {}
        }
        world.pass(chrono::TimeDelta::hours(1));
        world.full_cycle().await;
        moments.push(
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(world.store.pool()).await.unwrap(),
        );
    }
    expect_past_equals_replay(&world, &moments).await;
    let current_versions = "SELECT id FROM directory.user_history WHERE valid_to IS NULL ORDER BY id";
    assert_eq!(
        ids(&world, current_versions).await,
        ids(&world, "SELECT id FROM roster.users ORDER BY id").await
    );

    // Retention removes ended versions, and `history_since` moves to the first moment that is still known.
    let last = moments.pop().unwrap();
    while world.store.trim_history(Duration::ZERO).await.unwrap() {}
    expect_past_equals_replay(&world, &[last]).await;
    let adjusted_accounts = "SELECT count(*) FROM roster.accounts
                 WHERE history_since = (SELECT max(recorded_at) FROM roster.outbox WHERE version > 1)";
    assert_eq!(ids(&world, adjusted_accounts).await, [1]);
    assert!(rows(&world, "SELECT * FROM roster.user_history").await.is_empty());
}

/// One commit changes more users than one statement writes.
#[tokio::test]
async fn users_as_of_the_time_of_a_commit_shows_the_whole_commit() {
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
        let query = format!(
            "SELECT count(*) AS users, count(*) FILTER (WHERE last_name = 'Renamed') AS renamed
               FROM directory.users_as_of({at})"
        );
        let seen = rows(&world, &query).await;
        assert_eq!((&seen[0]["users"], &seen[0]["renamed"]), (&700.into(), &renamed.into()), "{at}");
    }
}

async fn expect_past_equals_replay(world: &World, moments: &[DateTime<Utc>]) {
    for (view, aggregate, fields) in [
        ("users", "user", "first_name, last_name, email, is_active, roles, weekly_capacity"),
        ("assignments", "user_assignment", "user_id, project_id, is_active, is_project_manager"),
    ] {
        for moment in moments {
            let past =
                format!("SELECT id, version, {fields} FROM directory.{view}_as_of('{moment}') ORDER BY id");
            let columns =
                fields.split(", ").map(|field| format!("payload -> 'after' -> '{field}' AS {field}"));
            let replayed = format!(
                "SELECT (payload ->> 'id')::bigint AS id, version, {}
                   FROM (SELECT DISTINCT ON (aggregateid) * FROM directory.events
                          WHERE aggregatetype = '{aggregate}' AND recorded_at <= '{moment}'
                          ORDER BY aggregateid, seq DESC) AS last
                  WHERE type <> '{aggregate}.deleted' ORDER BY 1",
                columns.collect::<Vec<_>>().join(", ")
            );
            let (past, replayed) = (rows(world, &past).await, rows(world, &replayed).await);
            assert!(!past.is_empty());
            assert_eq!(past, replayed, "{view} at {moment}");
        }
    }
}
