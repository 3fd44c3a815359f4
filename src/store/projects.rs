//! `roster.projects`: the names and codes that assignments contain.

use std::collections::HashMap;

use super::database::Store;
use super::error::{StoreError, ensure_rows};
use super::tx::AccountTx;
use crate::roster::{AccountId, Field, Project};

impl Store {
    /// Those of the projects whose name or code differs from the mirror's. A missing name or code is not a difference.
    pub(crate) async fn changed_projects(
        &self,
        account: AccountId,
        projects: Vec<Project>,
    ) -> Result<Vec<Project>, StoreError> {
        let ids: Vec<i64> = projects.iter().map(|project| project.id).collect();
        let rows = sqlx::query!(
            "SELECT id, name, code FROM roster.projects WHERE account_id = $1 AND id = ANY($2)",
            account.0,
            &ids,
        )
        .fetch_all(&self.pool)
        .await?;
        let known: HashMap<i64, (Field<String>, Field<String>)> =
            rows.into_iter().map(|row| (row.id, (row.name.into(), row.code.into()))).collect();
        let changed = projects.into_iter().filter_map(|Project { id, name, code }| match known.get(&id) {
            None => Some(Project { id, name, code }),
            Some((old_name, old_code)) => {
                let (name, code) = (name.or_known(old_name), code.or_known(old_code));
                (name != *old_name || code != *old_code).then_some(Project { id, name, code })
            }
        });
        Ok(changed.collect())
    }
}

impl AccountTx {
    /// Writes names and codes. Ids must be unique.
    pub(crate) async fn write_projects(&mut self, projects: &[Project]) -> Result<(), StoreError> {
        if projects.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = projects.iter().map(|project| project.id).collect();
        let names: Vec<Option<String>> =
            projects.iter().map(|project| project.name.value().cloned()).collect();
        let codes: Vec<Option<String>> =
            projects.iter().map(|project| project.code.value().cloned()).collect();
        let written = sqlx::query!(
            "INSERT INTO roster.projects (account_id, id, name, code, seen_at)
             SELECT $1, id, name, code, now()
               FROM UNNEST($2::bigint[], $3::text[], $4::text[]) AS project (id, name, code)
             ON CONFLICT (account_id, id) DO UPDATE SET
                    (name, code, seen_at) = (EXCLUDED.name, EXCLUDED.code, EXCLUDED.seen_at)",
            self.account.0,
            &ids,
            &names as &[Option<String>],
            &codes as &[Option<String>],
        )
        .execute(&mut *self.transaction)
        .await?;
        ensure_rows("roster.projects", projects.len(), written.rows_affected())
    }
}
