//! The way of a record: a company arrives, changes, and is told of exactly once.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options, Paging, Records, UserId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_company_arrives_whole_however_its_lists_are_paged() {
    for paging in [Paging::Cursor, Paging::Number] {
        for max_per_page in [2000, 100] {
            for updated_since_inclusive in [false, true] {
                let options = Options { paging, max_per_page, updated_since_inclusive, ..Options::default() };
                let mut world = World::of(Company::seeded(7, 150, 420), options).await;
                let report = world.cycle().await;
                assert_eq!((report.users.changed, report.assignments.changed), (150, 420));
                world.expect_mirror_equals_source().await;
                world.expect_outbox_replays_to_the_mirror().await;
                let news = world.news().await;
                assert_eq!(news.len(), 570);
                assert!(news.iter().all(|event| event.r#type.ends_with(".created") && event.version == 1));
                // Users before assignments.
                assert!(news[..150].iter().all(|event| event.r#type == "user.created"));
                assert_eq!(world.cycle().await.events(), 0);
            }
        }
    }
}

#[tokio::test]
async fn pages_by_number_are_asked_for_before_their_turn() {
    let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(7, 1000, 40), options).await;
    let patience = Duration::from_secs(2);
    world.sim.inject(Fault::delay(patience).on("/users?page=2&"));
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    let arrivals: Vec<(usize, Instant)> = (2..=10)
        .map(|page| {
            let path = format!("/users?page={page}&");
            let mut asked = world.sim.requests().into_iter().filter(|request| request.path.contains(&path));
            let first = asked.next().unwrap_or_else(|| panic!("page {page} was not asked for"));
            assert!(page == 2 || asked.next().is_none(), "page {page} was asked for twice");
            (page, first.at)
        })
        .collect();
    // While the second made us wait, some of those behind it were asked for, and no more than those.
    let answered = arrivals[0].1 + patience;
    let meanwhile = arrivals.iter().filter(|(_, at)| *at < answered).map(|(page, _)| *page);
    assert_eq!(meanwhile.collect::<Vec<_>>(), [2, 3, 4, 5]);
}

#[tokio::test]
async fn numbers_that_are_no_guide_are_left_alone() {
    let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(7, 1000, 40), options).await;
    // Each link has something to it that nobody could have guessed.
    world.sim.inject(
        Fault::edit(|body| {
            let page = body["page"].clone();
            if let Some(next) = body["links"]["next"].as_str() {
                body["links"]["next"] = json!(format!("{next}&after={page}"));
            }
        })
        .on("/users")
        .forever(),
    );
    world.asked();
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    let asked = world
        .asked()
        .into_iter()
        .filter(|path| path.contains("/users?") && path.contains("ref=next"))
        .count();
    assert!((9..=12).contains(&asked), "nine pages behind the first took {asked} requests");
}

#[tokio::test]
async fn the_records_of_2019_are_read_as_well() {
    let options =
        Options { records: Records::Of2019, max_per_page: 100, paging: Paging::Number, ..Options::default() };
    let mut world = World::of(Company::seeded(3, 20, 40), options).await;
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    assert_eq!(world.user(world.sim.token_owner()).await["is_admin"], true);
}

#[tokio::test]
async fn the_second_run_of_anything_writes_nothing() {
    let mut world = World::new().await;
    world.cycle().await;
    let before = world.physical().await;
    world.cycle().await;
    world.full_cycle().await;
    world.cycle().await;
    assert_eq!(world.physical().await, before);
}

#[tokio::test]
async fn each_change_is_told_once_by_its_name() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let users = world.sim.user_ids();
    let (jane, project) = (users[3], world.sim.project_ids()[0]);

    world.sim.rename(jane, "Jane", "Newname");
    world.cycle().await;
    let event = world.only_event().await;
    assert_eq!((event.r#type.as_str(), event.changed()), ("user.updated", vec!["first_name", "last_name"]));
    assert_eq!(event.payload["changed"]["last_name"]["to"], "Newname");
    assert_eq!(event.payload["before"]["last_name"], event.payload["changed"]["last_name"]["from"]);
    assert_eq!(event.payload["mode"], "incremental");

    world.sim.promote(jane, "administrator");
    world.cycle().await;
    let event = world.only_event().await;
    assert!(event.changed().contains(&"is_admin") && event.changed().contains(&"access_roles"));

    let new = world.sim.hire("Ada", "Nkemelu");
    let place = world.sim.assign(new, project);
    world.cycle().await;
    assert_eq!(
        world.headlines().await,
        [format!("user.created {new}"), format!("user_assignment.created {place}")]
    );

    world.sim.unassign(place);
    world.cycle().await;
    assert_eq!(world.headlines().await, [format!("user_assignment.deactivated {place}")]);

    world.sim.deactivate(new);
    world.cycle().await;
    assert_eq!(world.headlines().await, [format!("user.deactivated {new}")]);
    world.sim.reactivate(new);
    world.cycle().await;
    assert_eq!(world.headlines().await, [format!("user.reactivated {new}")]);

    assert_eq!(world.cycle().await.events(), 0);
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn a_flip_of_is_active_names_the_event_whatever_else_changed() {
    let mut world = World::new().await;
    let bob = world.sim.hire("Bob", "Bell");
    world.cycle().await;
    world.news().await;
    world.sim.edit_user(bob, |user| {
        user.is_active = false;
        user.email = "bob.bell@example.org".into();
    });
    world.cycle().await;
    let event = world.only_event().await;
    assert_eq!((event.r#type.as_str(), event.changed()), ("user.deactivated", vec!["email", "is_active"]));
}

#[tokio::test]
async fn what_no_consumer_asked_for_refreshes_the_row_without_an_event() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[5];
    let version = world.user(user).await["version"].clone();
    world.sim.edit_user(user, |user| {
        user.avatar_url = "https://cache.example.com/new.png".into();
        user.extra.insert("favourite_colour".into(), json!("teal"));
    });
    let report = world.cycle().await;
    assert_eq!((report.events(), report.users.refreshed), (0, 1));
    let row = world.user(user).await;
    assert_eq!(
        (&row["avatar_url"], &row["version"]),
        (&json!("https://cache.example.com/new.png"), &version)
    );
    assert_eq!(row["raw"]["favourite_colour"], "teal");
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn roles_in_another_order_are_the_same_roles() {
    let mut world = World::new().await;
    let user = world.sim.hire("Cara", "Cole");
    world.sim.set_roles(user, &["Design", "Research"]);
    world.cycle().await;
    world.sim.edit_user(user, |user| user.roles.reverse());
    assert_eq!(world.cycle().await.events(), 0);
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn a_key_that_is_left_out_keeps_what_is_known_and_null_does_not() {
    let mut world = World::new().await;
    let user = world.sim.hire("Dee", "Dunn");
    world.sim.edit_user(user, |user| user.cost_rate = Some(60.5));
    world.cycle().await;
    world.news().await;

    world.sim.inject(Fault::without_field("cost_rate").on("/users").forever());
    world.sim.rename(user, "Dee", "Dunne");
    world.full_cycle().await;
    assert_eq!(world.only_event().await.changed(), ["last_name"]);
    let row = world.user(user).await;
    assert_eq!(row["cost_rate"].to_string(), "60.5");
    assert_eq!(row["raw"].get("cost_rate"), None, "raw is what was received, not a merge");

    world.sim.clear_faults();
    world.sim.set_cost_rate(user, None);
    world.full_cycle().await;
    let event = world.only_event().await;
    assert_eq!(
        event.payload["changed"]["cost_rate"],
        json!({ "from": serde_json::from_str::<Value>("60.5").unwrap(), "to": null })
    );
}

#[tokio::test]
async fn a_renamed_project_stirs_no_assignment() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let project = world.sim.project_ids()[0];
    world.sim.rename_project(project, "Another name");
    assert_eq!(world.full_cycle().await.events(), 0);
    assert_eq!(world.rows("projects").await[&project.0]["name"], "Another name");
    let before = world.physical().await;
    world.full_cycle().await;
    assert_eq!(world.physical().await, before);
}

#[tokio::test]
async fn a_silent_edit_is_found_by_the_full_read() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[2];
    world.sim.edit_user_silently(user, |user| user.weekly_capacity = 72_000);
    world.full_cycle().await;
    let event = world.only_event().await;
    assert_eq!((event.changed(), &event.payload["mode"]), (vec!["weekly_capacity"], &json!("full")));
}

#[tokio::test]
async fn a_user_whom_the_mirror_has_never_seen_is_read_before_the_assignment() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let (sim, project) = (world.sim.clone(), world.sim.project_ids()[0]);
    // Hired and assigned between the two lists.
    world.sim.inject(
        Fault::meanwhile(move || {
            sim.assign(sim.hire("Eve", "Early"), project);
        })
        .on("/users"),
    );
    world.cycle().await;
    let (user, place) = (*world.sim.user_ids().last().unwrap(), *world.sim.assignment_ids().last().unwrap());
    assert_eq!(
        world.headlines().await,
        [format!("user.created {user}"), format!("user_assignment.created {place}")]
    );
}

#[tokio::test]
async fn an_assignment_of_somebody_whom_harvest_does_not_show_is_stored_and_asked_about_once() {
    let mut world = World::new().await;
    world.cycle().await;
    let stranger = UserId(999_999);
    world.sim.inject(
        Fault::edit(move |page| page["user_assignments"][0]["user"]["id"] = stranger.0.into())
            .on("/user_assignments")
            .forever(),
    );
    let (user, project) = (world.sim.user_ids()[0], world.sim.project_ids()[0]);
    let place = world.sim.assign(user, project);
    world.cycle().await;
    assert_eq!(world.rows("user_assignments").await[&place.0]["user_id"], stranger.0);
    world.sim.clear_requests();
    world.cycle().await;
    let asked = world.sim.requests().iter().filter(|request| request.path.contains("999999")).count();
    assert_eq!(asked, 0, "it was asked about in the cycle before");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_spoils_nothing_and_is_forgiven_when_it_is_well() {
    let mut world = World::new().await;
    let bad = world.sim.hire("Finn", "Fault");
    world.sim.edit_user(bad, |user| drop(user.extra.insert("weekly_capacity_note".into(), json!("a\u{0}b"))));
    let report = world.cycle().await;
    assert_eq!((report.users.changed, report.users.rejected), (12, 1));
    assert_eq!(world.count("rejected_records").await, 1);
    let before = world.physical().await;
    world.full_cycle().await;
    assert_eq!(
        world.physical().await,
        before,
        "a bad record that comes with each poll is not written with each poll"
    );

    world.sim.edit_user(bad, |user| user.extra.clear());
    world.cycle().await;
    assert_eq!(world.count("rejected_records").await, 0);
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn without_pay_there_is_no_pay_anywhere() {
    let mut world = World::new().await;
    let user = world.sim.hire("Gus", "Gold");
    world
        .sim
        .edit_user(user, |user| (user.cost_rate, user.default_hourly_rate) = (Some(4321.5), Some(8765.25)));
    world.client = crate::world::client(&world.sim, false, world.clock.clone());
    world.cycle().await;
    for table in ["users", "outbox", "rejected_records"] {
        let statement =
            format!("SELECT count(*) FROM roster.{table} AS t WHERE t::text ~ '4321[.]5|8765[.]25'");
        let found: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(world.store.pool()).await.unwrap();
        assert_eq!(found, 0, "{table}");
    }
    assert!(!world.store.holds_pay().await.unwrap());
}

/// Whatever happens in a company over weeks, in any order, read at any moment.
#[tokio::test]
async fn after_any_history_the_mirror_is_the_source_and_the_outbox_its_story() {
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let options = Options {
            paging: if seed % 2 == 0 { Paging::Cursor } else { Paging::Number },
            max_per_page: if seed % 3 == 0 { 2000 } else { 100 },
            updated_since_inclusive: seed % 4 == 0,
            ..Options::default()
        };
        let mut world = World::of(Company::seeded(seed, 110, 250), options).await;
        world.again_after = TimeDelta::zero();
        for _ in 0..12 {
            for _ in 0..random.random_range(0..8) {
                edit(&world, &mut random);
            }
            world.cycle().await;
            if random.random_bool(0.2) {
                world.full_cycle().await;
            }
            world.expect_census_to_be_a_count().await;
        }
        // Silent edits are found by a full read only; who is young and gone, by the second question.
        world.full_cycle().await;
        world.cycle().await;
        world.expect_mirror_equals_source().await;
        world.expect_outbox_replays_to_the_mirror().await;
        let before = world.physical().await;
        world.full_cycle().await;
        assert_eq!(world.physical().await, before);
    }
}

fn edit(world: &World, random: &mut StdRng) {
    let sim = &world.sim;
    let user = *sim.user_ids().choose(random).unwrap();
    let project = *sim.project_ids().choose(random).unwrap();
    let place = *sim.assignment_ids().choose(random).unwrap();
    match random.random_range(0..15) {
        0 => {
            sim.hire("Hal", "Hired");
        }
        1 => sim.rename(user, ["Ida", "Ivo"][random.random_range(0..2)], "Ivory"),
        2 => sim.deactivate(user),
        3 => sim.reactivate(user),
        4 => {
            sim.assign(user, project);
        }
        5 => sim.unassign(place),
        6 => sim.set_rate(user, [None, Some(0.1), Some(175.0)][random.random_range(0..3)]),
        7 => sim.set_roles(user, &["Design", "Code"][..random.random_range(0..3)]),
        8 => sim.edit_assignment(place, |place| place.budget = Some(f64::from(random.random_range(0..5)))),
        9 => sim.rename_project(project, ["Jade", "Jet"][random.random_range(0..2)]),
        10 => sim.edit_user(user, |user| user.avatar_url.push('x')),
        11 => sim.delete_assignment(place),
        12 if user != sim.token_owner() => sim.delete_user(user),
        13 => sim.delete_project(project),
        _ => {
            sim.assign(user, sim.new_project("Kite", ["K", ""][random.random_range(0..2)]));
        }
    }
}
