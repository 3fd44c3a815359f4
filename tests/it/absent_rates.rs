//! Rates absent from their user's list: rosterd requests each by id, and holds deletions for review if too many rates
//! of all users are absent.

use std::time::Duration;

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options, RateId, Sim, UserId};
use rosterd::store::missing::{Decision, Selection};
use rosterd::sync::error::CycleError;
use rosterd::sync::report::CycleReport;

use crate::scene::Scene;
use crate::world::World;

/// Twelve users, each with a billable and a cost rate that are no longer recently created.
async fn users_with_rates() -> (World, Vec<(UserId, RateId)>) {
    let mut world = World::new().await;
    let users = world.sim.user_ids();
    let rates = users.iter().map(|user| {
        world.sim.add_cost_rate(*user, 60.0, None);
        (*user, world.sim.add_billable_rate(*user, 100.5, None))
    });
    let rates = rates.collect();
    world.cycle().await;
    read_rates(&mut world).await.outcome.unwrap();
    world.pass(TimeDelta::minutes(11));
    world.full_cycle().await;
    world.news().await;
    (world, rates)
}

async fn read_rates(world: &mut World) -> CycleReport {
    world.turn(async |cycle| rosterd::sync::rates::read_due(cycle, None).await).await
}

/// Reads all users and assignments, then every list of rates.
async fn read_everything(world: &mut World) {
    world.full_cycle().await;
    read_rates(world).await.outcome.unwrap();
}

/// Events of rates only, because a change of the current rate also updates the user.
async fn rate_headlines(world: &mut World) -> Vec<String> {
    let mut headlines = world.headlines().await;
    headlines.retain(|line| line.contains("_rate."));
    headlines
}

/// Removes these billable rates from all lists; requests by id still find them.
fn hide_from_lists(world: &World, rates: &[(UserId, RateId)]) {
    world
        .sim
        .inject(Fault::hide_records(rates.iter().map(|(_, rate)| rate.0)).on("/billable_rates?").forever());
}

