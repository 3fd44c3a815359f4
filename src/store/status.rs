//! What the mirror holds and how current it is, for `rosterd status`, `rosterd check`, the status page and `/metrics`.
//!
//! The fields have the names of `rosterd status --json`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::database::Store;
use super::error::StoreError;
use super::row_counts::count_rows;
use super::session::{Session, Transaction};
use super::webhooks::commands::{WebhookStatus, webhooks};
use crate::roster::AccountId;

#[derive(Clone, Debug, Serialize)]
pub struct AccountStatus {
    pub account_id: i64,
    pub name: Option<String>,
    /// The running process that holds the account's lease: host and process id.
    pub holder: Option<String>,
    /// When the lease of the last holder ends or ended; `None` if the holder released it.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// When a process first acquired the lease.
    pub first_lease_at: Option<DateTime<Utc>>,
    /// The records that the first read has stored so far; `None` if it does not run.
    pub first_read: Option<FirstRead>,
    pub last_full_at: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
    pub rejected_records: i64,
    pub held_deletions: Vec<HeldCount>,
    pub open_writes: OpenWrites,
    pub resources: Vec<ResourceStatus>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct FirstRead {
    pub users: i64,
    pub user_assignments: i64,
}

/// Writes to Harvest that are not finished.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OpenWrites {
    /// Not sent, or sent within the last minute.
    pub waiting: i64,
    /// When the oldest of those was requested.
    pub waiting_since: Option<DateTime<Utc>>,
    /// Held until a person accepts or rejects them.
    pub held: i64,
    /// Sent more than a minute ago, and without a result.
    pub in_doubt: i64,
}

#[derive(Clone, Debug, Serialize)]
pub struct ResourceStatus {
    #[serde(skip)]
    pub account_id: i64,
    pub resource: String,
    pub last_success_at: Option<DateTime<Utc>>,
    /// Seconds since the end of the last complete read, by the database's clock.
    pub lag_seconds: Option<i64>,
    pub watermark: Option<DateTime<Utc>>,
    pub next_full_at: Option<DateTime<Utc>>,
    pub active: i64,
    pub inactive: i64,
    pub deleted: i64,
    /// Harvest's total, if the last full read did not explain it.
    pub unexplained_total: Option<i64>,
    /// The total that the mirror expected then.
    pub unexplained_expected: Option<i64>,
}

/// Held deletions of one account with the same resource, reason and decision.
#[derive(Clone, Debug, Serialize)]
pub struct HeldCount {
    #[serde(skip)]
    pub account_id: i64,
    pub resource: String,
    pub reason: String,
    pub decision: Option<String>,
    pub count: i64,
}

/// The first and the last event of the outbox.
#[derive(Clone, Debug, Serialize)]
pub struct OutboxStatus {
    pub seq: i64,
    pub floor_seq: i64,
    pub stream_id: uuid::Uuid,
}

#[derive(Clone, Debug, Serialize)]
pub struct ConsumerStatus {
    pub name: String,
    pub acked_seq: i64,
    /// Events after `acked_seq`.
    pub behind: i64,
    /// When the first of those was recorded.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Whether retention has removed some of those, or a new stream has begun.
    pub has_lost_events: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The time of the snapshot, by the database's clock.
    pub now: DateTime<Utc>,
    pub accounts: Vec<AccountStatus>,
    pub outbox: OutboxStatus,
    pub consumers: Vec<ConsumerStatus>,
    #[serde(skip)]
    pub webhooks: Vec<WebhookStatus>,
}

/// The server's version and this user's privileges, for `rosterd check`.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Such as `17.2`.
    pub version: String,
    /// Whether this user may create schemas in the database.
    pub may_create: bool,
    /// A table of the mirror that exists, but that this user may not read or write.
    pub missing_privilege: Option<String>,
}

