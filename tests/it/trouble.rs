//! What goes wrong at Harvest, with the clocks and among processes: nothing is concluded from it, nothing lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options, Paging, RetryAfter, Sim};
use rosterd::harvest::HarvestError;
use rosterd::store::StoreError;
use rosterd::sync::cycle::CycleError;
use rosterd::sync::schedule::Mode;
use serde_json::{Value, json};

use crate::database::store;
use crate::world::{World, take_over};

type MakeFault = fn() -> Fault;

/// A fault on either list fails the cycle, whatever it is; the watermark stays, nothing is deleted or told, and the
/// next good cycle catches up.
#[tokio::test]
async fn a_list_that_fails_fails_the_cycle_and_loses_nothing() {
    let faults: [(&str, MakeFault); 7] = [
        ("401", || Fault::html(401)),
        ("403", || Fault::html(403)),
        ("404", || Fault::html(404)),
        ("500", || Fault::html(500)),
        ("an answer cut short", Fault::cut),
        ("an HTML page with 200", || Fault::html(200)),
        ("a connection reset", Fault::reset),
    ];
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    for (what, fault) in faults {
        for list in ["/users", "/user_assignments"] {
            let user = world.sim.user_ids()[1];
            world.sim.edit_user(user, |user| user.telephone.push('1'));
            let marks = world.watermarks().await;
            world.sim.inject(fault().on(list).forever());
            let report = world.try_cycle_in(Mode::Full).await;
            assert!(
                matches!(report.outcome, Err(CycleError::Harvest(_))),
                "{what} on {list}: {:?}",
                report.outcome
            );
            let moved = world.watermarks().await;
            assert_eq!(
                moved.iter().find(|mark| mark.0 == list[1..]),
                marks.iter().find(|mark| mark.0 == list[1..])
            );
            world.sim.clear_faults();
            world.cycle().await;
            assert_eq!(world.headlines().await, [format!("user.updated {user}")], "{what} on {list}");
        }
    }
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn nobody_left_is_not_believed() {
    let mut world = World::new().await;
    world.cycle().await;
    let marks = world.watermarks().await;
    world.sim.inject(Fault::empty_list().on("/users").forever());
    let report = world.try_cycle_in(Mode::Full).await;
    assert!(matches!(report.outcome, Err(CycleError::NobodyThere)));
    assert_eq!(world.watermarks().await, marks);
    let error: String = sqlx::query_scalar("SELECT last_error FROM roster.accounts")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert!(error.contains("empty"));
}

#[tokio::test]
async fn a_429_as_html_is_waited_for_and_the_cycle_goes_on() {
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
        let silence = requests
            .iter()
            .filter(|request| request.at > refused.at)
            .map(|request| request.at - refused.at)
            .min()
            .unwrap();
        assert!(silence >= Duration::from_millis(900), "silent for {silence:?} only");
    }
}

#[tokio::test]
async fn a_numbered_list_that_shrinks_in_mid_walk_is_walked_again() {
    let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(9, 250, 20), options).await;
    let sim = world.sim.clone();
    // The newest leaves after the first page: everybody behind slides up by one, and one would be missed.
    let newest = *world.sim.user_ids().last().unwrap();
    world.sim.inject(Fault::meanwhile(move || sim.delete_user(newest)).on("/users?"));
    world.cycle().await;
    let rows = world.rows("users").await;
    for id in world.sim.user_ids() {
        assert!(rows.contains_key(&id.0), "user {id} was slid past");
    }
}

/// Somebody leaves between the pages of each walk: as long as that goes on nothing is concluded, and nothing lost.
/// Pages by number are under way together: somebody leaves between the one and the other, in either order.
#[tokio::test]
async fn a_numbered_list_that_shrinks_between_two_pages_under_way_is_walked_again() {
    for (first, second) in [(2, 3), (3, 2)] {
        let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
        let mut world = World::of(Company::seeded(9, 450, 20), options).await;
        let sim = world.sim.clone();
        let newest = *world.sim.user_ids().last().unwrap();
        let page = |number: u32| format!("/users?page={number}&");
        world.sim.inject(Fault::meanwhile(move || sim.delete_user(newest)).on(page(first)));
        world.sim.inject(Fault::delay(Duration::from_secs(1)).on(page(second)));
        world.cycle().await;
        let rows = world.rows("users").await;
        for id in world.sim.user_ids() {
            assert!(rows.contains_key(&id.0), "user {id} was slid past");
        }
        let walks = world.sim.requests().iter().filter(|request| request.path.contains(&page(2))).count();
        assert_eq!(walks, 2, "page {first} came before page {second}");
    }
}

