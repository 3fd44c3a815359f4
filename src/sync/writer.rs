//! The sink that is real: pages and verdicts go into the database, each in one fenced transaction.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::apply::{Writer, tell};
use super::cycle::CycleError;
use super::report::Report;
use super::schedule::Mode;
use super::sink::{Batch, LastPage, Seen, Sink, Verdicts};
use crate::harvest::Decode;
use crate::roster::event::Telling;
use crate::roster::{BillableRate, Candidate, Change, CostRate, Event, Record, Request, Resource, Seq, bury};
use crate::store::census::Census;
use crate::store::rates::{AbsentRates, RateIds};
use crate::store::state::{AccountEnd, AccountState};
use crate::store::{Page, StoreError, Table};

/// So many tombstones a transaction.
const MOST_BURIED: usize = 2000;

impl Sink for Writer<'_> {
    async fn account(&self) -> Result<AccountState, StoreError> {
        self.store.account_state(self.fence.account).await
    }

    async fn unknown_users(&self, mut named: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        self.store.retain_new_users(self.fence.account, &mut named).await?;
        Ok(named)
    }

    async fn take<R: Decode + Table>(
        &self,
        batches: Vec<Batch<R>>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<bool, StoreError> {
        self.store(batches, last, report).await
    }

    async fn retry_refused<R: Decode + Table>(
        &self,
        with_pay: bool,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        self.retry::<R>(with_pay, report).await
    }

    async fn unseen(&self, resource: Resource, seen: &Seen) -> Result<Vec<Candidate>, StoreError> {
        let restored = self.store.restore_lost(&self.fence, resource).await?;
        if restored > 0 {
            tracing::warn!(
                account_id = self.fence.account.0,
                resource = resource.name(),
                records = restored,
                "rows of {} were deleted by hand: rosterd restored them from the history, to confirm their deletion \
                 with Harvest",
                resource.name()
            );
        }
        self.store.missing(self.fence.account, resource, &seen.ids, self.again_after).await
    }

    async fn pending(&self) -> Result<HashMap<Resource, Vec<Candidate>>, StoreError> {
        self.store.pending(self.fence.account, self.again_after).await
    }

    async fn absent_rates(
        &self,
        before: Option<DateTime<Utc>>,
    ) -> Result<HashMap<Resource, AbsentRates>, StoreError> {
        self.store.absent_rates(self.fence.account, self.again_after, before).await
    }

    async fn census(&self) -> Result<HashMap<Resource, Census>, StoreError> {
        self.store.census(self.fence.account).await
    }

    async fn live_projects(&self) -> Result<u64, StoreError> {
        self.store.live_projects(self.fence.account).await
    }

    async fn conclude<R: Decode + Table>(
        &self,
        verdicts: Verdicts,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let Verdicts { gone, held, missed } = verdicts;
        for gone in gone.chunks(MOST_BURIED) {
            self.bury::<R>(gone, report).await?;
        }
        if held.is_empty() && missed.is_empty() {
            return Ok(());
        }
        let mut page = self.store.begin(&self.fence).await?;
        page.hold(R::RESOURCE, &held).await?;
        page.miss(R::RESOURCE, &missed).await?;
        page.commit().await?;
        report.of(R::RESOURCE).held += held.len() as u64;
        for group in held.chunk_by(|(_, a), (_, b)| a == b) {
            tracing::warn!(
                event = "deletions.held",
                account_id = report.account.0,
                cycle_id = %report.id,
                resource = R::RESOURCE.name(),
                reason = group[0].1.name(),
                records = group.len(),
                "deletions are held for a person: look with `rosterd deletions list`"
            );
        }
        Ok(())
    }

    async fn walked(&self, resource: Resource, seen: &Seen) -> Result<(), StoreError> {
        let shown = |id: Option<i64>, fingerprint: &str| {
            id.is_some_and(|id| seen.ids.contains(id)) || seen.nameless.contains(fingerprint)
        };
        self.store.forget_rejections(&self.fence, resource, shown).await
    }

    async fn unexplained(
        &self,
        resource: Resource,
        unexplained: Option<(u64, u64)>,
    ) -> Result<(), StoreError> {
        self.store.set_unexplained(&self.fence, resource, unexplained).await
    }

    /// Unless nothing happened, or the database is not there to be told.
    async fn finish(&self, report: &Report, mut end: AccountEnd) -> Result<(), StoreError> {
        let quiet = report.outcome.is_ok() && !report.wrote() && report.mode == Mode::Incremental;
        match &report.outcome {
            Err(CycleError::Store(StoreError::Fenced(_))) => return Ok(()),
            // Nothing is wrong with the account, but a row of the cycle that is there must not look as if it ran.
            Err(CycleError::Store(_) | CycleError::Stopped) => {
                if report.events() > 0 {
                    let mut page = self.store.begin(&self.fence).await?;
                    page.cycle(&report.row()).await?;
                    page.commit().await?;
                }
                return Ok(());
            }
            Err(error) => end.error = Some(crate::telemetry::chain(error)),
            Ok(()) if quiet => return self.store.clear_error(&self.fence).await,
            Ok(()) => {}
        }
        let mut page = self.store.begin(&self.fence).await?;
        page.account(&end).await?;
        if report.wrote() || report.held() > 0 || report.outcome.is_err() {
            page.cycle(&report.row()).await?;
        }
        page.commit().await
    }
}

