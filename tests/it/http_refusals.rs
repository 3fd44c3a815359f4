//! Responses with 403 or 404: only Harvest's own response to the first page of a list concerns the account or the
//! token's role.

use harvest_sim::{Company, Fault, Options};
use rosterd::harvest::HarvestError;
use rosterd::sync::error::CycleError;
use rosterd::sync::report::CycleMode;

use crate::program::Program;
use crate::scene::Scene;
use crate::world::{World, client_with};

/// A program that reads lists in several pages.
fn program(scene: &Scene) -> Program {
    let mut program = scene.program();
    program.set("ROSTERD__HARVEST__PER_PAGE", "15");
    program
}

#[tokio::test]
async fn expired_cursor_makes_rosterd_read_the_list_again() {
    for fault in [Fault::refusal(404), Fault::html(404)] {
        let mut world = World::of(Company::seeded(5, 40, 90), Options::default()).await;
        world.client = client_with(&world.sim, 15, true, world.clock.clone());
        world.sim.inject(fault.clone().on("/users?cursor="));
        world.sim.inject(fault.on("/user_assignments?cursor=").skip_first(1));
        world.cycle().await;
        world.expect_mirror_equals_source().await;
        world.expect_outbox_replays_to_the_mirror().await;
    }
}

#[tokio::test]
async fn cursor_that_always_expires_fails_the_cycle_as_a_harvest_error() {
    let mut world = World::of(Company::seeded(5, 40, 90), Options::default()).await;
    world.client = client_with(&world.sim, 15, true, world.clock.clone());
    world.sim.inject(Fault::refusal(404).on("cursor=").forever());
    let error = world.try_cycle().await.outcome.unwrap_err();
    assert!(matches!(error, CycleError::Harvest(HarvestError::Drifted { .. })), "{error:?}");
    assert!(!error.is_credentials());

    let scene = Scene::of(Company::seeded(5, 40, 90), Options::default()).await;
    scene.sim.inject(Fault::refusal(404).on("cursor=").forever());
    let called = program(&scene).call(&["sync"]).await;
    let sentence = called.expect(69).sentence();
    assert!(sentence.contains("changed while") && !sentence.contains("HARVEST_ACCOUNT_ID"), "{sentence}");
}

#[tokio::test]
async fn lists_of_one_user_whose_cursor_expires_are_read_again() {
    let mut world = World::of(Company::seeded(5, 40, 400), Options::default()).await;
    world.cycle().await;
    world.client = client_with(&world.sim, 3, true, world.clock.clone());
    let user = world.sim.user_ids()[1];
    for amount in 1..6_u8 {
        world.sim.add_cost_rate(user, amount.into(), Some(&format!("2024-01-0{amount}")));
    }
    world.sim.inject(Fault::refusal(404).on("/user_assignments?cursor="));
    world.sim.inject(Fault::refusal(404).on("/cost_rates?cursor="));
    world.turn(async |cycle| rosterd::sync::user::read(cycle, user.0, true).await.0).await.outcome.unwrap();
    assert_eq!(world.count("cost_rates").await, 5);
}

/// If the token's role changes while a list is read, the first page of the next cycle reveals it.
#[tokio::test]
async fn refusal_of_a_later_page_does_not_blame_the_tokens_role() {
    let scene = Scene::of(Company::seeded(5, 40, 90), Options::default()).await;
    for fault in [Fault::refusal(403), Fault::html(403)] {
        scene.sim.inject(fault.on("cursor=").forever());
        let sentence = program(&scene).call(&["sync"]).await.expect(69).sentence();
        assert!(sentence.contains("403") && !sentence.contains("administrator"), "{sentence}");
        scene.sim.clear_faults();
    }
}

#[tokio::test]
async fn html_refusal_is_reported_with_status_content_type_and_host() {
    let scene = Scene::new().await;
    for (status, path) in [(403, "/v2/"), (403, "/users?"), (404, "/users?"), (404, "/users/me")] {
        scene.sim.inject(Fault::html(status).on(path).forever());
        let sentence = scene.program().call(&["sync"]).await.expect(69).sentence();
        for seen in [status.to_string().as_str(), "text/html", "127.0.0.1"] {
            assert!(sentence.contains(seen), "{status} on {path}, {seen}: {sentence}");
        }
        for advice in ["must be an administrator", "HARVEST_ACCOUNT_ID"] {
            assert!(!sentence.contains(advice), "{status} on {path}: {sentence}");
        }
        scene.sim.clear_faults();
    }
    let user = scene.sim.user_ids()[3].to_string();
    scene.program().call(&["sync"]).await.expect(0);
    scene.sim.inject(Fault::html(404).on(format!("/users/{user}")).forever());
    let sentence = scene.program().call(&["sync", "--user", &user]).await.expect(69).sentence();
    assert!(sentence.contains("404") && sentence.contains("text/html"), "{sentence}");
}

#[tokio::test]
async fn json_404_from_a_gateway_does_not_blame_the_account_id() {
    let scene = Scene::new().await;
    let body = r#"{"message":"no Route matched with those values"}"#;
    scene.answer_once("/users?", 404, &[("content-type", "application/json")], body);
    let sentence = scene.program().call(&["sync"]).await.expect(69).sentence();
    assert!(sentence.contains("127.0.0.1") && !sentence.contains("HARVEST_ACCOUNT_ID"), "{sentence}");
}

#[tokio::test]
async fn refusal_by_harvest_names_the_role_or_the_account_id() {
    let scene = Scene::new().await;
    for (status, advice) in [(403, "must be an administrator"), (404, "HARVEST_ACCOUNT_ID")] {
        scene.sim.inject(Fault::refusal(status).on("/users?").forever());
        let sentence = scene.program().call(&["sync"]).await.expect(77).sentence();
        assert!(sentence.contains(advice), "{status}: {sentence}");
        scene.sim.clear_faults();
    }
}

/// Covers users, assignments, and projects with several absent assignments. Another test covers rates.
#[tokio::test]
async fn html_404_for_a_request_by_id_deletes_nothing() {
    let mut world = World::of(Company::seeded(5, 100, 300), Options::default()).await;
    world.cycle().await;
    world.news().await;
    let project = world.sim.project_ids()[0];
    let of_project = |assignment: &serde_json::Value| assignment["project"]["id"] == project.0;
    let assignments: Vec<i64> = world
        .sim
        .assignments_json()
        .iter()
        .filter(|assignment| of_project(assignment))
        .take(4)
        .map(|assignment| assignment["id"].as_i64().unwrap())
        .collect();
    let user = world.sim.user_ids()[7];
    world.sim.inject(Fault::hide_records([user.0]).on("/users?").forever());
    world.sim.inject(Fault::hide_records(assignments).on("/user_assignments?").forever());
    world.sim.inject(Fault::html(404).on(format!("/users/{user}")).forever());
    world.sim.inject(Fault::html(404).on("/projects/").forever());
    for _ in 0..3 {
        world.try_cycle_in(CycleMode::Full).await.outcome.unwrap();
    }
    assert!(world.headlines().await.is_empty());
    assert!(world.asked().iter().any(|path| path.contains(&format!("/projects/{project}"))));
    world.expect_mirror_equals_source().await;
}