#[tokio::test]
async fn a_numbered_list_that_never_holds_still_keeps_the_watermark_waiting() {
    let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(9, 250, 120), options).await;
    world.cycle().await;
    world.news().await;
    let marks = world.watermarks().await;
    let sim = world.sim.clone();
    let fall = move || sim.delete_user(*sim.user_ids().last().unwrap());
    world.sim.inject(Fault::meanwhile(fall).on("/users?per_page=100").forever());
    let report = world.try_cycle_in(Mode::Full).await;
    assert!(
        matches!(report.outcome, Err(CycleError::Harvest(HarvestError::Drifted { .. }))),
        "{:?}",
        report.outcome
    );
    assert_eq!(world.watermarks().await, marks);
    world.sim.clear_faults();
    let edited = world.sim.user_ids()[3];
    world.sim.edit_user(edited, |user| user.telephone.push('8'));
    let report = world.cycle().await;
    assert_eq!((report.users.deleted, report.users.changed), (3, 4), "three walks, three leavers, one edit");
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn a_link_to_a_foreign_host_is_never_followed() {
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
async fn a_walk_that_goes_in_a_circle_ends() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(2, 250, 10), options).await;
    let first = format!("{}/users?per_page=100", world.sim.base_url());
    world.sim.inject(
        Fault::edit(move |page| page["links"]["next"] = Value::from(first.clone())).on("/users?").forever(),
    );
    let report = world.try_cycle().await;
    assert!(
        matches!(report.outcome, Err(CycleError::Harvest(HarvestError::Protocol { .. }))),
        "{:?}",
        report.outcome
    );
}

#[tokio::test]
async fn clocks_that_move_against_each_other_ask_for_everything() {
    let mut world = World::new().await;
    world.cycle().await;
    let user = world.sim.user_ids()[1];
    for shift in [TimeDelta::minutes(50), TimeDelta::minutes(-100)] {
        assert_eq!(world.cycle().await.mode, Mode::Incremental);
        world.sim.shift_clock(shift);
        world.sim.edit_user(user, |user| user.telephone.push('2'));
        let report = world.cycle().await;
        assert_eq!(report.mode, Mode::Full, "shifted by {shift}");
        world.expect_mirror_equals_source().await;
    }
    world.clock.shift(TimeDelta::minutes(-10));
    assert_eq!(world.cycle().await.mode, Mode::Full, "our own clock went back");
    // A steady difference is nothing.
    assert_eq!(world.cycle().await.mode, Mode::Incremental);
}

#[tokio::test]
async fn the_watermark_is_the_earlier_clock_at_the_start_of_the_read() {
    let mut world = World::new().await;
    let before = world.sim.now().datetime();
    world.sim.shift_clock(TimeDelta::minutes(-50));
    world.cycle().await;
    for (resource, watermark) in world.watermarks().await {
        let behind = before - watermark.unwrap();
        assert!((49..=51).contains(&behind.num_minutes()), "{resource} is {behind} behind");
    }
}

/// The one harm of a dropped epoch test: a writer that slept through a take-over applies what it read before.
#[tokio::test]
async fn a_writer_that_slept_through_a_take_over_commits_nothing() {
    let mut world = World::new().await;
    world.cycle().await;
    let user = world.sim.user_ids()[1];
    world.sim.rename(user, "Old", "News");
    // While the sleeper's answer is under way, a rival takes over; then the sleeper wakes with old news.
    let taken = Arc::new(AtomicBool::new(false));
    let (flag, url, sim) = (taken.clone(), world.url().to_owned(), world.sim.clone());
    world.sim.inject(
        Fault::meanwhile(move || {
            // On a thread and a runtime of its own: this one is busy with the sleeper's answer.
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
    assert!(taken.load(Ordering::SeqCst));
    assert!(matches!(report.outcome, Err(CycleError::Store(StoreError::Fenced(_)))), "{:?}", report.outcome);
    assert_eq!(world.physical().await, before);
}

#[tokio::test]
async fn a_failed_cycle_is_on_record_and_forgotten_after_a_good_one() {
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
async fn a_stale_twin_on_the_same_page_is_no_news() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let mut twin = world.sim.users_json()[3].clone();
    twin["updated_at"] = json!("2001-01-01T00:00:00Z");
    twin["first_name"] = json!("Stale");
    let insert = move |page: &mut Value| page["users"].as_array_mut().unwrap().push(twin.clone());
    world.sim.inject(Fault::edit(insert).on("/users?"));
    world.full_cycle().await;
    assert!(world.headlines().await.is_empty());
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn duplicated_rows_across_pages_are_one_record() {
    let options = Options { max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(4, 150, 10), options).await;
    let twin = world.sim.users_json()[0].clone();
    world.sim.inject(
        Fault::edit(move |page| {
            let mut twin = twin.clone();
            twin["updated_at"] = json!("2001-01-01T00:00:00Z");
            twin["first_name"] = json!("Stale");
            page["users"].as_array_mut().unwrap().push(twin);
        })
        .on("/users?cursor"),
    );
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// A promotion between the look at history and the write: not one event goes out under the old stream's name.
#[tokio::test]
async fn a_server_that_was_promoted_in_mid_cycle_tells_nothing_under_the_old_stream() {
    let mut world = World::new().await;
    world.store.follow_history().await.unwrap();
    world.cycle().await;
    let old = world.news().await[0].payload["stream_id"].clone();
    let promoted = "UPDATE roster.outbox_head SET timeline_id = timeline_id - 1";
    sqlx::raw_sql(promoted).execute(world.store.pool()).await.unwrap();
    world.sim.hire("Nora", "Next");
    assert!(matches!(world.try_cycle().await.outcome, Err(CycleError::Store(_))));
    assert!(world.news().await.is_empty());
    world.store.follow_history().await.unwrap();
    world.cycle().await;
    assert_ne!(world.only_event().await.payload["stream_id"], old);
    world.expect_mirror_equals_source().await;
}
