//! After `rosterd forget user` no column of the database holds a value of the user, for users in every state, and the
//! outbox still replays to the mirror.
//!
//! Each test puts a canary into every column of the user's rows, runs `rosterd forget user`, and searches the database.

mod canaries;

use std::collections::BTreeSet;

use canaries::{columns_with_canaries, insert_canaries};
use chrono::TimeDelta;
use harvest_sim::{Fault, UserId};
use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;

use crate::mirror::Replay;
use crate::program::Program;
use crate::world::World;

/// Text that occurs nowhere else in the database.
const CANARY: &str = "zxq";
/// An amount that occurs nowhere else in the database.
const CANARY_AMOUNT: &str = "71743.57";

/// The columns that can hold a user's values: table, condition for the rows of user `$1`, columns. Each gets a canary.
const COLUMNS_WITH_VALUES: [(&str, &str, &str); 10] = [
    (
        "roster.users",
        "id = $1",
        "access_roles avatar_url calendar_integration_source cost_rate default_hourly_rate email employee_id first_name \
         last_name permissions_claims raw roles telephone timezone",
    ),
    (
        "roster.user_history",
        "id = $1",
        "access_roles calendar_integration_source cost_rate default_hourly_rate email employee_id first_name last_name \
         permissions_claims roles telephone timezone",
    ),
    ("roster.user_assignments", "user_id = $1", "budget hourly_rate raw"),
    ("roster.user_assignment_history", "user_id = $1", "budget hourly_rate"),
    ("roster.billable_rates", "user_id = $1", "amount raw"),
    ("roster.cost_rates", "user_id = $1", "amount raw"),
    ("roster.writes", "user_id = $1", "error wanted"),
    ("roster.scim_links", "record_id = $1", "display_name external_id user_name"),
    // If the user of a record cannot be read, the record may belong to this user.
    ("roster.rejected_records", "user_id = $1 OR user_id IS NULL", "raw"),
    (
        "roster.outbox",
        "aggregatetype = 'user' AND record_id = $1
         OR $1::text IN (payload -> 'before' ->> 'user_id', payload -> 'after' ->> 'user_id')",
        "payload",
    ),
];

/// Text columns that never hold a value of a user, with the reason.
const COLUMNS_WITHOUT_VALUES: [(&str, &str); 16] = [
    (
        "constants of rosterd",
        "roster.cycles.mode roster.cycles.outcome roster.held_deletions.decision roster.held_deletions.reason \
         roster.held_deletions.resource roster.missed_records.resource roster.outbox.aggregatetype roster.outbox.type \
         roster.rejected_records.resource roster.rejected_records.rosterd_version roster.requests.kind \
         roster.requests.outcome roster.scim_links.resource roster.user_assignment_history.event_type roster.user_assignments.event_type \
         roster.user_history.event_type roster.users.event_type roster.watermarks.resource roster.writes.kind \
         roster.webhooks.state roster.webhook_notices.state roster.webhook_skips.type roster.writes.outcome rosterd_internal.migrations.description",
    ),
    ("names of fields", "roster.writes.fields"),
    ("names of job roles, which outlive the users who have them", "roster.roles.name"),
    ("the address of a user to create; tests/it/forget.rs tests its erasure", "roster.writes.email_key"),
    ("ids, or a hash", "roster.outbox.aggregateid roster.rejected_records.fingerprint roster.roles.user_ids"),
    (
        "error texts that name ids and fields only, as tests/it/log_privacy.rs checks",
        "roster.accounts.last_error roster.cycles.error roster.rejected_records.error roster.requests.answer",
    ),
    ("the company's name and web address", "roster.accounts.base_uri roster.accounts.name"),
    ("roles of the token's owner, replaced when the token changes", "roster.accounts.access_roles"),
    ("names of projects, which outlive the users on them", "roster.projects.code roster.projects.name"),
    ("a host and a process id", "roster.replicas.name"),
    (
        "logins of operators and readers of this database, not users of Harvest",
        "roster.consumers.name roster.consumers.owner roster.held_deletions.decided_by roster.webhooks.state_by \
         roster.webhook_skips.skipped_by roster.writes.accepted_by \
         roster.writes.actor",
    ),
    (
        "names of endpoints, and failures from a closed list",
        "roster.webhooks.name roster.webhooks.failure roster.webhook_skips.name roster.webhook_skips.failure \
         roster.webhook_notices.name roster.webhook_notices.failure",
    ),
    (
        "concerns: ids, counts, and names of lists, consumers and endpoints",
        "roster.webhook_notices.concern roster.webhook_notices.data",
    ),
    (
        "reasons of operators; the help asks for texts without names",
        "roster.webhooks.reason roster.webhook_skips.reason",
    ),
    ("hashes", "roster.rate_budgets.name roster.rate_permits.budget rosterd_internal.migrations.checksum"),
    (
        "OAuth2 tokens, sealed; they belong to the account",
        "roster.credentials.ciphertext roster.credentials.nonce roster.credentials.seed_hash",
    ),
];

