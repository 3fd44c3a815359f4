//! Canaries: puts them into every column that can hold a user's values, and finds the columns that hold one.

use std::collections::BTreeSet;

use harvest_sim::UserId;

use super::{CANARY, CANARY_AMOUNT, COLUMNS_WITH_VALUES, columns, execute, strings};
use crate::world::World;

/// Puts a canary into each of the user's columns.
pub async fn insert_canaries(world: &World, user: UserId) {
    for (table, rows, names) in COLUMNS_WITH_VALUES {
        for name in names.split_whitespace() {
            let (schema, bare_table) = table.split_once('.').unwrap();
            let kind = strings(
                world,
                format!(
                    "SELECT data_type::text FROM information_schema.columns
                      WHERE (table_schema, table_name, column_name) = ('{schema}', '{bare_table}', '{name}')"
                ),
            )
            .await;
            let canary = match (name, kind[0].as_str()) {
                ("payload", _) => payload_with_canaries(),
                (_, "text") => format!("'{CANARY} {name}'"),
                (_, "ARRAY") => format!("ARRAY['{CANARY} {name}']"),
                (_, "numeric") => CANARY_AMOUNT.to_owned(),
                (_, "jsonb") => format!("{name} || '{{\"canary\": \"{CANARY}\"}}'"),
                (_, "bytea") => format!("convert_to('{CANARY} ', 'UTF8') || raw"),
                (_, other) => panic!("{table}.{name}: no canary for {other}"),
            };
            let rows = rows.replace("$1::text", &format!("'{user}'")).replace("$1", &user.to_string());
            execute(world, format!("UPDATE {table} SET {name} = {canary} WHERE {rows}")).await;
        }
    }
    execute(world, "ANALYZE").await;
}

/// SQL for a payload with a canary in each field except ids, flags and times of creation.
fn payload_with_canaries() -> String {
    let kept =
        "'user_id', 'project_id', 'is_active', 'is_project_manager', 'use_default_rates', 'created_at'";
    let state = |name: &str| {
        format!(
            "'{name}', CASE jsonb_typeof(payload -> '{name}') WHEN 'object' THEN
                 (SELECT jsonb_object_agg(key, CASE WHEN key IN ({kept}) THEN value ELSE to_jsonb('{CANARY} ' || key) END)
                    FROM jsonb_each(payload -> '{name}')) END"
        )
    };
    let changed = format!(
        "'changed', (SELECT coalesce(jsonb_object_agg(key, jsonb_build_object('from', '{CANARY}', 'to', '{CANARY}')), '{{}}')
                       FROM jsonb_object_keys(payload -> 'changed') AS key WHERE key NOT IN ({kept}))"
    );
    format!("payload || jsonb_build_object({}, {}, {changed})", state("before"), state("after"))
}

/// The columns that hold a canary, and `pg_stats.…` for columns whose statistics hold one.
pub async fn columns_with_canaries(world: &World) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for column in columns(world, "").await {
        let [table, name] =
            column.rsplitn(2, '.').collect::<Vec<_>>().try_into().map(|[a, b]: [&str; 2]| [b, a]).unwrap();
        let text = format!(
            "CASE WHEN pg_typeof(\"{name}\") = 'bytea'::regtype
                  THEN encode(decode(substr(\"{name}\"::text, 3), 'hex'), 'escape') ELSE \"{name}\"::text END"
        );
        let query = format!("SELECT count(*)::text FROM {table} WHERE {text} ~ '{CANARY}|{CANARY_AMOUNT}'");
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
                    AND concat(most_common_vals, histogram_bounds, most_common_elems) ~ '{CANARY}|{CANARY_AMOUNT}'"
            ),
        )
        .await,
    );
    found
}
