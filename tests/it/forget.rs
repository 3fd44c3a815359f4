//! What was forgotten is nowhere: a person, all pay, an account; and what is left still holds together.

use harvest_sim::{Fault, UserId};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::mirror::Replay;
use crate::program::Program;
use crate::world::{World, take_over};

/// Every row of every table, as text.
async fn everything(world: &World) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('roster', 'directory')",
    )
    .fetch_all(world.store.pool())
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    let mut dump = String::new();
    for table in tables {
        let rows = format!("SELECT replace(t::text, '\"\"', '\"') FROM {table} AS t");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(world.store.pool()).await.unwrap();
        dump += &rows.join("\n");
        if table == "roster.rejected_records" {
            let raw: Vec<String> =
                sqlx::query_scalar("SELECT encode(raw, 'escape') FROM roster.rejected_records")
                    .fetch_all(world.store.pool())
                    .await
                    .unwrap();
            dump += &raw.join("\n");
        }
    }
    dump
}

/// A person with a history, a place, rates, and a record of each that cannot be read.
async fn known() -> (World, UserId) {
    let mut world = World::new().await;
    let user = world.sim.hire("Quentin", "Quagmire");
    let place = world.sim.assign(user, world.sim.project_ids()[0]);
    world.sim.set_email(user, "quag@example.com");
    world.sim.edit_assignment(place, |place| {
        (place.hourly_rate, place.budget, place.use_default_rates) = (Some(717.43), Some(617.43), false);
    });
    world.sim.add_billable_rate(user, 917.43, None);
    world.sim.add_cost_rate(user, 817.43, None);
    world.cycle().await;
    world.turn(async |cycle| cycle.histories(None).await).await;
    world.sim.rename(user, "Quincy", "Quagmire");
    world.cycle().await;
    let spoil = move |record: &mut serde_json::Map<String, Value>| {
        let whose = record.get("user").and_then(|user| user.get("id")).or_else(|| record.get("id"));
        if whose == Some(&json!(user.0)) {
            record.insert("is_active".to_owned(), json!("maybe"));
        }
    };
    world.sim.inject(Fault::edit_records(spoil).on("/user").forever());
    world.full_cycle().await;
    world.sim.clear_faults();
    assert_eq!(world.count("rejected_records").await, 2);
    (world, user)
}

const PAY: [&str; 4] = ["917.43", "817.43", "717.43", "617.43"];
const NAMES: [&str; 5] = ["Quentin", "Quincy", "Quagmire", "quag@example.com", "maybe"];

async fn expect_nowhere(world: &World, canaries: &[&str]) {
    let dump = everything(world).await;
    for canary in canaries {
        assert!(!dump.contains(canary), "{canary} is still there");
    }
}

async fn expect_known(world: &World, canaries: &[&str]) {
    let dump = everything(world).await;
    for canary in canaries {
        assert!(dump.contains(canary), "{canary} was never there, so this proves nothing");
    }
}

