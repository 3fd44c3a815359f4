//! What a full read did not show → candidates → the token looked at, the guard, each asked for by id → verdicts.
//!
//! No list is ever believed about who left: of nine kinds of trouble simulated, the question by id together with a look
//! at the token let no false deletion through; a bound on their number alone let 23 % of the runs through.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::cycle::{Cycle, CycleError};
use super::judge::{Answers, MOST_SILENT, Round, Walk, held};
use super::report::Report;
use super::sink::{Batch, Seen, Sink, Verdicts};
use crate::harvest::Decode;
use crate::harvest::client::Me;
use crate::harvest::pace::Lane;
use crate::roster::{AccountId, Assignment, Candidate, Reason, Resource, Standing, User};
use crate::store::Table;
use crate::store::state::AccountState;

/// How long what is pending waits when Harvest has left questions unanswered again and again.
const PAUSE: Duration = Duration::from_mins(5);

/// Candidates of both lists.
#[derive(Default)]
pub(super) struct Missing {
    pub users: Vec<Candidate>,
    pub assignments: Vec<Candidate>,
}

impl Missing {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.assignments.is_empty()
    }
}

/// The token as it was when the read began.
#[derive(Clone, Copy)]
pub(super) struct Token {
    /// Whose it is.
    pub owner: i64,
    /// Whether an administrator's.
    pub sees_all: bool,
}

impl Token {
    /// As it was at the last good full read.
    pub(super) fn known(known: &AccountState) -> Option<Self> {
        let owner = known.owner.as_ref()?.id;
        Some(Self { owner, sees_all: known.is_administrator() })
    }

    /// Whether it is still the same person's and an administrator's.
    pub(super) fn sees_everybody_as(self, me: &Me) -> bool {
        me.id == self.owner && me.is_administrator()
    }

    /// Lists that looked complete were not, if the token was an administrator's and is no more.
    pub(super) fn ensure_not_demoted(self, me: &Me, account: AccountId) -> Result<(), CycleError> {
        if self.sees_all && !me.is_administrator() {
            return Err(CycleError::Demoted { account, user: me.id });
        }
        Ok(())
    }
}

