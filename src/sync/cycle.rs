//! One cycle. An incremental one asks for totals and for what changed since the watermark; where a total is not what
//! the mirror expects, or the clocks moved, it turns into a full one, which reads everything, is believed even against
//! a newer stamp, and settles what is missing.
//!
//! Dropping a cycle anywhere is safe: nothing is half-written, and what is read again is found equal.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deletions::Token;
use super::probe::Doubt;
use super::report::Report;
use super::schedule::Mode;
use super::sink::Sink;
use super::walk::lane;
use crate::clock::Clock;
use crate::harvest::client::Me;
use crate::harvest::pace::Lane;
use crate::harvest::{Client, HarvestError};
use crate::roster::{AccountId, Assignment, Guard, Resource, User};
use crate::store::StoreError;
use crate::store::state::{AccountEnd, AccountState, Owner};

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
    /// There were some, and not one is left: an outage looks like that.
    #[error(
        "Harvest's list of assignments came back empty although the mirror has some: nothing was concluded from it, and \
         their deletions are held; if they are really gone, accept them with `rosterd deletions accept`"
    )]
    NothingThere,
    /// The token used to see everybody and does not any more: lists are shorter without any error.
    #[error(
        "the token of account {account} is user {user}'s, who is no administrator any more and sees only a part of the \
         people: nothing was concluded from this read; make user {user} an administrator again, or use an \
         administrator's token"
    )]
    Demoted {
        /// The account.
        account: AccountId,
        /// The token's owner.
        user: i64,
    },
    /// The account shows another company, with other people: a test system behind the same address, or an account that
    /// was merged or replaced.
    #[error(
        "account {account} shows another company than before, and {absent} of the mirror's {live} users are absent: nothing \
         was stored; if that is wrong, check HARVEST_ACCOUNT_ID, the token and harvest.base_url (`rosterd check` names the \
         company, `rosterd status` the one before); if the account was really replaced, `rosterd deletions accept --account \
         {account}` lets the new company in"
    )]
    OtherCompany {
        /// The account.
        account: AccountId,
        /// Users of the mirror that Harvest does not show.
        absent: usize,
        /// Users of the mirror.
        live: u64,
    },
    /// No statement ended and no response arrived for this long.
    #[error(
        "the cycle made no progress for {} s: PostgreSQL ended no statement, and Harvest sent no response; rosterd ended the \
         cycle and will try again",
        .0.as_secs()
    )]
    Stalled(Duration),
    /// We were told to stop.
    #[error(
        "stopped before the end, as asked; what was stored is kept, and the next cycle goes on from there"
    )]
    Stopped,
}

impl CycleError {
    /// Only a person can help: the token or the account.
    pub fn is_credentials(&self) -> bool {
        match self {
            Self::Harvest(error) => error.is_credentials(),
            Self::Demoted { .. } | Self::OtherCompany { .. } => true,
            Self::Store(_) | Self::NobodyThere | Self::NothingThere | Self::Stalled(_) | Self::Stopped => {
                false
            }
        }
    }

    /// Harvest is in trouble with one question, which says nothing of what was asked about. A refused token is no such
    /// trouble.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Harvest(error) if !error.is_credentials() && !error.is_without_token())
    }
}

/// The rules of reading; handed in by `app`.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How far behind the watermark a read begins.
    pub skew_buffer: TimeDelta,
    /// How often everything is read.
    pub full_interval: TimeDelta,
    /// Whether each poll compares Harvest's totals with the mirror's.
    pub count_probe: bool,
    /// How many deletions at once are for a person to judge.
    pub guard: Guard,
    /// Whether no other account is read with the same budget of requests.
    pub alone: bool,
    /// Whether no poll can be waiting for requests meanwhile: a command is at work that ends with this cycle, and no other
    /// process shares the budget.
    pub unshared: bool,
}

impl Rules {
    /// The permits that a long read may use: all of them where no poll can be waiting.
    pub(super) fn background(&self) -> Lane {
        if self.unshared { Lane::Poll } else { Lane::Background }
    }
}

/// What a worker remembers from cycle to cycle. Losing it costs a request or a row, never a change.
#[derive(Debug, Default)]
pub struct Memory {
    /// Whether another cycle will remember: a daemon's.
    pub(super) is_lasting: bool,
    /// Missing records that are not gone, or of which Harvest would not say so. These, and what follows but for the times
    /// and counts, are not asked for again until a full read is due: see [`Memory::ask_again`].
    pub(super) not_gone: HashSet<(Resource, i64)>,
    /// People whose rates could not be read.
    pub(super) rates_unread: HashSet<i64>,
    /// Whether the token may not read pay at all.
    pub(super) rates_refused: bool,
    /// Harvest was in trouble with rates: when they are asked for again.
    pub(super) rates_pause: Option<Instant>,
    /// Users that no list of this cycle had shown yet and that were read by id.
    pub(super) met_users: Vec<i64>,
    /// What this cycle looked up of them.
    pub(super) look_ups: LookUps,
    /// Whether this cycle has seen that the account shows the same company as before.
    pub(super) company_is_known: bool,
    /// Cycles in a row in which Harvest left questions about missing records unanswered.
    pub(super) silences: u32,
    /// When what is pending is asked for again, after so many of those.
    pub(super) pending_pause: Option<Instant>,
    /// Idle reads since the watermark was last written.
    pub(super) idle_polls: HashMap<Resource, i64>,
}

