//! PostgreSQL refuses records: rosterd quarantines and retries one bad record, but an error of the database fails the
//! cycle and quarantines nothing.

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options};
use rosterd::sync::report::CycleMode;
use serde_json::json;

use crate::world::World;

/// Errors that one bad record or the database itself may cause.
const AMBIGUOUS_SQLSTATES: [&str; 5] = ["54000", "22023", "23514", "23505", "P0001"];

async fn company() -> World {
    let mut world = World::of(Company::seeded(3, 40, 80), Options::default()).await;
    world.rules.full_interval = TimeDelta::days(9);
    world.cycle().await;
    world
}

/// Creates a trigger that raises the SQLSTATE for rows of the table that meet the condition.
async fn refuse(world: &World, table: &str, when: &str, condition: &str, sqlstate: &str) {
    world
        .execute(format!(
            "CREATE OR REPLACE FUNCTION roster.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF {condition} THEN RAISE EXCEPTION 'a secret value' USING ERRCODE = '{sqlstate}'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse {when} ON roster.{table} FOR EACH ROW EXECUTE FUNCTION roster.refuse()"
        ))
        .await;
}

async fn stop_refusing(world: &World, table: &str) {
    world.execute(format!("DROP TRIGGER refuse ON roster.{table}")).await;
}

async fn rejected(world: &World) -> Vec<i64> {
    sqlx::query_scalar("SELECT record_id FROM roster.rejected_records ORDER BY record_id")
        .fetch_all(world.store.pool())
        .await
        .unwrap()
}

/// Runs a cycle and lets time pass, so that the next incremental reads do not return the present changes.
async fn pass_beyond_skew_buffer(world: &mut World) {
    world.pass(TimeDelta::minutes(5));
    world.cycle().await;
    world.pass(TimeDelta::minutes(5));
}

/// Drops the trigger and expects the next poll to store all records, although its lists do not return them.
async fn expect_stored_at_the_next_poll(world: &mut World, table: &str, case: &str) {
    pass_beyond_skew_buffer(world).await;
    stop_refusing(world, table).await;
    let report = world.cycle().await;
    assert_eq!(report.mode, CycleMode::Incremental, "{case}");
    assert_eq!(report.users.seen + report.assignments.seen, 0, "{case}");
    assert_eq!(rejected(world).await, [0; 0], "{case}");
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// Expects that the cycle fails, stores and quarantines no record of the page, and keeps the list's watermark.
async fn expect_failure(world: &mut World, table: &str, sqlstate: &str, case: &str) {
    let list = if table == "outbox" { "users" } else { table };
    let query = format!(
        "SELECT concat_ws(' ', watermark, (SELECT max(synced_at) FROM roster.{list}),
                          (SELECT count(*) FROM roster.outbox WHERE aggregatetype || 's' = '{list}'))
           FROM roster.watermarks WHERE resource = '{list}'"
    );
    let stored_state = async |world: &World| -> String {
        sqlx::query_scalar(sqlx::AssertSqlSafe(query.clone())).fetch_one(world.store.pool()).await.unwrap()
    };
    let before = stored_state(world).await;
    let report = world.try_cycle().await;
    let error = rosterd::telemetry::chain(&report.outcome.unwrap_err());
    assert!(error.contains(&format!("SQLSTATE {sqlstate}")) && !error.contains("secret"), "{case}: {error}");
    assert!(error.contains(&format!("roster.{list}")), "{case}: {error}");
    assert_eq!(stored_state(world).await, before, "{case}");
    assert_eq!(rejected(world).await, [0; 0], "{case}");
}

/// Changes records of both lists, more than the limit of records that rosterd quarantines at once.
fn change_many(world: &World) {
    for user in &world.sim.user_ids()[5..17] {
        world.sim.edit_user(*user, |user| user.telephone.push('7'));
    }
    for assignment in &world.sim.assignment_ids()[5..17] {
        world.sim.edit_assignment(*assignment, |assignment| {
            assignment.budget = Some(assignment.budget.unwrap_or_default() + 1.0);
        });
    }
    let user = world.sim.create_user("Nora", "New");
    world.sim.assign(user, world.sim.project_ids()[0]);
}

