//! No name, e-mail address, pay data or token is in the log, at the highest log level and after any failure.

use harvest_sim::{Company, Fault, Options, Sim};
use serde_json::{Map, Value, json};

use crate::program::{Daemon, Program};
use crate::scene::Scene;

/// Part of each text of a user, of the token, and of all other text that Harvest sends.
const MARK: &str = "zxq";
/// Amounts that are part of no other number.
const PAY: [f64; 6] = [91_743.57, 61_329.37, 73_117.59, 88_817.31, 45_583.73, 37_759.91];
const TOKEN: &str = "2348607.pt.zxq-token-canary";
const SECRET_BODY: &str = r#"{"message":"zxq-body","token":"2348607.pt.zxq-token-canary","rate":91743.57}"#;

/// The highest level for all libraries.
const FILTER: &str = "trace,axum=trace,h2=trace,hyper=trace,reqwest=trace,rustls=trace,sqlx=trace,tokio_rustls=trace,tower=trace";

fn mark_everything(sim: &Sim) {
    for user in sim.user_ids() {
        sim.edit_user_keeping_updated_at(user, |user| {
            user.first_name = format!("Zxqfirst{}", user.id());
            user.last_name = format!("Zxqlast{}", user.id());
            user.email = format!("zxq.mail.{}@zxq.example.com", user.id());
            "+1 555 zxq 0199".clone_into(&mut user.telephone);
            user.roles = vec!["Zxq Engineering".to_owned()];
            "https://cache.example.com/zxq/picture.png".clone_into(&mut user.avatar_url);
            user.default_hourly_rate = Some(PAY[0]);
            user.cost_rate = Some(PAY[1]);
            user.extra.insert("nickname".to_owned(), json!("zxq-nickname"));
        });
        sim.add_billable_rate(user, PAY[4], None);
        sim.add_cost_rate(user, PAY[5], None);
    }
    for project in sim.project_ids() {
        sim.edit_project(project, |project| {
            "Project Zxq".clone_into(&mut project.name);
            project.code = Some("ZXQ-1".to_owned());
            "Zxq Limited".clone_into(&mut project.client_name);
        });
    }
    for assignment in sim.assignment_ids() {
        sim.edit_assignment_keeping_updated_at(assignment, |assignment| {
            (assignment.hourly_rate, assignment.budget) = (Some(PAY[2]), Some(PAY[3]));
        });
    }
}

#[track_caller]
fn expect_no_canary(text: &str, password: &str) {
    let pay = PAY.map(|pay| pay.to_string());
    for line in text.lines() {
        let lower = line.to_ascii_lowercase();
        for canary in pay.iter().map(String::as_str).chain([MARK, password]) {
            assert!(!lower.contains(&canary.to_ascii_lowercase()), "{canary:?} in {line}");
        }
    }
}

struct Fixture {
    scene: Scene,
    program: Program,
    daemon: Daemon,
    password: String,
}

impl Fixture {
    async fn new() -> Self {
        let scene = Scene::of(
            Company::seeded(5, 20, 40).with_token(TOKEN),
            Options { limit: None, ..Options::default() },
        )
        .await;
        mark_everything(&scene.sim);
        let mut program = scene.program();
        program
            .set("RUST_LOG", FILTER)
            .set("ROSTERD__LOG__LEVEL", "trace")
            .set("ROSTERD__HARVEST__USER_AGENT_CONTACT", "zxq-contact@example.com")
            .set("ROSTERD__RATES__HISTORIES", "true")
            .set("ROSTERD__RATE_LIMIT__REQUESTS", "10000")
            // Cycles start by SIGHUP.
            .set("ROSTERD__SYNC__POLL_INTERVAL", "10m");
        let mut daemon = program.start();
        daemon.until("cycle.finished").await;
        let password = url::Url::parse(scene.url()).unwrap().password().unwrap_or("no password").to_owned();
        Self { scene, program, daemon, password }
    }

