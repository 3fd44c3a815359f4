//! Histories of rates: rosterd reads them between polls and emits events for them. Pay data is stored only if it is
//! mirrored.

use std::time::Duration;

use harvest_sim::{Company, Fault, Options, Sim, UserId};
use rosterd::sync::report::CycleReport;
use serde_json::{Value, json};

use crate::database::TestDatabase;
use crate::program::Program;
use crate::world::World;

async fn read_histories(world: &mut World) -> CycleReport {
    let report = world.turn(async |cycle| rosterd::sync::rates::read_due(cycle, None).await).await;
    report.outcome.as_ref().unwrap();
    report
}

async fn expect_rates_equal_source(world: &World) {
    type SourceRates = fn(&Sim, UserId) -> Vec<Value>;
    let kinds: [(&str, SourceRates); 2] = [
        ("billable_rates", |sim, user| sim.billable_rates_json(user)),
        ("cost_rates", |sim, user| sim.cost_rates_json(user)),
    ];
    for (table, source_rates) in kinds {
        let mut rows = world.rows(table).await;
        rows.retain(|_, row| row["deleted_at"].is_null());
        for user in world.sim.user_ids() {
            for rate in source_rates(&world.sim, user) {
                let row = rows.remove(&rate["id"].as_i64().unwrap()).unwrap();
                assert_eq!(row["user_id"], user.0);
                for key in ["start_date", "end_date"] {
                    assert_eq!(row[key], rate[key]);
                }
                assert_eq!(row["amount"].as_f64(), rate["amount"].as_f64());
            }
        }
        assert!(rows.is_empty(), "{table}: {rows:?}");
    }
}

