//! Erasure of a user, of all pay data, or of an account, in every table.
//!
//! Rows of the mirror keep their ids, because other rows refer to them, and lose all other values. Events stay, so that
//! `seq` has no gap, and their payloads lose the same values, so that replaying the outbox still gives the mirror. No
//! other code changes an event.

mod values;
mod writes;

use self::values::{erase_events, erase_events_of, erase_pay, erase_rows, pay_fields};
use self::writes::{erase_links, erase_pay_of_writes, erase_writes};
use super::database::Store;
use super::error::StoreError;
use super::session::Transaction;
use crate::roster::{AccountId, Assignment, BillableRate, CostRate, User};
use crate::telemetry::chain;

/// Whether values are erased or only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EraseScope {
    /// Run the statements and roll them back.
    Preview,
    Erase,
}

/// How much was erased, or would be erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    pub rows: u64,
    pub versions: u64,
    /// Rejected records that belong to the user or account.
    pub rejected: u64,
    /// Rejected records whose user cannot be read: any of them can belong to the user.
    pub unreadable: u64,
    /// Events whose payloads lose values.
    pub events: u64,
    /// Writes to Harvest; open ones are withdrawn.
    pub writes: u64,
    /// Whether the user still exists at Harvest according to the mirror. Then the next full read stores everything
    /// again.
    pub is_at_harvest: bool,
}

impl Erased {
    /// Whether no table had anything that belongs to the user.
    pub(crate) fn is_nothing(&self) -> bool {
        self.rows + self.versions + self.rejected + self.events + self.writes == 0
    }
}