impl Store {
    pub async fn server(&self) -> Result<ServerFacts, StoreError> {
        let row = sqlx::query!(
            r#"SELECT current_setting('server_version') AS "version!",
                      has_database_privilege(current_database(), 'CREATE') AS "may_create!",
                      (SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
                        WHERE schemaname = 'roster'
                          AND NOT (SELECT bool_and(has_table_privilege(format('%I.%I', schemaname, tablename), needed))
                                     FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed)
                        ORDER BY tablename LIMIT 1) AS missing"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(ServerFacts { version: row.version, may_create: row.may_create, missing_privilege: row.missing })
    }

    pub async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool).await?.now)
    }

    pub async fn status(&self) -> Result<Status, StoreError> {
        self.status_in(self.pool.snapshot().await?, false).await
    }

    /// The same for `/metrics`, on the connection for probes. The row counts are those of the last poll, or at most ten
    /// minutes old if this process does not poll the account.
    pub(crate) async fn status_for_metrics(&self) -> Result<Status, StoreError> {
        self.status_in(self.probe_snapshot().await?, true).await
    }

    /// A snapshot on the connection for probes. Each statement is limited to 1 s, because a statement that waits for a
    /// lock would keep the connection from the next probe.
    pub(super) async fn probe_snapshot(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.probes.snapshot().await?;
        sqlx::query!("SET LOCAL statement_timeout = '1s'").execute(&mut *transaction).await?;
        Ok(transaction)
    }

    /// The same without row counts, which are 0: a few milliseconds for any size of the mirror.
    pub(crate) async fn status_without_counts(&self) -> Result<Status, StoreError> {
        uncounted(&mut *self.probe_snapshot().await?).await
    }

    async fn status_in(
        &self,
        mut transaction: Transaction,
        uses_last_counts: bool,
    ) -> Result<Status, StoreError> {
        let mut status = uncounted(&mut transaction).await?;
        let Status { accounts, outbox, .. } = &mut status;
        let ids = accounts.iter().map(|account| AccountId(account.account_id));
        let last = |id| self.row_count_cache.recent(id).filter(|_| uses_last_counts).map(|rows| (id, rows));
        let mut counts: HashMap<_, _> = ids.clone().filter_map(last).collect();
        let uncounted: Vec<_> = ids.filter(|id| !counts.contains_key(id)).map(|id| id.0).collect();
        let counted = if uncounted.is_empty() {
            transaction.commit().await?;
            HashMap::new()
        } else if uses_last_counts {
            // Counting millions of rows takes longer than a statement may on the connection for probes. If events are
            // emitted meanwhile, the next poll counts again.
            transaction.commit().await?;
            count_rows(&self.pool, &uncounted).await?
        } else {
            let counted = count_rows(&mut *transaction, &uncounted).await?;
            transaction.commit().await?;
            counted
        };
        for (id, rows) in &counted {
            self.row_count_cache.set(*id, outbox.stream_id, outbox.seq, *rows);
        }
        counts.extend(counted);
        for list in accounts.iter_mut().flat_map(|account| &mut account.resources) {
            let Some(counted) = counts.get(&AccountId(list.account_id)) else { continue };
            let rows = if list.resource == "users" { counted.users } else { counted.assignments };
            (list.active, list.inactive, list.deleted) = (rows.active, rows.inactive, rows.deleted);
        }
        Ok(status)
    }
}

