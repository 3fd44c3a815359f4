//! rosterd's migrations, and which of them a database has.

use sqlx::migrate::{Migration, Migrator};

use crate::store::error::StoreError;
use crate::store::session::Session;

const TABLE: &str = "rosterd_internal.migrations";

pub(super) fn migrator() -> Migrator {
    configured(sqlx::migrate!("./migrations"))
}

/// Sets the options that are the same for every run.
pub(super) fn configured(mut migrator: Migrator) -> Migrator {
    migrator.dangerous_set_table_name(TABLE);
    // An older rosterd runs on a newer schema of its major version: changes are additions only.
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
}

/// The migrations that the database does not have yet, oldest first.
pub(super) async fn pending<'m>(
    migrator: &'m Migrator,
    connection: &mut Session,
) -> Result<Vec<&'m Migration>, StoreError> {
    let applied = applied(connection).await?;
    let mut pending = Vec::new();
    for migration in migrator.iter() {
        match applied.iter().find(|it| it.version == migration.version) {
            Some(it) if it.checksum != *migration.checksum => return Err(StoreError::OtherSchema),
            Some(_) => {}
            None => pending.push(migration),
        }
    }
    Ok(pending)
}

#[derive(sqlx::FromRow)]
struct Applied {
    version: i64,
    checksum: Vec<u8>,
}

/// The applied migrations, oldest first; empty if the table does not exist.
async fn applied(connection: &mut Session) -> Result<Vec<Applied>, StoreError> {
    let known = sqlx::query!(r#"SELECT to_regclass($1) IS NOT NULL AS "known!""#, TABLE)
        .fetch_one(&mut *connection)
        .await?
        .known;
    if !known {
        return Ok(Vec::new());
    }
    // Not checked at compile time, because the migrator creates the table at the first run.
    let applied = sqlx::query_as(
        "SELECT version, checksum FROM rosterd_internal.migrations WHERE success ORDER BY version",
    );
    Ok(applied.fetch_all(connection).await?)
}
