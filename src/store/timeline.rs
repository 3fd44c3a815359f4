//! Decides after the promotion of a standby whether the stream of events continues.
//!
//! A standby may lack the last commits of the old primary, and consumers may have read the lost events. The database
//! cannot know: the head's row was lost with them. So each process remembers the last event that it committed or saw
//! ([`super::timeline_memory`]). The stream continues only if every lease holder confirms in time that the new primary has all
//! events that it knows:
//!
//! - Only lease holders write events, and a holder's lease that was seen on the old primary and has not expired was not
//!   taken over there. So a confirmation counts only before that time, and only if no lease has changed since.
//! - A new account has no lease that others know. So the first lease of an account waits until the leases of all other
//!   holders have expired or been renewed with knowledge of the account (`roster.accounts.free_at`, see `lease`).
//!
//! Until then no event is written, because the head's timeline is the old one ([`super::outbox`]). A process that knows a
//! later event than the new primary begins a new stream, also after the others have continued.

use tokio::time::Instant;
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::pool::Pool;
use super::timeline_memory::{TimelineState, Verdict};

impl Store {
    /// Continues the stream, or begins a new one and makes full reads due, if the server or its timeline is not the one
    /// that wrote last. The new `stream_id` shows consumers that events which they have processed may be lost.
    ///
    /// # Errors
    /// [`StoreError::Undecided`] if other lease holders have neither confirmed nor expired.
    pub async fn check_timeline(&self) -> Result<(), StoreError> {
        // Nearly always there is nothing to do, and the leases need not be read.
        let server = timeline_state(&self.pool, None).await?;
        let replica = {
            let known = self.timelines.known();
            if server.in_recovery || known.verdict(&server, Instant::now()) == Verdict::Same {
                return Ok(());
            }
            known.replica
        };
        self.decide_timeline(replica).await
    }

    /// As [`check_timeline`](Self::check_timeline), and remembers the events and leases of the server. Called after each
    /// heartbeat of `replica`.
    pub async fn observe_timeline(&self, replica: Uuid) -> Result<(), StoreError> {
        self.decide_timeline(Some(replica)).await
    }

    async fn decide_timeline(&self, replica: Option<Uuid>) -> Result<(), StoreError> {
        for _ in 0..2 {
            let asked = (Instant::now(), self.timelines.known().releases);
            let server = timeline_state(&self.pool, replica).await?;
            // A standby server may be behind, and takes no writes.
            if server.in_recovery {
                return Ok(());
            }
            let verdict = {
                let mut known = self.timelines.known();
                let verdict = known.verdict(&server, Instant::now());
                if verdict == Verdict::Same {
                    known.sees(&server, replica, asked);
                    return Ok(());
                }
                verdict
            };
            match verdict {
                Verdict::Same => {}
                Verdict::First => self.record_first_timeline(&server).await?,
                Verdict::Lost => self.begin_stream(&server, true).await?,
                Verdict::Kept => {
                    self.confirm_timeline(&server, replica).await?;
                    self.settle_timeline(&server, None).await?;
                }
                Verdict::Unknown => self.settle_timeline(&server, replica).await?,
            }
        }
        Ok(())
    }

    async fn record_first_timeline(&self, server: &TimelineState) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.outbox_head SET system_identifier = $1, timeline_id = $2, timeline_seq = seq
              WHERE system_identifier IS NULL",
            server.system,
            server.timeline
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn confirm_timeline(
        &self,
        server: &TimelineState,
        replica: Option<Uuid>,
    ) -> Result<(), StoreError> {
        let confirm = sqlx::query!(
            "UPDATE roster.replicas SET timeline_id = $2 WHERE id = $1 AND timeline_id IS DISTINCT FROM $2",
            replica,
            server.timeline
        );
        confirm.execute(&self.pool).await?;
        Ok(())
    }

