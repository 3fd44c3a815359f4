//! Confirms deletions: requests absent records by id, or the parent of several of them.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::cycle::Cycle;
use super::error::CycleError;
use super::mirror::{DeletionResults, Mirror};
use crate::harvest::client::Lookup;
use crate::harvest::rate_limit::Priority;
use crate::harvest::{HarvestError, UnreadableRecord};
use crate::roster::{
    AbsentRecord, AbsentState, Action, Assignment, Fetched, HoldReason, Observation, Record, Resource,
    SourceRequest, User,
};

/// After this many consecutive unanswered requests the rest is left for the next cycle. After this many such cycles, it is left
/// for the next full read that is due by the clock.
pub(super) const MAX_UNANSWERED: u32 = 3;
/// Requests, about half a minute of them, before the results are stored.
const REQUESTS_PER_ROUND: u32 = 200;

/// What is known of the list that did not show the absent records.
#[derive(Clone, Copy, Default)]
pub(super) struct ListFacts {
    /// Live rows of the mirror.
    pub live: u64,
    /// Whether the whole list was empty.
    pub is_empty: bool,
    /// Whether it had records without a readable id: any absent record may be one of them.
    pub has_records_without_id: bool,
}

pub(super) struct ConfirmationRound {
    pub priority: Priority,
    /// The time by Harvest's clock.
    now: DateTime<Utc>,
    requests_left: u32,
    unanswered_in_a_row: u32,
    /// Whether the next cycle must request a record again: a request had no answer, or Harvest still showed the record and the
    /// answer may be older than the list.
    pub must_ask_again: bool,
    pub asked: HashSet<(Resource, i64)>,
    /// Requested projects; those that do not exist have the request.
    projects: HashMap<i64, Option<SourceRequest>>,
    /// Whether so many projects are absent that only accepted deletions go on.
    too_many_projects: bool,
}

impl ConfirmationRound {
    pub fn new(priority: Priority, now: DateTime<Utc>) -> Self {
        Self {
            priority,
            now,
            requests_left: REQUESTS_PER_ROUND,
            unanswered_in_a_row: 0,
            must_ask_again: false,
            asked: HashSet::new(),
            projects: HashMap::new(),
            too_many_projects: false,
        }
    }

    /// Allows as many requests again.
    pub fn start_again(&mut self) {
        self.requests_left = REQUESTS_PER_ROUND;
    }

    /// Whether Harvest fails to answer.
    pub fn is_unanswered(&self) -> bool {
        self.unanswered_in_a_row >= MAX_UNANSWERED
    }

    /// Whether all due requests could be sent.
    pub fn has_requests_left(&self) -> bool {
        self.requests_left > 0
    }

    fn is_over(&self) -> bool {
        self.requests_left == 0 || self.is_unanswered()
    }