/// Types that hold neither text nor amounts.
const TYPES_WITHOUT_VALUES: &str =
    "'bigint', 'integer', 'smallint', 'boolean', 'uuid', 'date', 'timestamp with time zone'";

async fn strings(world: &World, query: impl Into<String>) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(query.into())).fetch_all(world.store.pool()).await.unwrap()
}

async fn execute(world: &World, statement: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(statement.into())).execute(world.store.pool()).await.unwrap();
}

/// `schema.table.column` of every table; `condition` restricts the columns.
async fn columns(world: &World, condition: &str) -> BTreeSet<String> {
    let query = format!(
        "SELECT concat_ws('.', table_schema, table_name, column_name)
           FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
          WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema') {condition}"
    );
    strings(world, query).await.into_iter().collect()
}

fn columns_with_values() -> impl Iterator<Item = String> {
    COLUMNS_WITH_VALUES
        .into_iter()
        .flat_map(|(table, _, names)| names.split_whitespace().map(move |name| format!("{table}.{name}")))
}

/// A user with past versions, assignments, rates and rejected records. For some records the user is unknown.
async fn mirrored_user() -> (World, UserId) {
    let mut world = World::new().await;
    let user = world.sim.create_user("Quentin", "Quagmire");
    let [project, other] = [0, 1].map(|index| world.sim.project_ids()[index]);
    let assignment = world.sim.assign(user, project);
    let without_user = world.sim.assign(user, other);
    world.sim.add_billable_rate(user, 917.43, None);
    world.sim.add_cost_rate(user, 817.43, None);
    world.cycle().await;
    read_rates(&mut world).await;
    world.sim.rename(user, "Quincy", "Quagmire");
    world.sim.edit_assignment(assignment, |assignment| {
        (assignment.budget, assignment.use_default_rates) = (Some(617.43), false);
    });
    world.cycle().await;

    let without_id = world.sim.create_user("Norma", "Nameless");
    let make_unreadable = move |record: &mut Map<String, Value>| {
        if record.get("id") == Some(&json!(without_id.0)) {
            record.insert("id".to_owned(), json!("none"));
        } else if record.get("id") == Some(&json!(without_user.0)) {
            record.insert("user".to_owned(), json!("Quincy Quagmire"));
        } else if [Some(&json!(user.0)), Some(&json!(assignment.0))].contains(&record.get("id")) {
            record.insert("is_active".to_owned(), json!("maybe"));
        } else if record.contains_key("amount") {
            record.insert("amount".to_owned(), json!("817.43 an hour"));
        }
    };
    world.sim.inject(Fault::edit_records(make_unreadable).on("/user").forever());
    world.full_cycle().await;
    read_rates(&mut world).await;
    world.sim.clear_faults();
    let rejected = strings(
        &world,
        "SELECT concat_ws(' ', resource, record_id IS NOT NULL, user_id) FROM roster.rejected_records ORDER BY 1",
    )
    .await;
    let expected = [
        format!("billable_rates t {user}"),
        format!("cost_rates t {user}"),
        "user_assignments t".to_owned(),
        format!("user_assignments t {user}"),
        "users f".to_owned(),
        format!("users t {user}"),
    ];
    assert_eq!(rejected, expected);
    let account = world.sim.account_id();
    execute(
        &world,
        format!(
            "SELECT roster.write_ask({account}, 'user_update', {user}, wanted => '{{\"last_name\": \"Quick\"}}');
             INSERT INTO roster.scim_links (account_id, resource, record_id) VALUES ({account}, 'User', {user});
             INSERT INTO roster.writes (account_id, kind, user_id, fields, actor, done_at, outcome, error)
             VALUES ({account}, 'user_delete', {user}, '{{}}', 'cli:ada@ops-1', now(), 'refused', 'it has time entries')"
        ),
    )
    .await;
    (world, user)
}

