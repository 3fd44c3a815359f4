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

/// The rows of one list, by state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rows {
    pub active: i64,
    pub inactive: i64,
    pub deleted: i64,
}

impl Rows {
    fn live(self) -> i64 {
        self.active + self.inactive
    }
}

/// From an array of the three counts in this order.
impl From<Vec<i64>> for Rows {
    fn from(counts: Vec<i64>) -> Self {
        let mut counts = counts.into_iter();
        let [active, inactive, deleted] = std::array::from_fn(|_| counts.next().unwrap_or_default());
        Self { active, inactive, deleted }
    }
}

/// An account's rows, and where the outbox stood when they were counted. An event is emitted for each record that is
/// created or deleted: until the next event, a million rows need not be counted with each poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    at: Instant,
    stream: Uuid,
    seq: i64,
    pub users: Rows,
    pub assignments: Rows,
}

impl Counted {
    /// Counted just now.
    pub fn now(stream: Uuid, seq: i64, users: Rows, assignments: Rows) -> Self {
        Self { at: Instant::now(), stream, seq, users, assignments }
    }
}

impl Store {
    /// How many rows each list should have.
    pub async fn census(&self, account: AccountId) -> Result<HashMap<Resource, Census>, StoreError> {
        let known = self.recently_counted(account);
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
                      CASE WHEN (stream_id, seq) = ($2, $3) THEN NULL
                           ELSE (SELECT ARRAY[count(*) FILTER (WHERE is_active),
                                              count(*) FILTER (WHERE NOT is_active AND deleted_at IS NULL),
                                              count(*) FILTER (WHERE deleted_at IS NOT NULL)]
                                   FROM roster.users WHERE account_id = $1) END AS users,
                      CASE WHEN (stream_id, seq) = ($2, $3) THEN NULL
                           ELSE (SELECT ARRAY[count(*) FILTER (WHERE is_active),
                                              count(*) FILTER (WHERE NOT is_active AND deleted_at IS NULL),
                                              count(*) FILTER (WHERE deleted_at IS NOT NULL)]
                                   FROM roster.user_assignments WHERE account_id = $1) END AS assignments,
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
        )
        .fetch_one(&self.pool)
        .await?;
        let counted = match (known, row.users, row.assignments) {
            (_, Some(users), Some(assignments)) => {
                Counted::now(row.stream_id, row.seq, users.into(), assignments.into())
            }
            (known, ..) => known
                .unwrap_or_else(|| Counted::now(row.stream_id, row.seq, Rows::default(), Rows::default())),
        };
        self.count(account, counted);
        let census = |[live, unread, missing, kept]: [i64; 4]| Census {
            live: live.unsigned_abs(),
            unread: unread.unsigned_abs(),
            missing: missing.unsigned_abs(),
            kept: kept.unsigned_abs(),
        };
        let users = [counted.users.live(), row.unread_users, row.missing_users, row.kept_users];
        let assignments = [
            counted.assignments.live(),
            row.unread_assignments,
            row.missing_assignments,
            row.kept_assignments,
        ];
        Ok(HashMap::from([(Resource::Users, census(users)), (Resource::Assignments, census(assignments))]))
    }

    /// What was counted last, unless that is too long ago.
    pub(super) fn recently_counted(&self, account: AccountId) -> Option<Counted> {
        self.counted().get(&account).copied().filter(|known| known.at.elapsed() < RECOUNT)
    }

    pub(super) fn count(&self, account: AccountId, counted: Counted) {
        self.counted().insert(account, counted);
    }

    fn counted(&self) -> MutexGuard<'_, HashMap<AccountId, Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