#[tokio::test]
async fn database_error_for_many_records_fails_the_cycle_and_loses_nothing() {
    let mut world = company().await;
    let id = |table| if table == "outbox" { "(NEW.payload ->> 'id')::bigint" } else { "NEW.id" };
    for sqlstate in AMBIGUOUS_SQLSTATES {
        for table in ["users", "user_assignments", "outbox"] {
            for condition in ["true".to_owned(), format!("{} % 2 = 0", id(table))] {
                let case = format!("{sqlstate} by {table} if {condition}");
                change_many(&world);
                refuse(&world, table, "BEFORE INSERT OR UPDATE", &condition, sqlstate).await;
                expect_failure(&mut world, table, sqlstate, &case).await;
                world.pass(TimeDelta::minutes(5));
                expect_failure(&mut world, table, sqlstate, &case).await;
                stop_refusing(&world, table).await;
                world.cycle().await;
                world.expect_mirror_equals_source().await;
            }
        }
    }
    world.expect_outbox_replays_to_the_mirror().await;
}

/// Each SQLSTATE here is of a class in which PostgreSQL's own messages quote no value.
#[tokio::test]
async fn trigger_error_is_reported_without_its_message() {
    let mut world = company().await;
    let sqlstates =
        ["XX000", "55000", "0A000", "58000", "42501", "42P01", "26000", "40001", "57014", "25006", "08006"];
    for sqlstate in sqlstates {
        change_many(&world);
        refuse(&world, "users", "BEFORE INSERT OR UPDATE", "true", sqlstate).await;
        let error = rosterd::telemetry::chain(&world.try_cycle().await.outcome.unwrap_err());
        assert!(
            error.contains(&format!("SQLSTATE {sqlstate}")) && !error.contains("secret"),
            "{sqlstate}: {error}"
        );
        stop_refusing(&world, "users").await;
    }
}

/// The page has no other record, so that rosterd tests with a row that PostgreSQL accepted before.
#[tokio::test]
async fn database_error_is_recognised_with_a_single_changed_record() {
    let mut world = company().await;
    for when in ["BEFORE INSERT OR UPDATE", "AFTER INSERT OR UPDATE", "AFTER INSERT", "BEFORE INSERT"] {
        refuse(&world, "users", when, "true", "54000").await;
        world.sim.create_user("Nora", "New");
        expect_failure(&mut world, "users", "54000", when).await;
        stop_refusing(&world, "users").await;
        world.cycle().await;
        world.expect_mirror_equals_source().await;
    }
    refuse(&world, "users", "AFTER UPDATE", "true", "54000").await;
    world.sim.edit_user(world.sim.user_ids()[3], |user| user.telephone.push('7'));
    expect_failure(&mut world, "users", "54000", "AFTER UPDATE").await;
}

#[tokio::test]
async fn one_refused_record_is_quarantined_and_retried_at_each_poll() {
    let mut world = company().await;
    let (user, assignment) = (world.sim.user_ids()[9], world.sim.assignment_ids()[9]);
    for sqlstate in AMBIGUOUS_SQLSTATES {
        for (table, condition, id) in [
            ("users", format!("NEW.id = {user}"), user.0),
            ("user_assignments", format!("NEW.id = {assignment}"), assignment.0),
            ("outbox", format!("NEW.payload -> 'id' = '{user}'"), user.0),
        ] {
            let case = format!("{sqlstate} by {table}");
            change_many(&world);
            refuse(&world, table, "BEFORE INSERT OR UPDATE", &condition, sqlstate).await;
            for _ in 0..2 {
                let watermarks = world.watermarks().await;
                pass_beyond_skew_buffer(&mut world).await;
                assert_eq!(rejected(&world).await, [id], "{case}");
                assert_ne!(world.watermarks().await, watermarks, "{case}");
            }
            expect_stored_at_the_next_poll(&mut world, table, &case).await;
        }
    }
}

