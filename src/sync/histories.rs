//! The histories of billable and cost rates: two requests for each person, in the background where polls may be waiting.
//!
//! A rate moves nobody's `updated_at`, so a person's are due when the person is new or has changed, and after each full
//! read. A rate that its user's list does not show is put on record as absent; `absent_rates.rs` says what becomes of it
//! once all lists that are due have been read.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout_at};

use super::absent_rates::Which;
use super::apply::Writer;
use super::cycle::{Cycle, CycleError};
use super::polls::Wake;
use super::report::Report;
use super::schedule::Mode;
use super::sink::{Sink, Verdicts};
use crate::harvest::pace::Lane;
use crate::harvest::{Decode, HarvestError};
use crate::roster::{BillableRate, CostRate, Resource};
use crate::store::Table;
use crate::store::rates::RateIds;

/// People looked up at a time.
const AT_A_TIME: i64 = 100;
/// So much time there is for them in any case.
const LEAST: Duration = Duration::from_secs(1);
/// After so many people in a row whose rates cannot be read there is a pause.
const MOST_SILENT: u32 = 3;
/// Its length.
pub(super) const PAUSE: Duration = Duration::from_mins(5);

/// How long histories may be read.
#[derive(Clone, Copy)]
pub struct Until<'a> {
    /// The next poll comes first.
    pub deadline: Instant,
    /// So does a request.
    pub wake: &'a Wake,
}

impl Cycle<'_, Writer<'_>> {
    /// Reads what is due, one person after the other. Whose turn it is when time is up is read to the end.
    pub async fn histories(mut self, until: Option<Until<'_>>) -> Report {
        let before = self.client.requests();
        let mut report = Report::new(self.client.account(), Mode::Full, self.clock.now());
        let paused = self.memory.rates_pause.is_some_and(|pause| Instant::now() < pause);
        if !self.memory.rates_refused && !paused {
            report.outcome = self.read_histories(until, &mut report).await;
        }
        // The token may read people but not their pay: that is no trouble of the mirror's.
        if let Err(CycleError::Harvest(error @ HarvestError::Forbidden { .. })) = &report.outcome {
            self.memory.rates_refused = true;
            tracing::warn!(
                account_id = self.client.account().0,
                error = %error,
                "rate histories are not read until the next full read"
            );
            report.outcome = Ok(());
        }
        self.sink.note(&mut report, self.client.requests() - before, self.clock.now()).await;
        report
    }

    async fn read_histories(
        &mut self,
        until: Option<Until<'_>>,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let (store, account) = (self.sink.store, self.client.account());
        let (mut done, mut silent, mut refused) = (0, 0, Vec::new());
        loop {
            let unread: Vec<i64> = self.memory.rates_unread.iter().chain(&refused).copied().collect();
            let due = store.rates_due(account, &unread, AT_A_TIME).await?;
            // Before all lists that are due are complete, it is unknown whether too many rates are absent.
            let which = Which { found_before: due.oldest_read, held: done > 0, ..Which::default() };
            self.settle_rates(which, self.rules.background(), until, report).await?;
            if due.users.is_empty() {
                return Ok(());
            }
            let all = done + due.all;
            for user in due.users {
                if let Some(until) = until
                    && !self.has_time(until).await?
                {
                    return Ok(());
                }
                let refused_before = report.rates.refused;
                match self.read_rates(user, self.rules.background(), report).await {
                    // What PostgreSQL refused is read again after the next poll.
                    Ok(()) if report.rates.refused > refused_before => refused.push(user),
                    Ok(()) => {
                        silent = 0;
                        store.rates_read(account, user, due.as_of).await?;
                    }
                    Err(error) if !error.is_passing() => return Err(error),
                    // One person's must not hold up everybody behind; several in a row are Harvest's own trouble.
                    Err(error) if silent + 1 >= MOST_SILENT => {
                        self.memory.rates_unread.clear();
                        self.memory.rates_pause = Some(Instant::now() + PAUSE);
                        return Err(error);
                    }
                    Err(error) => {
                        silent += 1;
                        self.memory.rates_unread.insert(user);
                        tracing::warn!(
                            account_id = account.0,
                            user_id = user,
                            error = %crate::telemetry::chain(&error),
                            "this user's rates cannot be read; trying again after the next full read"
                        );
                    }
                }
                done += 1;
                (self.progress)(Resource::BillableRates, done, Some(all));
            }
        }
    }

    /// Both histories of one person.
    pub(super) async fn read_rates(
        &self,
        user: i64,
        lane: Lane,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let known = self.sink.store.rates_of(self.client.account(), &[user]).await?;
        let RateIds { billable, cost } = known;
        let missed = self.read_history::<BillableRate>(user, billable, lane, report).await?;
        self.sink.conclude::<BillableRate>(Verdicts { missed, ..Verdicts::default() }, report).await?;
        let missed = self.read_history::<CostRate>(user, cost, lane, report).await?;
        self.sink.conclude::<CostRate>(Verdicts { missed, ..Verdicts::default() }, report).await?;
        Ok(())
    }
}

impl<S: Sink> Cycle<'_, S> {
    /// Judges what earlier reads of histories have put on record: for a plan that reads none itself.
    pub async fn absent_rates(mut self, report: &mut Report) -> Result<(), CycleError> {
        self.settle_rates(Which::default(), self.rules.background(), None, report).await
    }

    /// Waits until there is room for two requests; false when something else comes first. At least a
    /// second is waited even where one poll follows the other without a pause.
    pub(super) async fn has_time(&self, Until { deadline, wake }: Until<'_>) -> Result<bool, CycleError> {
        let room = async {
            self.client.room(self.rules.background(), 2).await;
            Ok(())
        };
        tokio::select! {
            room = timeout_at(deadline.max(Instant::now() + LEAST), self.unless_stopped(room)) => match room {
                Ok(room) => room.map(|()| true),
                Err(_) => Ok(false),
            },
            () = wake.notified() => {
                // The worker waits for it too.
                wake.notify();
                Ok(false)
            }
        }
    }

    /// One history of one person, whose live rates in the mirror are `known`: those of them that it does not show.
    pub(super) async fn read_history<R: Decode + Table>(
        &self,
        user: i64,
        mut known: Vec<i64>,
        lane: Lane,
        report: &mut Report,
    ) -> Result<Vec<i64>, CycleError> {
        let seen = match self.take_all(|| self.client.rates_of::<R>(user, lane), user, report).await {
            Ok(seen) => seen,
            // Of somebody who has just gone: whether for good is not asked here.
            Err(CycleError::Harvest(HarvestError::UnknownAccount { .. })) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        known.retain(|id| !seen.ids.contains(*id));
        // One that tells no id may be any of them.
        Ok(if seen.nameless.is_empty() { known } else { Vec::new() })
    }
}

impl Writer<'_> {
    /// Ends a read that is no cycle of the lists: it is on record where it wrote something, and moves no freshness.
    pub(super) async fn note(&self, report: &mut Report, requests: u64, now: DateTime<Utc>) {
        (report.requests, report.finished_at) = (requests, Some(now));
        if !report.wrote() && report.held() == 0 {
            return;
        }
        let noted = async {
            let mut page = self.store.begin(&self.fence).await?;
            page.cycle(&report.row()).await?;
            page.commit().await
        };
        if let Err(error) = noted.await
            && report.outcome.is_ok()
        {
            report.outcome = Err(error.into());
        }
    }
}