/// The last versions of records by their events and their history, as far as they have been asked for.
type LastVersions = HashMap<Resource, HashMap<i64, i64>>;

impl Writer<'_> {
    /// Makes tombstones. If PostgreSQL refuses one, the others are made without it.
    ///
    /// # Errors
    /// The refusal; the row stays live, so that the next full read finds the record absent again.
    async fn bury<R: Table>(
        &self,
        gone: &[(i64, Option<Request>)],
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let done = self.bury_together::<R>(gone, report).await;
        if gone.len() < 2 || !done.as_ref().is_err_and(StoreError::is_refusal) {
            return done;
        }
        let (some, rest) = gone.split_at(gone.len() / 2);
        let done = Box::pin(self.bury::<R>(some, report)).await;
        Box::pin(self.bury::<R>(rest, report)).await.and(done)
    }

    /// In one transaction; a user's rates go with the user.
    async fn bury_together<R: Table>(
        &self,
        gone: &[(i64, Option<Request>)],
        report: &mut Report,
    ) -> Result<(), StoreError> {
        match self.try_bury::<R>(gone, &LastVersions::new(), report).await {
            Err(error) if error.is_version_conflict() => {
                let (store, account) = (self.store, self.fence.account);
                let ids: Vec<i64> = gone.iter().map(|(id, _)| *id).collect();
                let rates = match R::RESOURCE {
                    Resource::Users => store.rates_of(account, &ids).await?,
                    _ => RateIds::default(),
                };
                let mut last = LastVersions::new();
                for (resource, ids) in [
                    (Resource::BillableRates, &rates.billable),
                    (Resource::CostRates, &rates.cost),
                    (R::RESOURCE, &ids),
                ] {
                    last.insert(resource, store.last_versions(account, resource, ids).await?);
                }
                self.try_bury::<R>(gone, &last, report).await
            }
            done => done,
        }
    }

    async fn try_bury<R: Table>(
        &self,
        gone: &[(i64, Option<Request>)],
        last: &LastVersions,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut page = self.store.begin(&self.fence).await?;
        // A 404 that is older than what is stored says nothing.
        let mut gone: Vec<(i64, Option<&Request>)> =
            gone.iter().map(|(id, request)| (*id, request.as_ref())).collect();
        gone.retain(|(id, request)| !self.order.is_outdated(R::RESOURCE, *id, Seq::of(*request)));
        self.order.stored(R::RESOURCE, gone.iter().map(|(id, request)| (*id, Seq::of(*request))));
        let ids: Vec<i64> = gone.iter().map(|(id, _)| *id).collect();
        let requests: HashMap<i64, &str> =
            gone.into_iter().filter_map(|(id, request)| Some((id, request?.name()))).collect();
        let rates = match R::RESOURCE {
            Resource::Users => page.rates_of(&ids).await?,
            _ => RateIds::default(),
        };
        let told = (self.telling(&page, report), &requests);
        let mut events = bury_in::<R>(&mut page, &ids, last, told, Change::id).await?;
        let buried = events.len() as u64;
        events.extend(bury_in::<BillableRate>(&mut page, &rates.billable, last, told, person).await?);
        events.extend(bury_in::<CostRate>(&mut page, &rates.cost, last, told, person).await?);
        page.forgive(R::RESOURCE, &ids).await?;
        page.release(R::RESOURCE, &ids).await?;
        page.release(Resource::BillableRates, &rates.billable).await?;
        page.release(Resource::CostRates, &rates.cost).await?;
        // The cycle's row tells of them too, if they happen.
        let before = (*report.of(R::RESOURCE), report.rates);
        let counts = report.of(R::RESOURCE);
        counts.changed += buried;
        counts.deleted += buried;
        report.rates.changed += events.len() as u64 - buried;
        let done = tell(page, &events, report).await;
        if done.is_err() {
            (*report.of(R::RESOURCE), report.rates) = before;
        }
        done
    }
}

/// Whose rate it was.
fn person<R: Record>(deletion: &Change<R>) -> i64 {
    deletion.before.as_ref().and_then(Record::part_of_user).unwrap_or_default()
}

/// Tombstones and their events, within a transaction. `about`: the record, by id, whose request showed it.
async fn bury_in<R: Table>(
    page: &mut Page,
    ids: &[i64],
    last: &LastVersions,
    (telling, requests): (Telling<'_>, &HashMap<i64, &str>),
    about: fn(&Change<R>) -> i64,
) -> Result<Vec<Event>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut deletions = bury(page.rows::<R>(ids).await?);
    if let Some(last) = last.get(&R::RESOURCE) {
        for deletion in &mut deletions {
            last.get(&deletion.id()).into_iter().for_each(|last| deletion.continue_after(*last));
        }
    }
    page.bury(&deletions).await?;
    let told = deletions.iter().map(|deletion| {
        let request = requests.get(&about(deletion)).copied();
        Event::new(deletion, &Telling { request, ..telling })
    });
    Ok(told.collect())
}
