//! `rosterd reconcile`: a list becomes the right requests, a second run changes nothing, and a list that cannot be used
//! sends nothing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use harvest_sim::{Company, Options, UserId};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Called, Program};
use crate::scene::Scene;

const ALL: &str = "create, update, deactivate, reactivate";

/// A company, a program that may write users, and a directory for lists.
struct Office {
    scene: Scene,
    program: Program,
    lists: TempDir,
}

impl Office {
    async fn new() -> Self {
        Self::of(Company::seeded(5, 20, 40)).await
    }

    async fn of(company: Company) -> Self {
        let scene = Scene::of(company, Options { limit: None, ..Options::default() }).await;
        let mut program = scene.program();
        program
            .set("ROSTERD__WRITE__MODE", "on")
            .set("ROSTERD__WRITE__ALLOW", ALL)
            .set("ROSTERD__RATE_LIMIT__REQUESTS", "100000");
        program.call(&["sync"]).await.expect(0);
        Self { scene, program, lists: tempfile::tempdir().unwrap() }
    }

    /// Writes a list; returns its path.
    fn list(&self, name: &str, content: &str) -> String {
        let path = self.lists.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn reconcile(&self, list: &str, arguments: &[&str]) -> Called {
        self.program.call(&[&["reconcile", list], arguments].concat()).await
    }

    fn user(&self, id: UserId) -> Value {
        self.scene.sim.users_json().into_iter().find(|it| it["id"] == id.0).unwrap()
    }

    fn email(&self, id: UserId) -> String {
        self.user(id)["email"].as_str().unwrap().to_owned()
    }

    /// Active users other than the owner of the token.
    fn active(&self) -> Vec<UserId> {
        let owner = self.scene.sim.token_owner();
        let is_active = |id: &UserId| *id != owner && self.user(*id)["is_active"] == true;
        self.scene.sim.user_ids().into_iter().filter(is_active).collect()
    }

    /// The writes that Harvest received, as method and path.
    fn sent(&self) -> Vec<String> {
        self.scene.sent()
    }

    async fn journal(&self) -> i64 {
        self.scene.number("SELECT count(*) FROM roster.writes").await
    }
}

/// A list with a joiner, a leaver, a new name and a rehired user with a new name; and the same as JSON lines.
fn changes(office: &Office) -> (String, String, [UserId; 3]) {
    let [leaver, renamed, back] = [0, 1, 2].map(|at| office.active()[at]);
    office.scene.sim.archive_user(back);
    let [gone, new, again] = [leaver, renamed, back].map(|id| office.email(id).to_uppercase());
    let rows = [
        ("Jo.Iner@Example.com", "Jo", "Iner", None, "+43 1 5550100"),
        (&again, "Again", "", Some(true), ""),
        (&new, "Renamed", "", Some(true), ""),
        (&gone, "Ignored", "", Some(false), ""),
        ("unknown@example.com", "", "", Some(false), ""),
    ];
    let mut csv = "email,first_name,last_name,active,telephone\n".to_owned();
    let mut lines = "\n".to_owned();
    for (email, first, last, active, telephone) in rows {
        let flag = active.map(|active: bool| active.to_string()).unwrap_or_default();
        csv.extend([format!("{email},{first},{last},{flag},{telephone}\n")]);
        let line = json!({
            "email": email, "first_name": first, "last_name": last, "active": active, "telephone": telephone,
        });
        lines.extend([format!("{line}\n")]);
    }
    (csv, lines, [leaver, renamed, back])
}

#[tokio::test(flavor = "multi_thread")]
async fn list_becomes_the_right_requests_in_order_and_a_second_run_changes_nothing() {
    let office = Office::new().await;
    let (csv, lines, [leaver, renamed, back]) = changes(&office);
    let (csv, lines) = (office.list("staff.csv", &csv), office.list("staff.jsonl", &lines));

    let dry = office.reconcile(&csv, &["--dry-run"]).await;
    let plan = dry.expect(1).stdout();
    let expected = [
        format!("user {leaver}: would deactivate, with all assignments"),
        format!("user {renamed}: would change first_name"),
        format!("user {back}: would reactivate, without the former assignments and change first_name"),
        "line 2: would create a user".to_owned(),
    ];
    assert_eq!(plan.lines().take(4).collect::<Vec<_>>(), expected, "{plan}");
    assert!(plan.contains("1 deactivation, 2 updates, 1 reactivation, 1 creation, 1 unchanged, "), "{plan}");
    assert!(!plan.contains('@'), "{plan}");
    let same = office.reconcile(&lines, &["--dry-run"]).await;
    assert_eq!(same.expect(1).stdout(), plan);
    let values = office.reconcile(&csv, &["--dry-run", "--values"]).await.stdout();
    assert!(values.contains("line 2: would create a user (Jo.Iner@Example.com)"), "{values}");
    let document: Value =
        serde_json::from_str(&office.reconcile(&csv, &["--dry-run", "--json"]).await.expect(1).stdout())
            .unwrap();
    assert_eq!(document["planned"].as_array().unwrap().len(), 5);
    assert_eq!(office.journal().await, 0);
    office.scene.sim.expect_no_writes();

    let done = office.reconcile(&csv, &["--yes"]).await;
    assert!(
        !done.expect(0).stdout().contains('@') || !done.stdout().contains("xample.com"),
        "{}",
        done.stdout()
    );
    let mut sent = office.sent();
    assert_eq!(sent[0], format!("PATCH /v2/users/{leaver}"));
    assert_eq!(sent.pop().unwrap(), "POST /v2/users");
    // An update and a reactivation of different users are sent at the same time.
    sent[1..].sort();
    let mut between = [renamed, back, back].map(|id| format!("PATCH /v2/users/{id}"));
    between.sort();
    assert_eq!(sent[1..], between);
    assert_eq!(office.scene.sim.invitations().len(), 1);
    assert_eq!(office.user(leaver)["is_active"], false);
    assert_eq!(office.user(renamed)["first_name"], "Renamed");
    assert_eq!(
        (&office.user(back)["first_name"], &office.user(back)["is_active"]),
        (&json!("Again"), &json!(true))
    );
    office.scene.expect_right().await;
    let actors = "SELECT count(*) FROM roster.writes WHERE actor LIKE 'reconcile:%' AND outcome = 'done'";
    assert_eq!(office.scene.number(actors).await, 5);

    for list in [&csv, &lines] {
        for arguments in [&["--yes"], &["--dry-run"]] {
            let again = office.reconcile(list, arguments).await;
            assert!(again.expect(0).stdout().contains("nothing to do"), "{}", again.stdout());
        }
    }
    assert_eq!(office.journal().await, 5);
    office.scene.sim.expect_no_writes();
}

#[tokio::test(flavor = "multi_thread")]
async fn list_that_cannot_be_used_sends_nothing_and_its_errors_hold_no_values() {
    let office = Office::new().await;
    let [one, two] = [0, 1].map(|at| office.email(office.active()[at]));
    let half = format!("email,active,telephone\n{one},false,\n{two},false,\"123");
    let json_half = format!("{{\"email\":\"{one}\",\"active\":false}}\n{{\"email\":\"{two}\",\"act");
    for (name, content, error) in [
        ("half.csv", half, "line 3: a quotation mark is not closed"),
        ("half.jsonl", json_half, "line 2: is not one complete JSON object"),
        ("cut.csv", format!("email,active\n{one},false\n{two}"), "line 3: has 1 instead of 2 fields"),
        (
            "twice.csv",
            format!("email,active\n{one},false\n{},1\n", one.to_uppercase()),
            "line 3: has the e-mail",
        ),
        ("empty.csv", String::new(), "line 1: the list ends without a user"),
        ("header.csv", "email,active\n".to_owned(), "line 2: the list ends without a user"),
        ("column.csv", format!("email,manager\n{one},x\n"), "line 1: the name of column 2 is unknown"),
        ("headless.csv", format!("{one},false\n"), "line 1: the name of column 1 is unknown"),
        ("active.csv", format!("email,active\n{one},maybe\n"), "line 2: active must be"),
        (
            "new.csv",
            format!("email,active\nnew@example.com,1\n{one},0\n"),
            "line 2: Harvest has no such user",
        ),
    ] {
        let list = office.list(name, &content);
        for arguments in [&["--yes"], &["--dry-run"]] {
            let refused = office.reconcile(&list, arguments).await;
            let sentence = refused.expect(65).sentence();
            assert!(sentence.contains(error), "{name}: {sentence}");
            let shown = format!("{}{}", refused.stdout(), refused.stderr());
            assert!(!shown.contains(&one) && !shown.contains("new@example.com"), "{name}: {shown}");
        }
    }
    office.reconcile("absent.csv", &["--yes"]).await.expect(2);
    assert_eq!(office.journal().await, 0);
    office.scene.sim.expect_no_writes();
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_users_are_deactivated_within_the_scope_and_only_with_the_exact_number() {
    let mut office = Office::new().await;
    let owner = office.scene.sim.token_owner();
    let active = office.active();
    for (at, id) in active.iter().enumerate() {
        let domain = if at == 1 { "guest.example.com" } else { "staff.example.com" };
        office.scene.sim.set_email(*id, &format!("user{at}@{domain}"));
    }
    office.scene.sim.set_email(owner, "owner@staff.example.com");
    office.program.set("ROSTERD__WRITE__PROTECTED", &format!("{}, user3@staff.example.com", active[2]));
    let list = office.list("staff.csv", "email\nuser0@staff.example.com\n");
    office.reconcile(&list, &["--deactivate-missing", "--yes"]).await.expect(2);
    let listed = office.reconcile(&list, &["--scope-domain", "staff.example.com", "--yes"]).await;
    assert!(listed.expect(0).stdout().contains(&format!("only in Harvest: user {}", active[1])));

    let missing = ["--scope-domain", "Staff.Example.com", "--deactivate-missing"];
    let number = active.len() - 4;
    assert!(number > 5, "more than the guard lets pass");
    let wrong = (number - 1).to_string();
    for more in [&[][..], &["--accept-deactivations", &wrong]] {
        let large = office.reconcile(&list, &[&missing[..], more, &["--yes"]].concat()).await;
        let sentence = large.expect(1).sentence();
        assert!(sentence.contains(&format!("--accept-deactivations {number}")), "{sentence}");
        assert!(large.stdout().contains(&format!("skipped user {owner}: owns rosterd's token")));
        for protected in &active[2..4] {
            assert!(
                large.stdout().contains(&format!("skipped user {protected}: is named in write.protected"))
            );
        }
    }
    assert_eq!(office.journal().await, 0);
    office.scene.sim.expect_no_writes();

    let exact = number.to_string();
    let accepted = [&missing[..], &["--accept-deactivations", &exact, "--yes"]].concat();
    office.reconcile(&list, &accepted).await.expect(0);
    assert_eq!(office.sent().len(), number);
    let mut stays = office.active();
    stays.sort();
    let mut expected = active[..4].to_vec();
    expected.sort();
    assert_eq!(stays, expected);
    office.scene.expect_right().await;
    office.reconcile(&list, &accepted).await.expect(0);
    office.scene.sim.expect_no_writes();
}

#[tokio::test(flavor = "multi_thread")]
async fn list_on_stdin_is_carried_out_by_the_running_daemon() {
    let office = Office::new().await;
    let leaver = office.active()[0];
    let mut daemon = office.program.start();
    daemon.until("lease.acquired").await;
    let with_stdin = async |arguments: &[&str], list: String| {
        let mut command = office.program.command(&[&["reconcile", "-"], arguments].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = move || {
            let mut child = command.spawn().unwrap();
            // The command may refuse its arguments before it reads.
            let _ = child.stdin.take().unwrap().write_all(list.as_bytes());
            child.wait_with_output().unwrap()
        };
        Called(tokio::task::spawn_blocking(run).await.unwrap())
    };
    // As PostgreSQL's COPY prints booleans.
    let list = format!("\u{feff}email,active\r\n{},f\r\n", office.email(leaver));
    assert!(with_stdin(&[], list.clone()).await.expect(2).sentence().contains("stdin holds the list"));
    with_stdin(&["--yes"], list.clone()).await.expect(0);
    assert_eq!(office.sent(), [format!("PATCH /v2/users/{leaver}")]);
    let lines = format!("{{\"email\": \"{}\", \"active\": false}}", office.email(leaver));
    for list in [list, lines] {
        assert!(with_stdin(&["--yes"], list).await.expect(0).stdout().contains("nothing to do"));
    }
    with_stdin(&["--yes"], "email,active\n".to_owned()).await.expect(65);
    drop(daemon);
    office.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deactivations_beyond_the_guards_time_are_held_and_asked_again_with_the_number() {
    let mut office = Office::new().await;
    office.program.set("ROSTERD__WRITE__GUARD__AT_LEAST", "1").set("ROSTERD__WRITE__GUARD__FRACTION", "0");
    let list = |at: usize| format!("email,active\n{},no\n", office.email(office.active()[at]));
    let (one, two) = (office.list("one.csv", &list(0)), office.list("two.csv", &list(1)));
    office.reconcile(&one, &["--yes"]).await.expect(0);
    // One at a time passes the command, and not the guard of the lease holder.
    let held = office.reconcile(&two, &["--yes"]).await;
    assert!(held.expect(1).sentence().contains("1 write held"), "{}", held.sentence());
    assert_eq!(office.sent().len(), 1);
    office.reconcile(&two, &["--accept-deactivations", "1", "--yes"]).await.expect(0);
    assert_eq!(office.sent().len(), 1);
    office.scene.expect_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_company_ends_as_the_list_says() {
    let office = Office::of(Company::seeded(7, 2000, 2000)).await;
    let owner = office.scene.sim.token_owner();
    let mut list = "email,first_name,last_name,active\n".to_owned();
    let mut expected = Vec::new();
    for (at, user) in office.scene.sim.users_json().into_iter().enumerate() {
        let (id, is_active) = (user["id"].as_i64().unwrap(), user["is_active"] == true);
        let first = user["first_name"].as_str().unwrap();
        let (first, active) = match at % 20 {
            _ if id == owner.0 => (first, is_active),
            7 if at % 40 == 7 => (first, !is_active),
            7 => (if is_active { "Changed" } else { first }, is_active),
            _ => (first, is_active),
        };
        list.extend([format!("{},\"{first}\",,{active}\n", user["email"].as_str().unwrap())]);
        expected.push((id, first.to_owned(), active));
    }
    for joiner in 0..5 {
        list.extend([format!("joiner{joiner}@example.com,Jo,Iner,true\n")]);
    }
    let list = office.list("staff.csv", &list);
    let plan = office.reconcile(&list, &["--dry-run"]).await.expect(1).stdout();
    assert!(plan.lines().count() > 80, "{plan}");
    office.reconcile(&list, &["--yes"]).await.expect(0);
    let writes = i64::try_from(office.sent().len()).unwrap();
    assert_eq!(office.journal().await, writes);
    assert_eq!(office.scene.sim.invitations().len(), 5);
    let users: BTreeMap<_, _> =
        office.scene.sim.users_json().into_iter().map(|user| (user["id"].as_i64().unwrap(), user)).collect();
    for (id, first, active) in expected {
        let user = &users[&id];
        assert_eq!((user["first_name"].as_str(), user["is_active"].as_bool()), (Some(&*first), Some(active)));
    }
    office.scene.expect_right().await;
    office.reconcile(&list, &["--yes"]).await.expect(0);
    office.scene.sim.expect_no_writes();
}
