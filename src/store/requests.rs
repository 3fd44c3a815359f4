//! `roster.requests`: what was asked of the process that writes an account, and its answers.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{Acquire, Connection, Executor, PgConnection};
use tokio::time::{sleep, timeout};

use super::session::Bounds;
use super::{Session, Store, StoreError};
use crate::roster::AccountId;

/// The channel that wakes the writer of an account, and those who would be; the payload is the account, or nothing for
/// all.
pub(super) const BELL: &str = "roster_sync";

/// How soon it is tried again to replace a lost listener.
const AGAIN: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// What is due.
    Sync,
    /// Everything.
    Full,
    /// One person and their assignments.
    User(i64),
}

/// A request that nobody has answered.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its number.
    pub id: i64,
    /// What is asked.
    pub wish: Wish,
}

/// How it ended, as far as whoever asked must act differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Ok,
    /// Neither Harvest nor the mirror knows that person.
    NoSuchRecord,
    /// Harvest refused the token or the account.
    Refused,
    /// Harvest or the database is not available.
    Unavailable,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Ok, Self::NoSuchRecord, Self::Refused, Self::Unavailable];

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoSuchRecord => "no_such_record",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How far a request is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Nobody has begun.
    Waiting,
    /// Somebody has.
    Taken,
    /// It is done, and this is the answer.
    Done(Outcome, String),
}

impl Store {
    /// Asks, and rings the bell. What was answered more than a day ago is swept away.
    pub async fn ask(&self, account: AccountId, wish: Wish) -> Result<i64, StoreError> {
        let (kind, user) = match wish {
            Wish::Sync => ("sync", None),
            Wish::Full => ("full", None),
            Wish::User(id) => ("user", Some(id)),
        };
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("DELETE FROM roster.requests WHERE asked_at < now() - interval '1 day'")
            .execute(&mut *transaction)
            .await?;
        let asked = sqlx::query!(
            "INSERT INTO roster.requests (account_id, kind, user_id) VALUES ($1, $2, $3) RETURNING id",
            account.0,
            kind,
            user,
        )
        .fetch_one(&mut *transaction)
        .await?;
        ring(&mut transaction, Some(account)).await?;
        transaction.commit().await?;
        Ok(asked.id)
    }

    /// Rings the bell without a request: there is something new to try.
    pub async fn ring(&self, account: Option<AccountId>) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        ring(&mut transaction, account).await?;
        Ok(transaction.commit().await?)
    }

    /// How far it is.
    pub async fn progress(&self, request: i64) -> Result<Progress, StoreError> {
        let row =
            sqlx::query!("SELECT taken_at, outcome, answer FROM roster.requests WHERE id = $1", request)
                .fetch_one(&self.pool)
                .await?;
        let outcome = Outcome::ALL.into_iter().find(|outcome| row.outcome.as_deref() == Some(outcome.name()));
        Ok(match (outcome, row.taken_at) {
            (Some(outcome), _) => Progress::Done(outcome, row.answer.unwrap_or_default()),
            (None, Some(_)) => Progress::Taken,
            (None, None) => Progress::Waiting,
        })
    }

    /// Takes it back: whoever asked does it by itself, or waits no longer.
    pub async fn withdraw(&self, request: i64) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM roster.requests WHERE id = $1", request).execute(&self.pool).await?;
        Ok(())
    }

    /// The oldest request of the account that is not done; what a former writer has begun is begun again. One that is an
    /// hour old has nobody waiting for it.
    pub async fn next_request(&self, account: AccountId) -> Result<Option<Request>, StoreError> {
        let row = sqlx::query!(
            "SELECT id, kind, user_id FROM roster.requests
              WHERE account_id = $1 AND done_at IS NULL AND asked_at > now() - interval '1 hour'
              ORDER BY id LIMIT 1",
            account.0
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        sqlx::query!("UPDATE roster.requests SET taken_at = now() WHERE id = $1", row.id)
            .execute(&self.pool)
            .await?;
        let wish = match (row.kind.as_str(), row.user_id) {
            ("user", Some(id)) => Wish::User(id),
            ("full", _) => Wish::Full,
            _ => Wish::Sync,
        };
        Ok(Some(Request { id: row.id, wish }))
    }

    /// The accounts of which something is asked.
    pub async fn asked(&self) -> Result<Vec<i64>, StoreError> {
        let asked = sqlx::query_scalar!(
            "SELECT DISTINCT account_id FROM roster.requests
              WHERE done_at IS NULL AND taken_at IS NULL AND asked_at > now() - interval '1 hour'"
        );
        Ok(asked.fetch_all(&self.reserved).await?)
    }

    /// Answers.
    pub async fn answer(&self, request: i64, outcome: Outcome, answer: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.requests SET done_at = clock_timestamp(), outcome = $2, answer = $3 WHERE id = $1",
            request,
            outcome.name(),
            answer,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Listens for the bell, on a connection of its own, which comes back by itself. `None` where none is left for it:
    /// requests are then looked for now and then.
    pub async fn bell(&self) -> Result<Option<Bell>, StoreError> {
        self.bell_of(BELL).await
    }

    /// The same for another channel.
    pub(super) async fn bell_of(&self, channel: &str) -> Result<Option<Bell>, StoreError> {
        let Some(listening) = &self.listening else { return Ok(None) };
        let listener = PgListener::connect_with(listening.sessions()).await?;
        let mut bell = Bell { listener, bounds: listening.bounds().clone(), connect: self.connect.clone() };
        if let Err(error) = bell.bounds.within(bell.listener.listen(channel)).await {
            bell.replace().await;
            return Err(error.into());
        }
        Ok(Some(bell))
    }
}

/// Wakes the writer of an account, or of all.
pub(super) async fn ring(connection: &mut Session, account: Option<AccountId>) -> Result<(), StoreError> {
    let account = account.map(|account| account.to_string()).unwrap_or_default();
    sqlx::query!("SELECT pg_notify($1, $2) AS rung", BELL, account).fetch_one(connection).await?;
    Ok(())
}

/// Rings when somebody asks for something, or when there are events.
pub struct Bell {
    listener: PgListener,
    bounds: Bounds,
    connect: PgConnectOptions,
}

impl Bell {
    /// Waits for it: the account, or `None` for all. Safe to drop. Where nothing comes, the connection is tested now and
    /// then.
    ///
    /// # Errors
    /// If the connection no longer answers. Notifications may have been missed by then.
    pub async fn rung(&mut self) -> Result<Option<i64>, StoreError> {
        loop {
            // Lost and found again, the connection may have missed it: all of them look.
            if let Ok(notification) = timeout(self.bounds.limit, self.listener.try_recv()).await {
                return Ok(notification?.and_then(|it| it.payload().parse().ok()));
            }
            self.test().await?;
        }
    }

    /// Whether the connection still answers.
    async fn test(&mut self) -> Result<(), StoreError> {
        let answered = self.bounds.within(self.listener.execute("SELECT 1")).await;
        if let Err(error) = answered {
            self.replace().await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Puts another connection in the place of one that does not answer, for as long as it takes. sqlx's listener says
    /// UNLISTEN when it is dropped, without a limit, and keeps the pool's only slot meanwhile.
    async fn replace(&mut self) {
        loop {
            let fresh = self.bounds.within(PgConnection::connect_with(&self.connect)).await;
            let old = timeout(self.bounds.limit, self.listener.acquire()).await;
            if let (Ok(fresh), Ok(Ok(old))) = (fresh, old) {
                *old = fresh;
                return;
            }
            sleep(AGAIN).await;
        }
    }
}
