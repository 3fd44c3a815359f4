//! A list, read to its end: each page planned and committed by itself, the watermark with the last.
//!
//! What changed since the watermark and everything are the same code: the first asks with a date, the second without.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use super::cycle::{Cycle, CycleError, LookUps, Rules};
use super::probe::Doubt;
use super::report::{Counts, Report};
use super::schedule::Mode;
use super::sink::{Batch, LastPage, Seen, Sink};
use crate::harvest::client::Lookup;
use crate::harvest::pace::Lane;
use crate::harvest::pages::{Page, Pages};
use crate::harvest::{Decode, HarvestError};
use crate::roster::watermark::Watermark;
use crate::roster::{Reading, Record, Resource, User};
use crate::store::Table;
use crate::store::rejected::fingerprint;
use crate::store::state::{AccountState, ListState, Mark};

/// A list that changes during pagination is read so often at the most.
const MOST_WALKS: u32 = 3;
/// Users whom new assignments name are looked up by id, so many in a cycle at the most: one request each.
const MOST_LOOK_UPS: u32 = 200;
/// While nothing changes the watermark is written at most this often.
const IDLE_MARK: TimeDelta = TimeDelta::seconds(60);

impl<S: Sink> Cycle<'_, S> {
    /// Reads a list, again where it changed during pagination. A read of what changed may end with the reason why
    /// everything must be read. Without `marks` the watermark stays.
    pub(super) async fn list<R: Decode + Table>(
        &mut self,
        known: &AccountState,
        lane: Lane,
        marks: bool,
        report: &mut Report,
    ) -> Result<Result<Seen, Doubt>, CycleError> {
        let mut walks = 1;
        loop {
            *report.of(R::RESOURCE) = Counts { seen: 0, ..*report.of(R::RESOURCE) };
            match self.walk::<R>(known, lane, marks, report).await {
                Err(CycleError::Harvest(error @ HarvestError::Drifted { .. })) if walks < MOST_WALKS => {
                    self.say_read_again(&error, report);
                    walks += 1;
                }
                ended => return ended,
            }
        }
    }

    fn say_read_again(&self, error: &HarvestError, report: &Report) {
        tracing::warn!(
            account_id = self.client.account().0,
            cycle_id = %report.id,
            error = %error,
            "the list changed during pagination; reading it again"
        );
    }

    async fn walk<R: Decode + Table>(
        &mut self,
        known: &AccountState,
        lane: Lane,
        marks: bool,
        report: &mut Report,
    ) -> Result<Result<Seen, Doubt>, CycleError> {
        let state = known.list(R::RESOURCE);
        let began = self.clock.now();
        let mode = report.mode;
        let mark = state.watermark.filter(|_| mode == Mode::Incremental);
        let buffer = self.rules.skew_buffer;
        let client = self.client;
        let mut pages = client.list::<R>(mark.map(|mark| mark.updated_since(buffer)), lane);
        let mut next = self.unless_stopped(pages.next()).await?;
        let (mut start, mut nameless) = (None, HashSet::new());
        while let Some(page) = next {
            let start = *start.get_or_insert(page.start);
            if mark.is_some_and(|mark| mark.clock_moved(&start, buffer)) {
                return Ok(Err(Doubt::ClockMoved));
            }
            let counts = report.of(R::RESOURCE);
            counts.seen += (page.records.len() + page.repeats.len() + page.rejected.len()) as u64;
            let (seen, total) = (counts.seen, page.total);
            let mut marks = marks;
            if page.last && seen == 0 && mode == Mode::Full {
                if R::RESOURCE == Resource::Users {
                    return Err(CycleError::NobodyThere);
                }
                marks &= !self.has_some(R::RESOURCE).await?;
            }
            nameless.extend(unnamed(&page));
            let new = self.new_users(&page, mode).await?;
            if mode == Mode::Incremental && !new.is_empty() && self.is_other_company(known, lane).await? {
                return Ok(Err(Doubt::OtherCompany));
            }
            if R::RESOURCE != Resource::Users {
                self.meet_users(new, lane, report).await?;
            }
            if page.last {
                let last = self.last_page(&state, Watermark::after(&start), began, report, R::RESOURCE);
                let wrote = self.store_page(page, marks.then_some(last), report).await?;
                let counts = *report.of(R::RESOURCE);
                let polls = self.memory.idle_polls.entry(R::RESOURCE).or_default();
                *polls = if wrote { 0 } else { *polls } + i64::from(counts.changed + counts.refreshed == 0);
                (self.progress)(R::RESOURCE, seen, total);
                break;
            }
            // The next page is taken apart while this one is stored.
            let cancel = self.cancel;
            let (fetched, stored) =
                tokio::join!(unless_stopped(cancel, pages.next()), self.store_page(page, None, report));
            stored?;
            (self.progress)(R::RESOURCE, seen, total);
            next = fetched?;
        }
        let (ids, total) = pages.into_seen();
        Ok(Ok(Seen { ids, nameless, total }))
    }

    /// Reads a short list to its end and stores it, each record as `user`'s where it does not say so itself; again where
    /// the list changed meanwhile. `pages` begins a read of the list.
    pub(super) async fn take_all<R: Decode + Table>(
        &self,
        pages: impl Fn() -> Pages<R>,
        user: i64,
        report: &mut Report,
    ) -> Result<Seen, CycleError> {
        let mut reads = 1;
        loop {
            match self.take_once(pages(), user, report).await {
                Err(CycleError::Harvest(error @ HarvestError::Drifted { .. })) if reads < MOST_WALKS => {
                    self.say_read_again(&error, report);
                    reads += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn take_once<R: Decode + Table>(
        &self,
        mut pages: Pages<R>,
        user: i64,
        report: &mut Report,
    ) -> Result<Seen, CycleError> {
        let mut nameless = HashSet::new();
        while let Some(mut page) = self.unless_stopped(pages.next()).await? {
            for read in &mut page.records {
                read.fetched.record.set_user(user);
            }
            for rejected in &mut page.rejected {
                rejected.user_id = Some(user);
            }
            nameless.extend(unnamed(&page));
            let batch = Batch { images: page.records, rejected: page.rejected, reading: Reading::Full };
            self.sink.take(vec![batch], None, report).await?;
        }
        let (ids, total) = pages.into_seen();
        Ok(Seen { ids, nameless, total })
    }

    /// What the complete read leaves behind. Must be written unless the read was idle and the last mark is young.
    fn last_page(
        &self,
        state: &ListState,
        watermark: Watermark,
        attempted_at: DateTime<Utc>,
        report: &mut Report,
        resource: Resource,
    ) -> LastPage {
        let finished_at = self.clock.now();
        let counts = *report.of(resource);
        let idle = report.mode == Mode::Incremental && counts.changed + counts.refreshed == 0;
        let young = state.last_success_at.is_some_and(|last| (finished_at - last).abs() < IDLE_MARK);
        let mark = Mark {
            watermark,
            attempted_at,
            finished_at,
            idle_polls: self.memory.idle_polls.get(&resource).copied().unwrap_or_default(),
        };
        LastPage { mark, due: !(idle && young) }
    }

    /// Users of a page who are new to the mirror: its own, or those whom its assignments name. A full read need not know
    /// the former.
    async fn new_users<R: Decode + Table>(&self, page: &Page<R>, mode: Mode) -> Result<Vec<i64>, CycleError> {
        let records = page.records.iter().map(|read| &read.fetched.record);
        let users: HashSet<i64> = match R::RESOURCE {
            Resource::Users if mode == Mode::Full => HashSet::new(),
            Resource::Users => records.map(Record::id).collect(),
            _ => records.filter_map(Decode::user).collect(),
        };
        if users.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.sink.unknown_users(users.into_iter().collect()).await?)
    }

    /// Looks up users whom an assignment names and who are new to the mirror, so that in the outbox too users come before
    /// their assignments. If Harvest does not show the user, or too many are new, the assignment is stored all the same:
    /// once a user becomes visible, the list of users has them.
    async fn meet_users(&mut self, new: Vec<i64>, lane: Lane, report: &mut Report) -> Result<(), CycleError> {
        for id in new {
            let look_ups = &mut self.memory.look_ups;
            if look_ups.made >= MOST_LOOK_UPS || look_ups.failed {
                look_ups.unfound += 1;
                continue;
            }
            look_ups.made += 1;
            let batch = match self.unless_stopped(self.client.user(id, lane)).await {
                Ok(Lookup::Found(read)) => Batch::<User> { images: vec![*read], ..Batch::default() },
                Ok(Lookup::Unreadable(rejected)) => Batch { rejected: vec![rejected], ..Batch::default() },
                Ok(Lookup::Gone(_) | Lookup::Unclear(_)) => Batch::default(),
                // One user who cannot be looked up must not hold up the page; the rest would meet the same trouble.
                Err(error) if error.is_passing() => {
                    self.memory.look_ups.failed = true;
                    Batch::default()
                }
                Err(error) => return Err(error),
            };
            if batch.images.is_empty() {
                self.memory.look_ups.unfound += 1;
            } else {
                self.memory.met_users.push(id);
            }
            self.sink.take(vec![batch], None, report).await?;
        }
        Ok(())
    }

    /// At the end of a cycle.
    pub(super) fn say_unfound_users(&self, report: &Report) {
        let LookUps { made, unfound, .. } = self.memory.look_ups;
        if unfound > 0 {
            tracing::warn!(
                account_id = self.client.account().0,
                cycle_id = %report.id,
                users = unfound,
                "new assignments name {unfound} users whom Harvest does not show ({made} were looked up by id); the \
                 assignments are mirrored, and the users will be once Harvest lists them"
            );
        }
    }

    async fn store_page<R: Decode + Table>(
        &self,
        page: Page<R>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        let by_stamp = Reading::Incremental { now: page.start.server.unwrap_or(page.start.local) };
        let reading = if report.mode == Mode::Full { Reading::Full } else { by_stamp };
        let first = Batch { images: page.records, rejected: page.rejected, reading };
        // What an earlier page of this walk had already is not more authoritative than that.
        let again = Batch { images: page.repeats, rejected: Vec::new(), reading: by_stamp };
        Ok(self.sink.take(vec![first, again], last, report).await?)
    }

    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, HarvestError>>,
    ) -> Result<T, CycleError> {
        unless_stopped(self.cancel, work).await
    }
}

/// Fingerprints of the records whose very id cannot be read.
fn unnamed<R>(page: &Page<R>) -> impl Iterator<Item = String> {
    let unnamed = page.rejected.iter().filter(|rejected| rejected.id.is_none());
    unnamed.map(|rejected| fingerprint(None, rejected.raw.get()))
}

/// Waiting for Harvest, or for leave to ask, ends when we are told to stop; storing does not.
async fn unless_stopped<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, HarvestError>>,
) -> Result<T, CycleError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(CycleError::Stopped),
        done = work => Ok(done?),
    }
}

/// The first read of an account that is alone has nothing to make room for; any other full read is in the background, or
/// a large account's first would take every permit in a few seconds, and a small one's polls wait for the next window.
pub(super) fn lane(mode: Mode, known: &AccountState, rules: Rules) -> Lane {
    let first = known.lists.values().filter(|list| list.watermark.is_some()).count() < Resource::LISTS.len();
    if mode == Mode::Full && !(first && rules.alone) { rules.background() } else { Lane::Poll }
}
