//! What was read → what is written: compared without a lock first, and only where something differs planned and
//! committed under one.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::TimeDelta;

use super::refused::Refused;
use super::report::Report;
use super::sink::{Batch, LastPage};
use crate::harvest::Decode;
use crate::harvest::wire::Read;
use crate::roster::event::Telling;
use crate::roster::{
    Event, Fetched, Guard, Order, Project, Reading, Record, Request, Resource, Seq, plan, unstorable,
};
use crate::store::rejected::Rejection;
use crate::store::{Fence, Fingerprint, Page, Store, StoreError, Table};
use crate::telemetry::meters;

/// More bad records than this on one page are said in one line.
const MOST_NAMED: usize = 20;

/// Writes an account that this process holds.
pub struct Writer<'a> {
    /// The database.
    pub store: &'a Store,
    /// Proof that the account is ours.
    pub fence: Fence,
    /// The order of the account's requests.
    pub order: &'a Order,
    /// How long after its first 404 a young record's second one counts: a poll interval.
    pub again_after: TimeDelta,
    /// If PostgreSQL refuses more records of a page, the cause is the database.
    pub guard: Guard,
    /// Compares whole rows and not only hashes: what somebody changed in the tables by hand is put right.
    pub thorough: bool,
}

/// A record that may differ.
pub(super) struct Suspect<R> {
    pub image: Fetched<R>,
    /// How far it is to be believed.
    pub reading: Reading,
    pub request: Option<Request>,
}

impl<R: Record> Suspect<R> {
    pub fn id(&self) -> i64 {
        self.image.record.id()
    }

    fn asked(&self) -> Seq {
        Seq::of(self.request.as_ref())
    }
}

/// What a page brings that the database does not have.
pub(super) struct News<R> {
    pub suspects: Vec<Suspect<R>>,
    projects: Vec<Project>,
    pub rejections: Vec<Rejection>,
    /// Ids on the rejected list that have been read well now.
    forgiven: Vec<i64>,
    /// Ids that were missing and are there.
    back: Vec<i64>,
    last: Option<LastPage>,
}

impl<R: Record> News<R> {
    pub fn is_nothing(&self) -> bool {
        self.suspects.is_empty()
            && self.projects.is_empty()
            && self.rejections.is_empty()
            && self.forgiven.is_empty()
            && self.back.is_empty()
            && !self.last.as_ref().is_some_and(|last| last.due)
    }

    /// Leaves out the records that PostgreSQL refuses. Those that are on file stay there.
    pub fn leave_out(&mut self, refused: &Refused) {
        self.suspects.retain(|suspect| !refused.contains_key(&suspect.id()));
        self.forgiven.retain(|id| !refused.contains_key(id));
    }
}

