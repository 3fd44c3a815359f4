//! Erases values in `roster.writes`, whose finished rows have none except in Harvest's error text, and in
//! `roster.scim_links`.

use super::values::pay_fields;
use crate::store::error::StoreError;
use crate::store::session::Session;

/// Erases the values in the writes of a user and of the user's assignments; returns how many. Open writes end: they are
/// withdrawn, or lost if they were sent and Harvest has not answered.
pub(super) async fn erase_writes(
    connection: &mut Session,
    account: Option<i64>,
    user: i64,
) -> Result<u64, StoreError> {
    let erased = sqlx::query!(
        "UPDATE roster.writes AS own
            SET wanted = NULL, email_key = NULL, error = NULL, done_at = coalesce(done_at, clock_timestamp()),
                outcome = coalesce(outcome, CASE WHEN sent_at IS NULL THEN 'withdrawn' ELSE 'lost' END)
          WHERE account_id = coalesce($2, account_id)
            AND (user_id = $1
                 OR email_key IN (
                     SELECT lower(email) FROM roster.users WHERE id = $1 AND account_id = own.account_id
                     UNION SELECT lower(email) FROM roster.user_history WHERE id = $1 AND account_id = own.account_id))
            AND (done_at IS NULL OR error IS NOT NULL)",
        user,
        account,
    );
    Ok(erased.execute(connection).await?.rows_affected())
}

/// Erases what directories stored about a user. The row stays, because SCIM does not show a user that a directory deleted.
pub(super) async fn erase_links(
    connection: &mut Session,
    account: Option<i64>,
    user: i64,
) -> Result<u64, StoreError> {
    let erased = sqlx::query!(
        "UPDATE roster.scim_links
            SET external_id = NULL, user_name = NULL, display_name = NULL, version = version + 1,
                updated_at = clock_timestamp()
          WHERE resource = 'User' AND record_id = $1 AND account_id = coalesce($2, account_id)
            AND (external_id, user_name, display_name) IS DISTINCT FROM (NULL, NULL, NULL)",
        user,
        account,
    );
    Ok(erased.execute(connection).await?.rows_affected())
}

/// Ends the open writes that contain pay data, and erases the error texts of finished ones; returns how many.
pub(super) async fn erase_pay_of_writes(connection: &mut Session) -> Result<u64, StoreError> {
    let fields: Vec<_> = pay_fields().iter().map(ToString::to_string).collect();
    let erased = sqlx::query!(
        "UPDATE roster.writes
            SET wanted = NULL, email_key = NULL, error = NULL, done_at = coalesce(done_at, clock_timestamp()),
                outcome = coalesce(outcome, CASE WHEN sent_at IS NULL THEN 'withdrawn' ELSE 'lost' END)
          WHERE fields && $1 AND (done_at IS NULL OR error IS NOT NULL)",
        &fields
    );
    Ok(erased.execute(connection).await?.rows_affected())
}
