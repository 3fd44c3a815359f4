//! `docs/SCIM.md`: its settings start the daemon and `rosterd scim`, its SQL statements run under the roles that it names, and its
//! commands work.

use std::path::Path;

use harvest_sim::Company;
use tokio::process::Command;

use crate::consuming_guide::{MirrorWithRoles, indented_blocks_of};
use crate::program::free_port;

const GUIDE: &str = include_str!("../../docs/SCIM.md");
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The settings of the guide for this command, with files and ports of the test. Returns the address of SCIM.
fn settings(command: &str, account: i64, directory: &Path) -> String {
    let blocks = indented_blocks_of(GUIDE, "toml");
    let block = blocks.iter().find(|block| block.is(command)).unwrap();
    let (listen, tokens) = (format!("127.0.0.1:{}", free_port()), directory.join("tokens"));
    std::fs::write(&tokens, format!("{account} okta write {TOKEN}\n")).unwrap();
    let text = block.text.replace("127.0.0.1:8090", &listen);
    let text = text.replace("/etc/rosterd/scim-tokens", tokens.to_str().unwrap());
    assert!(text.contains(&listen) && text.contains("/tokens"), "{text}");
    std::fs::write(directory.join("rosterd.toml"), text).unwrap();
    listen
}

#[tokio::test(flavor = "multi_thread")]
async fn scim_guide_statements_run_under_their_role_and_the_login_serves_scim() {
    let mut mirror = MirrorWithRoles::new().await;
    let statements = indented_blocks_of(GUIDE, "sql");
    assert!(statements.len() > 2);
    for block in &statements {
        match block.words[0] {
            "owner" => mirror.cluster.execute(&block.text.replace('…', "secret")).await,
            role => {
                let run = mirror.run(role, block.text).await;
                run.unwrap_or_else(|error| panic!("{role}: {error}\n{}", block.text));
                let refused = mirror.run("reader", block.text).await.unwrap_err();
                assert_eq!(
                    refused.as_database_error().unwrap().code().as_deref(),
                    Some("42501"),
                    "{}",
                    block.text
                );
            }
        }
    }
    let files = tempfile::tempdir().unwrap();
    settings("scim", mirror.sim.account_id(), files.path());
    let url = mirror.url("scim_front");
    mirror.program.set("DATABASE_URL", &url).set("HARVEST_ACCESS_TOKEN", "");
    let config = files.path().join("rosterd.toml");
    let mut front = mirror.program.start_command(&["scim", "--config", config.to_str().unwrap()]);
    front.until("scim.started").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scim_guide_settings_and_commands_work() {
    let mirror = MirrorWithRoles::of(Company::seeded(5, 20, 40)).await;
    let (sim, files) = (&mirror.sim, tempfile::tempdir().unwrap());
    let listen = settings("run", sim.account_id(), files.path());
    let config = files.path().join("rosterd.toml");
    let config = ["--config", config.to_str().unwrap()];
    let mut daemon = mirror.program.start_command(&[&["run"], &config[..]].concat());
    daemon.until("cycle.finished").await;

    let owner = sim.token_owner();
    let user = sim.user_ids().into_iter().find(|id| *id != owner).unwrap();
    let has_curl = Command::new("curl").arg("--version").output().await.is_ok();
    let blocks = indented_blocks_of(GUIDE, "console");
    let lines: Vec<_> = blocks.iter().flat_map(|block| block.text.lines()).collect();
    assert!(lines.len() > 4, "{lines:?}");
    let mut printed = String::new();
    for line in lines {
        let line = line.trim();
        if let Some(arguments) = line.strip_prefix("rosterd ") {
            let arguments: Vec<_> = arguments.split(' ').chain(config).collect();
            printed += &mirror.program.call(&arguments).await.expect(0).stdout();
        } else if has_curl {
            assert!(line.starts_with("curl "), "{line}");
            let mut command = Command::new("sh");
            command.args(["-c", line]).env("TOKEN", TOKEN).env("ID", user.to_string());
            command.env("ENDPOINT", format!("http://{listen}/scim/v2/{}", sim.account_id()));
            let output = command.output().await.unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            printed += &String::from_utf8(output.stdout).unwrap();
        } else {
            eprintln!("SKIPPED: {line}");
        }
    }
    assert!(printed.contains("123456 okta write sha256:"), "{printed}");
    assert!(printed.contains("1 token for https://scim.example.com"), "{printed}");
    if has_curl {
        assert!(printed.contains("\"totalResults\":20"), "{printed}");
        assert!(printed.contains("rosterd would send user_deactivate to Harvest"), "{printed}");
        assert!(printed.contains("planned") && printed.contains("scim:okta"), "{printed}");
    }
}
