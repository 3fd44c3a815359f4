//! What the mirror holds and how fresh it is, for `rosterd status`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::census::Counted;
use super::{Store, StoreError, Transaction};
use crate::roster::AccountId;

/// One account.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the words of `rosterd status --json`")]
pub struct AccountStatus {
    pub account_id: i64,
    pub name: Option<String>,
    /// The living process that writes it.
    pub holder: Option<String>,
    pub last_full_at: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
    pub rejected_records: i64,
    pub held_deletions: Vec<HeldCount>,
    pub resources: Vec<ResourceStatus>,
}

/// One list of an account.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the words of `rosterd status --json`")]
pub struct ResourceStatus {
    #[serde(skip)]
    pub account_id: i64,
    pub resource: String,
    pub last_success_at: Option<DateTime<Utc>>,
    /// Since the last recorded good read, in seconds, by the database's clock.
    pub lag_seconds: Option<i64>,
    pub watermark: Option<DateTime<Utc>>,
    pub next_full_at: Option<DateTime<Utc>>,
    pub active: i64,
    pub inactive: i64,
    pub deleted: i64,
    /// Harvest's total, where a full read did not explain it.
    pub unexplained_total: Option<i64>,
    /// What it should have been.
    pub unexplained_expected: Option<i64>,
}

/// Held deletions of one account that are alike.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the columns of roster.held_deletions")]
pub struct HeldCount {
    #[serde(skip)]
    pub account_id: i64,
    pub resource: String,
    pub reason: String,
    pub decision: Option<String>,
    pub count: i64,
}

/// The outbox.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the columns of roster.outbox_head")]
pub struct OutboxStatus {
    pub seq: i64,
    pub floor_seq: i64,
    pub stream_id: uuid::Uuid,
}

/// Who follows the outbox.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the words of `rosterd status --json`")]
pub struct ConsumerStatus {
    pub name: String,
    pub acked_seq: i64,
    /// Events since.
    pub behind: i64,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Status {
    pub accounts: Vec<AccountStatus>,
    pub outbox: OutboxStatus,
    pub consumers: Vec<ConsumerStatus>,
}

/// The server, as `rosterd check` sees it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Such as `17.2`.
    pub version: String,
    /// Whether this user may create schemas in the database.
    pub may_create: bool,
    /// A table of the mirror that is there and that this user may not write.
    pub missing_privilege: Option<String>,
}

impl Store {
    /// Asks the server for its version and for what this user may do.
    pub async fn server(&self) -> Result<Server, StoreError> {
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
        Ok(Server { version: row.version, may_create: row.may_create, missing_privilege: row.missing })
    }

    /// The server's clock.
    pub async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool).await?.now)
    }

    /// Reads the state of everything in one snapshot.
    pub async fn status(&self) -> Result<Status, StoreError> {
        self.status_in(self.pool.snapshot().await?, false).await
    }

    /// The same for `/metrics`, on the connection for probes. Counts are those of the last poll. Where this process polls
    /// no account, they are up to ten minutes old.
    pub async fn glance(&self) -> Result<Status, StoreError> {
        self.status_in(self.probe().await?, true).await
    }

    /// A snapshot on the connection for probes. The next probe needs that connection too, so that no statement may wait
    /// there for a lock.
    pub(super) async fn probe(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.probes.snapshot().await?;
        sqlx::query!("SET LOCAL statement_timeout = '1s'").execute(&mut *transaction).await?;
        Ok(transaction)
    }

    async fn status_in(
        &self,
        mut transaction: Transaction,
        may_be_counted: bool,
    ) -> Result<Status, StoreError> {
        let mut resources = sqlx::query_as!(
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
        )
        .fetch_all(&mut *transaction)
        .await?;
        let accounts = sqlx::query!(
            r#"SELECT account.account_id, account.name, replica.name AS "holder?", account.last_error,
                      (SELECT min(last_full_at) FROM roster.watermarks AS mark
                        WHERE mark.account_id = account.account_id) AS last_full_at,
                      (SELECT count(*) FROM roster.rejected_records AS rejected
                        WHERE rejected.account_id = account.account_id) AS "rejected!"
                 FROM roster.accounts AS account
                 LEFT JOIN roster.replicas AS replica ON replica.id = holder AND expires_at > clock_timestamp()
                ORDER BY account.account_id"#
        )
        .fetch_all(&mut *transaction)
        .await?;
        let held = sqlx::query_as!(
            HeldCount,
            r#"SELECT account_id, resource, reason, decision, count(*) AS "count!"
                 FROM roster.held_deletions
                GROUP BY account_id, resource, reason, decision
                ORDER BY account_id, resource DESC, reason, decision"#
        )
        .fetch_all(&mut *transaction)
        .await?;
        let outbox =
            sqlx::query_as!(OutboxStatus, "SELECT seq, floor_seq, stream_id FROM roster.outbox_head")
                .fetch_one(&mut *transaction)
                .await?;
        let consumers = sqlx::query_as!(
            ConsumerStatus,
            r#"SELECT name AS "name!", acked_seq AS "acked_seq!", behind AS "behind!" FROM directory.consumers ORDER BY name"#
        )
        .fetch_all(&mut *transaction)
        .await?;
        let ids = accounts.iter().map(|account| account.account_id);
        let known = |id| self.recently_counted(AccountId(id)).map(|counted| (id, counted));
        let mut known: HashMap<_, _> = ids.clone().filter(|_| may_be_counted).filter_map(known).collect();
        let uncounted: Vec<_> = ids.filter(|id| !known.contains_key(id)).collect();
        let counts = sqlx::query!(
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
            &uncounted
        );
        let counts = if uncounted.is_empty() {
            transaction.commit().await?;
            Vec::new()
        } else if may_be_counted {
            // Counting millions of rows takes longer than a statement may on the connection for probes. If events are
            // emitted meanwhile, the next poll counts again.
            transaction.commit().await?;
            counts.fetch_all(&self.pool).await?
        } else {
            let counts = counts.fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            counts
        };
        for row in counts {
            let (users, assignments) = (row.users.into(), row.assignments.into());
            let counted = Counted::now(outbox.stream_id, outbox.seq, users, assignments);
            self.count(AccountId(row.account_id), counted);
            known.insert(row.account_id, counted);
        }
        for list in &mut resources {
            let Some(counted) = known.get(&list.account_id) else { continue };
            let rows = if list.resource == "users" { counted.users } else { counted.assignments };
            (list.active, list.inactive, list.deleted) = (rows.active, rows.inactive, rows.deleted);
        }
        let accounts = accounts.into_iter().map(|row| {
            let own = resources.iter().take_while(|list| list.account_id == row.account_id).count();
            AccountStatus {
                account_id: row.account_id,
                name: row.name,
                holder: row.holder,
                last_full_at: row.last_full_at,
                last_error: row.last_error,
                rejected_records: row.rejected,
                held_deletions: held.iter().filter(|it| it.account_id == row.account_id).cloned().collect(),
                resources: resources.drain(..own).collect(),
            }
        });
        Ok(Status { accounts: accounts.collect(), outbox, consumers })
    }
}
