//! Records from Harvest's lists to the mirror: each change emits exactly one event.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use harvest_sim::{Company, Fault, Options, Paging, Records, UserId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn first_read_mirrors_the_whole_company_with_either_pagination() {
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
                // The events of users precede those of assignments.
                assert!(news[..150].iter().all(|event| event.r#type == "user.created"));
                assert_eq!(world.cycle().await.events(), 0);
            }
        }
    }
}

#[tokio::test]
async fn numbered_pages_are_prefetched() {
    let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(7, 1000, 40), options).await;
    let delay = Duration::from_secs(2);
    world.sim.inject(Fault::delay_request(delay).on("/users?page=2&"));
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    let arrivals: Vec<(usize, Instant)> = (2..=10)
        .map(|page| {
            let path = format!("/users?page={page}&");
            let mut requests =
                world.sim.requests().into_iter().filter(|request| request.path.contains(&path));
            let first = requests.next().unwrap_or_else(|| panic!("page {page} was not requested"));
            assert!(page == 2 || requests.next().is_none(), "page {page} was requested twice");
            (page, first.at)
        })
        .collect();
    // During the delay of page 2, rosterd requests exactly the next three pages.
    let answered = arrivals[0].1 + delay;
    let meanwhile = arrivals.iter().filter(|(_, at)| *at < answered).map(|(page, _)| *page);
    assert_eq!(meanwhile.collect::<Vec<_>>(), [2, 3, 4, 5]);
}