impl Writer<'_> {
    /// In one transaction. Where nothing differs and no mark is due, there is none at all.
    pub(super) async fn store<R: Decode + Table>(
        &self,
        batches: Vec<Batch<R>>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<bool, StoreError> {
        let of = batches.iter().map(|batch| batch.images.len() + batch.rejected.len()).sum();
        let mut news = self.news(batches, last, report).await?;
        if news.is_nothing() {
            return Ok(false);
        }
        self.commit(&mut news, of, report).await?;
        tell_of_rejections::<R>(&news.rejections, report);
        Ok(true)
    }

    /// What of it the database does not have, as far as can be seen without a lock.
    pub(super) async fn news<R: Decode + Table>(
        &self,
        mut batches: Vec<Batch<R>>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<News<R>, StoreError> {
        let (store, account) = (self.store, self.fence.account);
        // An answer that is older than what is stored says nothing of the record, not even that it is there.
        let outdated = |id, asked| self.order.is_outdated(R::RESOURCE, id, asked);
        for Batch { images, rejected, .. } in &mut batches {
            images.retain(|read| !outdated(read.fetched.record.id(), read.asked()));
            rejected.retain(|bad| bad.id.is_none_or(|id| !outdated(id, bad.request.asked())));
        }
        let ids: Vec<i64> =
            batches.iter().flat_map(|batch| &batch.images).map(|read| read.fetched.record.id()).collect();
        let known =
            if ids.is_empty() { HashMap::new() } else { store.fingerprints::<R>(account, &ids).await? };
        // All images of an id that differs in one of them: which counts is for the plan to say. While an older request is in
        // flight its answer may be stored next, so what is equal now is looked at again under the lock.
        let equal = |Read { fetched: image, .. }: &Read<R>| {
            known.get(&image.record.id()) == Some(&Fingerprint { hash: image.hash, deleted: false })
        };
        let reads = batches.iter().flat_map(|batch| &batch.images);
        let mut differing: HashSet<i64> = reads
            .clone()
            .filter(|read| !equal(read) || self.order.has_older(read.asked()))
            .map(|read| read.fetched.record.id())
            .collect();
        let images = reads.map(|read| &read.fetched);
        if self.thorough && !ids.is_empty() {
            let rows = store.rows::<R>(account, &ids).await?;
            let wrong = images.filter(|image| {
                rows.get(&image.record.id()).is_some_and(|row| {
                    let record = image.record.clone().or_known(&row.record);
                    record.fields() != row.record.fields() || record.quiet() != row.record.quiet()
                })
            });
            differing.extend(wrong.map(|image| image.record.id()));
        }
        let mut projects: BTreeMap<i64, Project> = BTreeMap::new();
        let mut rejections: Vec<Rejection> = Vec::new();
        let mut suspects = Vec::new();
        for batch in batches {
            rejections.extend(batch.rejected.into_iter().map(|rejected| Rejection {
                id: rejected.id,
                user_id: rejected.user_id,
                raw: rejected.raw.get().to_owned(),
                reason: rejected.reason,
                refused_by_database: false,
            }));
            let reading = batch.reading;
            for Read { fetched: image, project, request } in batch.images {
                projects.extend(project.map(|project| (project.id, project)));
                let id = image.record.id();
                match unstorable(&image.record) {
                    Some(reason) if known.get(&id).is_none_or(|row| row.deleted) => {
                        rejections.push(Rejection {
                            id: Some(id),
                            user_id: owner(&image.record),
                            raw: image.raw.get().to_owned(),
                            reason: reason.to_owned(),
                            refused_by_database: false,
                        });
                    }
                    _ if differing.contains(&id) => suspects.push(Suspect { image, reading, request }),
                    _ => {}
                }
            }
        }
        let projects = match projects.len() {
            0 => Vec::new(),
            _ => store.project_news(account, projects.into_values().collect()).await?,
        };
        report.of(R::RESOURCE).rejected += rejections.len() as u64;
        let bad: HashSet<i64> = rejections.iter().filter_map(|rejection| rejection.id).collect();
        let (mut forgiven, mut back) = (Vec::new(), Vec::new());
        if !ids.is_empty() || !bad.is_empty() {
            let all: Vec<i64> = ids.iter().chain(&bad).copied().collect();
            let on_record = store.on_record(account, R::RESOURCE, &all).await?;
            back = all;
            back.retain(|id| on_record.missing.contains(id));
            forgiven = ids;
            forgiven.retain(|id| on_record.rejected.contains(id) && !bad.contains(id));
        }
        let rejections = match rejections.len() {
            0 => rejections,
            _ => store.rejection_news(account, R::RESOURCE, rejections).await?,
        };
        Ok(News { suspects, projects, rejections, forgiven, back, last })
    }

    /// Commits the news of a page that has `of` records. Records that PostgreSQL refuses are quarantined, unless the cause is
    /// the database.
    async fn commit<R: Decode + Table>(
        &self,
        news: &mut News<R>,
        of: usize,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let error = match self.try_commit(news, report).await {
            Err(error) if error.is_refusal() && !news.suspects.is_empty() => error,
            done => return done,
        };
        let refused = self.quarantine(news, of, error, report).await?;
        self.try_commit(news, report).await?;
        let counts = report.of(R::RESOURCE);
        counts.rejected += refused;
        counts.refused += refused;
        Ok(())
    }

    pub(super) async fn try_commit<R: Table>(
        &self,
        news: &News<R>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        match self.commit_once(news, &HashMap::new(), report).await {
            Err(error) if error.is_version_conflict() => {
                let last = self.last_versions(&news.suspects).await?;
                self.commit_once(news, &last, report).await
            }
            done => done,
        }
    }

    pub(super) async fn last_versions<R: Table>(
        &self,
        suspects: &[Suspect<R>],
    ) -> Result<HashMap<i64, i64>, StoreError> {
        let ids: Vec<i64> = suspects.iter().map(Suspect::id).collect();
        self.store.last_versions(self.fence.account, R::RESOURCE, &ids).await
    }

    async fn commit_once<R: Table>(
        &self,
        news: &News<R>,
        last: &HashMap<i64, i64>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut page = self.store.begin(&self.fence).await?;
        let (events, refreshed) = self.write(&mut page, &news.suspects, last, report).await?;
        self.order.stored(R::RESOURCE, news.suspects.iter().map(|suspect| (suspect.id(), suspect.asked())));
        page.write_projects(&news.projects).await?;
        page.reject(R::RESOURCE, &news.rejections).await?;
        page.forgive(R::RESOURCE, &news.forgiven).await?;
        page.release(R::RESOURCE, &news.back).await?;
        if R::RESOURCE == Resource::Users {
            page.release_places(&news.back).await?;
        }
        if let Some(last) = &news.last {
            page.mark(R::RESOURCE, &last.mark).await?;
        }
        // The cycle's row tells of this page too; what was refused is counted when it is tried again.
        let counts = report.of(R::RESOURCE);
        let before = *counts;
        counts.changed += events.len() as u64;
        counts.refreshed += refreshed as u64;
        let done = tell(page, &events, report).await;
        if done.is_err() {
            *report.of(R::RESOURCE) = before;
        }
        done
    }

    /// Writes what differs from the locked rows and is not older than they are, with versions above the last ones. Returns the
    /// events to emit, and how many rows changed without one.
    pub(super) async fn write<R: Table>(
        &self,
        page: &mut Page,
        suspects: &[Suspect<R>],
        last: &HashMap<i64, i64>,
        report: &Report,
    ) -> Result<(Vec<Event>, usize), StoreError> {
        let telling = self.telling(page, report);
        let (mut events, mut refreshed) = (Vec::new(), 0);
        let outdated = |it: &Suspect<R>| self.order.is_outdated(R::RESOURCE, it.id(), it.asked());
        let suspects: Vec<&Suspect<R>> = suspects.iter().filter(|suspect| !outdated(suspect)).collect();
        for suspects in suspects.chunk_by(|a, b| a.reading == b.reading) {
            let ids: Vec<i64> = suspects.iter().map(|suspect| suspect.id()).collect();
            let images = suspects.iter().map(|suspect| suspect.image.clone()).collect();
            let requests: HashMap<i64, &str> = suspects
                .iter()
                .filter_map(|suspect| Some((suspect.id(), suspect.request.as_ref()?.name())))
                .collect();
            let mut writes = plan(&page.rows::<R>(&ids).await?, images, suspects[0].reading);
            for write in &mut writes {
                last.get(&write.record.id()).into_iter().for_each(|last| write.continue_after(*last));
            }
            page.write(&writes).await?;
            let before = events.len();
            let changes = writes.iter().filter_map(|write| write.change.as_ref());
            events.extend(changes.map(|change| {
                let request = requests.get(&change.id()).copied();
                Event::new(change, &Telling { request, ..telling })
            }));
            refreshed += writes.len() - (events.len() - before);
        }
        Ok((events, refreshed))
    }

    /// Where and when the events of this transaction are told.
    pub(super) fn telling(&self, page: &Page, report: &Report) -> Telling<'static> {
        Telling {
            account: self.fence.account,
            stream: page.stream(),
            cycle: report.id,
            mode: report.mode.name(),
            request: None,
            now: page.now(),
        }
    }
}

