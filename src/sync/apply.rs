//! What was read → what is written: compared without a lock first, and only where something differs planned and
//! committed under one.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::cycle::CycleError;
use super::report::Report;
use super::schedule::Mode;
use super::sink::{Batch, LastPage, Sink};
use crate::harvest::Decode;
use crate::harvest::wire::Read;
use crate::roster::event::Telling;
use crate::roster::{Event, Fetched, Project, Reading, Resource, User, plan, unstorable};
use crate::store::rejected::Rejection;
use crate::store::state::{AccountEnd, ListState};
use crate::store::{Fence, Fingerprint, Store, StoreError, Table};

/// Writes an account that this process holds.
pub struct Writer<'a> {
    /// The database.
    pub store: &'a Store,
    /// Proof that the account is ours.
    pub fence: Fence,
}

impl Sink for Writer<'_> {
    async fn states(&self) -> Result<HashMap<Resource, ListState>, StoreError> {
        self.store.list_states(self.fence.account).await
    }

    async fn unknown_users(&self, mut named: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        let known = self.store.fingerprints::<User>(self.fence.account, &named).await?;
        named.retain(|id| !known.contains_key(id));
        Ok(named)
    }

    /// In one transaction. Where nothing differs and no mark is due, there is none at all.
    async fn take<R: Decode + Table>(
        &self,
        batches: Vec<Batch<R>>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<bool, StoreError> {
        let Self { store, fence } = self;
        let account = fence.account;
        let ids: Vec<i64> =
            batches.iter().flat_map(|batch| &batch.images).map(|read| read.fetched.record.id()).collect();
        let known =
            if ids.is_empty() { HashMap::new() } else { store.fingerprints::<R>(account, &ids).await? };
        // All images of an id that differs in one of them: which counts is for the plan to say.
        let equal = |image: &Fetched<R>| {
            known.get(&image.record.id()) == Some(&Fingerprint { hash: image.hash, deleted: false })
        };
        let images = batches.iter().flat_map(|batch| &batch.images).map(|read| &read.fetched);
        let differing: HashSet<i64> =
            images.filter(|image| !equal(image)).map(|image| image.record.id()).collect();
        let mut projects: BTreeMap<i64, Project> = BTreeMap::new();
        let mut rejections: Vec<Rejection> = Vec::new();
        let mut suspects: Vec<(Vec<Fetched<R>>, Reading)> = Vec::new();
        for batch in batches {
            rejections.extend(batch.rejected.into_iter().map(|rejected| Rejection {
                id: rejected.id,
                raw: rejected.raw.get().to_owned(),
                reason: rejected.reason,
            }));
            let mut images = Vec::new();
            for Read { fetched, project } in batch.images {
                projects.extend(project.map(|project| (project.id, project)));
                let id = fetched.record.id();
                match unstorable(&fetched.record) {
                    Some(reason) if !known.contains_key(&id) => rejections.push(Rejection {
                        id: Some(id),
                        raw: fetched.raw.get().to_owned(),
                        reason: reason.to_owned(),
                    }),
                    _ if differing.contains(&id) => images.push(fetched),
                    _ => {}
                }
            }
            if !images.is_empty() {
                suspects.push((images, batch.reading));
            }
        }
        let projects = match projects.len() {
            0 => Vec::new(),
            _ => store.project_news(account, projects.into_values().collect()).await?,
        };
        report.of(R::RESOURCE).rejected += rejections.len() as u64;
        let bad: HashSet<i64> = rejections.iter().filter_map(|rejection| rejection.id).collect();
        let good: Vec<i64> = ids.into_iter().filter(|id| !bad.contains(id)).collect();
        let rejections = match rejections.len() {
            0 => rejections,
            _ => store.rejection_news(account, R::RESOURCE, rejections).await?,
        };
        let forgiven = self.forgiven::<R>(good).await?;
        if suspects.is_empty()
            && projects.is_empty()
            && rejections.is_empty()
            && forgiven.is_empty()
            && !last.as_ref().is_some_and(|last| last.due)
        {
            return Ok(false);
        }
        for rejection in &rejections {
            tracing::warn!(
                event = "record.rejected",
                account_id = account.0,
                cycle_id = %report.id,
                resource = R::RESOURCE.name(),
                record_id = rejection.id,
                error = rejection.reason,
                "a record cannot be read: it is kept in roster.rejected_records"
            );
        }

        let mut page = store.begin(fence).await?;
        let telling = Telling {
            account,
            stream: page.stream(),
            cycle: report.id,
            mode: report.mode.name(),
            now: page.now(),
        };
        let (mut events, mut refreshed) = (Vec::new(), 0);
        for (images, reading) in suspects {
            let ids: Vec<i64> = images.iter().map(|image| image.record.id()).collect();
            let writes = plan(&page.rows::<R>(&ids).await?, images, reading);
            page.write(&writes).await?;
            let before = events.len();
            events.extend(
                writes
                    .iter()
                    .filter_map(|write| write.change.as_ref())
                    .map(|change| Event::new(change, &telling)),
            );
            refreshed += writes.len() - (events.len() - before);
        }
        page.write_projects(&projects).await?;
        page.reject(R::RESOURCE, &rejections).await?;
        page.forgive(R::RESOURCE, &forgiven).await?;
        if let Some(last) = last {
            page.mark(R::RESOURCE, &last.mark).await?;
        }
        let counts = report.of(R::RESOURCE);
        counts.changed += events.len() as u64;
        counts.refreshed += refreshed as u64;
        if !events.is_empty() {
            page.cycle(&report.row()).await?;
        }
        page.emit(&events).await?;
        page.commit().await?;
        Ok(true)
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
        end.full = report.mode == Mode::Full;
        let mut page = self.store.begin(&self.fence).await?;
        page.account(&end).await?;
        if report.wrote() || report.outcome.is_err() {
            page.cycle(&report.row()).await?;
        }
        page.commit().await
    }
}

impl Writer<'_> {
    /// Records on the rejected list that have been read well now.
    async fn forgiven<R: Decode + Table>(&self, mut good: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        if !good.is_empty() {
            let on_record = self.store.rejected_ids(self.fence.account, R::RESOURCE).await?;
            good.retain(|id| on_record.contains(id));
        }
        Ok(good)
    }
}
