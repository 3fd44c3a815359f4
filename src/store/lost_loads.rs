//! Ends loads whose connection is lost.
//!
//! A COPY waits for its rows without a limit: while PostgreSQL reads from the client, it ignores `statement_timeout`. So if
//! the connection is silently lost, the lock of the account stays until the server's keepalives find out, a minute later.

use super::database::Store;
use super::error::StoreError;
use crate::telemetry::chain;

impl Store {
    /// Returns the result of an attempt to lock an account. If the lock may not have been available, ends lost loads, so that
    /// the next attempt succeeds.
    pub(super) async fn unless_load_is_lost<T>(
        &self,
        attempt: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = attempt.await;
        if matches!(&result, Err(error) if error.is_unavailable()) {
            self.end_lost_loads().await;
        }
        result
    }

    /// Ends loads whose process no longer waits for them, because it has lost the connection. An error of it changes nothing:
    /// the keepalives remain.
    async fn end_lost_loads(&self) {
        let ended = async {
            let mut transaction = self.pool.begin().await?;
            // A role can terminate the connections of its login only with the rights of that login.
            sqlx::query!("SET LOCAL ROLE NONE").execute(&mut *transaction).await?;
            let ended = sqlx::query!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND usename = session_user AND application_name = 'rosterd'
                    AND state = 'active' AND wait_event = 'ClientRead' AND query LIKE 'COPY roster.%'
                    AND query_start < clock_timestamp() - make_interval(secs => $1)",
                self.pool.bounds().limit.as_secs_f64(),
            );
            let ended = ended.fetch_all(&mut *transaction).await?.len();
            transaction.commit().await?;
            Ok::<_, StoreError>(ended)
        };
        match ended.await {
            Ok(0) => {}
            Ok(connections) => {
                tracing::warn!(connections, "ended connections that were lost while they stored a page");
            }
            Err(error) => tracing::debug!(error = %chain(&error), "cannot look for lost connections"),
        }
    }
}
