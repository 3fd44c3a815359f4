//! Failures of Harvest, of clocks and of processes: rosterd draws no wrong conclusion and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options, Paging, RetryAfter, Sim};
use rosterd::harvest::HarvestError;
use rosterd::store::StoreError;
use rosterd::sync::error::CycleError;
use rosterd::sync::report::CycleMode;
use serde_json::{Value, json};

use crate::database::store;
use crate::world::{World, take_over};

type MakeFault = fn() -> Fault;

/// Each fault on either list fails the cycle: the watermark stays, rosterd deletes nothing and emits nothing. The
/// next successful cycle catches up.
#[tokio::test]
async fn failed_list_fails_the_cycle_and_loses_nothing() {
    let faults: [(&str, MakeFault); 7] = [
        ("401", || Fault::html(401)),
        ("403", || Fault::html(403)),
        ("404", || Fault::html(404)),
        ("500", || Fault::html(500)),
        ("an answer cut short", Fault::truncate_body),
        ("an HTML page with 200", || Fault::html(200)),
        ("a connection reset", Fault::reset),
    ];
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    for (kind, fault) in faults {
        for list in ["/users", "/user_assignments"] {
            let user = world.sim.user_ids()[1];
            world.sim.edit_user(user, |user| user.telephone.push('1'));
            let before = world.watermarks().await;
            world.sim.inject(fault().on(list).forever());
            let report = world.try_cycle_in(CycleMode::Full).await;
            assert!(
                matches!(report.outcome, Err(CycleError::Harvest(_))),
                "{kind} on {list}: {:?}",
                report.outcome
            );
            let after = world.watermarks().await;
            assert_eq!(
                after.iter().find(|mark| mark.0 == list[1..]),
                before.iter().find(|mark| mark.0 == list[1..])
            );
            world.sim.clear_faults();
            world.cycle().await;
            assert_eq!(world.headlines().await, [format!("user.updated {user}")], "{kind} on {list}");
        }
    }
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn empty_user_list_fails_the_cycle_and_keeps_the_watermark() {
    let mut world = World::new().await;
    world.cycle().await;
    let before = world.watermarks().await;
    world.sim.inject(Fault::empty_list().on("/users").forever());
    let report = world.try_cycle_in(CycleMode::Full).await;
    assert!(matches!(report.outcome, Err(CycleError::EmptyUserList)));
    assert_eq!(world.watermarks().await, before);
    let error: String = sqlx::query_scalar("SELECT last_error FROM roster.accounts")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert!(error.contains("empty"));
}

#[tokio::test]
async fn html_429_pauses_requests_and_the_cycle_continues() {
    let mut world = World::new().await;
    world.sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(1)).on("/users").times(1));
    world.sim.inject(
        Fault::html(429)
            .retry_after(RetryAfter::Date(Duration::from_secs(1)))
            .on("/user_assignments")
            .times(1),
    );
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    let requests = world.sim.requests();
    for refused in requests.iter().filter(|request| request.status == Some(429)) {
        let pause = requests
            .iter()
            .filter(|request| request.at > refused.at)
            .map(|request| request.at - refused.at)
            .min()
            .unwrap();
        assert!(pause >= Duration::from_millis(900), "paused for {pause:?} only");
    }
}

#[tokio::test]
async fn numbered_list_that_shrinks_during_pagination_is_read_again() {
    let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(9, 250, 20), options).await;
    let sim = world.sim.clone();
    // The newest user is deleted after the first page. All later users move up by one, so that one of them is on no
    // page.
    let newest = *world.sim.user_ids().last().unwrap();
    world.sim.inject(Fault::run_before_response(move || sim.delete_user(newest)).on("/users?"));
    world.cycle().await;
    let rows = world.rows("users").await;
    for id in world.sim.user_ids() {
        assert!(rows.contains_key(&id.0), "user {id} was skipped");
    }
}

