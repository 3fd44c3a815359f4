//! What a full read did not show → candidates → the token looked at, the guard, each asked for by id → verdicts.
//!
//! No list is ever believed about who left: of nine kinds of trouble simulated, the question by id together with a look
//! at the token let no false deletion through; a bound on their number alone let 23 % of the runs through.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::cycle::{Cycle, CycleError};
use super::report::Report;
use super::sink::{Batch, Seen, Sink, Verdicts};
use crate::harvest::client::Lookup;
use crate::harvest::pace::Lane;
use crate::harvest::wire::Read;
use crate::harvest::{Decode, HarvestError, Rejected};
use crate::roster::{Assignment, Candidate, Miss, Reason, Record, Resource, Standing, User};
use crate::store::Table;
use crate::store::state::AccountState;

/// So many questions in a row without an answer, and the rest is left for the next cycle: Harvest is in trouble. After
/// so many such cycles in a row, for the next full read by the clock.
const MOST_SILENT: u32 = 3;

/// Candidates of both lists.
#[derive(Default)]
pub(super) struct Missing {
    pub users: Vec<Candidate>,
    pub assignments: Vec<Candidate>,
}

/// What the walk tells the judge of one list.
#[derive(Clone, Copy, Default)]
pub(super) struct Walk {
    /// Live rows of the mirror.
    live: u64,
    /// The whole list was empty.
    empty: bool,
    /// It held records whose very id cannot be read: any candidate may be one of them.
    nameless: bool,
}

/// One round of questions.
struct Round {
    lane: Lane,
    /// Harvest's clock.
    now: DateTime<Utc>,
    /// Questions in a row without an answer.
    silent: u32,
}

/// What Harvest answered, gathered for one list.
struct Answers<R> {
    verdicts: Verdicts,
    found: Vec<Read<R>>,
    unreadable: Vec<Rejected>,
}

impl<R> Default for Answers<R> {
    fn default() -> Self {
        Self { verdicts: Verdicts::default(), found: Vec::new(), unreadable: Vec::new() }
    }
}

