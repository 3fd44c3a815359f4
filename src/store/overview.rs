//! The status page's data, and event numbers by time. The mirror is never counted.

use chrono::{DateTime, TimeDelta, Utc};

use super::database::Store;
use super::error::StoreError;
use super::session::Session;
use super::status::{Status, uncounted};

/// The bars of the chart.
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
        let seqs = last_seqs_before(&mut transaction, &edges).await?;
        let events_per_hour = seqs.windows(2).map(|edge| (edge[1] - edge[0]).max(0)).collect();
        Ok(Overview { status, events_per_hour })
    }

    /// The number of the last event that was recorded before `time`; the number of the last removed event if there is
    /// none.
    pub(crate) async fn last_seq_before(&self, time: DateTime<Utc>) -> Result<i64, StoreError> {
        let mut transaction = self.pool.snapshot().await?;
        let seqs = last_seqs_before(&mut transaction, &[time]).await?;
        Ok(seqs.first().copied().unwrap_or_default())
    }
}

/// For each time, which must be ascending, the number of the last event before it. A binary search by `seq`, because
/// `recorded_at` has no index. Events are recorded in the order of their numbers.
async fn last_seqs_before(connection: &mut Session, times: &[DateTime<Utc>]) -> Result<Vec<i64>, StoreError> {
    // The planner overestimates the recursion, and compiling the query would take a second.
    sqlx::query!("SET LOCAL jit = off").execute(&mut *connection).await?;
    let rows = sqlx::query!(
        r#"WITH RECURSIVE search AS (
               SELECT time, floor_seq AS low, seq AS high
                 FROM unnest($1::timestamptz[]) AS time CROSS JOIN roster.outbox_head
               UNION ALL
               SELECT time, CASE WHEN is_before THEN middle ELSE low END, CASE WHEN is_before THEN high ELSE middle - 1 END
                 FROM search
                CROSS JOIN LATERAL (SELECT (low + high + 1) / 2 AS middle) AS half
                CROSS JOIN LATERAL (SELECT (SELECT recorded_at < time FROM roster.outbox WHERE seq = middle) AS is_before) AS found
                WHERE low < high
           )
           SELECT low AS "seq!" FROM search WHERE low >= high ORDER BY time"#,
        times,
    );
    Ok(rows.fetch_all(connection).await?.into_iter().map(|row| row.seq).collect())
}