/// rosterd requests numbered pages concurrently. A user is deleted between two of the responses, in either order.
#[tokio::test]
async fn numbered_list_that_shrinks_between_concurrent_pages_is_read_again() {
    for (first, second) in [(2, 3), (3, 2)] {
        let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
        let mut world = World::of(Company::seeded(9, 450, 20), options).await;
        let sim = world.sim.clone();
        let newest = *world.sim.user_ids().last().unwrap();
        let page = |number: u32| format!("/users?page={number}&");
        world.sim.inject(Fault::run_before_response(move || sim.delete_user(newest)).on(page(first)));
        world.sim.inject(Fault::delay_request(Duration::from_secs(1)).on(page(second)));
        world.cycle().await;
        let rows = world.rows("users").await;
        for id in world.sim.user_ids() {
            assert!(rows.contains_key(&id.0), "user {id} was skipped");
        }
        let reads = world.sim.requests().iter().filter(|request| request.path.contains(&page(2))).count();
        assert_eq!(reads, 2, "page {first} came before page {second}");
    }
}

/// A user is deleted between the pages of each attempt.
#[tokio::test]
async fn numbered_list_that_always_shrinks_fails_the_cycle_and_keeps_the_watermark() {
    let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(9, 250, 120), options).await;
    world.cycle().await;
    world.news().await;
    let before = world.watermarks().await;
    let sim = world.sim.clone();
    let delete_newest = move || sim.delete_user(*sim.user_ids().last().unwrap());
    world.sim.inject(Fault::run_before_response(delete_newest).on("/users?per_page=100").forever());
    let report = world.try_cycle_in(CycleMode::Full).await;
    assert!(
        matches!(report.outcome, Err(CycleError::Harvest(HarvestError::Drifted { .. }))),
        "{:?}",
        report.outcome
    );
    assert_eq!(world.watermarks().await, before);
    world.sim.clear_faults();
    let edited = world.sim.user_ids()[3];
    world.sim.edit_user(edited, |user| user.telephone.push('8'));
    let report = world.cycle().await;
    assert_eq!(
        (report.users.deleted, report.users.changed),
        (3, 4),
        "three attempts to read, three deleted users, one edited user"
    );
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn next_link_to_a_foreign_host_is_not_followed() {
    let foreign = Sim::start(Company::new(), Options::default()).await.unwrap();
    let options = Options { max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(2, 150, 10), options).await;
    world.sim.inject(Fault::links_to(foreign.base_url()).forever());
    let report = world.try_cycle().await;
    assert!(
        matches!(report.outcome, Err(CycleError::Harvest(HarvestError::Protocol { .. }))),
        "{:?}",
        report.outcome
    );
    assert!(foreign.requests().is_empty());
}

#[tokio::test]
async fn pages_that_form_a_circle_fail_the_cycle() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(2, 250, 10), options).await;
    let first = format!("{}/users?per_page=100", world.sim.base_url());
    world.sim.inject(
        Fault::edit_body(move |page| page["links"]["next"] = Value::from(first.clone()))
            .on("/users?")
            .forever(),
    );
    let report = world.try_cycle().await;
    assert!(
        matches!(report.outcome, Err(CycleError::Harvest(HarvestError::Protocol { .. }))),
        "{:?}",
        report.outcome
    );
}

#[tokio::test]
async fn clock_shift_between_harvest_and_rosterd_causes_a_full_read() {
    let mut world = World::new().await;
    world.cycle().await;
    let user = world.sim.user_ids()[1];
    for shift in [TimeDelta::minutes(50), TimeDelta::minutes(-100)] {
        assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
        world.sim.shift_clock(shift);
        world.sim.edit_user(user, |user| user.telephone.push('2'));
        let report = world.cycle().await;
        assert_eq!(report.mode, CycleMode::Full, "shifted by {shift}");
        world.expect_mirror_equals_source().await;
    }
    world.clock.shift(TimeDelta::minutes(-10));
    assert_eq!(world.cycle().await.mode, CycleMode::Full, "rosterd's clock went back");
    // A constant difference does not matter.
    assert_eq!(world.cycle().await.mode, CycleMode::Incremental);
}

