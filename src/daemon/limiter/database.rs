//! Statements of the limiter task: with a timeout, and one log line per outage.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::store::StoreError;
use crate::telemetry::chain;

pub(super) struct Database {
    pub timeout: Duration,
    /// Only one statement at a time waits for the connection, so that a heartbeat comes next.
    turn: tokio::sync::Mutex<()>,
    /// The SQLSTATE of the failure that was logged last, empty if the server did not answer. `None` if there is no
    /// failure.
    failure: Mutex<Option<String>>,
}

impl Database {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, turn: tokio::sync::Mutex::default(), failure: Mutex::default() }
    }

    /// Runs `statement`, which leaves half of the timeout to a heartbeat that waits for the connection.
    pub(super) async fn run<T>(&self, statement: impl Future<Output = sqlx::Result<T>>) -> Option<T> {
        let _turn = self.turn.lock().await;
        self.check(timeout(self.timeout / 2, statement).await)
    }

    pub(super) async fn run_heartbeat<T>(
        &self,
        heartbeat: impl Future<Output = sqlx::Result<T>>,
    ) -> Option<T> {
        let result = self.check(timeout(self.timeout, heartbeat).await);
        // Only a heartbeat shows that the database has recovered, because a read-only server answers queries too.
        if result.is_some() && self.failure.lock().take().is_some() {
            info!(event = "budget.recovered", "the request budget in the database is available again");
        }
        result
    }

    fn check<T>(&self, result: Result<sqlx::Result<T>, tokio::time::error::Elapsed>) -> Option<T> {
        let error = match result {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error,
            Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
        };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        let code = code.unwrap_or_default().into_owned();
        // During an outage, errors without an SQLSTATE and those of a shutdown (57P) alternate. Any other SQLSTATE is a
        // different failure and is logged again.
        let is_outage = code.is_empty() || code.starts_with("57P");
        let mut failure = self.failure.lock();
        if failure.as_ref().is_none_or(|logged| !is_outage && *logged != code) {
            *failure = Some(code);
            warn!(
                event = "budget.unreachable",
                error = %chain(&StoreError::from(error)),
                "cannot use the request budget in the database; requests to Harvest stop unless the database recovers soon"
            );
        }
        None
    }
}