    /// Counts a request; `None` if Harvest failed to answer, which says nothing about the record.
    pub fn answered<T>(&mut self, answer: Result<T, CycleError>) -> Result<Option<T>, CycleError> {
        self.requests_left -= 1;
        match answer {
            Ok(answer) => {
                self.unanswered_in_a_row = 0;
                Ok(Some(answer))
            }
            Err(error) if error.is_unanswered() => {
                self.unanswered_in_a_row += 1;
                self.must_ask_again = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Harvest's answers for the absent records of one list.
pub(super) struct Confirmations<R> {
    pub results: DeletionResults,
    /// Whether more records are absent than the guard allows.
    pub too_many: bool,
    /// Recently created records with a first 404.
    pub waiting: HashSet<i64>,
    pub found: Vec<Fetched<R>>,
    pub unreadable: Vec<UnreadableRecord>,
}

impl<R> Default for Confirmations<R> {
    fn default() -> Self {
        let (results, waiting) = Default::default();
        Self { results, too_many: false, waiting, found: Vec::new(), unreadable: Vec::new() }
    }
}

impl<R> Confirmations<R> {
    fn hold<'c>(&mut self, absent: impl IntoIterator<Item = &'c AbsentRecord>, reason: HoldReason) {
        self.results.held.extend(DeletionResults::held(absent, reason).held);
    }
}

pub(super) async fn confirm_users<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    absent: &[AbsentRecord],
    list: ListFacts,
    round: &mut ConfirmationRound,
) -> Result<Confirmations<User>, CycleError> {
    let mut answers = Confirmations::default();
    let client = cycle.client;
    for record in guarded(cycle, absent.iter().collect(), list, &mut answers) {
        let request = client.user(record.id, round.priority);
        ask(cycle, record, request, round, &mut answers).await?;
    }
    Ok(answers)
}

/// One request for a parent replaces a request for each child. An assignment is deleted with its user or project, without
/// counting against the guard, which has counted the parents. It waits with a recently created user. If the guard holds the
/// users, the whole read is suspicious, and all absent assignments are held too.
pub(super) async fn confirm_assignments<M: Mirror>(
    cycle: &mut Cycle<'_, M>,
    absent: &[AbsentRecord],
    (gone_users, users): (&HashMap<i64, Option<SourceRequest>>, &Confirmations<User>),
    list: ListFacts,
    round: &mut ConfirmationRound,
) -> Result<Confirmations<Assignment>, CycleError> {
    let mut answers = Confirmations::default();
    let mut rest: Vec<&AbsentRecord> = absent.iter().collect();
    let results = &mut answers.results;
    rest.retain(|it| {
        let user = it.user_id.and_then(|user| gone_users.get(&user));
        let is_gone = it.user_is_gone || user.is_some();
        if is_gone && it.step(Observation::ParentNotFound) == Action::Tombstone {
            results.gone.push((it.id, user.cloned().flatten()));
        }
        !is_gone
    });
    let waits = |it: &mut &AbsentRecord| it.user_id.is_some_and(|user| users.waiting.contains(&user));
    let waiting = rest.extract_if(.., waits);
    let first = waiting.filter(|it| it.step(Observation::ParentNotFoundOnce) == Action::RecordFirst404);
    results.first_404.extend(first.map(|it| it.id));
    for (is_suspicious, reason) in
        [(list.is_empty, HoldReason::EmptyList), (users.too_many, HoldReason::Guard)]
    {
        if is_suspicious {
            let undecided: Vec<_> = rest.extract_if(.., |it| it.state != AbsentState::Accepted).collect();
            answers.hold(undecided, reason);
        }
    }
    ask_for_projects(cycle, &rest, round).await?;
    let (projects, too_many) = (&round.projects, round.too_many_projects);
    let results = &mut answers.results;
    rest.retain(|it| {
        let may_go = it.state == AbsentState::Accepted || !too_many;
        let project = it.project_id.filter(|_| may_go).and_then(|project| projects.get(&project)?.clone());
        let is_gone = project.is_some();
        if is_gone && it.step(Observation::ParentNotFound) == Action::Tombstone {
            results.gone.push((it.id, project));
        }
        !is_gone
    });
    let client = cycle.client;
    for record in guarded(cycle, rest, list, &mut answers) {
        // Harvest has no path to an assignment without its project.
        let Some(project) = record.project_id else { continue };
        let request = client.assignment(project, record.id, round.priority);
        ask(cycle, record, request, round, &mut answers).await?;
    }
    Ok(answers)
}

/// Requests the projects with several absent assignments. If too many projects are absent, only those with accepted deletions
/// are requested, and the other assignments are counted one by one.
async fn ask_for_projects<M: Mirror>(
    cycle: &Cycle<'_, M>,
    absent: &[&AbsentRecord],
    round: &mut ConfirmationRound,
) -> Result<(), CycleError> {
    let with_several = |all: bool| {
        let mut children: HashMap<i64, usize> = HashMap::new();
        for it in absent.iter().filter(|it| all || it.state == AbsentState::Accepted) {
            it.project_id.into_iter().for_each(|project| *children.entry(project).or_default() += 1);
        }
        children.retain(|_, count| *count > 1);
        children
    };
    let mut projects = with_several(true);
    let guard = cycle.rules.guard;
    // The first check avoids counting all projects in most reads.
    if guard.holds(projects.len(), 0) && guard.holds(projects.len(), cycle.mirror.live_projects().await?) {
        round.too_many_projects = true;
        projects = with_several(false);
    }
    for project in projects.into_keys() {
        if round.projects.contains_key(&project) {
            continue;
        }
        if round.is_over() {
            break;
        }
        let request = cycle.client.gone_project(project, round.priority);
        let gone = round.answered(cycle.unless_stopped(request).await)?;
        round.projects.extend(gone.map(|gone| (project, gone)));
    }
    Ok(())
}

/// The records to request. Too many at once are held for review; accepted deletions go on.
fn guarded<'c, M, R>(
    cycle: &Cycle<'_, M>,
    absent: Vec<&'c AbsentRecord>,
    list: ListFacts,
    answers: &mut Confirmations<R>,
) -> Vec<&'c AbsentRecord> {
    let (mut requested, undecided): (Vec<_>, Vec<_>) =
        absent.into_iter().partition(|it| it.state == AbsentState::Accepted);
    answers.too_many = cycle.rules.guard.holds(undecided.len(), list.live);
    if !answers.too_many {
        requested.extend(undecided);
    } else if list.has_records_without_id {
        tracing::warn!(
            account_id = cycle.client.account().0,
            "{} records are absent, but the list has records without an id; skipping their deletions",
            undecided.len()
        );
    } else {
        answers.hold(undecided, HoldReason::Guard);
    }
    requested
}

