//! Absent records: live rows that a full read did not list, `roster.held_deletions`, and `roster.missed_records` (first
//! 404s).

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use serde::Serialize;

use super::database::Store;
use super::error::StoreError;
use super::tx::AccountTx;
use crate::roster::{AbsentRecord, AbsentState, AccountId, HoldReason, IdSet, Resource};

/// An administrator's decision about held deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Accepted,
    /// The rows stay.
    Rejected,
}

impl Decision {
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// Which held deletions; all of them by default.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub account: Option<i64>,
    pub records: Option<(Resource, Vec<i64>)>,
}

impl Selection {
    fn resource(&self) -> Option<&'static str> {
        self.records.as_ref().map(|(resource, _)| resource.name())
    }

    fn ids(&self) -> &[i64] {
        self.records.as_ref().map_or(&[], |(_, ids)| ids)
    }
}

/// A held deletion for review. No `Debug`, because it holds a name.
#[derive(Clone, Serialize)]
// The fields are the columns, which have comments in the migrations.
pub struct HeldDeletion {
    pub account_id: i64,
    pub resource: String,
    pub record_id: i64,
    pub found_at: DateTime<Utc>,
    pub reason: String,
    pub decision: Option<String>,
    pub decided_at: Option<DateTime<Utc>>,
    pub decided_by: Option<String>,
    /// The user's name, and for an assignment the project's name.
    #[serde(skip)]
    pub name: Option<String>,
}

impl HeldDeletion {
    pub fn key(&self) -> (i64, &str, i64) {
        (self.account_id, &self.resource, self.record_id)
    }
}

impl Store {
    /// Ids of the live rows that are not in `seen`.
    pub(crate) async fn unseen_ids(
        &self,
        account: AccountId,
        resource: Resource,
        seen: &IdSet,
    ) -> Result<Vec<i64>, StoreError> {
        // Row by row, because the list may be long and `seen` nearly always contains all of it.
        let unseen = |id: i64| async move { Ok((!seen.contains(id)).then_some(id)) };
        Ok(match resource {
            Resource::Users => {
                let sql = sqlx::query_scalar!(
                    "SELECT id FROM roster.users WHERE account_id = $1 AND deleted_at IS NULL",
                    account.0
                );
                sql.fetch(&self.pool).try_filter_map(unseen).try_collect().await?
            }
            Resource::Assignments => {
                let sql = sqlx::query_scalar!(
                    "SELECT id FROM roster.user_assignments WHERE account_id = $1 AND deleted_at IS NULL",
                    account.0
                );
                sql.fetch(&self.pool).try_filter_map(unseen).try_collect().await?
            }
            Resource::BillableRates | Resource::CostRates => Vec::new(),
        })
    }

    /// The [live rows that are not in `seen`](Self::unseen_ids) as [candidates](Self::candidates).
    pub(crate) async fn absent_records(
        &self,
        account: AccountId,
        resource: Resource,
        seen: &IdSet,
        again_after: TimeDelta,
    ) -> Result<Vec<AbsentRecord>, StoreError> {
        let ids = self.unseen_ids(account, resource, seen).await?;
        self.candidates(account, resource, &ids, again_after).await
    }