impl Store {
    /// Erases a user from all accounts, or from `only`. A user without a row can have values elsewhere: Harvest may
    /// list the assignments of a user that it does not list, and history and events stay when an administrator deletes
    /// a row manually.
    pub(crate) async fn forget_user(
        &self,
        user: i64,
        only: Option<AccountId>,
        mode: EraseScope,
    ) -> Result<Erased, StoreError> {
        let mut transaction = self.lock_accounts(only).await?;
        let account = only.map(|account| account.0);
        // First, because it finds the creation of a user by the address in the mirror.
        let writes = erase_writes(&mut transaction, account, user).await?;
        let links = erase_links(&mut transaction, account, user).await?;
        let mut mirror = erase_rows::<User>(&mut transaction, account, Some(user)).await?;
        mirror += erase_rows::<Assignment>(&mut transaction, account, Some(user)).await?;
        mirror += erase_rows::<BillableRate>(&mut transaction, account, Some(user)).await?;
        mirror += erase_rows::<CostRate>(&mut transaction, account, Some(user)).await?;
        // If the rejection of another user's record is deleted too, the next read of that record writes it again.
        let rejected = sqlx::query!(
            r#"DELETE FROM roster.rejected_records
              WHERE (user_id = $1 OR user_id IS NULL) AND account_id = coalesce($2, account_id)
             RETURNING user_id IS NULL AS "unreadable!""#,
            user,
            account,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let unreadable = rejected.iter().filter(|row| row.unreadable).count();
        let erased = Erased {
            rows: mirror.rows + links,
            versions: mirror.versions,
            rejected: (rejected.len() - unreadable) as u64,
            unreadable: unreadable as u64,
            events: erase_events_of(&mut transaction, account, user).await?,
            writes,
            is_at_harvest: mirror.live > 0,
        };
        self.finish(transaction, mode).await?;
        Ok(erased)
    }

    pub(crate) async fn forget_pay(&self, mode: EraseScope) -> Result<Erased, StoreError> {
        let mut transaction = self.lock_accounts(None).await?;
        let mut mirror = erase_pay::<User>(&mut transaction).await?;
        mirror += erase_pay::<Assignment>(&mut transaction).await?;
        mirror += erase_rows::<BillableRate>(&mut transaction, None, None).await?;
        mirror += erase_rows::<CostRate>(&mut transaction, None, None).await?;
        sqlx::query!("DELETE FROM roster.rate_reads").execute(&mut *transaction).await?;
        // The row stays, because Harvest counts the record. Its whole text goes, because pay data cannot be found in
        // it.
        let rejected = sqlx::query!("UPDATE roster.rejected_records SET raw = '' WHERE raw <> ''")
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        let events = erase_events(&mut transaction, None, None, &[], &pay_fields()).await?;
        let writes = erase_pay_of_writes(&mut transaction).await?;
        self.finish(transaction, mode).await?;
        let (rows, versions) = (mirror.rows, mirror.versions);
        Ok(Erased { rows, versions, rejected, events, writes, ..Erased::default() })
    }

    /// Erases an account; `None` if the database has none with this id.
    ///
    /// # Errors
    /// [`StoreError::Held`] while a running process holds its lease.
    pub(crate) async fn forget_account(
        &self,
        account: AccountId,
        mode: EraseScope,
    ) -> Result<Option<Erased>, StoreError> {
        let mut transaction = self.lock_accounts(Some(account)).await?;
        let Some(known) = sqlx::query!(
            r#"SELECT (SELECT name FROM roster.replicas
                        WHERE id = account.holder AND expires_at > clock_timestamp()) AS held_by
                 FROM roster.accounts AS account WHERE account_id = $1"#,
            account.0
        )
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(None);
        };
        if let Some(by) = known.held_by {
            return Err(StoreError::Held { account, by });
        }
        // Without it the mirror keeps its rows (roster.keep_row).
        sqlx::query!("SELECT set_config('roster.forgetting', 'on', true)")
            .fetch_one(&mut *transaction)
            .await?;
        let deleted = sqlx::query!(
            r#"WITH users AS (DELETE FROM roster.users WHERE account_id = $1 RETURNING 1),
                    assignments AS (DELETE FROM roster.user_assignments WHERE account_id = $1 RETURNING 1),
                    user_versions AS (DELETE FROM roster.user_history WHERE account_id = $1 RETURNING 1),
                    assignment_versions AS (DELETE FROM roster.user_assignment_history WHERE account_id = $1
                                            RETURNING 1),
                    projects AS (DELETE FROM roster.projects WHERE account_id = $1),
                    billable AS (DELETE FROM roster.billable_rates WHERE account_id = $1 RETURNING 1),
                    cost AS (DELETE FROM roster.cost_rates WHERE account_id = $1 RETURNING 1),
                    reads AS (DELETE FROM roster.rate_reads WHERE account_id = $1),
                    rejected AS (DELETE FROM roster.rejected_records WHERE account_id = $1 RETURNING 1),
                    held AS (DELETE FROM roster.held_deletions WHERE account_id = $1),
                    missed AS (DELETE FROM roster.missed_records WHERE account_id = $1),
                    watermarks AS (DELETE FROM roster.watermarks WHERE account_id = $1),
                    cycles AS (DELETE FROM roster.cycles WHERE account_id = $1),
                    writes AS (DELETE FROM roster.writes WHERE account_id = $1 RETURNING 1),
                    links AS (DELETE FROM roster.scim_links WHERE account_id = $1),
                    roles AS (DELETE FROM roster.roles WHERE account_id = $1),
                    requests AS (DELETE FROM roster.requests WHERE account_id = $1),
                    credentials AS (DELETE FROM roster.credentials WHERE account_id = $1),
                    accounts AS (DELETE FROM roster.accounts WHERE account_id = $1)
               SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM assignments)
                    + (SELECT count(*) FROM billable) + (SELECT count(*) FROM cost) AS "rows!",
                      (SELECT count(*) FROM user_versions) + (SELECT count(*) FROM assignment_versions) AS "versions!",
                      (SELECT count(*) FROM rejected) AS "rejected!", (SELECT count(*) FROM writes) AS "writes!""#,
            account.0
        )
        .fetch_one(&mut *transaction)
        .await?;
        let events = sqlx::query!(
            "UPDATE roster.outbox
                SET payload = payload || '{\"changed\": {}, \"before\": null, \"after\": null}'::jsonb
              WHERE account_id = $1",
            account.0
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        self.finish(transaction, mode).await?;
        Ok(Some(Erased {
            rows: deleted.rows.unsigned_abs(),
            versions: deleted.versions.unsigned_abs(),
            rejected: deleted.rejected.unsigned_abs(),
            events,
            writes: deleted.writes.unsigned_abs(),
            ..Erased::default()
        }))
    }

    /// A transaction that locks these accounts, so that no process writes them.
    async fn lock_accounts(&self, only: Option<AccountId>) -> Result<Transaction, StoreError> {
        let mut transaction = self.pool.for_long_statements().begin().await?;
        sqlx::query!(
            "SELECT account_id FROM roster.accounts WHERE account_id = coalesce($1, account_id)
              ORDER BY account_id FOR UPDATE",
            only.map(|account| account.0)
        )
        .fetch_all(&mut *transaction)
        .await?;
        Ok(transaction)
    }

    /// Commits, or rolls back a preview.
    async fn finish(&self, transaction: Transaction, mode: EraseScope) -> Result<(), StoreError> {
        if mode == EraseScope::Preview {
            return Ok(transaction.rollback().await?);
        }
        transaction.commit().await?;
        // PostgreSQL keeps samples of column values as statistics (view pg_stats) until the next ANALYZE.
        let analyzed = sqlx::query!(
            "ANALYZE roster.users, roster.user_assignments, roster.billable_rates, roster.cost_rates,
                     roster.user_history, roster.user_assignment_history, roster.rejected_records, roster.outbox,
                     roster.writes, roster.scim_links"
        )
        .execute(&self.pool.for_long_statements())
        .await;
        if let Err(error) = analyzed {
            let error = StoreError::from(error);
            tracing::warn!(
                error = %chain(&error),
                "values were erased, but PostgreSQL's statistics may still hold samples of them; run ANALYZE as the owner of the tables"
            );
        }
        Ok(())
    }
}