#[tokio::test]
async fn unpredictable_page_links_stop_the_prefetch() {
    let options = Options { paging: Paging::Number, max_per_page: 100, ..Options::default() };
    let mut world = World::of(Company::seeded(7, 1000, 40), options).await;
    // Each link has a parameter that cannot be predicted from the page before.
    world.sim.inject(
        Fault::edit_body(|body| {
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
    let requests = world
        .asked()
        .into_iter()
        .filter(|path| path.contains("/users?") && path.contains("ref=next"))
        .count();
    assert!((9..=12).contains(&requests), "nine pages after the first took {requests} requests");
}

#[tokio::test]
async fn records_in_the_format_of_2019_are_mirrored() {
    let options =
        Options { records: Records::Of2019, max_per_page: 100, paging: Paging::Number, ..Options::default() };
    let mut world = World::of(Company::seeded(3, 20, 40), options).await;
    world.cycle().await;
    world.expect_mirror_equals_source().await;
    assert_eq!(world.user(world.sim.token_owner()).await["is_admin"], true);
}

#[tokio::test]
async fn repeated_cycles_without_changes_write_nothing() {
    let mut world = World::new().await;
    world.cycle().await;
    let before = world.physical().await;
    world.cycle().await;
    world.full_cycle().await;
    world.cycle().await;
    assert_eq!(world.physical().await, before);
}

#[tokio::test]
async fn each_change_emits_one_event_of_its_type() {
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

    let new = world.sim.create_user("Ada", "Nkemelu");
    let assignment = world.sim.assign(new, project);
    world.cycle().await;
    assert_eq!(
        world.headlines().await,
        [format!("user.created {new}"), format!("user_assignment.created {assignment}")]
    );

    world.sim.archive_assignment(assignment);
    world.cycle().await;
    assert_eq!(world.headlines().await, [format!("user_assignment.deactivated {assignment}")]);

    world.sim.archive_user(new);
    world.cycle().await;
    assert_eq!(world.headlines().await, [format!("user.deactivated {new}")]);
    world.sim.restore_user(new);
    world.cycle().await;
    assert_eq!(world.headlines().await, [format!("user.reactivated {new}")]);

    assert_eq!(world.cycle().await.events(), 0);
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn change_of_is_active_sets_the_event_type_despite_other_changes() {
    let mut world = World::new().await;
    let bob = world.sim.create_user("Bob", "Baker");
    world.cycle().await;
    world.news().await;
    world.sim.edit_user(bob, |user| {
        user.is_active = false;
        user.email = "bob.baker@example.org".into();
    });
    world.cycle().await;
    let event = world.only_event().await;
    assert_eq!((event.r#type.as_str(), event.changed()), ("user.deactivated", vec!["email", "is_active"]));
}

#[tokio::test]
async fn change_of_fields_without_events_only_refreshes_the_row() {
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
async fn reordered_roles_emit_no_event() {
    let mut world = World::new().await;
    let user = world.sim.create_user("Cara", "Cole");
    world.sim.set_roles(user, &["Design", "Research"]);
    world.cycle().await;
    world.sim.edit_user(user, |user| user.roles.reverse());
    assert_eq!(world.cycle().await.events(), 0);
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn absent_field_keeps_the_known_value_and_null_clears_it() {
    let mut world = World::new().await;
    let user = world.sim.create_user("Dee", "Dunn");
    world.sim.edit_user(user, |user| user.cost_rate = Some(60.5));
    world.cycle().await;
    world.news().await;

    world.sim.inject(Fault::remove_field("cost_rate").on("/users").forever());
    world.sim.rename(user, "Dee", "Dunne");
    world.full_cycle().await;
    assert_eq!(world.only_event().await.changed(), ["last_name"]);
    let row = world.user(user).await;
    assert_eq!(row["cost_rate"].to_string(), "60.5");
    assert_eq!(row["raw"].get("cost_rate"), None, "raw is the record as received, without merged fields");

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
async fn renamed_project_emits_no_assignment_event() {
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
async fn edit_without_a_new_updated_at_is_found_by_the_full_read() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let user = world.sim.user_ids()[2];
    world.sim.edit_user_keeping_updated_at(user, |user| user.weekly_capacity = 72_000);
    world.full_cycle().await;
    let event = world.only_event().await;
    assert_eq!((event.changed(), &event.payload["mode"]), (vec!["weekly_capacity"], &json!("full")));
}

#[tokio::test]
async fn unknown_user_of_an_assignment_is_stored_before_the_assignment() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    let (sim, project) = (world.sim.clone(), world.sim.project_ids()[0]);
    // The user is hired and assigned after rosterd has read the list of users.
    world.sim.inject(
        Fault::run_before_response(move || {
            sim.assign(sim.create_user("Eve", "Early"), project);
        })
        .on("/users"),
    );
    world.cycle().await;
    let (user, assignment) =
        (*world.sim.user_ids().last().unwrap(), *world.sim.assignment_ids().last().unwrap());
    assert_eq!(
        world.headlines().await,
        [format!("user.created {user}"), format!("user_assignment.created {assignment}")]
    );
}

#[tokio::test]
async fn assignment_of_a_user_unknown_to_harvest_is_stored_and_the_user_requested_once() {
    let mut world = World::new().await;
    world.cycle().await;
    let unknown = UserId(999_999);
    world.sim.inject(
        Fault::edit_body(move |page| page["user_assignments"][0]["user"]["id"] = unknown.0.into())
            .on("/user_assignments")
            .forever(),
    );
    let (user, project) = (world.sim.user_ids()[0], world.sim.project_ids()[0]);
    let assignment = world.sim.assign(user, project);
    world.cycle().await;
    assert_eq!(world.rows("user_assignments").await[&assignment.0]["user_id"], unknown.0);
    world.sim.clear_requests();
    world.cycle().await;
    let requests = world.sim.requests().iter().filter(|request| request.path.contains("999999")).count();
    assert_eq!(requests, 0, "the cycle before has requested this user already");
}

#[tokio::test]
async fn unreadable_record_is_rejected_alone_and_cleared_once_it_is_readable() {
    let mut world = World::new().await;
    let bad = world.sim.create_user("Finn", "Fault");
    world.sim.edit_user(bad, |user| drop(user.extra.insert("weekly_capacity_note".into(), json!("a\u{0}b"))));
    let report = world.cycle().await;
    assert_eq!((report.users.changed, report.users.rejected), (12, 1));
    assert_eq!(world.count("rejected_records").await, 1);
    let before = world.physical().await;
    world.full_cycle().await;
    assert_eq!(world.physical().await, before, "a bad record that each read returns is written once");

    world.sim.edit_user(bad, |user| user.extra.clear());
    world.cycle().await;
    assert_eq!(world.count("rejected_records").await, 0);
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn pay_data_is_stored_nowhere_if_it_is_not_mirrored() {
    let mut world = World::new().await;
    let user = world.sim.create_user("Gus", "Gold");
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
    assert!(!world.store.has_pay_data().await.unwrap());
}

/// Random edits of every kind, in random order, with cycles in between.
#[tokio::test]
async fn random_edits_leave_the_mirror_equal_to_harvest_and_the_outbox_replayable() {
    for seed in 0..4 {
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
                random_edit(&world, &mut random);
            }
            world.cycle().await;
            if random.random_bool(0.2) {
                world.full_cycle().await;
            }
            world.expect_row_counts_are_current().await;
        }
        // A full read finds edits without a new `updated_at`. A second cycle confirms deletions of recently created
        // records.
        world.full_cycle().await;
        world.cycle().await;
        world.expect_mirror_equals_source().await;
        world.expect_outbox_replays_to_the_mirror().await;
        let before = world.physical().await;
        world.full_cycle().await;
        assert_eq!(world.physical().await, before);
    }
}

fn random_edit(world: &World, random: &mut StdRng) {
    let sim = &world.sim;
    let user = *sim.user_ids().choose(random).unwrap();
    let project = *sim.project_ids().choose(random).unwrap();
    let assignment = *sim.assignment_ids().choose(random).unwrap();
    match random.random_range(0..15) {
        0 => {
            sim.create_user("Hal", "Hired");
        }
        1 => sim.rename(user, ["Ida", "Ivo"][random.random_range(0..2)], "Ivory"),
        2 => sim.archive_user(user),
        3 => sim.restore_user(user),
        4 => {
            sim.assign(user, project);
        }
        5 => sim.archive_assignment(assignment),
        6 => sim.set_rate(user, [None, Some(0.1), Some(175.0)][random.random_range(0..3)]),
        7 => sim.set_roles(user, &["Design", "Code"][..random.random_range(0..3)]),
        8 => sim.edit_assignment(assignment, |assignment| {
            assignment.budget = Some(f64::from(random.random_range(0..5)));
        }),
        9 => sim.rename_project(project, ["Jade", "Jet"][random.random_range(0..2)]),
        10 => sim.edit_user(user, |user| user.avatar_url.push('x')),
        11 => sim.delete_assignment(assignment),
        12 if user != sim.token_owner() => sim.delete_user(user),
        13 => sim.delete_project(project),
        _ => {
            sim.assign(user, sim.new_project("Kite", ["K", ""][random.random_range(0..2)]));
        }
    }
}