#[tokio::test]
async fn rate_histories_are_read_for_new_and_changed_users_and_after_a_full_read() {
    let mut world = World::new().await;
    let users = world.sim.user_ids();
    for user in &users[..5] {
        world.sim.add_billable_rate(*user, 100.5, None);
        world.sim.add_cost_rate(*user, 60.0, None);
    }
    world.cycle().await;
    world.news().await;
    assert_eq!(read_histories(&mut world).await.requests, 2 * 12);
    let news = world.news().await;
    assert_eq!(news.len(), 10);
    assert_eq!(news[0].r#type, "billable_rate.created");
    assert_eq!(news[0].payload["user_id"], users[0].0);
    assert_eq!(news[0].payload["after"]["amount"].to_string(), "100.5");
    expect_rates_equal_source(&world).await;

    assert_eq!(read_histories(&mut world).await.requests, 0, "nothing is due");
    world.sim.add_billable_rate(users[1], 120.0, Some("2026-01-01"));
    world.sim.edit_user(users[1], |user| user.telephone.push('1'));
    world.cycle().await;
    world.news().await;
    assert_eq!(read_histories(&mut world).await.requests, 2, "two lists of the changed user");
    let news = world.headlines().await;
    assert!(news[0].starts_with("billable_rate.updated ") && news[1].starts_with("billable_rate.created "));
    expect_rates_equal_source(&world).await;

    // A changed rate does not change the user's `updated_at`, so that only a full read finds it.
    let cost = world.sim.cost_rates_json(users[2])[0]["id"].as_i64().unwrap();
    world.sim.change_cost_rate(users[2], harvest_sim::RateId(cost), 61.25);
    world.full_cycle().await;
    world.news().await;
    read_histories(&mut world).await;
    let event = world.only_event().await;
    assert_eq!((event.r#type.as_str(), event.changed()), ("cost_rate.updated", vec!["amount"]));
    expect_rates_equal_source(&world).await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn rates_absent_from_their_list_or_of_a_deleted_user_are_deleted() {
    let mut world = World::new().await;
    let users = world.sim.user_ids();
    let (ann, bob) = (users[3], users[4]);
    let first = world.sim.add_billable_rate(ann, 100.0, None);
    world.sim.add_billable_rate(ann, 110.0, Some("2026-02-01"));
    let cost = world.sim.add_cost_rate(bob, 50.0, None);
    world.cycle().await;
    read_histories(&mut world).await;
    world.pass(chrono::TimeDelta::minutes(11));
    world.news().await;

    world.sim.remove_billable_rate(ann, first);
    world.full_cycle().await;
    read_histories(&mut world).await;
    assert!(world.headlines().await.contains(&format!("billable_rate.deleted {}", first.0)));
    world.sim.delete_user(bob);
    world.cycle().await;
    assert_eq!(
        world.news().await.iter().filter(|event| event.r#type == "cost_rate.deleted").count(),
        1,
        "the rate {} is deleted with its user",
        cost.0
    );
    read_histories(&mut world).await;
    expect_rates_equal_source(&world).await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn refused_rate_request_stops_rate_reads_until_the_next_full_read() {
    let mut world = World::new().await;
    world.cycle().await;
    world.sim.inject(Fault::refusal(403).on("/cost_rates").forever());
    world.asked();
    read_histories(&mut world).await;
    assert_eq!(world.asked().len(), 2, "rosterd requests no rates of other users");
    read_histories(&mut world).await;
    assert!(world.asked().is_empty());
    world.sim.clear_faults();
    world.full_cycle().await;
    world.asked();
    read_histories(&mut world).await;
    assert_eq!(world.asked().len(), 2 * 12);
}

#[tokio::test]
async fn failed_rate_history_of_one_user_does_not_delay_other_users() {
    let mut world = World::new().await;
    let users = world.sim.user_ids();
    for user in &users {
        world.sim.add_cost_rate(*user, 60.0, None);
    }
    world.cycle().await;
    world.sim.inject(Fault::html(500).on(format!("/users/{}/cost_rates", users[0])).forever());
    read_histories(&mut world).await;
    assert_eq!(world.count("cost_rates").await, 11);
    world.asked();
    read_histories(&mut world).await;
    assert!(world.asked().is_empty(), "a failed history is not read again at each poll");
    world.sim.clear_faults();
    world.full_cycle().await;
    read_histories(&mut world).await;
    expect_rates_equal_source(&world).await;
    // If all histories fail, the error is Harvest's and not a user's.
    world.full_cycle().await;
    world.sim.inject(Fault::html(500).on("_rates").forever());
    world.turn(async |cycle| rosterd::sync::rates::read_due(cycle, None).await).await.outcome.unwrap_err();
    world.asked();
    read_histories(&mut world).await;
    assert!(world.asked().is_empty(), "rosterd pauses the rate reads");
}

/// Reading these histories takes more requests than Harvest allows in a window. An edit does not wait for them.
#[tokio::test]
async fn polls_have_priority_over_rate_histories() {
    let sim = Sim::start(Company::seeded(5, 120, 0), Options::default()).await.unwrap();
    let database = TestDatabase::new().await;
    let mut program = Program::new(&sim, database.url());
    program.set("ROSTERD__RATES__HISTORIES", "true").set("ROSTERD__SYNC__POLL_INTERVAL", "2s");
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    for user in &sim.user_ids()[..4] {
        sim.edit_user(*user, |user| user.telephone.push('1'));
        while daemon.until("cycle.finished").await["users_changed"] != 1 {}
    }
    let store = crate::database::store(database.url());
    let users_read: i64 =
        sqlx::query_scalar("SELECT count(*) FROM roster.rate_reads").fetch_one(store.pool()).await.unwrap();
    assert!((1..120).contains(&users_read), "{users_read}");
    assert!(sim.max_requests_in_window(Duration::from_secs(15)) <= 100);
}

#[tokio::test]
async fn rejected_records_hold_no_pay_data_if_pay_data_is_not_mirrored() {
    let mut world = World::new().await;
    let user = world.sim.create_user("Gus", "Gold");
    world.sim.edit_user(user, |user| user.cost_rate = Some(4321.5));
    world.client = crate::world::client(&world.sim, false, world.clock.clone());
    // The record is unreadable first because of one field, then as a whole.
    world.sim.inject(Fault::set_field("is_contractor", json!("perhaps")).on("/users?"));
    world.cycle().await;
    let damage = |body: &mut Vec<u8>| {
        let at = body.windows(3).position(|window| window == b"Gus").unwrap();
        body[at] = 0xff;
    };
    world.sim.inject(Fault::edit_bytes(damage).on("/users?"));
    world.full_cycle().await;
    assert!(world.count("rejected_records").await > 0);
    let found: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM roster.rejected_records WHERE position('4321' IN convert_from(raw, 'UTF8')) > 0",
    )
    .fetch_one(world.store.pool())
    .await
    .unwrap();
    assert_eq!(found, 0);
}

/// A limit of twelve requests in four seconds. Background reads between polls may use eight of them.
fn program_with_low_rate_limit(sim: &Sim, database: &TestDatabase) -> Program {
    let mut program = Program::new(sim, database.url());
    program
        .set("ROSTERD__RATES__HISTORIES", "true")
        .set("ROSTERD__RATE_LIMIT__REQUESTS", "12")
        .set("ROSTERD__RATE_LIMIT__WINDOW", "4s")
        .set("ROSTERD__RATE_LIMIT__RESERVE", "0");
    program
}

/// The maximum number of requests for rates within four seconds.
fn max_rate_requests_in_a_window(sim: &Sim) -> usize {
    let requests = sim.requests();
    let times: Vec<_> =
        requests.iter().filter(|request| request.path.contains("_rates")).map(|request| request.at).collect();
    let window = Duration::from_secs(4);
    let within = |from: &usize| times[*from..].iter().take_while(|at| **at - times[*from] <= window).count();
    (0..times.len()).map(|from| within(&from)).max().unwrap_or_default()
}

#[tokio::test]
async fn one_shot_sync_uses_all_permits_for_histories_unless_another_process_runs() {
    let other = Company::seeded(6, 2, 0).with_account_id(7);
    let sims = Sim::start_many(Company::seeded(5, 10, 0), [other], &Options::default()).await.unwrap();
    let database = TestDatabase::new().await;
    program_with_low_rate_limit(&sims[0], &database).call(&["sync", "--full"]).await.expect(0);
    let max = max_rate_requests_in_a_window(&sims[0]);
    assert!((9..=12).contains(&max), "{max}");
    // The daemon polls another account and has the same budget.
    let mut daemon =
        program_with_low_rate_limit(&sims[1], &database).set("ROSTERD__SYNC__POLL_INTERVAL", "1h").start();
    daemon.until("cycle.finished").await;
    sims[0].clear_requests();
    program_with_low_rate_limit(&sims[0], &database).call(&["sync", "--full"]).await.expect(0);
    let max = max_rate_requests_in_a_window(&sims[0]);
    assert!(max <= 8, "{max}");
}
