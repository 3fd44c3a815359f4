//! The records that a token sees depend on the access roles of its owner.

use harvest_sim::{Company, Options, Sim};

use super::{TestClient, header, ids};

#[tokio::test]
async fn account_id_header_selects_the_company() {
    let company = |id| Company::new().with_account_id(id).with_token(format!("{id}.pt.not-a-real-token"));
    let sims = Sim::start_many(company(1), [company(2), company(3)], &Options::default()).await.unwrap();
    assert_eq!(sims.iter().map(Sim::account_id).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(
        sims.iter().all(|sim| sim.base_url() == sims[0].base_url()),
        "all companies have the same address"
    );
    sims[1].create_user("Jane", "Doe");
    for (sim, users) in sims.iter().zip([1, 2, 1]) {
        let client = TestClient::at(sim.clone());
        assert_eq!(client.json("/users").await["total_entries"], users);
        assert_eq!(sim.requests().len(), 1, "each company has a separate request log");
    }
    // The token of another account, and an unknown account.
    let client = TestClient::at(sims[2].clone());
    for (account, status) in [(2, 401), (4, 401)] {
        let asked = client.bare("/users").header("User-Agent", "t").header("Harvest-Account-Id", account);
        assert_eq!(asked.bearer_auth(sims[2].token()).send().await.unwrap().status().as_u16(), status);
    }
}

#[tokio::test]
async fn member_token_reads_only_users_me() {
    let client = TestClient::quiet().await;
    let owner = client.sim.token_owner();
    client.sim.set_token_role("member");
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
        let response = client.get(path).await;
        assert_eq!(response.status().as_u16(), 403, "{path}");
        assert_eq!(header(&response, "hint"), "Not authorized!");
        assert_eq!(header(&response, "content-type"), "application/json; charset=utf-8");
        assert_eq!(response.text().await.unwrap(), r#"{"message":"Not authorized!"}"#);
    }
    let me = client.json("/users/me").await;
    assert_eq!(me["id"], owner.0);
    assert!(me.get("default_hourly_rate").is_none() && me.get("cost_rate").is_none(), "absent, not null");
    assert_eq!(
        client.get("/nowhere").await.status().as_u16(),
        404,
        "an unknown path is a 404 for every token"
    );
}

#[tokio::test]
async fn demoted_token_sees_fewer_users_without_an_error() {
    let client = TestClient::quiet().await;
    let users: Vec<_> = (0..6).map(|nth| client.sim.create_user("Person", &nth.to_string())).collect();
    client.sim.demote_token();
    let seen = ids(&[client.json("/users").await], "users");
    let owner = client.sim.token_owner();
    assert_eq!(seen, [users[4].0, users[2].0, users[0].0, owner.0]);
    assert_eq!(client.json("/users/me").await["access_roles"][0], "manager");
    assert_eq!(client.get(&format!("/users/{}", users[1])).await.status().as_u16(), 404);
    client.sim.set_token_role("administrator");
    assert_eq!(client.json("/users").await["total_entries"], 7);
}

#[tokio::test]
async fn manager_sees_teammates_and_managed_projects() {
    let client = TestClient::quiet().await;
    let (jane, john) = (client.sim.create_user("Jane", "Doe"), client.sim.create_user("John", "Smith"));
    let (road, castle) = (client.sim.new_project("Road", None), client.sim.new_project("Castle", None));
    let owner = client.sim.token_owner();
    client.sim.set_token_role("manager");
    for list in ["/users", "/user_assignments", "/projects"] {
        assert_eq!(client.get(list).await.status().as_u16(), 403, "{list}: neither teammates nor projects");
    }
    let led = client.sim.assign(owner, road);
    let on_road = client.sim.assign(john, road);
    let (on_castle, _) = (client.sim.assign(jane, castle), client.sim.assign(john, castle));
    client.sim.set_teammates(owner, &[jane]);
    assert_eq!(ids(&[client.json("/users").await], "users"), [jane.0, owner.0]);
    let seen = ids(&[client.json("/user_assignments").await], "user_assignments");
    assert_eq!(seen, [on_castle.0, on_road.0, led.0]);
    assert_eq!(ids(&[client.json("/projects").await], "projects"), [road.0]);
    assert_eq!(client.json(&format!("/projects/{road}")).await["name"], "Road");
    assert_eq!(client.get(&format!("/projects/{castle}")).await.status().as_u16(), 404);
}

#[tokio::test]
async fn manager_sees_default_rates_only_as_billable_rates_manager() {
    let client = TestClient::quiet().await;
    let jane = client.sim.create_user("Jane", "Doe");
    client.sim.set_rate(jane, Some(175.0));
    client.sim.demote_token();
    assert!(client.json(&format!("/users/{jane}")).await.get("default_hourly_rate").is_none());
    client.sim.set_token_role("billable_rates_manager");
    let shown = client.json(&format!("/users/{jane}")).await;
    assert_eq!(shown["default_hourly_rate"], 175.0);
    assert!(shown.get("cost_rate").is_none());
}

#[tokio::test]
async fn manager_reads_billable_rates_as_billable_rates_manager_and_never_cost_rates() {
    let client = TestClient::quiet().await;
    let (john, jane) = (client.sim.create_user("John", "Smith"), client.sim.create_user("Jane", "Doe"));
    client.sim.demote_token();
    let statuses = async || {
        let mut statuses = Vec::new();
        for (user, kind) in [(john, "billable"), (jane, "billable"), (john, "cost")] {
            statuses.push(client.get(&format!("/users/{user}/{kind}_rates")).await.status().as_u16());
        }
        statuses
    };
    assert_eq!(statuses().await, [403, 403, 403]);
    client.sim.set_token_role("billable_rates_manager");
    assert_eq!(statuses().await, [200, 404, 403], "Jane is not a teammate");
    client.sim.set_token_role("administrator");
    assert_eq!(statuses().await, [200, 200, 200]);
}

#[tokio::test]
async fn token_of_an_archived_or_deleted_owner_gets_401() {
    let client = TestClient::quiet().await;
    client.sim.archive_user(client.sim.token_owner());
    assert_eq!(client.get("/users/me").await.status().as_u16(), 401);
    client.sim.delete_user(client.sim.token_owner());
    assert_eq!(client.get("/users/me").await.status().as_u16(), 401);
}
