//! `rosterd scim`: a process without a Harvest token, with the rights of `roster_scim`.

use serde_json::json;
use url::Url;

use super::{Directory, user};
use crate::cluster::Cluster;
use crate::program::Program;

const ROLES: &str = include_str!("../../../deploy/roles.sql");

/// The URL of a login of this server.
fn url_of(cluster: &Cluster, login: &str) -> String {
    let mut url = Url::parse(cluster.url()).unwrap();
    url.set_username(login).unwrap();
    url.set_password(Some("secret")).unwrap();
    url.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn scim_alone_needs_no_harvest_token_and_only_the_rights_of_its_role() {
    let (mut directory, cluster) = (Directory::new().await, Cluster::new().await);
    cluster.execute(ROLES).await;
    cluster
        .execute(
            "CREATE ROLE daemon LOGIN PASSWORD 'secret' IN ROLE rosterd_writer;
             ALTER ROLE daemon SET role = rosterd_writer;
             CREATE ROLE front LOGIN PASSWORD 'secret' IN ROLE roster_scim;
             CREATE ROLE visitor LOGIN PASSWORD 'secret'",
        )
        .await;
    let mut program = Program::new(&directory.scene.sim, &url_of(&cluster, "daemon"));
    program
        .set("ROSTERD__WRITE__MODE", "on")
        .set("ROSTERD__WRITE__ALLOW", &format!("{}, roles", super::ALL))
        .set("ROSTERD__SCIM__GROUPS", "roles");
    program.call(&["sync"]).await.expect(0);
    let mut holder = program.start();
    holder.until("lease.acquired").await;

    // A file that this process may not read is no obstacle: it reads no credentials.
    directory
        .program
        .set("DATABASE_URL", &url_of(&cluster, "visitor"))
        .set("HARVEST_ACCESS_TOKEN", "")
        .set("HARVEST_ACCESS_TOKEN_FILE", "/nonexistent/harvest-token");
    let refused = directory.program.call(&["scim"]).await;
    assert!(refused.expect(78).sentence().contains("roster_scim"), "{}", refused.sentence());
    directory.program.set("DATABASE_URL", &url_of(&cluster, "front")).set("ROSTERD__SCIM__GROUPS", "roles");
    let mut front = directory.program.start_command(&["scim"]);
    front.until("scim.started").await;

    let created = directory.send("POST", "/Users", user("Nora", "New")).await.expect(201);
    let id = created.id();
    directory.send("POST", "/Users", user("Nora", "New")).await.expect(409);
    directory.patch(&id, "name.familyName", json!("Old")).await.expect(200);
    directory.patch(&id, "displayName", json!("N")).await.expect(200);
    assert_eq!(directory.get("/Users?count=1").await.expect(200).body["itemsPerPage"], 1);
    directory.get("/Users?filter=active%20eq%20true").await.expect(200);
    directory.get("/Users?filter=externalId%20eq%20%22ext-Nora%22").await.expect(200);
    directory.delete(&id).await.expect(204);
    directory.send("POST", "/Users", user("Nora", "New")).await.expect(201);
    let group =
        json!({"schemas": ["x"], "displayName": "Design", "externalId": "g", "members": [{"value": id}]});
    let group = directory.send("POST", "/Groups", group).await.expect(201);
    let path = format!("/Groups/{}", group.id());
    let remove = super::patch("members", json!([]));
    assert!(directory.send("PATCH", &path, remove).await.expect(200).body.get("members").is_none());
    directory.get("/Groups?filter=members.value%20eq%20%227%22").await.expect(200);
    assert_eq!(directory.sent().len(), 7);
    directory.program.call(&["health"]).await.expect(0);
    assert_eq!(directory.program.probe("/readyz").await.0, 404);
    let (status, metrics) = directory.program.probe("/metrics").await;
    assert_eq!(status, 200, "{metrics}");
    for line in ["rosterd_build_info{", "rosterd_scim_requests_total{route=\"Users\",status=\"201\"} 2\n"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(!metrics.contains("rosterd_mirror_rows"), "{metrics}");

    // Without a process that sends, a change is withdrawn after the patience.
    holder.signal("-TERM");
    holder.ended().await;
    front.signal("-TERM");
    assert_eq!(front.ended().await, Some(0));
    directory.program.set("ROSTERD__WRITE__PATIENCE", "1s");
    let mut front = directory.program.start_command(&["scim"]);
    front.until("scim.started").await;
    let late = directory.patch(&id, "name.familyName", json!("Late")).await.expect(503);
    assert!(late.body["detail"].as_str().unwrap().contains("no rosterd process"), "{}", late.body);
    let log = front.log();
    assert!(!log.to_lowercase().contains("nora"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scim_alone_refuses_a_standby_of_the_database() {
    let mut directory = Directory::new().await;
    let mut primary = Cluster::new().await;
    Program::new(&directory.scene.sim, primary.url()).call(&["sync"]).await.expect(0);
    primary.stop().await;
    let standby = primary.copy(true).await;
    directory.program.set("DATABASE_URL", standby.url());
    let refused = directory.program.call(&["scim"]).await;
    assert!(refused.expect(78).sentence().contains("it is a standby"), "{}", refused.sentence());
}

#[tokio::test]
async fn token_command_prints_a_token_and_its_line_and_refuses_other_names() {
    let directory = Directory::new().await;
    let made = directory.program.call(&["scim", "token", "7", "okta", "--read"]).await;
    let printed = made.expect(0).stdout();
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0].len(), 64, "{printed}");
    assert!(lines[1].starts_with("7 okta read sha256:") && !lines[1].contains(lines[0]), "{printed}");
    directory.program.call(&["scim", "token", "7", "a b"]).await.expect(2);
    directory.program.call(&["scim", "token", "-7", "okta"]).await.expect(2);
}