async fn read_rates(world: &mut World) {
    world.turn(async |cycle| rosterd::sync::rates::read_due(cycle, None).await).await.outcome.unwrap();
}

/// Leaves only the user's rows of these tables, forgets the user, and expects no canary anywhere.
async fn expect_erased(world: &World, user: UserId, tables: &[&str]) {
    for (table, rows, _) in COLUMNS_WITH_VALUES.into_iter().filter(|(table, ..)| !tables.contains(table)) {
        let rows = rows.replace("$1::text", &format!("'{user}'")).replace("$1", &user.to_string());
        execute(world, format!("DELETE FROM {table} WHERE {rows}")).await;
    }
    insert_canaries(world, user).await;
    let before = columns_with_canaries(world).await;
    for column in columns_with_values()
        .filter(|column| tables.iter().any(|table| column.starts_with(&format!("{table}."))))
    {
        assert!(before.contains(&column), "{column} has no canary before the command");
    }
    if tables.len() > 1 {
        assert!(
            before.contains("pg_stats.roster.users.email"),
            "the statistics hold no canary before the command"
        );
    }
    let called =
        Program::new(&world.sim, world.url()).call(&["forget", "user", &user.to_string(), "--yes"]).await;
    called.expect(0);
    assert_eq!(columns_with_canaries(world).await, BTreeSet::new(), "after {}", called.stdout());
}

fn all_tables() -> Vec<&'static str> {
    COLUMNS_WITH_VALUES.into_iter().map(|(table, ..)| table).collect()
}

#[tokio::test]
async fn every_column_of_text_or_amounts_is_filled_by_a_test_or_exempt_with_a_reason() {
    let world = World::new().await;
    let mut listed: Vec<String> = columns_with_values().collect();
    listed.extend(
        COLUMNS_WITHOUT_VALUES.into_iter().flat_map(|(_, names)| names.split_whitespace().map(str::to_owned)),
    );
    let distinct: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), distinct.len(), "a column is listed twice");
    let existing = columns(&world, &format!("AND data_type NOT IN ({TYPES_WITHOUT_VALUES})")).await;
    let new: Vec<_> = existing.difference(&distinct).collect();
    assert!(new.is_empty(), "new columns: erase them in src/store/forget.rs and list them here: {new:#?}");
    let removed: Vec<_> = distinct.difference(&existing).collect();
    assert!(removed.is_empty(), "no such columns: {removed:#?}");
}

#[tokio::test]
async fn forget_user_erases_a_live_user_from_every_column_and_from_statistics() {
    let (world, user) = mirrored_user().await;
    expect_erased(&world, user, &all_tables()).await;
}

#[tokio::test]
async fn forget_user_erases_a_user_that_was_deleted_at_harvest() {
    let (mut world, user) = mirrored_user().await;
    world.pass(TimeDelta::hours(1));
    world.sim.delete_user(user);
    world.full_cycle().await;
    assert!(!world.user(user).await["deleted_at"].is_null());
    let mut tables = all_tables();
    // The full read that deleted the user has cleared the rejections.
    tables.retain(|table| *table != "roster.rejected_records");
    expect_erased(&world, user, &tables).await;
}

