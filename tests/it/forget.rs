//! `rosterd forget` for a user, all pay data or an account: no erased value remains, and other data stays consistent.

use harvest_sim::{Fault, UserId};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::mirror::Replay;
use crate::program::Program;
use crate::world::{World, take_over};

/// Every row of every table, as text.
async fn dump(world: &World) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('roster', 'directory')",
    )
    .fetch_all(world.store.pool())
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    let mut dump = String::new();
    for table in tables {
        let rows = format!("SELECT replace(t::text, '\"\"', '\"') FROM {table} AS t");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(world.store.pool()).await.unwrap();
        dump += &rows.join("\n");
        if table == "roster.rejected_records" {
            let raw: Vec<String> =
                sqlx::query_scalar("SELECT encode(raw, 'escape') FROM roster.rejected_records")
                    .fetch_all(world.store.pool())
                    .await
                    .unwrap();
            dump += &raw.join("\n");
        }
    }
    dump
}

/// A user with past versions, an assignment and rates; the latest records of user and assignment are rejected.
async fn mirrored_user() -> (World, UserId) {
    let mut world = World::new().await;
    let user = world.sim.create_user("Quentin", "Quagmire");
    let assignment = world.sim.assign(user, world.sim.project_ids()[0]);
    world.sim.set_email(user, "quag@example.com");
    world.sim.edit_assignment(assignment, |assignment| {
        (assignment.hourly_rate, assignment.budget, assignment.use_default_rates) =
            (Some(717.43), Some(617.43), false);
    });
    world.sim.add_billable_rate(user, 917.43, None);
    world.sim.add_cost_rate(user, 817.43, None);
    world.cycle().await;
    world.turn(async |cycle| rosterd::sync::rates::read_due(cycle, None).await).await;
    world.sim.rename(user, "Quincy", "Quagmire");
    world.cycle().await;
    let make_unreadable = move |record: &mut serde_json::Map<String, Value>| {
        let owner = record.get("user").and_then(|user| user.get("id")).or_else(|| record.get("id"));
        if owner == Some(&json!(user.0)) {
            record.insert("is_active".to_owned(), json!("maybe"));
        }
    };
    world.sim.inject(Fault::edit_records(make_unreadable).on("/user").forever());
    world.full_cycle().await;
    world.sim.clear_faults();
    assert_eq!(world.count("rejected_records").await, 2);
    (world, user)
}

const PAY_VALUES: [&str; 4] = ["917.43", "817.43", "717.43", "617.43"];
const USER_VALUES: [&str; 5] = ["Quentin", "Quincy", "Quagmire", "quag@example.com", "maybe"];

async fn expect_absent(world: &World, canaries: &[&str]) {
    let dump = dump(world).await;
    for canary in canaries {
        assert!(!dump.contains(canary), "{canary} is still in the database");
    }
}

async fn expect_present(world: &World, canaries: &[&str]) {
    let dump = dump(world).await;
    for canary in canaries {
        assert!(dump.contains(canary), "{canary} is not in the database");
    }
}

