//! The command-line program.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::TestClient;

#[tokio::test]
async fn oauth_option_prints_the_client_configuration() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_harvest-sim"))
        .args(["--port", "0", "--users", "1", "--assignments", "0"])
        .args(["--oauth", "--token-lifetime", "4s", "--rotate"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut printed = Vec::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let last = line.starts_with("Press Ctrl-C");
            printed.push(line);
            if last {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap();
    let value = |name: &str| {
        printed.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}")).trim()
    };
    let (url, token) = (value("Harvest ID "), value("refresh token "));
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", value("client id ")),
        ("client_secret", value("client secret ")),
        ("refresh_token", token),
    ];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let asked = TestClient::quiet().await.http.post(format!("{url}/api/v2/oauth2/token"));
    let asked = asked.header("User-Agent", "t").header("Content-Type", "application/x-www-form-urlencoded");
    let response = asked.body(body).send().await.unwrap().text().await.unwrap();
    assert!(response.contains(r#""expires_in":4"#), "{response}");
    assert!(!response.contains(token), "the refresh token was rotated");
    program.kill().await.unwrap();
}