impl<S: Sink> Cycle<'_, S> {
    /// After a full read. Says whether every candidate has been asked for, or has had its chance.
    pub(super) async fn reconcile(
        &mut self,
        owner: i64,
        users: &Seen,
        assignments: &Seen,
        lane: Lane,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        let missing = Missing {
            users: self.sink.unseen(Resource::Users, users).await?,
            assignments: self.sink.unseen(Resource::Assignments, assignments).await?,
        };
        let walks = [users, assignments].map(|seen| Walk {
            live: 0,
            empty: seen.is_empty(),
            nameless: !seen.nameless.is_empty(),
        });
        self.settle(owner, missing, walks, lane, report).await
    }

    /// Between full reads: what a person has accepted, and the young whose second 404 is due.
    pub(super) async fn settle_pending(
        &mut self,
        known: &AccountState,
        lane: Lane,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let Some(owner) = &known.owner else { return Ok(()) };
        let mut pending = self.sink.pending().await?;
        let mut of = |resource| {
            let mut candidates = pending.remove(&resource).unwrap_or_default();
            candidates.retain(|it| !self.memory.unanswered.contains(&(resource, it.id)));
            candidates
        };
        let missing = Missing { users: of(Resource::Users), assignments: of(Resource::Assignments) };
        self.settle(owner.id, missing, [Walk::default(); 2], lane, report).await.map(|_| ())
    }

    /// Judges, and carries out. `owner`: whose token it was when the read began.
    pub(super) async fn settle(
        &mut self,
        owner: i64,
        mut missing: Missing,
        [mut users, mut assignments]: [Walk; 2],
        lane: Lane,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        for candidates in [&mut missing.users, &mut missing.assignments] {
            candidates.retain(|candidate| candidate.standing != Standing::Rejected);
        }
        if missing.users.is_empty() && missing.assignments.is_empty() {
            return Ok(true);
        }
        if !self.token_sees_all(owner, lane).await? {
            self.distrust(&missing, report).await?;
            return Ok(true);
        }
        let census = self.sink.census().await?;
        let live = |resource| census.get(&resource).map_or(0, |census| census.live);
        (users.live, assignments.live) = (live(Resource::Users), live(Resource::Assignments));
        let mut round = Round { lane, now: self.harvest_now().await?, silent: 0 };
        let users = self.judge_users(&missing.users, users, &mut round).await?;
        let gone: HashSet<i64> = users.verdicts.gone.iter().copied().collect();
        let assignments =
            self.judge_assignments(&missing.assignments, &gone, assignments, &mut round).await?;
        // What a token may not see answers 404 too: it must see everybody still.
        let concludes = |verdicts: &Verdicts| !verdicts.gone.is_empty() || !verdicts.missed.is_empty();
        if (concludes(&users.verdicts) || concludes(&assignments.verdicts))
            && !self.token_sees_all(owner, lane).await?
        {
            self.distrust(&missing, report).await?;
            return Ok(true);
        }
        self.carry_out(users, report).await?;
        self.carry_out(assignments, report).await?;
        let all_asked = round.silent < MOST_SILENT;
        self.memory.silences = if all_asked { 0 } else { self.memory.silences + 1 };
        Ok(all_asked || self.memory.silences > MOST_SILENT)
    }

    async fn token_sees_all(&self, owner: i64, lane: Lane) -> Result<bool, CycleError> {
        let me = self.unless_stopped(self.client.me(lane)).await?;
        Ok(me.id == owner && me.is_administrator())
    }

    /// Harvest's clock, as far off ours as it was at the last read.
    async fn harvest_now(&self) -> Result<DateTime<Utc>, CycleError> {
        let mark = self.sink.account().await?.list(Resource::Users).watermark;
        Ok(self.clock.now() + mark.and_then(|mark| mark.offset).unwrap_or_else(TimeDelta::zero))
    }

    /// The token may simply not see them: all of it waits for a person.
    async fn distrust(&self, missing: &Missing, report: &mut Report) -> Result<(), CycleError> {
        let held = |candidates: &[Candidate]| Verdicts {
            held: held(
                candidates.iter().filter(|it| it.standing != Standing::Accepted),
                Reason::NotAdministrator,
            ),
            ..Verdicts::default()
        };
        self.sink.conclude::<User>(held(&missing.users), report).await?;
        Ok(self.sink.conclude::<Assignment>(held(&missing.assignments), report).await?)
    }

    async fn judge_users(
        &mut self,
        candidates: &[Candidate],
        walk: Walk,
        round: &mut Round,
    ) -> Result<Answers<User>, CycleError> {
        let mut answers = Answers::default();
        let client = self.client;
        for candidate in self.guarded(candidates.iter().collect(), walk, &mut answers.verdicts) {
            let question = client.user(candidate.id, round.lane);
            self.ask(candidate, question, round, &mut answers).await?;
        }
        Ok(answers)
    }

    /// One question to a parent spares one to each child: an assignment goes with its person or its project, and does
    /// not count as one too many.
    async fn judge_assignments(
        &mut self,
        candidates: &[Candidate],
        gone_users: &HashSet<i64>,
        walk: Walk,
        round: &mut Round,
    ) -> Result<Answers<Assignment>, CycleError> {
        let mut answers = Answers::default();
        let (with_user, mut rest): (Vec<_>, Vec<_>) = candidates
            .iter()
            .partition(|it| it.user_is_gone || it.user_id.is_some_and(|user| gone_users.contains(&user)));
        answers.verdicts.gone.extend(with_user.iter().map(|it| it.id));
        if walk.empty {
            let undecided = rest.extract_if(.., |it| it.standing != Standing::Accepted);
            answers.verdicts.held = held(undecided, Reason::EmptyList);
        }
        let gone_projects = self.gone_projects(&rest, walk, round).await?;
        let with_project =
            rest.extract_if(.., |it| it.project_id.is_some_and(|project| gone_projects.contains(&project)));
        answers.verdicts.gone.extend(with_project.map(|it| it.id));
        let client = self.client;
        for candidate in self.guarded(rest, walk, &mut answers.verdicts) {
            // Without its project an assignment cannot be asked for.
            let Some(project) = candidate.project_id else { continue };
            let question = client.assignment(project, candidate.id, round.lane);
            self.ask(candidate, question, round, &mut answers).await?;
        }
        Ok(answers)
    }

    /// Those of the projects with several candidates that are gone, unless they are themselves too many to ask for.
    async fn gone_projects(
        &self,
        candidates: &[&Candidate],
        walk: Walk,
        round: &mut Round,
    ) -> Result<HashSet<i64>, CycleError> {
        let mut children: HashMap<i64, usize> = HashMap::new();
        for project in candidates.iter().filter_map(|candidate| candidate.project_id) {
            *children.entry(project).or_default() += 1;
        }
        children.retain(|_, count| *count > 1);
        let mut gone = HashSet::new();
        if self.rules.guard.holds(children.len(), walk.live) {
            return Ok(gone);
        }
        for project in children.into_keys() {
            if round.silent >= MOST_SILENT {
                break;
            }
            let question = self.client.project_is_gone(project, round.lane);
            if answered(self.unless_stopped(question).await, round)?.unwrap_or(false) {
                gone.insert(project);
            }
        }
        Ok(gone)
    }

    /// Those that may be asked for. Too many at once are held for a person; what a person has accepted goes on.
    fn guarded<'c>(
        &self,
        candidates: Vec<&'c Candidate>,
        walk: Walk,
        verdicts: &mut Verdicts,
    ) -> Vec<&'c Candidate> {
        let (mut ask, undecided): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|it| it.standing == Standing::Accepted);
        if !self.rules.guard.holds(undecided.len(), walk.live) {
            ask.extend(undecided);
        } else if walk.nameless {
            tracing::warn!(
                account_id = self.client.account().0,
                "{} records were not seen, but some were that tell no id: nothing is concluded",
                undecided.len()
            );
        } else {
            verdicts.held.extend(held(undecided, Reason::Guard));
        }
        ask
    }

    /// Asks Harvest for one candidate by id.
    async fn ask<R: Record>(
        &mut self,
        candidate: &Candidate,
        question: impl Future<Output = Result<Lookup<R>, HarvestError>>,
        round: &mut Round,
        answers: &mut Answers<R>,
    ) -> Result<(), CycleError> {
        if round.silent >= MOST_SILENT {
            return Ok(());
        }
        match answered(self.unless_stopped(question).await, round)? {
            Some(Lookup::Gone) => match candidate.missed(round.now) {
                Miss::Gone => answers.verdicts.gone.push(candidate.id),
                Miss::TooYoung => answers.verdicts.missed.push(candidate.id),
                Miss::StillTooYoung => {}
            },
            Some(Lookup::Found(read)) if read.fetched.record.id() == candidate.id => {
                answers.found.push(*read);
            }
            Some(Lookup::Unreadable(rejected)) => answers.unreadable.push(rejected),
            Some(Lookup::Found(_) | Lookup::Unclear) | None => {
                self.memory.unanswered.insert((R::RESOURCE, candidate.id));
                tracing::warn!(
                    account_id = self.client.account().0,
                    resource = R::RESOURCE.name(),
                    record_id = candidate.id,
                    "Harvest does not say whether this record is gone: it stays"
                );
            }
        }
        Ok(())
    }

    async fn carry_out<R: Decode + Table>(
        &self,
        answers: Answers<R>,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let Answers { verdicts, found, unreadable } = answers;
        if !found.is_empty() || !unreadable.is_empty() {
            let batch = Batch { images: found, rejected: unreadable, ..Batch::default() };
            self.sink.take(vec![batch], None, report).await?;
        }
        Ok(self.sink.conclude::<R>(verdicts, report).await?)
    }
}

/// The verdict that they wait for a person, for that reason.
fn held<'c>(candidates: impl IntoIterator<Item = &'c Candidate>, reason: Reason) -> Vec<(i64, Reason)> {
    candidates
        .into_iter()
        .filter(|candidate| candidate.standing != Standing::Held(reason))
        .map(|candidate| (candidate.id, reason))
        .collect()
}

/// `None` where Harvest is in trouble: that says nothing of the record. A refused token is no such trouble.
fn answered<T>(answer: Result<T, CycleError>, round: &mut Round) -> Result<Option<T>, CycleError> {
    match answer {
        Ok(answer) => {
            round.silent = 0;
            Ok(Some(answer))
        }
        Err(CycleError::Harvest(error)) if !error.is_credentials() => {
            round.silent += 1;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
