//! Reads a list to its end. Each page is planned and committed by itself; the watermark moves with the last page.
//!
//! Incremental and full reads share this code: the first have an `updated_since`, the second have none.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::cycle::{Cycle, SyncRules, unless_stopped};
use super::error::{CycleError, FullReadReason};
use super::mirror::{LastPage, ListContents, Mirror, PageRead};
use super::report::{Counts, CycleMode, CycleReport};
use super::{company, lookups};
use crate::harvest::pages::{ListPage, ListReader};
use crate::harvest::rate_limit::Priority;
use crate::harvest::{Decode, HarvestError};
use crate::roster::watermark::Watermark;
use crate::roster::{Fetched, Record, Resource};
use crate::store::MirrorTable;
use crate::store::rejected::fingerprint;
use crate::store::state::{AccountState, ListState, WatermarkUpdate};

/// A list that changes during pagination is read at most this often.
const MAX_READS: u32 = 3;
/// While nothing changes, the watermark is written at most this often.
const IDLE_WATERMARK_INTERVAL: TimeDelta = TimeDelta::seconds(60);

/// Reads a list, again if it changed during pagination. An incremental read can end with the reason why everything must be
/// read. Without `moves_watermark` the watermark stays.
pub(super) async fn list<M: Mirror, R: Decode + MirrorTable>(
    cycle: &mut Cycle<'_, M>,
    known: &AccountState,
    moves_watermark: bool,
    report: &mut CycleReport,
) -> Result<Result<ListContents, FullReadReason>, CycleError> {
    let mut reads = 0;
    loop {
        *report.of(R::RESOURCE) = Counts { seen: 0, ..*report.of(R::RESOURCE) };
        let ended = list_once::<M, R>(cycle, known, moves_watermark, report).await;
        if !is_read_again(&ended, &mut reads, report) {
            return ended;
        }
    }
}

async fn list_once<M: Mirror, R: Decode + MirrorTable>(
    cycle: &mut Cycle<'_, M>,
    known: &AccountState,
    mut moves_watermark: bool,
    report: &mut CycleReport,
) -> Result<Result<ListContents, FullReadReason>, CycleError> {
    let state = known.list(R::RESOURCE);
    let (started_at, mode) = (cycle.clock.now(), report.mode);
    let priority = priority(mode, known, cycle.rules);
    let watermark = state.watermark.filter(|_| mode == CycleMode::Incremental);
    let buffer = cycle.rules.skew_buffer;
    let client = cycle.client;
    let mut pages = client.list::<R>(watermark.map(|mark| mark.updated_since(buffer)), priority);
    let mut next = cycle.unless_stopped(pages.next()).await?;
    let (mut start, mut without_id) = (None, HashSet::new());
    while let Some(page) = next {
        let start = *start.get_or_insert(page.start);
        if watermark.is_some_and(|mark| mark.clock_moved(&start, buffer)) {
            return Ok(Err(FullReadReason::ClockMoved));
        }
        let counts = report.of(R::RESOURCE);
        counts.seen += (page.records.len() + page.rejected.len()) as u64;
        let (seen, total, last) = (counts.seen, page.total, page.last);
        if last && seen == 0 && mode == CycleMode::Full {
            if R::RESOURCE == Resource::Users {
                return Err(CycleError::EmptyUserList);
            }
            moves_watermark &= !cycle.has_rows(R::RESOURCE).await?;
        }
        without_id.extend(fingerprints_without_id(&page));
        let new = new_users(cycle, &page, mode).await?;
        if mode == CycleMode::Incremental
            && !new.is_empty()
            && company::is_other(cycle, known, priority).await?
        {
            return Ok(Err(FullReadReason::OtherCompany));
        }
        if R::RESOURCE != Resource::Users {
            lookups::look_up_users(cycle, new, priority, report).await?;
        }
        let page = PageRead::from(page);
        if last {
            let end = last_page::<M, R>(cycle, &state, Watermark::after(&start), started_at, report);
            let wrote = cycle.mirror.apply(page, moves_watermark.then_some(end), report).await?;
            let is_idle = is_idle(report.of(R::RESOURCE));
            let polls = cycle.memory.idle_polls.entry(R::RESOURCE).or_default();
            *polls = if wrote { 0 } else { *polls } + i64::from(is_idle);
            (cycle.progress)(R::RESOURCE, seen, total);
            break;
        }
        // The next page is decoded while this one is stored.
        let (fetched, stored) =
            tokio::join!(unless_stopped(cycle.cancel, pages.next()), cycle.mirror.apply(page, None, report));
        stored?;
        (cycle.progress)(R::RESOURCE, seen, total);
        next = fetched?;
    }
    let (ids, total) = pages.into_seen();
    Ok(Ok(ListContents { ids, without_id, total }))
}