#[tokio::test]
async fn rate_absent_from_its_list_is_deleted_after_its_own_404() {
    let (mut world, rates) = users_with_rates().await;
    let (user, rate) = rates[3];
    world.sim.remove_billable_rate(user, rate);
    read_everything(&mut world).await;
    let news = world.news().await;
    let event = news.iter().find(|event| event.r#type == "billable_rate.deleted").unwrap();
    assert_eq!(event.payload["id"], rate.0);
    assert_eq!(event.payload["request"], format!("GET /v2/users/{user}/billable_rates/{rate}"));
    assert_eq!(world.count("missed_records").await, 0);
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn rate_absent_from_its_list_is_kept_without_harvests_own_404() {
    let answers: [(&str, Option<Fault>); 5] = [
        ("200 with the rate", None),
        ("403", Some(Fault::refusal(403))),
        ("a 404 with HTML", Some(Fault::html(404))),
        ("500", Some(Fault::html(500))),
        ("a connection reset", Some(Fault::reset())),
    ];
    for (case, fault) in answers {
        let (mut world, rates) = users_with_rates().await;
        let (user, rate) = rates[3];
        hide_from_lists(&world, &rates[3..4]);
        if let Some(fault) = fault {
            world.sim.inject(fault.on(format!("/billable_rates/{rate}")).forever());
        }
        for _ in 0..2 {
            read_everything(&mut world).await;
        }
        // rosterd requests the rate again only with the next full read.
        world.asked();
        read_rates(&mut world).await.outcome.unwrap();
        assert!(world.asked().is_empty(), "{case}");
        assert!(rate_headlines(&mut world).await.is_empty(), "{case}");
        assert!(world.held().await.is_empty(), "{case}");
        world.sim.clear_faults();
        world.sim.remove_billable_rate(user, rate);
        read_everything(&mut world).await;
        assert_eq!(rate_headlines(&mut world).await, [format!("billable_rate.deleted {rate}")], "{case}");
    }
}

#[tokio::test]
async fn recently_created_rate_needs_a_404_a_poll_interval_after_it_was_absent() {
    let (mut world, rates) = users_with_rates().await;
    let user = rates[3].0;
    let recent = world.sim.add_billable_rate(user, 110.0, Some("2026-02-01"));
    read_everything(&mut world).await;
    world.news().await;
    world.sim.remove_billable_rate(user, recent);
    read_everything(&mut world).await;
    read_everything(&mut world).await;
    let deleted = format!("billable_rate.deleted {recent}");
    assert!(!rate_headlines(&mut world).await.contains(&deleted));
    assert_eq!(world.count("missed_records").await, 1);
    world.again_after = TimeDelta::zero();
    read_rates(&mut world).await.outcome.unwrap();
    assert_eq!(rate_headlines(&mut world).await, [deleted]);
    assert_eq!(world.count("missed_records").await, 0);
}

/// As a broken gateway answers: every list of billable rates is empty, and each rate is a 404.
fn break_billable_rates(sim: &Sim) {
    sim.inject(Fault::empty_list().on("/billable_rates?").forever());
    sim.inject(Fault::refusal(404).on("/billable_rates/").forever());
}

#[tokio::test]
async fn empty_rate_lists_for_every_user_delete_nothing_and_returned_rates_are_released() {
    let (mut world, rates) = users_with_rates().await;
    break_billable_rates(&world.sim);
    for _ in 0..2 {
        read_everything(&mut world).await;
    }
    assert!(rate_headlines(&mut world).await.is_empty());
    assert_eq!(world.held().await.len(), rates.len());
    assert!(world.held().await.iter().all(|line| line.starts_with("guard billable_rates ")));
    world.asked();
    read_rates(&mut world).await.outcome.unwrap();
    assert!(world.asked().is_empty(), "rosterd requests no held rate");
    world.sim.clear_faults();
    read_everything(&mut world).await;
    assert!(world.held().await.is_empty() && rate_headlines(&mut world).await.is_empty());
    assert_eq!(world.count("missed_records").await, 0);
}

#[tokio::test]
async fn held_rates_are_deleted_when_accepted_and_kept_when_rejected() {
    let (mut world, rates) = users_with_rates().await;
    for (user, rate) in &rates[..8] {
        world.sim.remove_billable_rate(*user, *rate);
    }
    read_everything(&mut world).await;
    assert_eq!(world.held().await.len(), 8);
    world.store.decide(&Selection::default(), Decision::Rejected, false, "a test").await.unwrap();
    read_everything(&mut world).await;
    assert!(rate_headlines(&mut world).await.is_empty());
    world.store.decide(&Selection::default(), Decision::Accepted, true, "a test").await.unwrap();
    assert_eq!(read_rates(&mut world).await.rates.deleted, 8);
    assert!(world.held().await.is_empty());
    world.expect_outbox_replays_to_the_mirror().await;
}

/// Harvest answers 404 for rates of users whom the token may no longer see.
#[tokio::test]
async fn token_that_loses_rights_during_confirmation_deletes_no_rate() {
    let (mut world, rates) = users_with_rates().await;
    let (_, rate) = rates[3];
    hide_from_lists(&world, &rates[3..4]);
    let sim = world.sim.clone();
    world
        .sim
        .inject(Fault::run_before_response(move || sim.demote_token()).on(format!("/billable_rates/{rate}")));
    world.sim.inject(Fault::refusal(404).on(format!("/billable_rates/{rate}")).forever());
    world.full_cycle().await;
    let report = read_rates(&mut world).await;
    assert!(matches!(report.outcome, Err(CycleError::LostAdministrator { .. })), "{:?}", report.outcome);
    assert!(rate_headlines(&mut world).await.is_empty());
    assert_eq!(world.held().await, [format!("not_administrator billable_rates {rate}")]);
}

#[tokio::test]
async fn rate_of_a_deleted_user_is_deleted_with_the_user() {
    let (mut world, rates) = users_with_rates().await;
    let (user, rate) = rates[3];
    hide_from_lists(&world, &rates[3..4]);
    let sim = world.sim.clone();
    let deletion = Fault::run_before_response(move || sim.delete_user(user));
    world.sim.inject(deletion.on(format!("/users/{user}/cost_rates")));
    read_everything(&mut world).await;
    assert!(rate_headlines(&mut world).await.is_empty());
    assert!(!world.asked().iter().any(|path| path.ends_with(&format!("/billable_rates/{rate}"))));
    world.cycle().await;
    let news = world.headlines().await;
    assert!(news[0].starts_with("user.deleted"));
    assert!(news.contains(&format!("billable_rate.deleted {rate}")));
    assert_eq!(world.count("missed_records").await, 0);
}

#[tokio::test]
async fn read_of_one_user_updates_the_users_rates_at_once() {
    let (mut world, rates) = users_with_rates().await;
    let (user, rate) = rates[3];
    world.sim.remove_billable_rate(user, rate);
    world.turn(async |cycle| rosterd::sync::user::read(cycle, user.0, true).await.0).await.outcome.unwrap();
    assert_eq!(rate_headlines(&mut world).await, [format!("billable_rate.deleted {rate}")]);
}

/// rosterd reads the lists of a few users between two polls; the limit of deletions counts absent rates of all users.
#[tokio::test]
async fn empty_rate_lists_read_over_many_polls_are_held_and_reported() {
    let scene = Scene::of(Company::seeded(5, 14, 20), Options { limit: None, ..Options::default() }).await;
    let rates: Vec<_> =
        scene.sim.user_ids().into_iter().map(|user| scene.sim.add_billable_rate(user, 99.0, None)).collect();
    let mut program = scene.program();
    program
        .set("ROSTERD__RATES__HISTORIES", "true")
        .set("ROSTERD__RATE_LIMIT__REQUESTS", "30")
        .set("ROSTERD__RATE_LIMIT__WINDOW", "3s")
        .set("ROSTERD__RATE_LIMIT__RESERVE", "0");
    let mut daemon = program.start();
    scene.until("SELECT count(*) = 14 FROM roster.rate_reads").await;
    scene.sim.advance_clock(Duration::from_mins(11));
    break_billable_rates(&scene.sim);
    program.call(&["sync", "--full"]).await.expect(0);
    let held = daemon.until("deletions.held").await;
    assert_eq!((&held["resource"], &held["records"]), (&"billable_rates".into(), &14.into()));
    assert_eq!(scene.number("SELECT count(*) FROM roster.outbox WHERE type LIKE '%.deleted'").await, 0);

    let listed = program.call(&["deletions", "list"]).await.expect(0).stdout();
    assert_eq!(listed.lines().filter(|line| line.contains("billable_rates ")).count(), 14, "{listed}");
    assert!(listed.contains(&rates[7].0.to_string()), "{listed}");
    let status = program.call(&["status"]).await.expect(0).stdout();
    assert!(status.contains("14 deletions of billable_rates are held (guard)"), "{status}");
    let account = scene.sim.account_id();
    program.until_metrics(&[&format!("rosterd_held_deletions{{account=\"{account}\"}} 14\n")]).await;
    let held_count = "SELECT held_deletions FROM directory.sync_status WHERE resource = 'billable_rates'";
    assert_eq!(scene.number(held_count).await, 14);

    program.call(&["deletions", "accept", "--all", "--yes"]).await.expect(0);
    scene.until("SELECT count(*) = 14 FROM roster.outbox WHERE type = 'billable_rate.deleted'").await;
    assert_eq!(scene.number(held_count).await, 0);
}

#[tokio::test]
async fn verify_and_dry_run_confirm_absent_rates_and_write_nothing() {
    let scene = Scene::of(Company::seeded(5, 7, 10), Options::default()).await;
    let users = scene.sim.user_ids();
    let rates: Vec<_> = users.iter().map(|user| scene.sim.add_cost_rate(*user, 99.0, None)).collect();
    let mut program = scene.program();
    program.set("ROSTERD__RATES__HISTORIES", "true");
    program.call(&["sync"]).await.expect(0);
    program.call(&["verify"]).await.expect(0);
    scene.sim.inject(Fault::hide_records([rates[2].0]).on("/cost_rates?").forever());
    program.call(&["verify"]).await.expect(0);
    scene.sim.remove_cost_rate(users[1], rates[1]);
    let output = program.call(&["verify"]).await.expect(1).stdout();
    assert!(
        output.contains(&format!("cost_rate {}: in the mirror, gone at Harvest\n", rates[1])),
        "{output}"
    );
    assert!(!output.contains(&rates[2].to_string()), "{output}");
    scene.sim.clear_faults();
    scene.sim.inject(Fault::empty_list().on("/cost_rates?").forever());
    let output = program.call(&["verify"]).await.expect(1).stdout();
    assert_eq!(output.matches("in the mirror, not shown by Harvest (guard)").count(), 7, "{output}");
    assert_eq!(scene.number("SELECT count(*) FROM roster.missed_records").await, 0);

    // The rate is recently created: the first read records it as absent, and the next read requests it by id.
    scene.sim.clear_faults();
    program.set("ROSTERD__SYNC__POLL_INTERVAL", "1h").call(&["sync", "--full"]).await.expect(0);
    scene.execute("UPDATE roster.missed_records SET missed_at = missed_at - interval '1 h'").await;
    let plan = program.call(&["sync", "--dry-run"]).await.expect(0).stdout();
    assert!(plan.contains(&format!("cost_rate {} would delete\n", rates[1])), "{plan}");
    assert_eq!(scene.number("SELECT count(*) FROM roster.outbox WHERE type LIKE '%.deleted'").await, 0);
    program.call(&["sync"]).await.expect(0);
    assert_eq!(scene.number("SELECT count(*) FROM roster.outbox WHERE type = 'cost_rate.deleted'").await, 1);
}
