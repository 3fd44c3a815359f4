//! After `rosterd forget user` no column of the database holds a value of the user, whatever state the user was in, and
//! the outbox still replays to the mirror.
//!
//! Each test puts a canary into every column of every row that belongs to the user, erases the user by the program, and
//! searches all columns of all tables, and PostgreSQL's statistics.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use harvest_sim::{Fault, UserId};
use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;

use crate::mirror::Replay;
use crate::program::Program;
use crate::world::World;

/// Text that nothing else holds.
const CANARY: &str = "zxq";
/// An amount that nothing else holds.
const AMOUNT: &str = "71743.57";

/// Columns that can hold a user's values, by the table and the rows of user `$1` in it; each gets a canary.
const VALUES: [(&str, &str, &str); 8] = [
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
    // A record whose user cannot be read may be this user's.
    ("roster.rejected_records", "user_id = $1 OR user_id IS NULL", "raw"),
    (
        "roster.outbox",
        "aggregatetype = 'user' AND aggregateid = account_id || '/' || $1
         OR $1::text IN (payload -> 'before' ->> 'user_id', payload -> 'after' ->> 'user_id')",
        "payload",
    ),
];

/// Columns of text that never hold a value of a user, by the reason.
const NO_VALUES: [(&str, &str); 10] = [
    (
        "words of rosterd's own",
        "roster.cycles.mode roster.cycles.outcome roster.held_deletions.decision roster.held_deletions.reason \
         roster.held_deletions.resource roster.missed_records.resource roster.outbox.aggregatetype roster.outbox.type \
         roster.rejected_records.resource roster.rejected_records.rosterd_version roster.requests.kind \
         roster.requests.outcome roster.user_assignment_history.type roster.user_history.type \
         roster.watermarks.resource rosterd_internal.migrations.description",
    ),
    ("ids, or a hash", "roster.outbox.aggregateid roster.rejected_records.fingerprint"),
    (
        "sentences that name ids and fields only, as tests/it/canary.rs shows of all of them",
        "roster.accounts.last_error roster.cycles.error roster.rejected_records.error roster.requests.answer",
    ),
    ("the company's name and web address", "roster.accounts.base_uri roster.accounts.name"),
    ("what the token's owner may do, for as long as it is the token's owner", "roster.accounts.access_roles"),
    ("names of projects, which outlive the users on them", "roster.projects.code roster.projects.name"),
    ("a host and a process id", "roster.replicas.name"),
    (
        "logins of operators and readers of this database, not users of Harvest",
        "roster.consumers.name roster.consumers.owner roster.held_deletions.decided_by",
    ),
    ("hashes", "roster.permits.budget rosterd_internal.migrations.checksum"),
    (
        "OAuth2 tokens, sealed; they belong to the account",
        "roster.credentials.ciphertext roster.credentials.nonce roster.credentials.seed_hash",
    ),
];

/// Types that hold no text and no amount.
const HARMLESS: &str =
    "'bigint', 'integer', 'smallint', 'boolean', 'uuid', 'date', 'timestamp with time zone'";

async fn strings(world: &World, query: impl Into<String>) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(query.into())).fetch_all(world.store.pool()).await.unwrap()
}

async fn execute(world: &World, statement: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(statement.into())).execute(world.store.pool()).await.unwrap();
}

/// `schema.table.column` of every table, of all types or without the harmless ones.
async fn columns(world: &World, and: &str) -> BTreeSet<String> {
    let query = format!(
        "SELECT concat_ws('.', table_schema, table_name, column_name)
           FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
          WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema') {and}"
    );
    strings(world, query).await.into_iter().collect()
}

fn holding_values() -> impl Iterator<Item = String> {
    VALUES
        .into_iter()
        .flat_map(|(table, _, names)| names.split_whitespace().map(move |name| format!("{table}.{name}")))
}

/// Puts a canary into each column of each row of the user.
async fn fill(world: &World, user: UserId) {
    for (table, rows, names) in VALUES {
        for name in names.split_whitespace() {
            let (schema, bare) = table.split_once('.').unwrap();
            let kind = strings(
                world,
                format!(
                    "SELECT data_type::text FROM information_schema.columns
                      WHERE (table_schema, table_name, column_name) = ('{schema}', '{bare}', '{name}')"
                ),
            )
            .await;
            let canary = match (name, kind[0].as_str()) {
                ("payload", _) => filled_payload(),
                (_, "text") => format!("'{CANARY} {name}'"),
                (_, "ARRAY") => format!("ARRAY['{CANARY} {name}']"),
                (_, "numeric") => AMOUNT.to_owned(),
                (_, "jsonb") => format!("raw || '{{\"canary\": \"{CANARY}\"}}'"),
                (_, "bytea") => format!("convert_to('{CANARY} ', 'UTF8') || raw"),
                (_, other) => panic!("{table}.{name}: no canary for {other}"),
            };
            let rows = rows.replace("$1::text", &format!("'{user}'")).replace("$1", &user.to_string());
            execute(world, format!("UPDATE {table} SET {name} = {canary} WHERE {rows}")).await;
        }
    }
    execute(world, "ANALYZE").await;
}

