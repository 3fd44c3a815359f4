//! Two conformance suites of others run against the real program: scim2-tester and scim-sanity. The versions are pinned in
//! tests/scim/requirements.txt, and the expected results in tests/scim, each deviation with its reason.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::groups::{expect_right, with_groups};
use super::{Directory, WRITER};

/// Where `.ci/run` and CONTRIBUTING.md install the suites.
const PYTHON: &str = "target/scim/python/bin";
/// A suite that hangs fails.
const LIMIT: Duration = Duration::from_mins(5);

fn suites() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(PYTHON);
    if python.join("scim-sanity").exists() {
        return Some(python);
    }
    assert!(std::env::var_os("ROSTERD_SCIM_SUITES").is_none(), "{} lacks the suites", python.display());
    eprintln!("SKIPPED: the SCIM conformance suites are not installed; see CONTRIBUTING.md");
    None
}

async fn run(program: PathBuf, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT, command.output()).await.expect("the suite should end").unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code(), text.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn scim2_tester_finds_what_is_expected() {
    let Some(python) = suites() else { return };
    let mut directory = Directory::new().await;
    // The suites delete more users than a directory may.
    directory.program.set("ROSTERD__WRITE__GUARD__AT_LEAST", "100000");
    let _daemon = directory.start().await;
    let expected = "tests/scim/expected-users.json";
    let arguments = ["tests/scim/conformance.py", &directory.url(), WRITER, expected];
    let (code, text) = run(python.join("python"), &arguments).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(!directory.sent().is_empty());
    directory.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scim2_tester_finds_what_is_expected_of_users_and_groups() {
    let Some(python) = suites() else { return };
    let mut directory = with_groups().await;
    directory.program.set("ROSTERD__WRITE__GUARD__AT_LEAST", "100000");
    let _daemon = directory.start().await;
    let expected = "tests/scim/expected-groups.json";
    let arguments = ["tests/scim/conformance.py", &directory.url(), WRITER, expected];
    let (code, text) = run(python.join("python"), &arguments).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(!directory.sent().is_empty());
    expect_right(&directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scim_sanity_finds_only_that_unknown_members_are_refused() {
    let Some(python) = suites() else { return };
    let mut directory = with_groups().await;
    directory.program.set("ROSTERD__WRITE__GUARD__AT_LEAST", "100000");
    let _daemon = directory.start().await;
    let url = directory.url();
    let arguments = ["probe", &url, "--token", WRITER, "--strict", "--timeout", "60"];
    let options = ["--json-output", "--i-accept-side-effects"];
    let (code, text) = run(python.join("scim-sanity"), &[&arguments[..], &options].concat()).await;
    assert_eq!(code, Some(1), "{text}");
    let start = text.find('{').expect("a report");
    let mut report = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
    let report = report.next().unwrap().unwrap();
    let results = report["results"].as_array().unwrap();
    let failed: Vec<_> = results.iter().filter(|it| it["status"] == "fail").map(|it| &it["name"]).collect();
    // The suite adds a member that does not exist. Harvest has no such user, so that 200 would not be true.
    assert_eq!(failed, ["PATCH /Groups/{id} add member"], "{text}");
    let summary = &report["summary"];
    assert_eq!((&summary["passed"], &summary["skipped"]), (&json!(27), &json!(3)), "{text}");
    assert!(!directory.sent().is_empty());
    expect_right(&directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scim_sanity_passes_in_strict_mode() {
    let Some(python) = suites() else { return };
    let mut directory = Directory::new().await;
    // The suites delete more users than a directory may.
    directory.program.set("ROSTERD__WRITE__GUARD__AT_LEAST", "100000");
    let _daemon = directory.start().await;
    let url = directory.url();
    let arguments = ["probe", &url, "--token", WRITER, "--strict", "--timeout", "60", "--resource", "User"];
    let options = ["--json-output", "--i-accept-side-effects"];
    let (code, text) = run(python.join("scim-sanity"), &[&arguments[..], &options].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(!directory.sent().is_empty());
    directory.scene.expect_right().await;
}
