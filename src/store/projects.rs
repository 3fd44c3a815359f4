//! `roster.projects`: names learned from the references inside assignments.

use std::collections::HashMap;

use super::error::ensure_rows;
use super::{Connections, Session, StoreError};
use crate::roster::{AccountId, Field, Project};

/// Those of the projects whose name or code the mirror does not have so; what is not said is kept.
pub(super) async fn news(
    pool: &Connections,
    account: AccountId,
    projects: Vec<Project>,
) -> Result<Vec<Project>, StoreError> {
    let ids: Vec<i64> = projects.iter().map(|project| project.id).collect();
    let rows = sqlx::query!(
        "SELECT id, name, code FROM roster.projects WHERE account_id = $1 AND id = ANY($2)",
        account.0,
        &ids,
    )
    .fetch_all(pool)
    .await?;
    let known: HashMap<i64, (Field<String>, Field<String>)> =
        rows.into_iter().map(|row| (row.id, (row.name.into(), row.code.into()))).collect();
    let news = projects.into_iter().filter_map(|Project { id, name, code }| match known.get(&id) {
        None => Some(Project { id, name, code }),
        Some((old_name, old_code)) => {
            let (name, code) = (name.or_known(old_name), code.or_known(old_code));
            (name != *old_name || code != *old_code).then_some(Project { id, name, code })
        }
    });
    Ok(news.collect())
}

/// Writes names and codes; one project each id.
pub(super) async fn upsert(
    connection: &mut Session,
    account: AccountId,
    projects: &[Project],
) -> Result<(), StoreError> {
    let ids: Vec<i64> = projects.iter().map(|project| project.id).collect();
    let names: Vec<Option<String>> = projects.iter().map(|project| project.name.value().cloned()).collect();
    let codes: Vec<Option<String>> = projects.iter().map(|project| project.code.value().cloned()).collect();
    let written = sqlx::query!(
        "INSERT INTO roster.projects (account_id, id, name, code, seen_at)
         SELECT $1, id, name, code, now()
           FROM UNNEST($2::bigint[], $3::text[], $4::text[]) AS project (id, name, code)
         ON CONFLICT (account_id, id) DO UPDATE SET
                (name, code, seen_at) = (EXCLUDED.name, EXCLUDED.code, EXCLUDED.seen_at)",
        account.0,
        &ids,
        &names as &[Option<String>],
        &codes as &[Option<String>],
    )
    .execute(connection)
    .await?;
    ensure_rows("roster.projects", projects.len(), written.rows_affected())
}
