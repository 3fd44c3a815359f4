//! How many rows each of Harvest's lists should have, by what the mirror knows.

use std::collections::HashMap;

use super::{Store, StoreError};
use crate::roster::{AccountId, Resource};

/// How many rows a list should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Live rows of the mirror.
    pub live: u64,
    /// Records that Harvest shows and that have no live row, because they cannot be read.
    pub unread: u64,
    /// Live rows that are known to be missing at Harvest: held back, or missed once.
    pub missing: u64,
    /// Those of them that a person decided to keep.
    pub kept: u64,
}

impl Census {
    /// The total that Harvest should tell.
    pub fn expected(&self) -> u64 {
        (self.live + self.unread).saturating_sub(self.missing)
    }

    /// Whether an empty list is beyond belief.
    pub fn has_some(&self) -> bool {
        self.live > self.kept
    }
}

impl Store {
    /// How many rows each list should have.
    pub async fn census(&self, account: AccountId) -> Result<HashMap<Resource, Census>, StoreError> {
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
               SELECT (SELECT count(*) FROM roster.users
                        WHERE account_id = $1 AND deleted_at IS NULL) AS "users!",
                      (SELECT count(*) FROM roster.user_assignments
                        WHERE account_id = $1 AND deleted_at IS NULL) AS "assignments!",
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
                          AS "kept_assignments!""#,
            account.0,
        )
        .fetch_one(&self.pool)
        .await?;
        let census = |[live, unread, missing, kept]: [i64; 4]| Census {
            live: live.unsigned_abs(),
            unread: unread.unsigned_abs(),
            missing: missing.unsigned_abs(),
            kept: kept.unsigned_abs(),
        };
        let users = [row.users, row.unread_users, row.missing_users, row.kept_users];
        let assignments =
            [row.assignments, row.unread_assignments, row.missing_assignments, row.kept_assignments];
        Ok(HashMap::from([(Resource::Users, census(users)), (Resource::Assignments, census(assignments))]))
    }
}