/// A payload with a canary in each field that is no id, flag or time of creation.
fn filled_payload() -> String {
    let kept =
        "'user_id', 'project_id', 'is_active', 'is_project_manager', 'use_default_rates', 'created_at'";
    let image = |which: &str| {
        format!(
            "'{which}', CASE jsonb_typeof(payload -> '{which}') WHEN 'object' THEN
                 (SELECT jsonb_object_agg(key, CASE WHEN key IN ({kept}) THEN value ELSE to_jsonb('{CANARY} ' || key) END)
                    FROM jsonb_each(payload -> '{which}')) END"
        )
    };
    let changed = format!(
        "'changed', (SELECT coalesce(jsonb_object_agg(key, jsonb_build_object('from', '{CANARY}', 'to', '{CANARY}')), '{{}}')
                       FROM jsonb_object_keys(payload -> 'changed') AS key WHERE key NOT IN ({kept}))"
    );
    format!("payload || jsonb_build_object({}, {}, {changed})", image("before"), image("after"))
}

/// The columns that hold a canary, and the columns of whose values PostgreSQL's statistics hold one.
async fn holding_canaries(world: &World) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for column in columns(world, "").await {
        let [table, name] =
            column.rsplitn(2, '.').collect::<Vec<_>>().try_into().map(|[a, b]: [&str; 2]| [b, a]).unwrap();
        let text = format!(
            "CASE WHEN pg_typeof(\"{name}\") = 'bytea'::regtype
                  THEN encode(decode(substr(\"{name}\"::text, 3), 'hex'), 'escape') ELSE \"{name}\"::text END"
        );
        let query = format!("SELECT count(*)::text FROM {table} WHERE {text} ~ '{CANARY}|{AMOUNT}'");
        if strings(world, query).await != ["0"] {
            found.insert(column);
        }
    }
    found.extend(
        strings(
            world,
            format!(
                "SELECT concat_ws('.', 'pg_stats', schemaname, tablename, attname) FROM pg_stats
                  WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
                    AND concat(most_common_vals, histogram_bounds, most_common_elems) ~ '{CANARY}|{AMOUNT}'"
            ),
        )
        .await,
    );
    found
}

/// A user with versions, assignments, rates, and rejected records of each list; some tell no user.
async fn known() -> (World, UserId) {
    let mut world = World::new().await;
    let user = world.sim.hire("Quentin", "Quagmire");
    let [project, other] = [0, 1].map(|at| world.sim.project_ids()[at]);
    let place = world.sim.assign(user, project);
    let unclear = world.sim.assign(user, other);
    world.sim.add_billable_rate(user, 917.43, None);
    world.sim.add_cost_rate(user, 817.43, None);
    world.cycle().await;
    histories(&mut world).await;
    world.sim.rename(user, "Quincy", "Quagmire");
    world.sim.edit_assignment(place, |place| (place.budget, place.use_default_rates) = (Some(617.43), false));
    world.cycle().await;

    let nameless = world.sim.hire("Norma", "Nameless");
    let spoil = move |record: &mut Map<String, Value>| {
        if record.get("id") == Some(&json!(nameless.0)) {
            record.insert("id".to_owned(), json!("none"));
        } else if record.get("id") == Some(&json!(unclear.0)) {
            record.insert("user".to_owned(), json!("Quincy Quagmire"));
        } else if [Some(&json!(user.0)), Some(&json!(place.0))].contains(&record.get("id")) {
            record.insert("is_active".to_owned(), json!("maybe"));
        } else if record.contains_key("amount") {
            record.insert("amount".to_owned(), json!("817.43 an hour"));
        }
    };
    world.sim.inject(Fault::edit_records(spoil).on("/user").forever());
    world.full_cycle().await;
    histories(&mut world).await;
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
    (world, user)
}

async fn histories(world: &mut World) {
    world.turn(async |cycle| cycle.histories(None).await).await.outcome.unwrap();
}

/// The user's rows of these tables alone are left; the user is erased, and no canary is.
async fn expect_erased(world: &World, user: UserId, tables: &[&str]) {
    for (table, rows, _) in VALUES.into_iter().filter(|(table, ..)| !tables.contains(table)) {
        let rows = rows.replace("$1::text", &format!("'{user}'")).replace("$1", &user.to_string());
        execute(world, format!("DELETE FROM {table} WHERE {rows}")).await;
    }
    fill(world, user).await;
    let before = holding_canaries(world).await;
    for column in
        holding_values().filter(|column| tables.iter().any(|table| column.starts_with(&format!("{table}."))))
    {
        assert!(before.contains(&column), "{column} has no canary, so this test proves nothing of it");
    }
    if tables.len() > 1 {
        assert!(before.contains("pg_stats.roster.users.email"), "the statistics hold no canary");
    }
    let called =
        Program::new(&world.sim, world.url()).call(&["forget", "user", &user.to_string(), "--yes"]).await;
    called.expect(0);
    assert_eq!(holding_canaries(world).await, BTreeSet::new(), "after {}", called.stdout());
}

fn all_tables() -> Vec<&'static str> {
    VALUES.into_iter().map(|(table, ..)| table).collect()
}

#[tokio::test]
async fn every_column_of_text_or_amounts_is_filled_by_these_tests_or_listed_with_a_reason() {
    let world = World::new().await;
    let mut listed: Vec<String> = holding_values().collect();
    listed.extend(NO_VALUES.into_iter().flat_map(|(_, names)| names.split_whitespace().map(str::to_owned)));
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), once.len(), "a column is listed twice");
    let there = columns(&world, &format!("AND data_type NOT IN ({HARMLESS})")).await;
    let new: Vec<_> = there.difference(&once).collect();
    assert!(new.is_empty(), "new columns: erase them in src/store/forget.rs and list them here: {new:#?}");
    let gone: Vec<_> = once.difference(&there).collect();
    assert!(gone.is_empty(), "no such columns: {gone:#?}");
}