#[tokio::test]
async fn forget_user_erases_a_user_whose_deletion_is_held() {
    let (world, user) = mirrored_user().await;
    execute(
        &world,
        format!(
            "INSERT INTO roster.held_deletions (account_id, resource, record_id, found_at, reason)
             VALUES ({}, 'users', {user}, now(), 'guard')",
            world.sim.account_id()
        ),
    )
    .await;
    expect_erased(&world, user, &all_tables()).await;
}

#[tokio::test]
async fn forget_user_erases_the_values_if_only_one_table_knows_the_user() {
    for only in all_tables() {
        let (world, user) = mirrored_user().await;
        expect_erased(&world, user, &[only]).await;
    }
}

/// An id is unique only among records of one kind.
#[tokio::test]
async fn forget_user_leaves_the_events_of_another_users_assignment_with_the_same_id() {
    let (mut world, user) = mirrored_user().await;
    let (account, other) = (world.sim.account_id(), world.sim.user_ids()[3]);
    let assignment = world.sim.assign(other, world.sim.project_ids()[0]);
    world.sim.edit_assignment(assignment, |assignment| {
        (assignment.budget, assignment.use_default_rates) = (Some(4711.5), false);
    });
    world.cycle().await;
    execute(
        &world,
        format!(
            "UPDATE roster.outbox SET record_id = {user}, aggregateid = '{account}/{user}'
              WHERE aggregatetype = 'user_assignment' AND record_id = {assignment}"
        ),
    )
    .await;
    Program::new(&world.sim, world.url())
        .call(&["forget", "user", &user.to_string(), "--yes"])
        .await
        .expect(0);
    let kept =
        strings(&world, "SELECT count(*)::text FROM roster.outbox WHERE payload::text ~ '4711.5'").await;
    assert_ne!(kept, ["0"]);
}

/// Rejected records whose user cannot be read may belong to the unknown user, so the command erases them.
#[tokio::test]
async fn forget_user_of_an_unknown_id_erases_unreadable_records_and_exits_1() {
    let (world, _) = mirrored_user().await;
    let program = Program::new(&world.sim, world.url());
    let called = program.call(&["forget", "user", "1", "--yes"]).await;
    assert!(
        called.expect(1).sentence().contains("no table of all accounts holds values of user 1"),
        "{}",
        called.stderr()
    );
    assert!(called.stdout().contains("2 rejected records whose user cannot be read"), "{}", called.stdout());
    let left =
        strings(&world, "SELECT count(*)::text FROM roster.rejected_records WHERE user_id IS NULL").await;
    assert_eq!(left, ["0"]);
    assert_eq!(program.call(&["forget", "user", "1", "--yes"]).await.expect(1).stdout(), "");
}

/// A consumer that applies every event has the same state as the mirror, before and after rosterd stores values again.
#[tokio::test]
async fn outbox_replays_to_the_mirror_after_each_kind_of_forget() {
    for kind in ["user", "pay", "account"] {
        let (mut world, user) = mirrored_user().await;
        world.full_cycle().await;
        read_rates(&mut world).await;
        world.expect_outbox_replays_to_the_mirror().await;
        let (id, account) = (user.to_string(), world.sim.account_id().to_string());
        let arguments = match kind {
            "user" => vec!["forget", "user", &id, "--yes"],
            "pay" => vec!["forget", "pay", "--yes"],
            _ => vec!["forget", "account", &account, "--yes"],
        };
        Program::new(&world.sim, world.url()).call(&arguments).await.expect(0);
        world.expect_replay(&mut Replay::of_emptied_events()).await;
        let rows = [world.rows("users").await.len(), world.rows("cost_rates").await.len()];
        assert_eq!(rows == [0, 0], kind == "account", "{kind}: only `forget account` removes rows");

        // Harvest still has the values, so the next full read stores them again.
        world.fence = crate::world::take_over(&world.store, &world.sim).await;
        world.full_cycle().await;
        read_rates(&mut world).await;
        world.expect_mirror_equals_source().await;
        world.expect_replay(&mut Replay::of_emptied_events()).await;
        world.pass(TimeDelta::hours(1));
        world.sim.delete_user(user);
        world.full_cycle().await;
        world.expect_replay(&mut Replay::of_emptied_events()).await;
    }
}