    /// Starts a cycle and waits for the event.
    async fn cycle_until(&mut self, event: &str) {
        self.daemon.signal("-HUP");
        self.daemon.until(event).await;
    }

    /// Removes the faults and waits for a successful cycle.
    async fn recovers(&mut self) {
        self.scene.sim.clear_faults();
        self.cycle_until("cycle.finished").await;
    }

    fn edit_user(&self) {
        let user = self.scene.sim.user_ids()[7];
        self.scene.sim.edit_user(user, |user| user.telephone.push_str(" zxq"));
    }

    async fn call(&self, arguments: &[&str]) {
        let called = self.program.call(arguments).await;
        assert!(called.stderr().contains("sqlx::query"), "no query is in the log: {}", called.stderr());
        expect_no_canary(&called.stderr(), &self.password);
    }

    /// Harvest sends secrets in each kind of failure.
    async fn fail_harvest(&mut self) {
        let html = format!("<html><title>zxq</title>{SECRET_BODY}</html>");
        let headers =
            [("content-type", "text/html"), ("set-cookie", "session=zxq-cookie"), ("hint", "zxq-hint")];
        for (status, event) in [
            (500, "harvest.retried"),
            (502, "harvest.retried"),
            (200, "cycle.failed"),
            (401, "credentials.refused"),
            (403, "cycle.failed"),
            (404, "cycle.failed"),
            (418, "cycle.failed"),
            (422, "cycle.finished"),
        ] {
            self.scene.answer_once("updated_since", status, &headers, html.clone());
            self.cycle_until(event).await;
            self.recovers().await;
        }
        self.scene.answer_once(
            "updated_since",
            429,
            &[("retry-after", "1"), ("hint", "zxq-hint")],
            SECRET_BODY,
        );
        self.cycle_until("harvest.throttled").await;
        let elsewhere = format!("http://zxq.example.net/v2/users?access_token={TOKEN}");
        self.scene.answer_once("updated_since", 302, &[("location", &elsewhere)], html.clone());
        self.cycle_until("cycle.failed").await;
        self.recovers().await;
        let answers: [(Fault, &str); 5] = [
            (
                Fault::edit_bytes(|body| *body = format!("{{\"users\": [{SECRET_BODY}, zxq").into_bytes()),
                "cycle.failed",
            ),
            (Fault::edit_bytes(|body| *body = format!("[{SECRET_BODY}]").into_bytes()), "cycle.failed"),
            (Fault::edit_body(move |page| page["links"]["next"] = elsewhere.clone().into()), "cycle.failed"),
            (Fault::edit_body(|page| page["total_entries"] = "zxq".into()), "cycle.finished"),
            (Fault::edit_bytes(|body| body.truncate(body.len() / 2)), "cycle.failed"),
        ];
        for (fault, event) in answers {
            self.scene.sim.inject(fault.on("updated_since"));
            self.cycle_until(event).await;
            self.recovers().await;
        }
    }

    /// Harvest sends records with one unreadable field each.
    async fn send_unreadable_records(&mut self) {
        for (field, value) in [
            ("weekly_capacity", json!("zxq")),
            ("default_hourly_rate", json!("91743.57 zxq")),
            ("updated_at", json!("zxq o'clock")),
            ("id", json!("zxq")),
            ("is_active", json!({ "zxq": 91743.57 })),
            ("roles", json!("zxq")),
            ("first_name", json!(91743.57)),
        ] {
            self.edit_user();
            let edit =
                move |record: &mut Map<String, Value>| drop(record.insert(field.to_owned(), value.clone()));
            self.scene.sim.inject(Fault::edit_records(edit).on("/users?updated_since").forever());
            self.cycle_until("record.rejected").await;
            self.recovers().await;
        }
    }