impl<S: Sink> Cycle<'_, S> {
    /// After a full read. Says whether every candidate has been asked for, or has had its chance.
    pub(super) async fn reconcile(
        &mut self,
        token: Token,
        [users, assignments]: [&Seen; 2],
        lane: Lane,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        let missing = Missing {
            users: self.sink.unseen(Resource::Users, users).await?,
            assignments: self.sink.unseen(Resource::Assignments, assignments).await?,
        };
        // What was asked about and is in the list again may go another time.
        self.memory.not_gone.retain(|(resource, id)| match resource {
            Resource::Users => !users.ids.contains(*id),
            Resource::Assignments => !assignments.ids.contains(*id),
            Resource::BillableRates | Resource::CostRates => true,
        });
        let walks = [users, assignments].map(|seen| Walk {
            live: 0,
            empty: seen.is_empty(),
            nameless: !seen.nameless.is_empty(),
        });
        self.settle(token, missing, walks, lane, report).await
    }

    /// Between full reads: what a person has accepted, and the young whose second 404 is due.
    pub(super) async fn settle_pending(
        &mut self,
        known: &AccountState,
        lane: Lane,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let paused = self.memory.pending_pause.is_some_and(|pause| Instant::now() < pause);
        let Some(token) = Token::known(known).filter(|_| !paused) else { return Ok(()) };
        let mut pending = self.sink.pending().await?;
        let mut of = |resource| pending.remove(&resource).unwrap_or_default();
        let missing = Missing { users: of(Resource::Users), assignments: of(Resource::Assignments) };
        self.settle(token, missing, [Walk::default(); 2], lane, report).await.map(|_| ())
    }

    /// Judges, and carries out.
    pub(super) async fn settle(
        &mut self,
        token: Token,
        mut missing: Missing,
        [mut users, mut assignments]: [Walk; 2],
        lane: Lane,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        let not_gone = &self.memory.not_gone;
        let open = |resource, it: &Candidate| {
            it.standing != Standing::Rejected && !not_gone.contains(&(resource, it.id))
        };
        missing.users.retain(|it| open(Resource::Users, it));
        missing.assignments.retain(|it| open(Resource::Assignments, it));
        if missing.is_empty() {
            return Ok(true);
        }
        if !self.is_trusted(token, &missing, lane, report).await? {
            return Ok(true);
        }
        let census = self.sink.census().await?;
        let live = |resource| census.get(&resource).map_or(0, |census| census.live);
        (users.live, assignments.live) = (live(Resource::Users), live(Resource::Assignments));
        let mut round = Round::new(lane, self.harvest_now().await?);
        let (mut gone, mut cut) = (HashMap::new(), false);
        loop {
            let people = self.judge_users(&missing.users, users, &mut round).await?;
            gone.extend(people.verdicts.gone.iter().cloned());
            let places =
                self.judge_assignments(&missing.assignments, &gone, &people, assignments, &mut round).await?;
            // What a token may not see answers 404 too: it must see everybody still.
            let concludes = |verdicts: &Verdicts| !verdicts.gone.is_empty() || !verdicts.missed.is_empty();
            if (concludes(&people.verdicts) || concludes(&places.verdicts))
                && !self.is_trusted(token, &missing, lane, report).await?
            {
                return Ok(true);
            }
            // What a person has accepted is not left for the next cycle, however much it is; all else is.
            let vacated: HashSet<i64> = places.verdicts.gone.iter().map(|(id, _)| *id).collect();
            let left = |resource, it: &Candidate| {
                it.standing == Standing::Accepted && !round.asked.contains(&(resource, it.id))
            };
            let untouched = |resource, it: &Candidate| {
                it.standing == Standing::Free && !round.asked.contains(&(resource, it.id))
            };
            cut |= !round.has_room()
                && (missing.users.iter().any(|it| untouched(Resource::Users, it))
                    || missing.assignments.iter().any(|it| untouched(Resource::Assignments, it)));
            missing.users.retain(|it| left(Resource::Users, it));
            missing.assignments.retain(|it| left(Resource::Assignments, it) && !vacated.contains(&it.id));
            self.carry_out(people, report).await?;
            self.carry_out(places, report).await?;
            if round.has_room() || round.is_silent() || missing.is_empty() {
                break;
            }
            (self.progress)(Resource::Users, report.users.seen, None);
            round.go_on();
        }
        self.memory.silences = if round.unanswered { self.memory.silences + 1 } else { 0 };
        let given_up = self.memory.silences > MOST_SILENT;
        self.memory.pending_pause = given_up.then(|| Instant::now() + PAUSE);
        Ok(!cut && round.has_room() && (!round.unanswered || given_up))
    }

    /// Whether the token is still the same person's and sees everybody; where not, all that is missing waits for a
    /// person.
    async fn is_trusted(
        &self,
        token: Token,
        missing: &Missing,
        lane: Lane,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        let me = self.unless_stopped(self.client.me(lane)).await?;
        if token.sees_everybody_as(&me) {
            return Ok(true);
        }
        self.hold_blind::<User>(&missing.users, report).await?;
        self.hold_blind::<Assignment>(&missing.assignments, report).await?;
        token.ensure_not_demoted(&me, self.client.account())?;
        Ok(false)
    }

    /// Holds what a token does not see that may not see everybody.
    pub(super) async fn hold_blind<R: Decode + Table>(
        &self,
        candidates: &[Candidate],
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let undecided = candidates.iter().filter(|it| it.standing != Standing::Accepted);
        let held = held(undecided, Reason::NotAdministrator);
        Ok(self.sink.conclude::<R>(Verdicts { held, ..Verdicts::default() }, report).await?)
    }

    /// Harvest's clock, as far off ours as it was at the last read.
    pub(super) async fn harvest_now(&self) -> Result<DateTime<Utc>, CycleError> {
        let mark = self.sink.account().await?.list(Resource::Users).watermark;
        Ok(self.clock.now() + mark.and_then(|mark| mark.offset).unwrap_or_else(TimeDelta::zero))
    }

    pub(super) async fn carry_out<R: Decode + Table>(
        &self,
        answers: Answers<R>,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let Answers { verdicts, too_many: _, waiting: _, found, unreadable } = answers;
        if !found.is_empty() || !unreadable.is_empty() {
            let batch = Batch { images: found, rejected: unreadable, ..Batch::default() };
            self.sink.take(vec![batch], None, report).await?;
        }
        Ok(self.sink.conclude::<R>(verdicts, report).await?)
    }
}