#[tokio::test]
async fn forget_user_erases_a_live_user_from_every_column_and_from_statistics() {
    let (world, user) = known().await;
    expect_erased(&world, user, &all_tables()).await;
}

#[tokio::test]
async fn forget_user_erases_a_user_that_was_deleted_at_harvest() {
    let (mut world, user) = known().await;
    world.pass(TimeDelta::hours(1));
    world.sim.delete_user(user);
    world.full_cycle().await;
    assert!(!world.user(user).await["deleted_at"].is_null());
    let mut tables = all_tables();
    // The full read that found the user gone has dropped the rejections.
    tables.retain(|table| *table != "roster.rejected_records");
    expect_erased(&world, user, &tables).await;
}

#[tokio::test]
async fn forget_user_erases_a_user_whose_deletion_is_held() {
    let (world, user) = known().await;
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
async fn forget_user_erases_what_is_left_when_only_one_table_knows_the_user() {
    for only in all_tables() {
        let (world, user) = known().await;
        expect_erased(&world, user, &[only]).await;
    }
}

/// Ids are unique for each kind of record only.
#[tokio::test]
async fn forget_user_leaves_the_events_of_another_users_assignment_with_the_same_id() {
    let (mut world, user) = known().await;
    let (account, other) = (world.sim.account_id(), world.sim.user_ids()[3]);
    let place = world.sim.assign(other, world.sim.project_ids()[0]);
    world.sim.edit_assignment(place, |place| (place.budget, place.use_default_rates) = (Some(4711.5), false));
    world.cycle().await;
    execute(
        &world,
        format!(
            "UPDATE roster.outbox SET aggregateid = '{account}/{user}'
              WHERE aggregatetype = 'user_assignment' AND aggregateid = '{account}/{place}'"
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

/// An id that nothing knows is no success, but records whose user cannot be read may be the user's.
#[tokio::test]
async fn forget_user_of_an_unknown_id_erases_unreadable_records_and_says_that_it_knows_no_such_user() {
    let (world, _) = known().await;
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

/// A consumer that applies every event from the first on has what the mirror has, before and after values come back.
#[tokio::test]
async fn the_outbox_replays_to_the_mirror_after_each_kind_of_forget() {
    for kind in ["user", "pay", "account"] {
        let (mut world, user) = known().await;
        world.full_cycle().await;
        histories(&mut world).await;
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
        assert_eq!(rows == [0, 0], kind == "account", "{kind}: rows stay, without values");

        // Harvest still has everything, and rosterd stores it again.
        world.fence = crate::world::take_over(&world.store, &world.sim).await;
        world.full_cycle().await;
        histories(&mut world).await;
        world.expect_mirror_equals_source().await;
        world.expect_replay(&mut Replay::of_emptied_events()).await;
        world.pass(TimeDelta::hours(1));
        world.sim.delete_user(user);
        world.full_cycle().await;
        world.expect_replay(&mut Replay::of_emptied_events()).await;
    }
}