pub(super) async fn ask<M: Mirror, R: Record>(
    cycle: &mut Cycle<'_, M>,
    record: &AbsentRecord,
    request: impl Future<Output = Result<Lookup<R>, HarvestError>>,
    round: &mut ConfirmationRound,
    answers: &mut Confirmations<R>,
) -> Result<(), CycleError> {
    if round.is_over() {
        return Ok(());
    }
    let key = (R::RESOURCE, record.id);
    round.asked.insert(key);
    match round.answered(cycle.unless_stopped(request).await)? {
        None => {}
        Some(Lookup::Gone(request)) => match record.step(Observation::NotFound(round.now)) {
            Action::Tombstone => answers.results.gone.push((record.id, Some(request))),
            Action::RecordFirst404 => {
                answers.waiting.insert(record.id);
                answers.results.first_404.push(record.id);
            }
            _ => _ = answers.waiting.insert(record.id),
        },
        Some(Lookup::Found(fetched)) if fetched.id() == record.id => {
            // The answer may be older than the list, so a daemon requests the record again in a few cycles. An accepted
            // deletion of an existing record is cleared.
            if record.state != AbsentState::Accepted {
                if cycle.memory.is_lasting && cycle.memory.unanswered_cycles < MAX_UNANSWERED {
                    round.must_ask_again = true;
                } else {
                    cycle.memory.not_gone.insert(key);
                }
            }
            answers.found.push(*fetched);
        }
        Some(Lookup::Unreadable(rejected)) => {
            cycle.memory.not_gone.insert(key);
            answers.unreadable.push(rejected);
        }
        Some(unclear @ (Lookup::Found(_) | Lookup::Unclear(_))) => {
            cycle.memory.not_gone.insert(key);
            let error = match unclear {
                Lookup::Unclear(error) => Some(error.to_string()),
                _ => None,
            };
            tracing::warn!(
                account_id = cycle.client.account().0,
                resource = R::RESOURCE.name(),
                record_id = record.id,
                error,
                "the answer does not say whether this record exists; its row stays"
            );
        }
    }
    Ok(())
}
