//! Which of the candidates are gone: the guard first, then a question each, or one to the parent of several.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::cycle::{Cycle, CycleError};
use super::sink::{Sink, Verdicts};
use crate::harvest::client::Lookup;
use crate::harvest::pace::Lane;
use crate::harvest::wire::Read;
use crate::harvest::{HarvestError, Rejected};
use crate::roster::{Assignment, Candidate, Miss, Reason, Record, Request, Resource, Standing, User};

/// So many questions in a row without an answer, and the rest is left for the next cycle: Harvest is in trouble. After
/// so many such cycles in a row, for the next full read by the clock.
pub(super) const MOST_SILENT: u32 = 3;
/// So many questions, about half a minute's, before what was answered is put on record.
const MOST_QUESTIONS: u32 = 200;

/// What the walk tells the judge of one list.
#[derive(Clone, Copy, Default)]
pub(super) struct Walk {
    /// Live rows of the mirror.
    pub live: u64,
    /// The whole list was empty.
    pub empty: bool,
    /// It held records whose very id cannot be read: any candidate may be one of them.
    pub nameless: bool,
}

/// One cycle's questions.
pub(super) struct Round {
    lane: Lane,
    /// Harvest's clock.
    now: DateTime<Utc>,
    /// Questions that are left.
    left: u32,
    /// Questions in a row without an answer.
    silent: u32,
    /// Whether any question had none.
    pub unanswered: bool,
    /// Who has been asked for.
    pub asked: HashSet<(Resource, i64)>,
    /// Which projects have been asked for, and by which answer those are gone that are.
    projects: HashMap<i64, Option<Request>>,
    /// So many projects seem to be gone at once that only a person may let their assignments go.
    too_many_projects: bool,
}

impl Round {
    pub fn new(lane: Lane, now: DateTime<Utc>) -> Self {
        let (left, asked, projects) = (MOST_QUESTIONS, HashSet::new(), HashMap::new());
        Self { lane, now, left, silent: 0, unanswered: false, asked, projects, too_many_projects: false }
    }

    /// So many more.
    pub fn go_on(&mut self) {
        self.left = MOST_QUESTIONS;
    }

    /// Whether Harvest is in trouble.
    pub fn is_silent(&self) -> bool {
        self.silent >= MOST_SILENT
    }

    /// Whether all that wanted to be asked could be.
    pub fn has_room(&self) -> bool {
        self.left > 0
    }

    fn is_over(&self) -> bool {
        self.left == 0 || self.is_silent()
    }

    /// `None` where Harvest is in trouble: that says nothing of the record.
    pub fn answered<T>(&mut self, answer: Result<T, CycleError>) -> Result<Option<T>, CycleError> {
        self.left -= 1;
        match answer {
            Ok(answer) => {
                self.silent = 0;
                Ok(Some(answer))
            }
            Err(error) if error.is_passing() => {
                self.silent += 1;
                self.unanswered = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What Harvest answered, gathered for one list.
pub(super) struct Answers<R> {
    pub verdicts: Verdicts,
    /// There are more candidates than the guard lets pass.
    pub too_many: bool,
    /// Gone by a first 404, and too young for that.
    pub waiting: HashSet<i64>,
    pub found: Vec<Read<R>>,
    pub unreadable: Vec<Rejected>,
}

impl<R> Default for Answers<R> {
    fn default() -> Self {
        let (verdicts, waiting) = Default::default();
        Self { verdicts, too_many: false, waiting, found: Vec::new(), unreadable: Vec::new() }
    }
}

impl<S: Sink> Cycle<'_, S> {
    pub(super) async fn judge_users(
        &mut self,
        candidates: &[Candidate],
        walk: Walk,
        round: &mut Round,
    ) -> Result<Answers<User>, CycleError> {
        let mut answers = Answers::default();
        let client = self.client;
        for candidate in self.guarded(candidates.iter().collect(), walk, &mut answers) {
            let question = client.user(candidate.id, round.lane);
            self.ask(candidate, question, round, &mut answers).await?;
        }
        Ok(answers)
    }

    /// One question to a parent spares one to each child: an assignment goes with its user or its project without counting
    /// as one too many, since the guard has counted the parents, and waits with a user who was created recently. If the
    /// guard holds the users, the whole read is in doubt: all assignments that it lacks are held with them.
    pub(super) async fn judge_assignments(
        &mut self,
        candidates: &[Candidate],
        gone_users: &HashMap<i64, Option<Request>>,
        users: &Answers<User>,
        walk: Walk,
        round: &mut Round,
    ) -> Result<Answers<Assignment>, CycleError> {
        let mut answers = Answers::default();
        let mut rest: Vec<_> = candidates.iter().collect();
        let verdicts = &mut answers.verdicts;
        rest.retain(|it| {
            let user = it.user_id.and_then(|user| gone_users.get(&user));
            let is_gone = it.user_is_gone || user.is_some();
            verdicts.gone.extend(is_gone.then(|| (it.id, user.cloned().flatten())));
            !is_gone
        });
        let waiting = rest.extract_if(.., |it| it.user_id.is_some_and(|user| users.waiting.contains(&user)));
        verdicts.missed.extend(waiting.filter(|it| it.missed.is_none()).map(|it| it.id));
        if walk.empty {
            let undecided = rest.extract_if(.., |it| it.standing != Standing::Accepted);
            verdicts.held.extend(held(undecided, Reason::EmptyList));
        }
        if users.too_many {
            let undecided = rest.extract_if(.., |it| it.standing != Standing::Accepted);
            verdicts.held.extend(held(undecided, Reason::Guard));
        }
        self.ask_for_projects(&rest, round).await?;
        let (projects, too_many) = (&round.projects, round.too_many_projects);
        let verdicts = &mut answers.verdicts;
        rest.retain(|it| {
            let may_go = it.standing == Standing::Accepted || !too_many;
            let project =
                it.project_id.filter(|_| may_go).and_then(|project| projects.get(&project)?.clone());
            let is_gone = project.is_some();
            verdicts.gone.extend(project.map(|request| (it.id, Some(request))));
            !is_gone
        });
        let client = self.client;
        for candidate in self.guarded(rest, walk, &mut answers) {
            // Without its project an assignment cannot be asked for.
            let Some(project) = candidate.project_id else { continue };
            let question = client.assignment(project, candidate.id, round.lane);
            self.ask(candidate, question, round, &mut answers).await?;
        }
        Ok(answers)
    }

    /// Asks for the projects with several candidates. Too many at once, of those that have assignments at all, are asked
    /// for only where a person has accepted the deletions: the other candidates are then counted one by one.
    async fn ask_for_projects(&self, candidates: &[&Candidate], round: &mut Round) -> Result<(), CycleError> {
        let several = |all: bool| {
            let mut children: HashMap<i64, usize> = HashMap::new();
            for it in candidates.iter().filter(|it| all || it.standing == Standing::Accepted) {
                it.project_id.into_iter().for_each(|project| *children.entry(project).or_default() += 1);
            }
            children.retain(|_, count| *count > 1);
            children
        };
        let mut projects = several(true);
        let guard = self.rules.guard;
        // Most reads need not count the projects that there are.
        if guard.holds(projects.len(), 0) && guard.holds(projects.len(), self.sink.live_projects().await?) {
            round.too_many_projects = true;
            projects = several(false);
        }
        for project in projects.into_keys() {
            if round.projects.contains_key(&project) {
                continue;
            }
            if round.is_over() {
                break;
            }
            let question = self.client.gone_project(project, round.lane);
            let gone = round.answered(self.unless_stopped(question).await)?;
            round.projects.extend(gone.map(|gone| (project, gone)));
        }
        Ok(())
    }

    /// Those that may be asked for. Too many at once are held for a person; what a person has accepted goes on.
    fn guarded<'c, R>(
        &self,
        candidates: Vec<&'c Candidate>,
        walk: Walk,
        answers: &mut Answers<R>,
    ) -> Vec<&'c Candidate> {
        let (mut ask, undecided): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|it| it.standing == Standing::Accepted);
        answers.too_many = self.rules.guard.holds(undecided.len(), walk.live);
        if !answers.too_many {
            ask.extend(undecided);
        } else if walk.nameless {
            tracing::warn!(
                account_id = self.client.account().0,
                "{} records are absent, but the list has records without an id; skipping their deletions",
                undecided.len()
            );
        } else {
            answers.verdicts.held.extend(held(undecided, Reason::Guard));
        }
        ask
    }