    /// The number of projects that have live assignments.
    pub(crate) async fn live_projects(&self, account: AccountId) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM roster.projects AS project
                WHERE account_id = $1
                  AND EXISTS (SELECT FROM roster.user_assignments AS row
                               WHERE row.account_id = $1 AND row.project_id = project.id AND row.deleted_at IS NULL)"#,
            account.0,
        );
        Ok(count.fetch_one(&self.pool).await?.unsigned_abs())
    }

    pub(crate) async fn assignments_of(&self, account: AccountId, user: i64) -> Result<Vec<i64>, StoreError> {
        let ids = sqlx::query_scalar!(
            "SELECT id FROM roster.user_assignments
              WHERE account_id = $1 AND user_id = $2 AND deleted_at IS NULL",
            account.0,
            user,
        );
        Ok(ids.fetch_all(&self.pool).await?)
    }

    /// Those of these records that are live, with the state of their absence. `again_after`: how long after its first
    /// 404 a recently created record's second 404 counts.
    pub(crate) async fn candidates(
        &self,
        account: AccountId,
        resource: Resource,
        ids: &[i64],
        again_after: TimeDelta,
    ) -> Result<Vec<AbsentRecord>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query!(
            r#"WITH live AS (
                   SELECT 'users' AS resource, account_id, id, created_at, NULL::bigint AS user_id,
                          NULL::bigint AS project_id
                     FROM roster.users WHERE deleted_at IS NULL
                   UNION ALL
                   SELECT 'user_assignments', account_id, id, created_at, user_id, project_id
                     FROM roster.user_assignments WHERE deleted_at IS NULL
                   UNION ALL
                   SELECT 'billable_rates', account_id, id, created_at, user_id, NULL
                     FROM roster.billable_rates WHERE deleted_at IS NULL
                   UNION ALL
                   SELECT 'cost_rates', account_id, id, created_at, user_id, NULL
                     FROM roster.cost_rates WHERE deleted_at IS NULL
               )
               SELECT live.id AS "id!", live.created_at, live.user_id, live.project_id,
                      owner.deleted_at IS NOT NULL AS "user_is_gone!",
                      held.reason AS "reason?", held.decision,
                      missed.missed_at <= now() - make_interval(secs => $4) AS due
                 FROM live
                 LEFT JOIN roster.users AS owner
                   ON (owner.account_id, owner.id) = (live.account_id, live.user_id)
                 LEFT JOIN roster.held_deletions AS held
                   ON (held.account_id, held.resource, held.record_id) = (live.account_id, live.resource, live.id)
                 LEFT JOIN roster.missed_records AS missed
                   ON (missed.account_id, missed.resource, missed.record_id) = (live.account_id, live.resource, live.id)
                WHERE live.account_id = $1 AND live.resource = $2 AND live.id = ANY($3)
                ORDER BY live.id"#,
            account.0,
            resource.name(),
            ids,
            again_after.as_seconds_f64(),
        )
        .fetch_all(&self.pool)
        .await?;
        let absent = rows.into_iter().map(|row| AbsentRecord {
            id: row.id,
            created_at: row.created_at,
            user_id: row.user_id,
            project_id: row.project_id,
            user_is_gone: row.user_is_gone,
            state: match (row.decision.as_deref(), row.reason) {
                (Some("accepted"), _) => AbsentState::Accepted,
                (Some(_), _) => AbsentState::Kept,
                (None, Some(reason)) => AbsentState::Held(HoldReason::of_name(&reason)),
                (None, None) => AbsentState::Undecided,
            },
            first_404_is_old: row.due,
        });
        Ok(absent.collect())
    }

    /// Records to look up by id without another full read: those whose deletion was accepted, and recently created ones
    /// whose second 404 is due.
    pub(crate) async fn due_candidates(
        &self,
        account: AccountId,
        again_after: TimeDelta,
    ) -> Result<HashMap<Resource, Vec<AbsentRecord>>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT resource AS "resource!", record_id AS "record_id!" FROM roster.held_deletions
                WHERE account_id = $1 AND decision = 'accepted'
               UNION
               SELECT resource, record_id FROM roster.missed_records AS missed
                WHERE account_id = $1 AND missed_at <= now() - make_interval(secs => $2)
                  AND NOT EXISTS (SELECT FROM roster.held_deletions AS held
                                   WHERE (held.account_id, held.resource, held.record_id) =
                                         (missed.account_id, missed.resource, missed.record_id))"#,
            account.0,
            again_after.as_seconds_f64(),
        )
        .fetch_all(&self.pool)
        .await?;
        let mut ids: HashMap<Resource, Vec<i64>> = HashMap::new();
        for row in rows {
            if let Some(resource) = Resource::LISTS.into_iter().find(|list| list.name() == row.resource) {
                ids.entry(resource).or_default().push(row.record_id);
            }
        }
        let mut due = HashMap::new();
        for (resource, ids) in ids {
            due.insert(resource, self.candidates(account, resource, &ids, again_after).await?);
        }
        Ok(due)
    }

    /// Held deletions, with the names of the users.
    pub async fn held_deletions(&self, of: &Selection) -> Result<Vec<HeldDeletion>, StoreError> {
        let held = sqlx::query_as!(
            HeldDeletion,
            r#"SELECT held.account_id, held.resource, held.record_id, held.found_at, held.reason, held.decision,
                      held.decided_at, held.decided_by,
                      nullif(concat_ws(', ', nullif(concat_ws(' ', owner.first_name, owner.last_name), ''),
                                       project.name), '') AS name
                 FROM roster.held_deletions AS held
                 LEFT JOIN LATERAL (
                     SELECT held.record_id AS user_id, NULL::bigint AS project_id WHERE held.resource = 'users'
                     UNION ALL
                     SELECT user_id, project_id FROM roster.user_assignments
                      WHERE held.resource = 'user_assignments' AND (account_id, id) = (held.account_id, held.record_id)
                     UNION ALL
                     SELECT user_id, NULL FROM roster.billable_rates
                      WHERE held.resource = 'billable_rates' AND (account_id, id) = (held.account_id, held.record_id)
                     UNION ALL
                     SELECT user_id, NULL FROM roster.cost_rates
                      WHERE held.resource = 'cost_rates' AND (account_id, id) = (held.account_id, held.record_id)
                 ) AS record ON true
                 LEFT JOIN roster.users AS owner
                   ON (owner.account_id, owner.id) = (held.account_id, record.user_id)
                 LEFT JOIN roster.projects AS project
                   ON (project.account_id, project.id) = (held.account_id, record.project_id)
                WHERE ($1::bigint IS NULL OR held.account_id = $1)
                  AND ($2::text IS NULL OR held.resource = $2 AND held.record_id = ANY($3))
                ORDER BY held.account_id, held.resource DESC, held.record_id"#,
            of.account,
            of.resource(),
            of.ids(),
        );
        Ok(held.fetch_all(&self.pool).await?)
    }

    /// Stores a decision about held deletions and returns how many it changed. An earlier decision is replaced only
    /// with `again`.
    pub async fn decide(
        &self,
        of: &Selection,
        decision: Decision,
        again: bool,
        by: &str,
    ) -> Result<u64, StoreError> {
        let decided = sqlx::query!(
            "UPDATE roster.held_deletions SET decision = $2, decided_at = now(), decided_by = $3
              WHERE ($1::bigint IS NULL OR account_id = $1) AND (decision IS NULL OR $4 AND decision <> $2)
                AND ($5::text IS NULL OR resource = $5 AND record_id = ANY($6))",
            of.account,
            decision.name(),
            by,
            again,
            of.resource(),
            of.ids(),
        );
        Ok(decided.execute(&self.pool).await?.rows_affected())
    }
}