#[tokio::test]
async fn few_refused_records_are_quarantined_and_retried() {
    let mut world = company().await;
    let users = world.sim.user_ids();
    let condition = format!("NEW.id IN ({}, {})", users[5], users[6]);
    for (edited, when) in [(2, "BEFORE INSERT OR UPDATE"), (4, "AFTER UPDATE")] {
        for user in &users[5..5 + edited] {
            world.sim.edit_user(*user, |user| user.telephone.push('7'));
        }
        refuse(&world, "users", when, &condition, "22023").await;
        assert_eq!(world.cycle().await.users.rejected, 2);
        assert_eq!(rejected(&world).await, [users[5].0, users[6].0]);
        expect_stored_at_the_next_poll(&mut world, "users", when).await;
    }
}

/// An operator's unique index accepts neither the new record nor a copy of a row that it accepted before.
#[tokio::test]
async fn new_record_that_violates_a_unique_index_is_quarantined() {
    let index = "CREATE UNIQUE INDEX one_each ON roster.users (lower(email))";
    expect_namesake_quarantined(index, "DROP INDEX roster.one_each").await;
}

/// PostgreSQL checks such a constraint when the transaction commits.
#[tokio::test]
async fn new_record_that_violates_a_deferred_constraint_is_quarantined() {
    let constraint =
        "ALTER TABLE roster.users ADD CONSTRAINT one_each UNIQUE (email) DEFERRABLE INITIALLY DEFERRED";
    expect_namesake_quarantined(constraint, "ALTER TABLE roster.users DROP CONSTRAINT one_each").await;
}

async fn expect_namesake_quarantined(add_constraint: &'static str, drop_constraint: &'static str) {
    let mut world = company().await;
    world.execute(add_constraint).await;
    let (user, namesake) = (world.sim.user_ids()[4], world.sim.create_user("Nora", "New"));
    let email = world.sim.users_json().iter().find(|record| record["id"] == user.0).unwrap()["email"].clone();
    world.sim.set_email(namesake, email.as_str().unwrap());
    world.cycle().await;
    assert_eq!(rejected(&world).await, [namesake.0]);
    pass_beyond_skew_buffer(&mut world).await;
    world.execute(drop_constraint).await;
    let report = world.cycle().await;
    assert_eq!((report.users.seen, report.users.changed), (0, 1));
    world.expect_mirror_equals_source().await;
}

/// The decoder rejected the record first. When the record becomes readable, PostgreSQL's refusal must stay recorded.
#[tokio::test]
async fn unreadable_record_that_postgresql_then_refuses_stays_quarantined() {
    let mut world = company().await;
    let user = world.sim.user_ids()[0];
    let unreadable = move |record: &mut serde_json::Map<_, _>| {
        if record.get("id") == Some(&json!(user.0)) {
            record.insert("is_contractor".to_owned(), json!("perhaps"));
        }
    };
    world.sim.inject(Fault::edit_records(unreadable).on("/users?"));
    world.full_cycle().await;
    assert_eq!(rejected(&world).await, [user.0]);
    refuse(&world, "users", "BEFORE INSERT OR UPDATE", &format!("NEW.id = {user}"), "22003").await;
    change_many(&world);
    world.sim.edit_user(user, |user| user.telephone.push('7'));
    world.cycle().await;
    assert_eq!(rejected(&world).await, [user.0]);
    expect_stored_at_the_next_poll(&mut world, "users", "unreadable before").await;
}

