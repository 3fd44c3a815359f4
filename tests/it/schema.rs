//! Names in the database that readers and consumers rely on. Within a major version rosterd only adds names.
//! `schema.snap` lists the present ones.

use std::collections::BTreeSet;
use std::fs;

use sqlx::{Connection, PgConnection};

use crate::database::TestDatabase;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schema.snap");

/// One line per object, with everything that a statement may rely on. Columns of a view have a position, because new
/// ones must be the last.
const QUERY: &str = r"
    WITH class AS (
        SELECT pg_class.oid, format('%s.%s', nspname, relname) AS name,
               CASE relkind WHEN 'v' THEN 'view' ELSE 'table' END AS kind
          FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
         WHERE nspname IN ('roster', 'directory') AND relkind IN ('r', 'p', 'v', 'm')
    )
    SELECT format('%s %s', kind, name) FROM class
    UNION ALL
    SELECT concat_ws(' ', 'column', name || '.' || attname, CASE kind WHEN 'view' THEN '#' || attnum END,
                     format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'not null' END)
      FROM class JOIN pg_attribute ON attrelid = oid WHERE attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT concat_ws(' ', 'key', name, pg_get_constraintdef(pg_constraint.oid))
      FROM class JOIN pg_constraint ON conrelid = class.oid WHERE contype IN ('p', 'u')
    UNION ALL
    SELECT format('function %s.%s(%s) returns %s', nspname, proname, pg_get_function_arguments(pg_proc.oid),
                  pg_get_function_result(pg_proc.oid))
      FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
     WHERE nspname IN ('roster', 'directory') AND prorettype <> 'trigger'::regtype
    UNION ALL
    SELECT format('type %s.%s %s', nspname, typname, coalesce(format_type(nullif(typbasetype, 0), typtypmod),
                  (SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = pg_type.oid)))
      FROM pg_type JOIN pg_namespace AS space ON space.oid = typnamespace
     WHERE nspname IN ('roster', 'directory') AND typtype IN ('d', 'e')";

#[tokio::test]
async fn schema_equals_its_snapshot() {
    let database = TestDatabase::new().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let live: Vec<String> = sqlx::query_scalar(QUERY).fetch_all(&mut connection).await.unwrap();
    let live: BTreeSet<&str> = live.iter().map(String::as_str).collect();
    let snapshot = fs::read_to_string(SNAPSHOT).unwrap_or_default();
    let snapshot: BTreeSet<&str> = snapshot.lines().collect();
    let absent: Vec<_> = snapshot.difference(&live).collect();
    assert!(
        absent.is_empty(),
        "these changes break statements of readers and consumers: add new objects instead, and keep the old ones until \
         the next major version (migrations/README.md)\n{absent:#?}"
    );
    let new: Vec<_> = live.difference(&snapshot).collect();
    if !new.is_empty() && std::env::var_os("UPDATE_SCHEMA").is_some() {
        let lines: Vec<_> = live.iter().copied().collect();
        fs::write(SNAPSHOT, lines.join("\n") + "\n").unwrap();
        return;
    }
    assert!(
        new.is_empty(),
        "new objects, which cannot change after the next release: check their names, then update the snapshot with \
         `UPDATE_SCHEMA=1 cargo test --test it schema::`\n{new:#?}"
    );
}