    /// Asks Harvest for one candidate by id.
    pub(super) async fn ask<R: Record>(
        &mut self,
        candidate: &Candidate,
        question: impl Future<Output = Result<Lookup<R>, HarvestError>>,
        round: &mut Round,
        answers: &mut Answers<R>,
    ) -> Result<(), CycleError> {
        if round.is_over() {
            return Ok(());
        }
        round.asked.insert((R::RESOURCE, candidate.id));
        match round.answered(self.unless_stopped(question).await)? {
            Some(Lookup::Gone(request)) => match candidate.one_more_404(round.now) {
                Miss::Gone => answers.verdicts.gone.push((candidate.id, Some(request))),
                Miss::TooYoung => {
                    answers.waiting.insert(candidate.id);
                    answers.verdicts.missed.push(candidate.id);
                }
                Miss::StillTooYoung => _ = answers.waiting.insert(candidate.id),
            },
            None => {}
            Some(Lookup::Found(read)) if read.fetched.record.id() == candidate.id => {
                // The answer may lag behind the list, so a daemon asks again a few times. What was accepted and is there is
                // accepted no more.
                if candidate.standing != Standing::Accepted {
                    if self.memory.is_lasting && self.memory.silences < MOST_SILENT {
                        round.unanswered = true;
                    } else {
                        self.memory.not_gone.insert((R::RESOURCE, candidate.id));
                    }
                }
                answers.found.push(*read);
            }
            Some(Lookup::Unreadable(rejected)) => {
                self.memory.not_gone.insert((R::RESOURCE, candidate.id));
                answers.unreadable.push(rejected);
            }
            Some(unclear @ (Lookup::Found(_) | Lookup::Unclear(_))) => {
                self.memory.not_gone.insert((R::RESOURCE, candidate.id));
                let error = match unclear {
                    Lookup::Unclear(error) => Some(error.to_string()),
                    _ => None,
                };
                tracing::warn!(
                    account_id = self.client.account().0,
                    resource = R::RESOURCE.name(),
                    record_id = candidate.id,
                    error,
                    "the answer does not say whether this record is gone: the row stays"
                );
            }
        }
        Ok(())
    }
}

/// The verdict that they wait for a person, for that reason.
pub(super) fn held<'c>(
    candidates: impl IntoIterator<Item = &'c Candidate>,
    reason: Reason,
) -> Vec<(i64, Reason)> {
    candidates
        .into_iter()
        .filter(|candidate| candidate.standing != Standing::Held(reason))
        .map(|candidate| (candidate.id, reason))
        .collect()
}
