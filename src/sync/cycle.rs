//! One cycle: users, then assignments; each a walk of pages; each page planned and committed by itself; the
//! watermark with the last.
//!
//! An incremental and a full cycle are the same code: the first asks what changed since the watermark, the second
//! asks without a date and is believed even against a newer stamp. What a full read does not see is *not* taken for
//! deleted. Dropping a cycle anywhere is safe: nothing is half-written, and what is read again is found equal.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use super::report::{Counts, Report};
use super::schedule::Mode;
use super::sink::{Batch, LastPage, Sink};
use crate::clock::Clock;
use crate::harvest::client::Lookup;
use crate::harvest::pace::Lane;
use crate::harvest::pages::Page;
use crate::harvest::{Client, Decode, HarvestError};
use crate::roster::watermark::Watermark;
use crate::roster::{Assignment, Reading, Resource, User};
use crate::store::state::{AccountEnd, ListState, Mark};
use crate::store::{StoreError, Table};

/// A walk by page numbers that does not hold still is repeated so often.
const MOST_WALKS: u32 = 3;
/// While nothing changes the watermark is written at most this often.
const IDLE_MARK: TimeDelta = TimeDelta::seconds(60);

/// Why a cycle was not good. The watermark stays where it was.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    /// Harvest.
    #[error(transparent)]
    Harvest(#[from] HarvestError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An account always has the person whose token this is.
    #[error("Harvest's list of users came back empty, which cannot be: nothing was concluded from it")]
    NobodyThere,
    /// We were told to stop.
    #[error(
        "stopped before the end, as asked; what was stored is kept, and the next cycle goes on from there"
    )]
    Stopped,
}

impl CycleError {
    /// Only a person can help: the token or the account.
    pub fn is_credentials(&self) -> bool {
        matches!(self, Self::Harvest(error) if error.is_credentials())
    }
}

/// The rules of reading; handed in by `app`.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How far behind the watermark a read begins.
    pub skew_buffer: TimeDelta,
    /// How often everything is read.
    pub full_interval: TimeDelta,
}

/// What a worker remembers from cycle to cycle. Losing it costs a request or a row, never a change.
#[derive(Debug, Default)]
pub struct Memory {
    /// Users of assignments that Harvest would not show: not asked for again until the next full read.
    unknown_users: HashSet<i64>,
    /// Idle reads since the watermark was last written.
    idle_polls: HashMap<Resource, i64>,
}

/// Hears of each page once it is stored: the list, records so far, and how many there are where that is known.
pub type Progress<'a> = &'a (dyn Fn(Resource, u64, Option<u64>) + Sync);

/// A cycle to be run.
pub struct Cycle<'a, S> {
    /// Where its pages go.
    pub sink: &'a S,
    /// Harvest.
    pub client: &'a Client,
    /// The time.
    pub clock: &'a dyn Clock,
    /// The rules.
    pub rules: Rules,
    /// What the worker remembers.
    pub memory: &'a mut Memory,
    /// Who watches.
    pub progress: Progress<'a>,
    /// Told to stop, the cycle ends with the page in hand.
    pub cancel: &'a CancellationToken,
}

/// A list was asked for what changed, but the clocks say that stamps do not compare.
struct ClockMoved;

