//! What was read → what is written: compared without a lock first, and only where something differs planned and
//! committed under one.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::TimeDelta;

use super::report::Report;
use super::sink::{Batch, LastPage};
use crate::harvest::Decode;
use crate::harvest::wire::Read;
use crate::roster::event::Telling;
use crate::roster::{Event, Fetched, Project, Reading, Record, Request, Resource, plan, unstorable};
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
    /// How long after its first 404 a young record's second one counts: a poll interval.
    pub again_after: TimeDelta,
    /// Compares whole rows and not only hashes: what somebody changed in the tables by hand is put right.
    pub thorough: bool,
}

/// A record that may differ.
struct Suspect<R> {
    image: Fetched<R>,
    /// How far it is to be believed.
    reading: Reading,
    request: Request,
}

impl<R: Record> Suspect<R> {
    fn id(&self) -> i64 {
        self.image.record.id()
    }
}

/// What a page brings that the database does not have.
struct News<R> {
    suspects: Vec<Suspect<R>>,
    projects: Vec<Project>,
    rejections: Vec<Rejection>,
    /// Ids on the rejected list that have been read well now.
    forgiven: Vec<i64>,
    /// Ids that were missing and are there.
    back: Vec<i64>,
    last: Option<LastPage>,
}

impl<R> News<R> {
    fn is_nothing(&self) -> bool {
        self.suspects.is_empty()
            && self.projects.is_empty()
            && self.rejections.is_empty()
            && self.forgiven.is_empty()
            && self.back.is_empty()
            && !self.last.as_ref().is_some_and(|last| last.due)
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
        let news = self.news(batches, last, report).await?;
        if news.is_nothing() {
            return Ok(false);
        }
        tell_of_rejections::<R>(&news.rejections, report);
        self.commit(news, report).await?;
        Ok(true)
    }

    /// What of it the database does not have, as far as can be seen without a lock.
    async fn news<R: Decode + Table>(
        &self,
        batches: Vec<Batch<R>>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<News<R>, StoreError> {
        let (store, account) = (self.store, self.fence.account);
        let ids: Vec<i64> =
            batches.iter().flat_map(|batch| &batch.images).map(|read| read.fetched.record.id()).collect();
        let known =
            if ids.is_empty() { HashMap::new() } else { store.fingerprints::<R>(account, &ids).await? };
        // All images of an id that differs in one of them: which counts is for the plan to say.
        let equal = |image: &Fetched<R>| {
            known.get(&image.record.id()) == Some(&Fingerprint { hash: image.hash, deleted: false })
        };
        let images = batches.iter().flat_map(|batch| &batch.images).map(|read| &read.fetched);
        let mut differing: HashSet<i64> =
            images.clone().filter(|image| !equal(image)).map(|image| image.record.id()).collect();
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

    /// Commits the news. A record that the decoder believed and PostgreSQL refuses is looked for by halves, and
    /// rejected alone; the mark goes with what comes last.
    async fn commit<R: Decode + Table>(
        &self,
        mut news: News<R>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let refused = match self.try_commit(&news, &HashMap::new(), report).await {
            Err(error) if error.is_refusal() && !news.suspects.is_empty() => error,
            Err(error) if error.is_version_conflict() => {
                let ids: Vec<i64> = news.suspects.iter().map(Suspect::id).collect();
                let last = self.store.last_versions(self.fence.account, R::RESOURCE, &ids).await?;
                return self.try_commit(&news, &last, report).await;
            }
            done => return done,
        };
        let first = news.suspects[0].id();
        if news.suspects.iter().all(|suspect| suspect.id() == first) {
            let rejections = news.suspects.drain(..).map(|suspect| Rejection {
                id: Some(first),
                user_id: owner(&suspect.image.record),
                raw: suspect.image.raw.get().to_owned(),
                reason: refused.refusal(),
            });
            news.rejections.extend(rejections.take(1));
            news.forgiven.retain(|id| *id != first);
            report.of(R::RESOURCE).rejected += 1;
            tell_of_rejections::<R>(&news.rejections, report);
            return self.try_commit(&news, &HashMap::new(), report).await;
        }
        news.suspects.sort_by_key(Suspect::id);
        let middle = news.suspects[news.suspects.len() / 2].id();
        let first = news.suspects[0].id();
        let cut = news
            .suspects
            .partition_point(|suspect| suspect.id() < middle || first == middle && suspect.id() == middle);
        let front = News {
            suspects: news.suspects.drain(..cut).collect(),
            projects: Vec::new(),
            rejections: Vec::new(),
            forgiven: Vec::new(),
            back: Vec::new(),
            last: None,
        };
        Box::pin(self.commit(front, report)).await?;
        Box::pin(self.commit(news, report)).await
    }

    async fn try_commit<R: Decode + Table>(
        &self,
        news: &News<R>,
        last: &HashMap<i64, i64>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let mut page = self.store.begin(&self.fence).await?;
        let telling = self.telling(&page, report);
        let (mut events, mut refreshed) = (Vec::new(), 0);
        for suspects in news.suspects.chunk_by(|a, b| a.reading == b.reading) {
            let ids: Vec<i64> = suspects.iter().map(Suspect::id).collect();
            let images = suspects.iter().map(|suspect| suspect.image.clone()).collect();
            let requests: HashMap<i64, &str> =
                suspects.iter().map(|suspect| (suspect.id(), &*suspect.request)).collect();
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
        page.write_projects(&news.projects).await?;
        page.reject(R::RESOURCE, &news.rejections).await?;
        page.forgive(R::RESOURCE, &news.forgiven).await?;
        page.release(R::RESOURCE, &news.back).await?;
        if R::RESOURCE == Resource::Users {
            page.release_places(&news.back).await?;
        }
        if let Some(page_end) = &news.last {
            page.mark(R::RESOURCE, &page_end.mark).await?;
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
fn owner<R: Decode>(record: &R) -> Option<i64> {
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