#[tokio::test]
async fn refused_record_is_stored_in_its_latest_state() {
    let mut world = company().await;
    let user = world.sim.user_ids()[4];
    refuse(&world, "users", "BEFORE INSERT OR UPDATE", &format!("NEW.id = {user}"), "22003").await;
    for name in ["First", "Second"] {
        // Longer than the part that rosterd stores of an unreadable record.
        let long = json!(name.repeat(9000));
        world.sim.edit_user(user, |user| {
            user.last_name = name.to_owned();
            user.extra.insert("one".to_owned(), long.clone());
            user.extra.insert("two".to_owned(), long);
        });
        pass_beyond_skew_buffer(&mut world).await;
    }
    expect_stored_at_the_next_poll(&mut world, "users", "edited twice").await;
    assert_eq!(world.user(user).await["last_name"], "Second");
}

#[tokio::test]
async fn refused_rate_is_read_again_after_the_next_poll() {
    let mut world = company().await;
    let user = world.sim.user_ids()[4];
    let rate = world.sim.add_billable_rate(user, 100.0, None);
    world.sim.add_cost_rate(user, 60.0, None);
    refuse(&world, "billable_rates", "BEFORE INSERT OR UPDATE", &format!("NEW.id = {rate}"), "22003").await;
    let accepted = world.sim.add_billable_rate(world.sim.user_ids()[3], 100.0, None);
    world.cycle().await;
    world.turn(async |cycle| rosterd::sync::rates::read_due(cycle, None).await).await.outcome.unwrap();
    assert_eq!(world.rows("billable_rates").await.into_keys().collect::<Vec<_>>(), [accepted.0]);
    assert_eq!(rejected(&world).await, [rate.0]);
    stop_refusing(&world, "billable_rates").await;
    world.cycle().await;
    world.asked();
    world.turn(async |cycle| rosterd::sync::rates::read_due(cycle, None).await).await.outcome.unwrap();
    assert_eq!(world.asked().len(), 2, "rosterd reads only one user's rates again");
    assert_eq!(rejected(&world).await, [0; 0]);
    assert_eq!(world.count("billable_rates").await, 2);
}

#[tokio::test]
async fn refused_deletion_does_not_prevent_other_deletions() {
    let mut world = company().await;
    let users = &world.sim.user_ids()[5..9];
    let condition = format!("NEW.id = {} AND NEW.deleted_at IS NOT NULL", users[1]);
    refuse(&world, "users", "BEFORE UPDATE", &condition, "23514").await;
    for user in users {
        world.sim.delete_user(*user);
    }
    let query = "SELECT id FROM roster.users WHERE deleted_at IS NOT NULL ORDER BY id";
    let deleted = async |world: &World| -> Vec<i64> {
        sqlx::query_scalar(query).fetch_all(world.store.pool()).await.unwrap()
    };
    let error = rosterd::telemetry::chain(&world.try_cycle().await.outcome.unwrap_err());
    assert!(error.contains("SQLSTATE 23514"), "{error}");
    let mut others = vec![users[0].0, users[2].0, users[3].0];
    others.sort_unstable();
    assert_eq!(deleted(&world).await, others);
    stop_refusing(&world, "users").await;
    world.cycle().await;
    assert_eq!(deleted(&world).await.len(), 4);
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// rosterd writes projects separately from the records of the page, so that no record causes the error.
#[tokio::test]
async fn refused_project_fails_the_cycle() {
    let mut world = company().await;
    refuse(&world, "projects", "BEFORE INSERT OR UPDATE", "true", "22003").await;
    let user = world.sim.create_user("Nora", "New");
    world.sim.assign(user, world.sim.new_project("Another", "A-1"));
    let error = rosterd::telemetry::chain(&world.try_cycle().await.outcome.unwrap_err());
    assert!(error.contains("SQLSTATE 22003"), "{error}");
    assert_eq!(rejected(&world).await, [0; 0]);
    stop_refusing(&world, "projects").await;
    world.cycle().await;
    world.expect_mirror_equals_source().await;
}