/// The state without row counts, which are 0.
pub(super) async fn uncounted(connection: &mut Session) -> Result<Status, StoreError> {
    let now = sqlx::query!(r#"SELECT now() AS "now!""#).fetch_one(&mut *connection).await?.now;
    let mut resources = lists(connection).await?.into_iter().peekable();
    let mut accounts = accounts(connection).await?;
    let mut held = held_counts(connection).await?.into_iter().peekable();
    let mut writes = open_writes(connection).await?;
    // All are sorted by account.
    for account in &mut accounts {
        let id = account.account_id;
        account.held_deletions = std::iter::from_fn(|| held.next_if(|held| held.account_id == id)).collect();
        account.resources = std::iter::from_fn(|| resources.next_if(|list| list.account_id == id)).collect();
        account.open_writes = writes.remove(&id).unwrap_or_default();
    }
    let outbox = sqlx::query_as!(OutboxStatus, "SELECT seq, floor_seq, stream_id FROM roster.outbox_head")
        .fetch_one(&mut *connection)
        .await?;
    let consumers = sqlx::query_as!(
        ConsumerStatus,
        r#"SELECT consumer.name, acked_seq, head.seq - acked_seq AS "behind!", next.recorded_at AS "oldest_at?",
                  acked_seq < head.floor_seq OR consumer.stream_id <> head.stream_id AS "has_lost_events!"
             FROM roster.consumers AS consumer CROSS JOIN roster.outbox_head AS head
             LEFT JOIN roster.outbox AS next ON next.seq = acked_seq + 1
            ORDER BY consumer.name"#
    )
    .fetch_all(&mut *connection)
    .await?;
    let webhooks = webhooks(connection).await?;
    Ok(Status { now, accounts, outbox, consumers, webhooks })
}

/// The lists of all accounts, users first, without their row counts.
async fn lists(connection: &mut Session) -> Result<Vec<ResourceStatus>, StoreError> {
    let lists = sqlx::query_as!(
        ResourceStatus,
        r#"SELECT account.account_id, list.resource AS "resource!", mark.last_success_at AS "last_success_at?",
                      extract(epoch FROM now() - mark.last_success_at)::bigint AS lag_seconds,
                      mark.watermark AS "watermark?", mark.next_full_at AS "next_full_at?",
                      0::bigint AS "active!", 0::bigint AS "inactive!", 0::bigint AS "deleted!",
                      mark.unexplained_total AS "unexplained_total?",
                      mark.unexplained_expected AS "unexplained_expected?"
                 FROM roster.accounts AS account
                CROSS JOIN (VALUES ('users', 1), ('user_assignments', 2)) AS list (resource, place)
                 LEFT JOIN roster.watermarks AS mark USING (account_id, resource)
                ORDER BY account.account_id, list.place"#
    );
    Ok(lists.fetch_all(connection).await?)
}

/// All accounts, without their lists, held deletions and open writes.
async fn accounts(connection: &mut Session) -> Result<Vec<AccountStatus>, StoreError> {
    let rows = sqlx::query!(
            r#"SELECT account.account_id, account.name, account.last_error, account.free_at AS first_lease_at,
                      CASE WHEN expires_at > clock_timestamp() THEN replica.name END AS holder,
                      expires_at AS "lease_expires_at?",
                      first_read.users_seen AS "users?", first_read.assignments_seen AS "user_assignments?",
                      (SELECT min(last_full_at) FROM roster.watermarks AS mark
                        WHERE mark.account_id = account.account_id) AS last_full_at,
                      (SELECT count(*) FROM roster.rejected_records AS rejected
                        WHERE rejected.account_id = account.account_id) AS "rejected!"
                 FROM roster.accounts AS account
                 LEFT JOIN roster.replicas AS replica ON replica.id = holder
                 LEFT JOIN LATERAL (SELECT outcome, users_seen, assignments_seen FROM roster.cycles AS cycle
                                     WHERE cycle.account_id = account.account_id ORDER BY started_at DESC LIMIT 1)
                        AS first_read ON first_read.outcome IS NULL AND account.last_full_at IS NULL
                ORDER BY account.account_id"#
        )
    .fetch_all(connection)
    .await?;
    let accounts = rows.into_iter().map(|row| AccountStatus {
        account_id: row.account_id,
        name: row.name,
        holder: row.holder,
        lease_expires_at: row.lease_expires_at,
        first_lease_at: row.first_lease_at,
        first_read: row
            .users
            .zip(row.user_assignments)
            .map(|(users, user_assignments)| FirstRead { users, user_assignments }),
        last_full_at: row.last_full_at,
        last_error: row.last_error,
        rejected_records: row.rejected,
        held_deletions: Vec::new(),
        open_writes: OpenWrites::default(),
        resources: Vec::new(),
    });
    Ok(accounts.collect())
}

async fn held_counts(connection: &mut Session) -> Result<Vec<HeldCount>, StoreError> {
    let held = sqlx::query_as!(
        HeldCount,
        r#"SELECT account_id, resource, reason, decision, count(*) AS "count!"
                 FROM roster.held_deletions
                GROUP BY account_id, resource, reason, decision
                ORDER BY account_id, resource DESC, reason, decision"#
    );
    Ok(held.fetch_all(connection).await?)
}

/// The open writes by account. The index `writes_open` has no finished write.
async fn open_writes(connection: &mut Session) -> Result<HashMap<i64, OpenWrites>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT account_id, count(*) AS "open!",
                  count(*) FILTER (WHERE held_at IS NOT NULL AND accepted_at IS NULL) AS "held!",
                  count(*) FILTER (WHERE sent_at < clock_timestamp() - interval '1 minute') AS "in_doubt!",
                  min(asked_at) FILTER (WHERE (held_at IS NULL OR accepted_at IS NOT NULL)
                      AND (sent_at IS NULL OR sent_at >= clock_timestamp() - interval '1 minute')) AS waiting_since
             FROM roster.writes WHERE done_at IS NULL GROUP BY account_id"#
    )
    .fetch_all(connection)
    .await?;
    let open = rows.into_iter().map(|row| {
        let waiting = row.open - row.held - row.in_doubt;
        (
            row.account_id,
            OpenWrites { waiting, waiting_since: row.waiting_since, held: row.held, in_doubt: row.in_doubt },
        )
    });
    Ok(open.collect())
}