impl<S: Sink> Cycle<'_, S> {
    /// Runs it to its end. A cycle that fails is a value too.
    pub async fn run(mut self, mode: Mode) -> Report {
        let before = self.client.requests();
        let mut report = Report::new(self.client.account(), mode, self.clock.now());
        let mut end = AccountEnd::default();
        report.outcome = match self.read(&mut report, &mut end).await {
            Ok(None) => Ok(()),
            Ok(Some(ClockMoved)) => {
                tracing::warn!(
                    account_id = self.client.account().0,
                    cycle_id = %report.id,
                    "Harvest's clock and ours moved against each other: reading everything"
                );
                report.mode = Mode::Full;
                self.read(&mut report, &mut end).await.map(|_| ())
            }
            Err(error) => Err(error),
        };
        report.requests = self.client.requests() - before;
        report.finished_at = Some(self.clock.now());
        if let Err(error) = self.sink.finish(&report, end).await
            && report.outcome.is_ok()
        {
            report.outcome = Err(error.into());
        }
        report
    }

    async fn read(
        &mut self,
        report: &mut Report,
        end: &mut AccountEnd,
    ) -> Result<Option<ClockMoved>, CycleError> {
        let states = self.sink.states().await?;
        let lane = lane(report.mode, &states);
        if report.mode == Mode::Full {
            self.memory.unknown_users.clear();
            let me = self.unless_stopped(self.client.me(lane)).await?;
            end.owner = Some((me.id, me.access_roles));
            // Only an administrator may see the company; its name is not worth a failure.
            end.name = match self.unless_stopped(self.client.company(lane)).await {
                Ok(company) => company.name,
                Err(CycleError::Harvest(_)) => None,
                Err(error) => return Err(error),
            };
        }
        let state = |resource| states.get(&resource).copied().unwrap_or_default();
        if let Some(moved) = self.list::<User>(state(Resource::Users), lane, report).await? {
            return Ok(Some(moved));
        }
        self.list::<Assignment>(state(Resource::Assignments), lane, report).await
    }

    /// Walks a list, again where it did not hold still.
    async fn list<R: Decode + Table>(
        &mut self,
        state: ListState,
        lane: Lane,
        report: &mut Report,
    ) -> Result<Option<ClockMoved>, CycleError> {
        let mut walks = 1;
        loop {
            *report.of(R::RESOURCE) = Counts { seen: 0, ..*report.of(R::RESOURCE) };
            match self.walk::<R>(state, lane, report).await {
                Err(CycleError::Harvest(error @ HarvestError::Drifted { .. })) if walks < MOST_WALKS => {
                    tracing::warn!(
                        account_id = self.client.account().0,
                        cycle_id = %report.id,
                        error = %error,
                        "the list did not hold still, walking it again"
                    );
                    walks += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn walk<R: Decode + Table>(
        &mut self,
        state: ListState,
        lane: Lane,
        report: &mut Report,
    ) -> Result<Option<ClockMoved>, CycleError> {
        let began = self.clock.now();
        let mode = report.mode;
        let since = match (mode, state.watermark) {
            (Mode::Incremental, Some(mark)) => Some(mark.updated_since(self.rules.skew_buffer)),
            _ => None,
        };
        let client = self.client;
        let mut pages = client.list::<R>(since, lane);
        let mut next = self.unless_stopped(pages.next()).await?;
        let mut start = None;
        while let Some(page) = next {
            let start = *start.get_or_insert(page.start);
            if since.is_some()
                && state.watermark.is_some_and(|mark| mark.clock_moved(&start, self.rules.skew_buffer))
            {
                return Ok(Some(ClockMoved));
            }
            let counts = report.of(R::RESOURCE);
            counts.seen += (page.records.len() + page.repeats.len() + page.rejected.len()) as u64;
            let (seen, total) = (counts.seen, page.total);
            if page.last && seen == 0 && mode == Mode::Full && R::RESOURCE == Resource::Users {
                return Err(CycleError::NobodyThere);
            }
            self.meet_users(&page, lane, report).await?;
            if page.last {
                let last = self.last_page(&state, Watermark::after(&start), began, report, R::RESOURCE);
                let wrote = self.store_page(page, Some(last), report).await?;
                let counts = *report.of(R::RESOURCE);
                let polls = self.memory.idle_polls.entry(R::RESOURCE).or_default();
                *polls = if wrote { 0 } else { *polls } + i64::from(counts.changed + counts.refreshed == 0);
                (self.progress)(R::RESOURCE, seen, total);
                break;
            }
            // The next page is fetched while this one is stored.
            let cancel = self.cancel;
            let (fetched, stored) =
                tokio::join!(unless_stopped(cancel, pages.next()), self.store_page(page, None, report));
            stored?;
            (self.progress)(R::RESOURCE, seen, total);
            next = fetched?;
        }
        Ok(None)
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
        let full = report.mode == Mode::Full;
        let counts = *report.of(resource);
        let idle = !full && counts.changed + counts.refreshed == 0;
        let young = state.last_success_at.is_some_and(|last| (finished_at - last).abs() < IDLE_MARK);
        let mark = Mark {
            watermark,
            attempted_at,
            finished_at,
            next_full_at: full.then(|| finished_at + self.rules.full_interval),
            idle_polls: self.memory.idle_polls.get(&resource).copied().unwrap_or_default(),
        };
        LastPage { mark, due: !(idle && young) }
    }

    /// Reads, once, each user whom an assignment names and the mirror has never seen: users come before
    /// assignments in the outbox too. Where Harvest does not show them, the assignment is stored all the same.
    async fn meet_users<R: Decode + Table>(
        &mut self,
        page: &Page<R>,
        lane: Lane,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let named: HashSet<i64> = page.records.iter().filter_map(|read| read.fetched.record.user()).collect();
        let named: Vec<i64> = named.difference(&self.memory.unknown_users).copied().collect();
        if named.is_empty() {
            return Ok(());
        }
        for id in self.sink.unknown_users(named).await? {
            let batch = match self.unless_stopped(self.client.user(id, lane)).await? {
                Lookup::Found(read) => Batch::<User> { images: vec![*read], ..Batch::default() },
                Lookup::Unreadable(rejected) => Batch { rejected: vec![rejected], ..Batch::default() },
                Lookup::Gone | Lookup::Unclear => Batch::default(),
            };
            if batch.images.is_empty() {
                self.memory.unknown_users.insert(id);
            }
            self.sink.take(vec![batch], None, report).await?;
        }
        Ok(())
    }

    async fn store_page<R: Decode + Table>(
        &self,
        page: Page<R>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        let reading = if report.mode == Mode::Full { Reading::Full } else { Reading::Incremental };
        let first = Batch { images: page.records, rejected: page.rejected, reading };
        // What an earlier page of this walk had already is not more authoritative than that.
        let again = Batch { images: page.repeats, rejected: Vec::new(), reading: Reading::Incremental };
        Ok(self.sink.take(vec![first, again], last, report).await?)
    }

    async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, HarvestError>>,
    ) -> Result<T, CycleError> {
        unless_stopped(self.cancel, work).await
    }
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

/// The first read of an account has nothing to make room for; a later full read is in the background.
fn lane(mode: Mode, states: &HashMap<Resource, ListState>) -> Lane {
    let first = states.values().filter(|state| state.watermark.is_some()).count() < Resource::ALL.len();
    if mode == Mode::Full && !first { Lane::Background } else { Lane::Poll }
}
