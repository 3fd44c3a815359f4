//! How many rows each of Harvest's lists should have, by what the mirror knows.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

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

/// Rows that somebody has removed by hand, which nothing tells of, are missed by then.
const RECOUNT: Duration = Duration::from_mins(10);

/// Live rows, and where the outbox stood when they were counted. Whoever comes or goes is told of: as long as nothing is
/// told, a million rows need not be counted with each poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    at: Instant,
    stream: Uuid,
    seq: i64,
    users: i64,
    assignments: i64,
}

impl Store {
    /// How many rows each list should have.
    pub async fn census(&self, account: AccountId) -> Result<HashMap<Resource, Census>, StoreError> {
        let known = self.counted().get(&account).copied().filter(|known| known.at.elapsed() < RECOUNT);
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
                      CASE WHEN (stream_id, seq) = ($2, $3) THEN $4
                           ELSE (SELECT count(*) FROM roster.users
                                  WHERE account_id = $1 AND deleted_at IS NULL) END AS "users!",
                      CASE WHEN (stream_id, seq) = ($2, $3) THEN $5
                           ELSE (SELECT count(*) FROM roster.user_assignments
                                  WHERE account_id = $1 AND deleted_at IS NULL) END AS "assignments!",
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
            known.map(|known| known.stream),
            known.map(|known| known.seq),
            known.map(|known| known.users),
            known.map(|known| known.assignments),
        )
        .fetch_one(&self.pool)
        .await?;
        let (stream, seq, users, assignments) = (row.stream_id, row.seq, row.users, row.assignments);
        let still = known.filter(|known| (known.stream, known.seq) == (stream, seq));
        let at = still.map_or_else(Instant::now, |known| known.at);
        self.counted().insert(account, Counted { at, stream, seq, users, assignments });
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

    fn counted(&self) -> MutexGuard<'_, HashMap<AccountId, Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
