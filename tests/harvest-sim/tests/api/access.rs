//! What a token sees follows its owner.

use harvest_sim::{Company, Options, Sim};

use super::{Desk, header, ids};

#[tokio::test]
async fn companies_at_one_address_are_told_apart_by_their_account() {
    let company = |id| Company::new().with_account_id(id).with_token(format!("{id}.pt.not-a-real-token"));
    let sims = Sim::start_many(company(1), [company(2), company(3)], &Options::default()).await.unwrap();
    assert_eq!(sims.iter().map(Sim::account_id).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(sims.iter().all(|sim| sim.base_url() == sims[0].base_url()), "one address");
    sims[1].hire("Jane", "Doe");
    for (sim, people) in sims.iter().zip([1, 2, 1]) {
        let desk = Desk::at(sim.clone());
        assert_eq!(desk.json("/users").await["total_entries"], people);
        assert_eq!(sim.requests().len(), 1, "each has its own report");
    }
    // Another account's token, and an account that nobody has.
    let desk = Desk::at(sims[2].clone());
    for (account, status) in [(2, 401), (4, 401)] {
        let asked = desk.bare("/users").header("User-Agent", "t").header("Harvest-Account-Id", account);
        assert_eq!(asked.bearer_auth(sims[2].token()).send().await.unwrap().status().as_u16(), status);
    }
}

#[tokio::test]
async fn a_member_is_refused_everywhere_but_at_home() {
    let desk = Desk::quiet().await;
    let owner = desk.sim.token_owner();
    desk.sim.set_token_role("member");
    for path in [
        "/users",
        "/users/1",
        "/users/1/billable_rates",
        "/users/1/cost_rates",
        "/user_assignments",
        "/projects/1/user_assignments",
        "/projects",
        "/projects/1",
        "/company",
    ] {
        let answer = desk.get(path).await;
        assert_eq!(answer.status().as_u16(), 403, "{path}");
        assert_eq!(header(&answer, "hint"), "Not authorized!");
        assert_eq!(header(&answer, "content-type"), "application/json; charset=utf-8");
        assert_eq!(answer.text().await.unwrap(), r#"{"message":"Not authorized!"}"#);
    }
    let me = desk.json("/users/me").await;
    assert_eq!(me["id"], owner.0);
    assert!(me.get("default_hourly_rate").is_none() && me.get("cost_rate").is_none(), "absent, not null");
    assert_eq!(desk.get("/nowhere").await.status().as_u16(), 404, "there is nothing to be refused");
}

#[tokio::test]
async fn a_demoted_token_sees_fewer_people_without_any_error() {
    let desk = Desk::quiet().await;
    let people: Vec<_> = (0..6).map(|nth| desk.sim.hire("Person", &nth.to_string())).collect();
    desk.sim.demote_token();
    let seen = ids(&[desk.json("/users").await], "users");
    let owner = desk.sim.token_owner();
    assert_eq!(seen, [people[4].0, people[2].0, people[0].0, owner.0]);
    assert_eq!(desk.json("/users/me").await["access_roles"][0], "manager");
    assert_eq!(desk.get(&format!("/users/{}", people[1])).await.status().as_u16(), 404);
    desk.sim.set_token_role("administrator");
    assert_eq!(desk.json("/users").await["total_entries"], 7);
}

#[tokio::test]
async fn a_manager_sees_teammates_and_managed_projects() {
    let desk = Desk::quiet().await;
    let (jane, john) = (desk.sim.hire("Jane", "Doe"), desk.sim.hire("John", "Smith"));
    let (road, castle) = (desk.sim.new_project("Road", None), desk.sim.new_project("Castle", None));
    let owner = desk.sim.token_owner();
    desk.sim.set_token_role("manager");
    for list in ["/users", "/user_assignments", "/projects"] {
        assert_eq!(desk.get(list).await.status().as_u16(), 403, "{list}: neither teammates nor projects");
    }
    let led = desk.sim.assign(owner, road);
    let on_road = desk.sim.assign(john, road);
    let (on_castle, _) = (desk.sim.assign(jane, castle), desk.sim.assign(john, castle));
    desk.sim.set_teammates(owner, &[jane]);
    assert_eq!(ids(&[desk.json("/users").await], "users"), [jane.0, owner.0]);
    let seen = ids(&[desk.json("/user_assignments").await], "user_assignments");
    assert_eq!(seen, [on_castle.0, on_road.0, led.0]);
    assert_eq!(ids(&[desk.json("/projects").await], "projects"), [road.0]);
    assert_eq!(desk.json(&format!("/projects/{road}")).await["name"], "Road");
    assert_eq!(desk.get(&format!("/projects/{castle}")).await.status().as_u16(), 404);
}

#[tokio::test]
async fn rates_are_shown_to_managers_who_manage_them() {
    let desk = Desk::quiet().await;
    let jane = desk.sim.hire("Jane", "Doe");
    desk.sim.set_rate(jane, Some(175.0));
    desk.sim.demote_token();
    assert!(desk.json(&format!("/users/{jane}")).await.get("default_hourly_rate").is_none());
    desk.sim.set_token_role("billable_rates_manager");
    let shown = desk.json(&format!("/users/{jane}")).await;
    assert_eq!(shown["default_hourly_rate"], 175.0);
    assert!(shown.get("cost_rate").is_none());
}

#[tokio::test]
async fn lists_of_rates_are_for_managers_who_manage_them_and_costs_for_administrators() {
    let desk = Desk::quiet().await;
    let (john, jane) = (desk.sim.hire("John", "Smith"), desk.sim.hire("Jane", "Doe"));
    desk.sim.demote_token();
    let statuses = async || {
        let mut statuses = Vec::new();
        for (user, kind) in [(john, "billable"), (jane, "billable"), (john, "cost")] {
            statuses.push(desk.get(&format!("/users/{user}/{kind}_rates")).await.status().as_u16());
        }
        statuses
    };
    assert_eq!(statuses().await, [403, 403, 403]);
    desk.sim.set_token_role("billable_rates_manager");
    assert_eq!(statuses().await, [200, 404, 403], "Jane is not on the team");
    desk.sim.set_token_role("administrator");
    assert_eq!(statuses().await, [200, 200, 200]);
}

#[tokio::test]
async fn the_token_of_somebody_who_left_is_no_longer_good() {
    let desk = Desk::quiet().await;
    desk.sim.deactivate(desk.sim.token_owner());
    assert_eq!(desk.get("/users/me").await.status().as_u16(), 401);
    desk.sim.delete_user(desk.sim.token_owner());
    assert_eq!(desk.get("/users/me").await.status().as_u16(), 401);
}