/// The user whose record it is.
pub(super) fn owner<R: Decode>(record: &R) -> Option<i64> {
    match R::RESOURCE {
        Resource::Users => Some(record.id()),
        _ => record.user().or_else(|| record.part_of_user()),
    }
}

/// Ends the transaction: the cycle as it stands, its events, and the commit.
pub(super) async fn tell(mut page: Page, events: &[Event], report: &Report) -> Result<(), StoreError> {
    if !events.is_empty() {
        page.cycle(&report.row()).await?;
    }
    page.emit(events).await?;
    page.commit().await?;
    for alike in events.chunk_by(|a, b| (a.resource, a.kind) == (b.resource, b.kind)) {
        let Event { resource, kind, .. } = &alike[0];
        meters::changes(report.account.0, resource.name(), kind.name(), alike.len() as u64);
    }
    Ok(())
}

fn tell_of_rejections<R: Table>(rejections: &[Rejection], report: &Report) {
    for rejection in rejections.iter().take(MOST_NAMED) {
        tracing::warn!(
            event = "record.rejected",
            account_id = report.account.0,
            cycle_id = %report.id,
            resource = R::RESOURCE.name(),
            record_id = rejection.id,
            error = rejection.reason,
            "a record cannot be read: it is kept in roster.rejected_records"
        );
    }
    if let Some(more) = rejections.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        tracing::warn!(
            event = "record.rejected",
            account_id = report.account.0,
            cycle_id = %report.id,
            resource = R::RESOURCE.name(),
            records = more,
            "{more} more records of this page cannot be read"
        );
    }
}