#[tokio::test]
async fn a_forgotten_person_is_nowhere_and_the_outbox_still_tells_the_mirror() {
    let (mut world, user) = known().await;
    expect_known(&world, &[&NAMES[..], &PAY].concat()).await;
    let others = world.rows("users").await.len();
    let program = Program::new(&world.sim, world.url());
    let called = program.call(&["forget", "user", &user.to_string(), "--yes"]).await;
    assert!(called.expect(0).sentence().contains("Harvest still has this user"), "{}", called.stderr());
    expect_nowhere(&world, &[&NAMES[..], &PAY].concat()).await;
    assert_eq!(world.rows("users").await.len(), others, "the row stays");
    assert!(world.user(user).await["is_active"].as_bool().unwrap());

    // Until somebody deletes them there, Harvest brings them back, and that is told like any change.
    world.news().await;
    world.full_cycle().await;
    world.expect_mirror_equals_source().await;
    let news = world.news().await;
    assert!(news.iter().any(|event| event.r#type == "user.updated" && event.payload["id"] == user.0));

    world.pass(chrono::TimeDelta::hours(1));
    world.sim.delete_user(user);
    world.full_cycle().await;
    let called = program.call(&["forget", "user", &user.to_string(), "--yes"]).await;
    assert_eq!(called.expect(0).sentence(), "", "nothing to warn of");
    world.full_cycle().await;
    expect_nowhere(&world, &[&NAMES[..], &PAY].concat()).await;
    assert!(!world.user(user).await["deleted_at"].is_null());
    program.call(&["forget", "user", "1", "--yes"]).await.expect(1);
}

/// Harvest shows the assignments of somebody whom it does not show.
#[tokio::test]
async fn a_person_without_a_row_is_forgotten_too() {
    let mut world = World::new().await;
    let user = world.sim.hire("Quentin", "Quagmire");
    let place = world.sim.assign(user, world.sim.project_ids()[0]);
    world.sim.edit_assignment(place, |place| place.budget = Some(617.43));
    world.sim.inject(Fault::hide([user.0]).forever());
    world.sim.inject(Fault::html(403).on(format!("/users/{user}")).forever());
    world.cycle().await;
    assert!(!world.rows("users").await.contains_key(&user.0));
    expect_known(&world, &["Quagmire", "617.43"]).await;
    let called =
        Program::new(&world.sim, world.url()).call(&["forget", "user", &user.to_string(), "--yes"]).await;
    called.expect(0);
    expect_nowhere(&world, &["Quentin", "Quagmire", "617.43"]).await;
}

#[tokio::test]
async fn forgotten_pay_is_nowhere_and_may_then_be_kept_out() {
    let (mut world, user) = known().await;
    expect_known(&world, &PAY).await;
    let mut program = Program::new(&world.sim, world.url());
    program.set("ROSTERD__RATES__MIRROR", "false");
    program.call(&["sync"]).await.expect(78);
    program.call(&["forget", "pay", "--yes"]).await.expect(0);
    expect_nowhere(&world, &PAY).await;
    expect_known(&world, &NAMES[..4]).await;
    world.sim.set_rate(user, Some(917.43));
    program.call(&["sync", "--full"]).await.expect(0);
    expect_nowhere(&world, &PAY).await;

    // Whoever mirrors pay again gets it again.
    world.fence = take_over(&world.store, &world.sim).await;
    world.full_cycle().await;
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn a_forgotten_account_leaves_numbers_and_nothing_else() {
    let (world, _) = known().await;
    let head = world.count("outbox").await;
    let mut program = Program::new(&world.sim, world.url());
    let account = world.sim.account_id().to_string();
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    let called = program.call(&["forget", "account", &account, "--yes"]).await;
    assert!(called.expect(75).sentence().contains("take the account out"), "{}", called.stderr());
    daemon.signal("-TERM");
    daemon.ended().await;
    assert!(world.count("outbox").await >= head);
    program.set("HARVEST_ACCOUNT_ID", "").set("HARVEST_ACCESS_TOKEN", "");
    program.call(&["forget", "account", &account, "--yes"]).await.expect(0);
    expect_nowhere(&world, &[&NAMES[..], &PAY].concat()).await;
    for table in
        ["users", "user_assignments", "projects", "accounts", "watermarks", "cycles", "rejected_records"]
    {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    let gaps: i64 = sqlx::query_scalar("SELECT max(seq) - count(*) FROM roster.outbox")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(gaps, 0);
    program.call(&["forget", "account", &account, "--yes"]).await.expect(1);

    // It may come back, and its versions go on.
    Program::new(&world.sim, world.url()).call(&["sync"]).await.expect(0);
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn a_new_stream_gives_new_ids_and_reads_everything() {
    let mut world = World::new().await;
    world.cycle().await;
    let old = world.news().await[0].payload["stream_id"].clone();
    let called = Program::new(&world.sim, world.url()).call(&["outbox", "new-stream", "--yes"]).await;
    let said = called.expect(0).stdout();
    let report = world.cycle().await;
    assert_eq!(report.mode, rosterd::sync::schedule::Mode::Full);
    world.sim.rename(world.sim.user_ids()[0], "Xena", "New");
    world.cycle().await;
    let event = world.only_event().await;
    assert_ne!(event.payload["stream_id"], old);
    assert!(said.contains(event.payload["stream_id"].as_str().unwrap()), "{said}");
    world.expect_outbox_replays_to_the_mirror().await;
}

/// The assignment's state before the move is the erased user's; after it, the other user's.
#[tokio::test]
async fn forget_user_leaves_the_other_users_state_of_a_moved_assignment_and_the_outbox_replays() {
    let mut world = World::new().await;
    let [user, other] = [3, 4].map(|at| world.sim.user_ids()[at]);
    let place = world.sim.assign(user, world.sim.project_ids()[0]);
    for (owner, budget) in [(user, 617.43), (other, 718.54), (other, 819.65)] {
        world.sim.edit_assignment(place, |place| {
            (place.user, place.budget, place.use_default_rates) = (owner, Some(budget), false);
        });
        world.cycle().await;
    }
    Program::new(&world.sim, world.url())
        .call(&["forget", "user", &user.to_string(), "--yes"])
        .await
        .expect(0);
    let left = everything(&world).await;
    assert!(!left.contains("617.43") && left.contains("718.54") && left.contains("819.65"));
    world.expect_replay(&mut Replay::of_emptied_events()).await;
}
