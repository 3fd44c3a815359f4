//! How many rows each list of Harvest should have, as far as the mirror knows.

use std::collections::HashMap;

use sqlx::{Executor, Postgres};

use super::database::Store;
use super::error::StoreError;
use super::row_count_cache::RowsOfLists;
use crate::roster::{AccountId, Resource};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    pub live: u64,
    /// Rejected records that have no live row: Harvest counts them, the mirror does not.
    pub unread: u64,
    /// Live rows whose records are absent at Harvest: held for review, or with a first 404.
    pub missing: u64,
    /// Those of `missing` that a person decided to keep.
    pub kept: u64,
}

impl RowCounts {
    /// The total that Harvest should report.
    pub fn expected(&self) -> u64 {
        (self.live + self.unread).saturating_sub(self.missing)
    }

    /// Whether an empty list cannot be right.
    pub(crate) fn has_some(&self) -> bool {
        self.live > self.kept
    }
}

pub(super) async fn count_rows<'e>(
    executor: impl Executor<'e, Database = Postgres>,
    accounts: &[i64],
) -> Result<HashMap<AccountId, RowsOfLists>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT account_id AS "account_id!",
                  (SELECT ARRAY[count(*) FILTER (WHERE is_active),
                                count(*) FILTER (WHERE NOT is_active AND deleted_at IS NULL),
                                count(*) FILTER (WHERE deleted_at IS NOT NULL)]
                     FROM roster.users WHERE users.account_id = listed.account_id) AS "users!",
                  (SELECT ARRAY[count(*) FILTER (WHERE is_active),
                                count(*) FILTER (WHERE NOT is_active AND deleted_at IS NULL),
                                count(*) FILTER (WHERE deleted_at IS NOT NULL)]
                     FROM roster.user_assignments AS assignments
                    WHERE assignments.account_id = listed.account_id) AS "assignments!"
             FROM unnest($1::bigint[]) AS listed (account_id)"#,
        accounts
    )
    .fetch_all(executor)
    .await?;
    let counts = rows.into_iter().map(|row| {
        let rows = RowsOfLists { users: row.users.into(), assignments: row.assignments.into() };
        (AccountId(row.account_id), rows)
    });
    Ok(counts.collect())
}

impl Store {
    /// How many rows each list should have.
    pub async fn row_counts(&self, account: AccountId) -> Result<HashMap<Resource, RowCounts>, StoreError> {
        let row = sqlx::query!(
            r#"WITH missing AS (
                   SELECT resource, record_id, coalesce(decision, '') = 'rejected' AS kept
                     FROM roster.held_deletions WHERE account_id = $1
                   UNION ALL
                   SELECT resource, record_id, false FROM roster.missed_records
                    WHERE account_id = $1
                      AND NOT EXISTS (SELECT FROM roster.held_deletions AS held
                                       WHERE (held.account_id, held.resource, held.record_id) =
                                             (missed_records.account_id, missed_records.resource,
                                              missed_records.record_id))
               )
               SELECT stream_id, seq,
                      (SELECT count(*) FROM roster.rejected_records AS bad
                        WHERE account_id = $1 AND resource = 'users'
                          AND NOT EXISTS (SELECT FROM roster.users AS live
                                           WHERE live.account_id = $1 AND live.id = bad.record_id
                                             AND live.deleted_at IS NULL)) AS "unread_users!",
                      (SELECT count(*) FROM roster.rejected_records AS bad
                        WHERE account_id = $1 AND resource = 'user_assignments'
                          AND NOT EXISTS (SELECT FROM roster.user_assignments AS live
                                           WHERE live.account_id = $1 AND live.id = bad.record_id
                                             AND live.deleted_at IS NULL)) AS "unread_assignments!",
                      (SELECT count(*) FROM missing WHERE resource = 'users') AS "missing_users!",
                      (SELECT count(*) FROM missing WHERE resource = 'user_assignments') AS "missing_assignments!",
                      (SELECT count(*) FROM missing WHERE resource = 'users' AND kept) AS "kept_users!",
                      (SELECT count(*) FROM missing WHERE resource = 'user_assignments' AND kept)
                          AS "kept_assignments!"
                 FROM roster.outbox_head"#,
            account.0,
        )
        .fetch_one(&self.pool)
        .await?;
        let cached = self.row_count_cache.at(account, row.stream_id, row.seq);
        let rows = if let Some(rows) = cached {
            rows
        } else {
            // Counted after the head was read: an event in between makes the next poll count again.
            let counted = count_rows(&self.pool, &[account.0]).await?;
            let rows = counted.get(&account).copied().unwrap_or_default();
            self.row_count_cache.set(account, row.stream_id, row.seq, rows);
            rows
        };
        let counts = |[live, unread, missing, kept]: [i64; 4]| RowCounts {
            live: live.unsigned_abs(),
            unread: unread.unsigned_abs(),
            missing: missing.unsigned_abs(),
            kept: kept.unsigned_abs(),
        };
        let users = [rows.users.live(), row.unread_users, row.missing_users, row.kept_users];
        let assignments =
            [rows.assignments.live(), row.unread_assignments, row.missing_assignments, row.kept_assignments];
        Ok(HashMap::from([(Resource::Users, counts(users)), (Resource::Assignments, counts(assignments))]))
    }
}
