//! The status page's data, and event numbers by time. The mirror is never counted.

use chrono::{DateTime, TimeDelta, Utc};

use super::database::Store;
use super::error::StoreError;
use super::status::{Status, uncounted};

const HOURS: i32 = 24;

/// The state without row counts, and how many events were recorded in each of the last 24 hours, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    pub status: Status,
    pub events_per_hour: Vec<i64>,
}

impl Store {
    /// Everything that the status page shows, in one snapshot on the connection for probes.
    pub(crate) async fn overview(&self) -> Result<Overview, StoreError> {
        let mut transaction = self.probe_snapshot().await?;
        let status = uncounted(&mut transaction).await?;
        let edges: Vec<_> =
            (0..=HOURS).rev().map(|hours| status.now - TimeDelta::hours(hours.into())).collect();
        let seqs = sqlx::query_scalar!(
            r#"SELECT roster.outbox_seq_at(time) AS "seq!" FROM unnest($1::timestamptz[]) AS time ORDER BY time"#,
            &edges
        )
        .fetch_all(&mut *transaction)
        .await?;
        let events_per_hour = seqs.windows(2).map(|edge| (edge[1] - edge[0]).max(0)).collect();
        Ok(Overview { status, events_per_hour })
    }

    /// The number of the last event that was recorded before `time`; the number of the last removed event if there is
    /// none.
    pub(crate) async fn last_seq_before(&self, time: DateTime<Utc>) -> Result<i64, StoreError> {
        let seq = sqlx::query_scalar!(r#"SELECT roster.outbox_seq_at($1) AS "seq!""#, time);
        Ok(seq.fetch_one(&self.pool).await?)
    }
}