    /// Continues the stream if every account's lease holder has confirmed, and begins a new one if a holder cannot:
    /// it is dead, or it is `unsure`.
    async fn settle_timeline(&self, server: &TimelineState, unsure: Option<Uuid>) -> Result<(), StoreError> {
        let holders = sqlx::query!(
            r#"SELECT count(*) AS "accounts!",
                      count(*) FILTER (WHERE replica.timeline_id = $1) AS "kept!",
                      count(*) FILTER (WHERE replica.timeline_id IS DISTINCT FROM $1
                                         AND (replica.id IS NULL OR replica.id = $2
                                              OR replica.expires_at <= clock_timestamp())) AS "unknown!"
                 FROM roster.accounts AS account LEFT JOIN roster.replicas AS replica ON replica.id = account.holder"#,
            server.timeline,
            unsure
        )
        .fetch_one(&self.pool)
        .await?;
        if holders.unknown > 0 || holders.accounts == 0 {
            self.begin_stream(server, false).await
        } else if holders.kept == holders.accounts {
            self.continue_stream(server).await
        } else {
            Err(StoreError::Undecided)
        }
    }

    async fn continue_stream(&self, server: &TimelineState) -> Result<(), StoreError> {
        let continued = sqlx::query!(
            "UPDATE roster.outbox_head SET timeline_id = $1, timeline_seq = seq
              WHERE stream_id = $2 AND (system_identifier, timeline_id) = ($3, $4)",
            server.timeline,
            server.stream,
            server.system,
            server.head_timeline
        );
        if continued.execute(&self.pool).await?.rows_affected() > 0 {
            tracing::info!(
                event = "stream.continued",
                seq = server.seq,
                "a standby of the database was promoted and has all events; the stream of events continues"
            );
        }
        Ok(())
    }

    /// Does nothing if another process has begun a new stream, or continued this one although no event `is_lost`.
    async fn begin_stream(&self, server: &TimelineState, is_lost: bool) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Before the head, for the order of locks.
        sqlx::query!("UPDATE roster.watermarks SET next_full_at = now()").execute(&mut *transaction).await?;
        let begun = sqlx::query!(
            "UPDATE roster.outbox_head
                SET system_identifier = $1, timeline_id = $2, timeline_seq = seq, stream_id = gen_random_uuid()
              WHERE stream_id = $3 AND ($4 OR (system_identifier, timeline_id) IS DISTINCT FROM ($1, $2))",
            server.system,
            server.timeline,
            server.stream,
            is_lost,
        );
        if begun.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(());
        }
        transaction.commit().await?;
        tracing::warn!(
            event = "stream.begun",
            "the database is another PostgreSQL cluster or timeline than at the last write, and events may be lost; a new \
             stream of events begins, and full reads are due"
        );
        Ok(())
    }
}

/// The timeline comes from the WAL, because the checkpoint of a promoted server has the old timeline for minutes. A
/// standby writes no WAL.
async fn timeline_state(pool: &Pool, replica: Option<Uuid>) -> Result<TimelineState, StoreError> {
    let state = sqlx::query_as!(
        TimelineState,
        r#"SELECT pg_is_in_recovery() AS "in_recovery!", server.system_identifier AS "system!",
                  CASE WHEN pg_is_in_recovery() THEN checkpoint.timeline_id
                       ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
                  END AS "timeline!",
                  head.system_identifier AS head_system, head.timeline_id AS head_timeline,
                  head.stream_id AS stream, head.seq, head.timeline_seq,
                  CASE WHEN $1::uuid IS NOT NULL
                       THEN (SELECT hashtextextended(string_agg(
                                        format('%s %s %s', account_id, holder, epoch), ',' ORDER BY account_id), 0)
                               FROM roster.accounts)
                  END AS leases,
                  (SELECT extract(epoch FROM expires_at - clock_timestamp())::float8
                     FROM roster.replicas WHERE id = $1) AS lease_left
             FROM roster.outbox_head AS head, pg_control_system() AS server, pg_control_checkpoint() AS checkpoint"#,
        replica
    );
    Ok(state.fetch_one(pool).await?)
}