#[tokio::test]
async fn forget_user_removes_all_values_until_a_full_read_stores_them_again() {
    let (mut world, user) = mirrored_user().await;
    expect_present(&world, &[&USER_VALUES[..], &PAY_VALUES].concat()).await;
    let others = world.rows("users").await.len();
    let program = Program::new(&world.sim, world.url());
    let called = program.call(&["forget", "user", &user.to_string(), "--yes"]).await;
    assert!(called.expect(0).sentence().contains("Harvest still has this user"), "{}", called.stderr());
    expect_absent(&world, &[&USER_VALUES[..], &PAY_VALUES].concat()).await;
    assert_eq!(world.rows("users").await.len(), others, "the row was deleted");
    assert!(world.user(user).await["is_active"].as_bool().unwrap());

    // Harvest still has the user, so the next full read stores the values again, with an event.
    world.news().await;
    world.full_cycle().await;
    world.expect_mirror_equals_source().await;
    let news = world.news().await;
    assert!(news.iter().any(|event| event.r#type == "user.updated" && event.payload["id"] == user.0));

    world.pass(chrono::TimeDelta::hours(1));
    world.sim.delete_user(user);
    world.full_cycle().await;
    let called = program.call(&["forget", "user", &user.to_string(), "--yes"]).await;
    assert_eq!(called.expect(0).sentence(), "", "a warning although Harvest deleted the user");
    world.full_cycle().await;
    expect_absent(&world, &[&USER_VALUES[..], &PAY_VALUES].concat()).await;
    assert!(!world.user(user).await["deleted_at"].is_null());
    program.call(&["forget", "user", "1", "--yes"]).await.expect(1);
}

/// Harvest hides the user but shows the user's assignments.
#[tokio::test]
async fn forget_user_without_a_row_erases_the_users_assignments() {
    let mut world = World::new().await;
    let user = world.sim.create_user("Quentin", "Quagmire");
    let assignment = world.sim.assign(user, world.sim.project_ids()[0]);
    world.sim.edit_assignment(assignment, |assignment| assignment.budget = Some(617.43));
    world.sim.inject(Fault::hide_records([user.0]).forever());
    world.sim.inject(Fault::html(403).on(format!("/users/{user}")).forever());
    world.cycle().await;
    assert!(!world.rows("users").await.contains_key(&user.0));
    expect_present(&world, &["Quagmire", "617.43"]).await;
    let called =
        Program::new(&world.sim, world.url()).call(&["forget", "user", &user.to_string(), "--yes"]).await;
    called.expect(0);
    expect_absent(&world, &["Quentin", "Quagmire", "617.43"]).await;
}

#[tokio::test]
async fn forget_pay_removes_pay_data_and_a_sync_without_rates_stores_none() {
    let (mut world, user) = mirrored_user().await;
    expect_present(&world, &PAY_VALUES).await;
    let mut program = Program::new(&world.sim, world.url());
    program.set("ROSTERD__RATES__MIRROR", "false");
    program.call(&["sync"]).await.expect(78);
    program.call(&["forget", "pay", "--yes"]).await.expect(0);
    expect_absent(&world, &PAY_VALUES).await;
    expect_present(&world, &USER_VALUES[..4]).await;
    world.sim.set_rate(user, Some(917.43));
    program.call(&["sync", "--full"]).await.expect(0);
    expect_absent(&world, &PAY_VALUES).await;

    // With `rates.mirror` on, a full read stores pay data again.
    world.fence = take_over(&world.store, &world.sim).await;
    world.full_cycle().await;
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn forget_account_removes_all_rows_and_keeps_event_numbers() {
    let (world, _) = mirrored_user().await;
    let head = world.count("outbox").await;
    let mut program = Program::new(&world.sim, world.url());
    let account = world.sim.account_id().to_string();
    let mut daemon = program.start();
    daemon.until("lease.acquired").await;
    let called = program.call(&["forget", "account", &account, "--yes"]).await;
    assert!(
        called.expect(75).sentence().contains("remove the account from its settings"),
        "{}",
        called.stderr()
    );
    daemon.signal("-TERM");
    daemon.ended().await;
    assert!(world.count("outbox").await >= head);
    program.set("HARVEST_ACCOUNT_ID", "").set("HARVEST_ACCESS_TOKEN", "");
    program.call(&["forget", "account", &account, "--yes"]).await.expect(0);
    expect_absent(&world, &[&USER_VALUES[..], &PAY_VALUES].concat()).await;
    for table in
        ["users", "user_assignments", "projects", "accounts", "watermarks", "cycles", "rejected_records"]
    {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    let gaps: i64 = sqlx::query_scalar("SELECT max(seq) - count(*) FROM roster.outbox")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(gaps, 0);
    program.call(&["forget", "account", &account, "--yes"]).await.expect(1);

    // If the account is configured again, its versions continue.
    Program::new(&world.sim, world.url()).call(&["sync"]).await.expect(0);
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn new_stream_has_a_new_id_and_starts_a_full_read() {
    let mut world = World::new().await;
    world.cycle().await;
    let old_stream = world.news().await[0].payload["stream_id"].clone();
    let called = Program::new(&world.sim, world.url()).call(&["outbox", "new-stream", "--yes"]).await;
    let output = called.expect(0).stdout();
    let report = world.cycle().await;
    assert_eq!(report.mode, rosterd::sync::report::CycleMode::Full);
    world.sim.rename(world.sim.user_ids()[0], "Xena", "New");
    world.cycle().await;
    let event = world.only_event().await;
    assert_ne!(event.payload["stream_id"], old_stream);
    assert!(output.contains(event.payload["stream_id"].as_str().unwrap()), "{output}");
    world.expect_outbox_replays_to_the_mirror().await;
}

/// The assignment's state before the move is the erased user's; after it, the other user's.
#[tokio::test]
async fn forget_user_leaves_the_other_users_state_of_a_moved_assignment_and_the_outbox_replays() {
    let mut world = World::new().await;
    let [user, other] = [3, 4].map(|index| world.sim.user_ids()[index]);
    let assignment = world.sim.assign(user, world.sim.project_ids()[0]);
    for (owner, budget) in [(user, 617.43), (other, 718.54), (other, 819.65)] {
        world.sim.edit_assignment(assignment, |assignment| {
            (assignment.user, assignment.budget, assignment.use_default_rates) = (owner, Some(budget), false);
        });
        world.cycle().await;
    }
    Program::new(&world.sim, world.url())
        .call(&["forget", "user", &user.to_string(), "--yes"])
        .await
        .expect(0);
    let left = dump(&world).await;
    assert!(!left.contains("617.43") && left.contains("718.54") && left.contains("819.65"));
    world.expect_replay(&mut Replay::of_emptied_events()).await;
}

/// The open writes of a user, also the one that would create the user, are withdrawn; those of other users stay.
#[tokio::test]
async fn forget_user_withdraws_the_open_writes_of_the_user_and_erases_their_values() {
    let mut world = World::new().await;
    let user = world.sim.create_user("Quentin", "Quagmire");
    world.sim.set_email(user, "quag@example.com");
    world.cycle().await;
    world.sim.set_email(user, "quincy@example.com");
    world.cycle().await;
    let (account, other) = (world.sim.account_id(), world.sim.user_ids()[0]);
    let creation = |email: &str, name: &str| {
        format!(
            r#"SELECT roster.write_ask({account}, 'user_create', wanted => '{{"email": "{email}", "last_name": "{name}"}}')"#
        )
    };
    for statement in [
        creation("Quag@example.com", "Quagmire"),
        creation("QUINCY@example.com", "Quagmire"),
        creation("stays@example.com", "Stays"),
        format!(
            r#"SELECT roster.write_ask({account}, 'user_update', {user}, wanted => '{{"last_name": "Quick"}}')"#
        ),
        format!(
            r#"SELECT roster.write_ask({account}, 'user_update', {other}, wanted => '{{"last_name": "Kept"}}')"#
        ),
        format!("SELECT roster.write_ask({account}, 'user_deactivate', {user})"),
        "UPDATE roster.writes SET sent_at = now(), error = 'quag@example.com' WHERE kind = 'user_deactivate'"
            .to_owned(),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(world.store.pool()).await.unwrap();
    }
    let program = Program::new(&world.sim, world.url());
    let user = user.to_string();
    let preview = program.call(&["forget", "user", &user, "--dry-run"]).await.expect(0).stdout();
    assert!(preview.contains("4 writes"), "{preview}");
    program.call(&["forget", "user", &user, "--yes"]).await.expect(0);
    expect_absent(&world, &["Quag", "quag@", "quincy@", "QUINCY@", "Quick"]).await;
    let journal: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', kind, coalesce(outcome, email_key, wanted ->> 'last_name')) FROM roster.writes ORDER BY 1",
    )
    .fetch_all(world.store.pool())
    .await
    .unwrap();
    let expected = [
        "user_create stays@example.com",
        "user_create withdrawn",
        "user_create withdrawn",
        "user_deactivate lost",
        "user_update Kept",
        "user_update withdrawn",
    ];
    assert_eq!(journal, expected);
    // A second run finds nothing in the journal.
    let again = program.call(&["forget", "user", &user, "--dry-run"]).await;
    assert!(!again.stdout().contains("write"), "{}", again.stdout());
}

#[tokio::test]
async fn forget_pay_ends_writes_with_pay_data_and_forget_account_deletes_the_accounts_writes() {
    let mut world = World::new().await;
    world.cycle().await;
    let (account, user) = (world.sim.account_id(), world.sim.user_ids()[0]);
    for statement in [
        format!(
            r#"SELECT roster.write_ask({account}, 'assignment_add', {user}, 1,
                                       wanted => '{{"hourly_rate": 917.43, "use_default_rates": false}}')"#
        ),
        format!(r#"SELECT roster.write_ask({account}, 'assignment_add', {user}, 2, wanted => '{{"budget": 817.43}}')"#),
        "UPDATE roster.writes SET sent_at = now() WHERE project_id = 2".to_owned(),
        format!(
            "INSERT INTO roster.writes (account_id, kind, user_id, project_id, fields, actor, done_at, outcome, error)
             VALUES ({account}, 'assignment_add', {user}, 3, '{{budget}}', 'cli:ada@ops-1', now(), 'refused', '617.43?')"
        ),
        format!("SELECT roster.write_ask({account}, 'user_deactivate', {user})"),
        format!("INSERT INTO roster.accounts (account_id, epoch) VALUES ({account} + 1, 1)"),
        format!("SELECT roster.write_ask({account} + 1, 'user_deactivate', {user})"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(world.store.pool()).await.unwrap();
    }
    let program = Program::new(&world.sim, world.url());
    let erased = program.call(&["forget", "pay", "--yes"]).await.expect(0).stdout();
    assert!(erased.contains("3 writes"), "{erased}");
    expect_absent(&world, &["917.43", "817.43", "617.43"]).await;
    let states = "SELECT concat_ws(' ', project_id, coalesce(outcome, 'open')) FROM roster.writes ORDER BY 1";
    let journal: Vec<String> = sqlx::query_scalar(states).fetch_all(world.store.pool()).await.unwrap();
    assert_eq!(journal, ["1 withdrawn", "2 lost", "3 refused", "open", "open"]);

    let erased = program.call(&["forget", "account", &account.to_string(), "--yes"]).await.expect(0).stdout();
    assert!(erased.contains("4 writes"), "{erased}");
    let left: Vec<i64> = sqlx::query_scalar("SELECT account_id FROM roster.writes")
        .fetch_all(world.store.pool())
        .await
        .unwrap();
    assert_eq!(left, [account + 1]);
}