#[tokio::test]
async fn watermark_is_the_earlier_of_both_clocks_at_the_start_of_the_read() {
    let mut world = World::new().await;
    let before = world.sim.now().datetime();
    world.sim.shift_clock(TimeDelta::minutes(-50));
    world.cycle().await;
    for (resource, watermark) in world.watermarks().await {
        let difference = before - watermark.unwrap();
        assert!((49..=51).contains(&difference.num_minutes()), "{resource} is {difference} behind");
    }
}

/// Without the check of the epoch, a writer that was suspended during a takeover would apply its old response.
#[tokio::test]
async fn writer_that_was_fenced_during_a_response_commits_nothing() {
    let mut world = World::new().await;
    world.cycle().await;
    let user = world.sim.user_ids()[1];
    world.sim.rename(user, "Old", "News");
    // Another process takes over before the first process gets its response, which is then out of date.
    let taken_over = Arc::new(AtomicBool::new(false));
    let (flag, url, sim) = (taken_over.clone(), world.url().to_owned(), world.sim.clone());
    world.sim.inject(
        Fault::run_before_response(move || {
            // The takeover needs another thread with its own runtime, because this one is busy with the response.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async { take_over(&store(&url), &sim).await });
                    flag.store(true, Ordering::SeqCst);
                });
            });
        })
        .on("/users"),
    );
    let before = world.physical().await;
    let report = world.try_cycle().await;
    assert!(taken_over.load(Ordering::SeqCst));
    assert!(matches!(report.outcome, Err(CycleError::Store(StoreError::Fenced(_)))), "{:?}", report.outcome);
    assert_eq!(world.physical().await, before);
}

#[tokio::test]
async fn failed_cycle_is_recorded_and_last_error_is_cleared_by_a_successful_cycle() {
    let mut world = World::new().await;
    world.sim.inject(Fault::html(403).on("/user_assignments").forever());
    world.try_cycle().await;
    let outcome: (String, String) = sqlx::query_as("SELECT outcome, error FROM roster.cycles")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(outcome.0, "failed");
    assert!(outcome.1.contains("403"), "{}", outcome.1);
    world.sim.clear_faults();
    world.cycle().await;
    world.cycle().await;
    let error: Option<String> = sqlx::query_scalar("SELECT last_error FROM roster.accounts")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(error, None);
}

#[tokio::test]
async fn stale_duplicate_on_the_same_page_emits_no_event() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let mut duplicate = world.sim.users_json()[3].clone();
    duplicate["updated_at"] = json!("2001-01-01T00:00:00Z");
    duplicate["first_name"] = json!("Stale");
    let insert = move |page: &mut Value| page["users"].as_array_mut().unwrap().push(duplicate.clone());
    world.sim.inject(Fault::edit_body(insert).on("/users?"));
    world.full_cycle().await;
    assert!(world.headlines().await.is_empty());
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn duplicate_records_on_several_pages_are_stored_once() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(4, 150, 10), options).await;
    let duplicate = world.sim.users_json()[0].clone();
    world.sim.inject(
        Fault::edit_body(move |page| {
            let mut duplicate = duplicate.clone();
            duplicate["updated_at"] = json!("2001-01-01T00:00:00Z");
            duplicate["first_name"] = json!("Stale");
            page["users"].as_array_mut().unwrap().push(duplicate);
        })
        .on("/users?cursor"),
    );
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// The server is promoted after the check of its history and before the write.
#[tokio::test]
async fn server_promoted_during_a_cycle_gets_no_event_under_the_old_stream() {
    let mut world = World::new().await;
    world.store.check_timeline().await.unwrap();
    world.cycle().await;
    let old = world.news().await[0].payload["stream_id"].clone();
    let promoted = "UPDATE roster.outbox_head SET timeline_id = timeline_id - 1";
    sqlx::raw_sql(promoted).execute(world.store.pool()).await.unwrap();
    world.sim.create_user("Nora", "Next");
    assert!(matches!(world.try_cycle().await.outcome, Err(CycleError::Store(_))));
    assert!(world.news().await.is_empty());
    world.store.check_timeline().await.unwrap();
    world.cycle().await;
    assert_ne!(world.only_event().await.payload["stream_id"], old);
    world.expect_mirror_equals_source().await;
}