    /// PostgreSQL quotes a row in an error's message and detail, and in a notice.
    async fn fail_database(&mut self) {
        let raise = |level: &str| {
            format!(
                "CREATE OR REPLACE FUNCTION public.quote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF true THEN RAISE {level} 'not %, who costs %', NEW.email, NEW.cost_rate {}; END IF;
                     RETURN NEW;
                 END $$;
                 CREATE OR REPLACE TRIGGER quote BEFORE INSERT OR UPDATE ON roster.users
                     FOR EACH ROW EXECUTE FUNCTION public.quote();",
                if level == "EXCEPTION" { "USING DETAIL = NEW.last_name, HINT = NEW.first_name" } else { "" },
            )
        };
        let (check, no_check) = (
            "ALTER TABLE roster.users ADD CONSTRAINT short CHECK (length(telephone) < 5) NOT VALID",
            "ALTER TABLE roster.users DROP CONSTRAINT short",
        );
        let no_trigger = "DROP TRIGGER quote ON roster.users";
        let unreadable = raise("EXCEPTION").replace("USING", "USING ERRCODE = '22P02',");
        let only_one =
            unreadable.replace("IF true", &format!("IF NEW.id = {}", self.scene.sim.user_ids()[7]));
        for (fault, event, fix) in [
            (check.to_owned(), "cycle.failed", no_check),
            (raise("EXCEPTION"), "cycle.failed", no_trigger),
            (unreadable, "cycle.failed", no_trigger),
            (only_one, "record.rejected", no_trigger),
            (raise("WARNING"), "cycle.finished", no_trigger),
            (raise("LOG"), "cycle.finished", no_trigger),
        ] {
            self.scene.execute(fault).await;
            self.edit_user();
            self.cycle_until(event).await;
            self.scene.execute(fix).await;
            self.recovers().await;
        }
    }

    async fn hold_deletions(&mut self) {
        let owner = self.scene.sim.token_owner();
        for user in self.scene.sim.user_ids().into_iter().filter(|user| *user != owner).take(12) {
            self.scene.sim.delete_user(user);
        }
        self.cycle_until("deletions.held").await;
        self.recovers().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_has_no_name_address_pay_or_token_after_any_failure() {
    let mut fixture = Fixture::new().await;
    let marked = "SELECT count(*) FROM roster.users WHERE first_name LIKE 'Zxq%' AND cost_rate = 37759.91";
    assert_eq!(fixture.scene.number(marked).await, 20, "the canaries should be in the mirror");
    fixture.fail_harvest().await;
    fixture.send_unreadable_records().await;
    fixture.fail_database().await;
    let user = fixture.scene.sim.user_ids()[9].to_string();
    fixture.edit_user();
    fixture.call(&["sync", "--user", &user]).await;
    fixture.hold_deletions().await;
    for arguments in [
        &["sync"][..],
        &["sync", "--dry-run", "--values"],
        &["sync", "--account", "123456", "--full"],
        &["verify", "--values"],
        &["deletions", "list"],
        &["deletions", "list", "--values"],
        &["explain", "user", &format!("zxq.mail.{user}@zxq.example.com")],
        &["deletions", "accept", "--all", "--dry-run"],
        &["deletions", "accept", "--all", "--yes"],
        &["status"],
        &["check"],
    ] {
        fixture.call(arguments).await;
    }
    for path in ["/", "/livez", "/readyz", "/metrics"] {
        expect_no_canary(&fixture.program.probe(path).await.1, &fixture.password);
    }
    fixture.daemon.signal("-TERM");
    assert_eq!(fixture.daemon.ended().await, Some(0));

    let lines = fixture.daemon.rest();
    for line in lines {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(entry["timestamp"].is_string() && entry["level"].is_string(), "{line}");
        assert!(entry["event"].is_string() || entry["target"].is_string(), "no event or target: {line}");
    }
    let log = lines.join("\n");
    expect_no_canary(&log, &fixture.password);
    for target in ["\"target\":\"sqlx", "\"target\":\"hyper"] {
        assert!(log.contains(target), "no line of {target}");
    }
}