/// Look-ups of users whom assignments name and the mirror lacks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookUps {
    /// Requests.
    pub made: u32,
    /// Users who were not found, or not looked up.
    pub unfound: u64,
    /// Harvest did not answer one of them: there are no more in this cycle.
    pub failed: bool,
}

impl Memory {
    /// A full read that is due by the clock, or asked for, asks everything again; one that a count has started does not,
    /// or one question without an answer would be asked with each poll.
    fn ask_again(&mut self) {
        let Self { not_gone, rates_refused, rates_unread, silences, .. } = self;
        not_gone.clear();
        rates_unread.clear();
        (*rates_refused, *silences) = (false, 0);
    }
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

impl<S: Sink> Cycle<'_, S> {
    /// Runs it to its end, from what is known of the account. A cycle that fails is a value too.
    pub async fn run(mut self, mode: Mode, known: AccountState) -> Report {
        let before = self.client.requests();
        let mut report = Report::new(self.client.account(), mode, self.clock.now());
        let mut end = AccountEnd::default();
        self.memory.look_ups = LookUps::default();
        self.memory.company_is_known = false;
        report.outcome = Box::pin(self.read(&known, &mut report, &mut end)).await;
        self.say_unfound_users(&report);
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
        known: &AccountState,
        report: &mut Report,
        end: &mut AccountEnd,
    ) -> Result<(), CycleError> {
        let read = self.read_what_is_due(known, report, end).await;
        // Whatever could not be seen meanwhile must be looked at again once the lists are the right ones.
        if matches!(read, Err(CycleError::Demoted { .. } | CycleError::OtherCompany { .. })) {
            end.next_full_at = Some(report.started_at);
        }
        read
    }

    async fn read_what_is_due(
        &mut self,
        known: &AccountState,
        report: &mut Report,
        end: &mut AccountEnd,
    ) -> Result<(), CycleError> {
        if report.mode == Mode::Incremental {
            let Some(doubt) = self.incremental(known, report).await? else { return Ok(()) };
            tracing::info!(
                account_id = self.client.account().0,
                cycle_id = %report.id,
                "reading everything: {doubt}"
            );
            report.mode = Mode::Full;
        } else {
            self.memory.ask_again();
        }
        self.full(known, report, end).await
    }

    /// Reads what changed; says so when that cannot be all.
    async fn incremental(
        &mut self,
        known: &AccountState,
        report: &mut Report,
    ) -> Result<Option<Doubt>, CycleError> {
        let lane = lane(report.mode, known, self.rules);
        // Before anything is read: a token that lost rights shows in a smaller total, and then nothing may move.
        let totals = self.totals(lane).await?;
        if let Some(doubt) = self.vanished(known, &totals).await? {
            return Ok(Some(doubt));
        }
        if let Err(doubt) = self.list::<User>(known, lane, true, report).await? {
            return Ok(Some(doubt));
        }
        if let Err(doubt) = self.list::<Assignment>(known, lane, true, report).await? {
            return Ok(Some(doubt));
        }
        let doubt = self.miscounted(known, totals, lane).await?;
        // A full read shows absent records that are back, and refused records, by itself. Otherwise rosterd asks for the
        // first by id, and tries the second again.
        if doubt.is_none() {
            self.settle_pending(known, lane, report).await?;
            let with_pay = self.client.with_pay();
            if known.list(Resource::Users).has_refused {
                self.sink.retry_refused::<User>(with_pay, report).await?;
            }
            if known.list(Resource::Assignments).has_refused {
                self.sink.retry_refused::<Assignment>(with_pay, report).await?;
            }
        }
        Ok(doubt)
    }

    /// Reads everything, and settles what it did not show.
    async fn full(
        &mut self,
        known: &AccountState,
        report: &mut Report,
        end: &mut AccountEnd,
    ) -> Result<(), CycleError> {
        self.memory.met_users.clear();
        let lane = lane(report.mode, known, self.rules);
        let me = self.unless_stopped(self.client.me(lane)).await?;
        let demoted = known.is_administrator() && !me.is_administrator();
        let company = self.company(lane).await?;
        if company.differs(&known.company) {
            self.refuse_other_company(lane, report).await?;
        }
        // A full read asks without a date, and knows the company: nothing can be in its way.
        let mut users = self.list::<User>(known, lane, !demoted, report).await?.unwrap_or_default();
        let assignments = self.list::<Assignment>(known, lane, !demoted, report).await?.unwrap_or_default();
        // Hired while we walked, and met by their assignments.
        for id in self.memory.met_users.drain(..) {
            users.total = users.total.map(|total| total + u64::from(users.ids.insert(id)));
        }
        // Whose token it was when the mirror was last known to be whole.
        let owner = known.owner.as_ref().map_or(me.id, |owner| owner.id);
        let token = Token { owner, sees_all: me.is_administrator() };
        let all_asked = self.reconcile(token, [&users, &assignments], lane, report).await?;
        if demoted {
            return Err(CycleError::Demoted { account: self.client.account(), user: me.id });
        }
        if assignments.is_empty() && self.has_some(Resource::Assignments).await? {
            return Err(CycleError::NothingThere);
        }
        self.explain(known, [(Resource::Users, &users), (Resource::Assignments, &assignments)], all_asked)
            .await?;
        // Under a new owner what is missing was only held: the next cycle judges it.
        let rest = if owner == me.id { self.rules.full_interval } else { TimeDelta::zero() };
        let Me { id, access_roles } = me;
        *end = AccountEnd {
            owner: Some(Owner { id, access_roles }),
            company,
            full: true,
            next_full_at: Some(self.clock.now() + rest),
            error: None,
        };
        Ok(())
    }
}
