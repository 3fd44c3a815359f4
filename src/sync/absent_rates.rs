//! Rates that their users' complete lists did not show → past the guard, over all users together → each asked for by id
//! → deleted, held, or still there.
//!
//! One list after the other is read, over many polls where the company is large. A gateway that answers with empty lists
//! would pass the guard user by user, so nothing is concluded before all lists that are due have been read.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::cycle::{Cycle, CycleError};
use super::deletions::Token;
use super::histories::{PAUSE, Until};
use super::judge::{Answers, Round, held};
use super::report::Report;
use super::sink::{Sink, Verdicts};
use crate::harvest::Decode;
use crate::harvest::client::Lookup;
use crate::harvest::pace::Lane;
use crate::roster::{BillableRate, Candidate, CostRate, Miss, Reason, Resource, Standing};
use crate::store::Table;
use crate::store::rates::AbsentRates;

/// So many rates, at two requests each at the most, between two looks at the token.
const AT_A_TIME: usize = 100;

/// Which of the absent rates are asked for.
#[derive(Clone, Copy, Default)]
pub(super) struct Which {
    /// Those that were found absent before.
    pub found_before: Option<DateTime<Utc>>,
    /// Only this user's.
    pub user: Option<i64>,
    /// Also those that are held, whose number may no longer be too many.
    pub held: bool,
}

impl<S: Sink> Cycle<'_, S> {
    /// Judges the rates on record as absent.
    pub(super) async fn settle_rates(
        &mut self,
        which: Which,
        lane: Lane,
        until: Option<Until<'_>>,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let mut absent = self.sink.absent_rates(which.found_before).await?;
        for absent in absent.values_mut() {
            absent.candidates.retain(|it| {
                which.user.is_none_or(|user| it.user_id == Some(user))
                    && (which.held || !matches!(it.standing, Standing::Held(_)))
            });
        }
        let mut of = |resource| absent.remove(&resource).unwrap_or_default();
        let (billable, cost) = (of(Resource::BillableRates), of(Resource::CostRates));
        self.settle_kind::<BillableRate>(billable, lane, until, report).await?;
        self.settle_kind::<CostRate>(cost, lane, until, report).await
    }

    /// Judges absent rates of one kind.
    pub(super) async fn settle_kind<R: Decode + Table>(
        &mut self,
        absent: AbsentRates,
        lane: Lane,
        until: Option<Until<'_>>,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let AbsentRates { mut candidates, undecided, live } = absent;
        let not_gone = &self.memory.not_gone;
        candidates
            .retain(|it| it.standing != Standing::Rejected && !not_gone.contains(&(R::RESOURCE, it.id)));
        if self.rules.guard.holds(undecided, live) {
            let too_many: Vec<_> =
                candidates.extract_if(.., |it| it.standing != Standing::Accepted).collect();
            let held = held(&too_many, Reason::Guard);
            self.sink.conclude::<R>(Verdicts { held, ..Verdicts::default() }, report).await?;
        }
        if candidates.is_empty() {
            return Ok(());
        }
        let now = self.harvest_now().await?;
        candidates.retain(|it| it.one_more_404(now) != Miss::StillTooYoung);
        let Some(token) = Token::known(&self.sink.account().await?) else { return Ok(()) };
        for candidates in candidates.chunks(AT_A_TIME) {
            if !self.may_judge::<R>(token, candidates, lane, report).await? {
                return Ok(());
            }
            let (mut round, mut users, mut in_time) = (Round::new(lane, now), HashMap::new(), true);
            let mut answers = Answers::default();
            for candidate in candidates {
                if let Some(until) = until {
                    in_time = self.has_time(until).await?;
                }
                if !in_time || round.is_silent() {
                    break;
                }
                self.ask_for_rate::<R>(candidate, lane, &mut users, &mut round, &mut answers).await?;
            }
            // A 404 answers a token, too, that may no longer see the user.
            let concludes = !answers.verdicts.gone.is_empty() || !answers.verdicts.missed.is_empty();
            if concludes && !self.may_judge::<R>(token, candidates, lane, report).await? {
                return Ok(());
            }
            self.carry_out(answers, report).await?;
            if round.is_silent() {
                self.memory.rates_pause = Some(Instant::now() + PAUSE);
            }
            if round.is_silent() || !in_time {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Asks for one rate, if Harvest shows its user: without the user, whose deletion takes the rates along, a 404 says
    /// nothing of the rate. What remains without an answer is not asked for again until a full read is due.
    async fn ask_for_rate<R: Decode + Table>(
        &mut self,
        candidate: &Candidate,
        lane: Lane,
        users: &mut HashMap<i64, bool>,
        round: &mut Round,
        answers: &mut Answers<R>,
    ) -> Result<(), CycleError> {
        let (client, id, Some(user)) = (self.client, candidate.id, candidate.user_id) else { return Ok(()) };
        let is_shown = if let Some(is_shown) = users.get(&user) {
            *is_shown
        } else {
            let answer = round.answered(self.unless_stopped(client.user(user, lane)).await)?;
            let is_shown = matches!(answer, Some(Lookup::Found(_) | Lookup::Unreadable(_)));
            *users.entry(user).or_insert(is_shown)
        };
        if is_shown {
            self.ask(candidate, client.rate::<R>(user, id, lane), round, answers).await?;
        }
        let Verdicts { gone, missed, .. } = &answers.verdicts;
        if let Some(read) = answers.found.iter_mut().find(|read| read.fetched.record.id() == id) {
            // A rate by id does not name its user.
            read.fetched.record.set_user(user);
        } else if !missed.contains(&id) && !gone.iter().any(|(gone, _)| *gone == id) {
            self.memory.not_gone.insert((R::RESOURCE, id));
        }
        Ok(())
    }

    /// Whether the token is still the same person's and sees everybody; where not, the candidates are held.
    async fn may_judge<R: Decode + Table>(
        &self,
        token: Token,
        candidates: &[Candidate],
        lane: Lane,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        let me = self.unless_stopped(self.client.me(lane)).await?;
        if token.sees_everybody_as(&me) {
            return Ok(true);
        }
        self.hold_blind::<R>(candidates, report).await?;
        token.ensure_not_demoted(&me, self.client.account())?;
        Ok(false)
    }
}