impl AccountTx {
    /// Holds deletions. Earlier decisions about them stay.
    pub async fn hold(&mut self, resource: Resource, held: &[(i64, HoldReason)]) -> Result<(), StoreError> {
        if held.is_empty() {
            return Ok(());
        }
        let (ids, reasons): (Vec<i64>, Vec<String>) =
            held.iter().map(|(id, reason)| (*id, reason.name().to_owned())).unzip();
        sqlx::query!(
            "INSERT INTO roster.held_deletions (account_id, resource, record_id, found_at, reason)
             SELECT $1, $2, id, now(), reason FROM UNNEST($3::bigint[], $4::text[]) AS held (id, reason)
             ON CONFLICT (account_id, resource, record_id) DO UPDATE SET reason = EXCLUDED.reason",
            self.account.0,
            resource.name(),
            &ids,
            &reasons,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Records the first 404 of recently created records, which need two.
    pub(crate) async fn record_first_404(
        &mut self,
        resource: Resource,
        ids: &[i64],
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO roster.missed_records (account_id, resource, record_id, missed_at)
             SELECT $1, $2, id, now() FROM UNNEST($3::bigint[]) AS missed (id)
             ON CONFLICT DO NOTHING",
            self.account.0,
            resource.name(),
            ids,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Deletes what is stored about the absence of records: Harvest lists them again, or they are deleted now.
    pub(crate) async fn clear_absences(&mut self, resource: Resource, ids: &[i64]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "WITH held AS (DELETE FROM roster.held_deletions
                            WHERE account_id = $1 AND resource = $2 AND record_id = ANY($3))
             DELETE FROM roster.missed_records
              WHERE account_id = $1 AND resource = $2 AND record_id = ANY($3)",
            self.account.0,
            resource.name(),
            ids,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Deletes the first 404s of these users' assignments, because Harvest lists the users again: the cause may have been
    /// the absent user alone.
    pub(crate) async fn clear_first_404s_of_assignments(&mut self, users: &[i64]) -> Result<(), StoreError> {
        if users.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "DELETE FROM roster.missed_records AS missed USING roster.user_assignments AS assignment
              WHERE missed.account_id = $1 AND missed.resource = 'user_assignments'
                AND (assignment.account_id, assignment.id) = (missed.account_id, missed.record_id)
                AND assignment.user_id = ANY($2)",
            self.account.0,
            users,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}