/// Reads a short list to its end, again if it changed during pagination, and stores it. Records that do not name a user get
/// this one. `pages` starts a read of the list.
pub(crate) async fn short_list<M: Mirror, R: Decode + MirrorTable>(
    cycle: &Cycle<'_, M>,
    pages: impl Fn() -> ListReader<R>,
    user: i64,
    report: &mut CycleReport,
) -> Result<ListContents, CycleError> {
    let mut reads = 0;
    loop {
        let ended = short_list_once(cycle, pages(), user, report).await;
        if !is_read_again(&ended, &mut reads, report) {
            return ended;
        }
    }
}

async fn short_list_once<M: Mirror, R: Decode + MirrorTable>(
    cycle: &Cycle<'_, M>,
    mut pages: ListReader<R>,
    user: i64,
    report: &mut CycleReport,
) -> Result<ListContents, CycleError> {
    let mut without_id = HashSet::new();
    while let Some(mut page) = cycle.unless_stopped(pages.next()).await? {
        for fetched in &mut page.records {
            Arc::make_mut(&mut fetched.record).set_user(user);
        }
        for rejected in &mut page.rejected {
            rejected.user_id = Some(user);
        }
        without_id.extend(fingerprints_without_id(&page));
        cycle.mirror.apply(page.into(), None, report).await?;
    }
    let (ids, total) = pages.into_seen();
    Ok(ListContents { ids, without_id, total })
}

/// Whether a list is read again, because it changed during pagination.
fn is_read_again<T>(ended: &Result<T, CycleError>, reads: &mut u32, report: &CycleReport) -> bool {
    *reads += 1;
    let Err(CycleError::Harvest(error @ HarvestError::Drifted { .. })) = ended else { return false };
    let is_read_again = *reads < MAX_READS;
    if is_read_again {
        tracing::warn!(
            account_id = report.account.0,
            cycle_id = %report.id,
            error = %error,
            "the list changed during pagination; reading it again"
        );
    }
    is_read_again
}

/// The watermark of a complete read. It must be written unless the read was idle and the last one was written recently.
fn last_page<M, R: Record>(
    cycle: &Cycle<'_, M>,
    state: &ListState,
    watermark: Watermark,
    attempted_at: DateTime<Utc>,
    report: &mut CycleReport,
) -> LastPage {
    let finished_at = cycle.clock.now();
    let is_recent =
        state.last_success_at.is_some_and(|last| (finished_at - last).abs() < IDLE_WATERMARK_INTERVAL);
    let is_idle = report.mode == CycleMode::Incremental && is_idle(report.of(R::RESOURCE));
    let idle_polls = cycle.memory.idle_polls.get(&R::RESOURCE).copied().unwrap_or_default();
    let update = WatermarkUpdate { watermark, attempted_at, finished_at, idle_polls };
    LastPage { update, is_due: !(is_idle && is_recent) }
}

fn is_idle(counts: &Counts) -> bool {
    counts.changed + counts.refreshed == 0
}

/// Users that are new to the mirror: a page's own users, or those whom its assignments name. A full read of users does not
/// need the former.
async fn new_users<M: Mirror, R: Decode + MirrorTable>(
    cycle: &Cycle<'_, M>,
    page: &ListPage<R>,
    mode: CycleMode,
) -> Result<Vec<i64>, CycleError> {
    let users: HashSet<i64> = match R::RESOURCE {
        Resource::Users if mode == CycleMode::Full => HashSet::new(),
        Resource::Users => page.records.iter().map(Fetched::id).collect(),
        _ => page.records.iter().filter_map(|fetched| fetched.record.user()).collect(),
    };
    if users.is_empty() {
        return Ok(Vec::new());
    }
    Ok(cycle.mirror.unknown_users(users.into_iter().collect()).await?)
}

fn fingerprints_without_id<R>(page: &ListPage<R>) -> impl Iterator<Item = String> {
    let without_id = page.rejected.iter().filter(|rejected| rejected.id.is_none());
    without_id.map(|rejected| fingerprint(None, rejected.raw.get()))
}

/// The first full read of an account that uses its budget alone has poll priority. Other full reads run in the background, so
/// that a large account does not take all permits while small accounts wait for their polls.
pub(super) fn priority(mode: CycleMode, known: &AccountState, rules: SyncRules) -> Priority {
    let complete_lists = known.lists.values().filter(|list| list.watermark.is_some()).count();
    let is_first = complete_lists < Resource::LISTS.len();
    if mode == CycleMode::Full && !(is_first && rules.alone) { Priority::Background } else { Priority::Poll }
}
