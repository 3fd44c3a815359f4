//! One person and their assignments, read again: for somebody who doubts a row and does not want to wait.

use super::absent_rates::Which;
use super::apply::Writer;
use super::cycle::{Cycle, CycleError};
use super::deletions::{Missing, Token};
use super::judge::Walk;
use super::report::Report;
use super::schedule::Mode;
use super::sink::{Batch, Sink};
use crate::harvest::client::Lookup;
use crate::harvest::pace::Lane;
use crate::roster::{Candidate, Reason, Resource, Standing, User};

impl Cycle<'_, Writer<'_>> {
    /// Reads them with authority, as a full read does. Says also whether Harvest or the mirror knows the person.
    pub async fn person(mut self, id: i64, with_rates: bool) -> (Report, bool) {
        let before = self.client.requests();
        let mut report = Report::new(self.client.account(), Mode::Full, self.clock.now());
        let known = match Box::pin(self.read_person(id, with_rates, &mut report)).await {
            Ok(known) => known,
            Err(error) => {
                report.outcome = Err(error);
                true
            }
        };
        self.sink.note(&mut report, self.client.requests() - before, self.clock.now()).await;
        (report, known)
    }

    async fn read_person(
        &mut self,
        id: i64,
        with_rates: bool,
        report: &mut Report,
    ) -> Result<bool, CycleError> {
        let (store, account, again_after) = (self.sink.store, self.client.account(), self.sink.again_after);
        self.memory.company_is_known = false;
        if self.is_other_company(&self.sink.account().await?, Lane::Poll).await? {
            self.refuse_other_company(Lane::Poll, report).await?;
        }
        let me = self.unless_stopped(self.client.me(Lane::Poll)).await?;
        let mut missing = Missing::default();
        let batch = match self.unless_stopped(self.client.user(id, Lane::Poll)).await? {
            Lookup::Found(read) => Batch::<User> { images: vec![*read], ..Batch::default() },
            Lookup::Unreadable(rejected) => Batch { rejected: vec![rejected], ..Batch::default() },
            Lookup::Gone(_) => {
                missing.users = store.candidates(account, Resource::Users, &[id], again_after).await?;
                Batch::default()
            }
            Lookup::Unclear(error) => return Err(error.into()),
        };
        let is_there = !batch.images.is_empty() || !batch.rejected.is_empty();
        report.users.seen += u64::from(is_there);
        let wrote = self.sink.take(vec![batch], None, report).await?;
        let seen = self.take_all(|| self.client.assignments_of(id, Lane::Poll), id, report).await?;
        report.assignments.seen += seen.ids.len() + seen.nameless.len() as u64;
        let mut unseen = store.assignments_of(account, id).await?;
        unseen.retain(|assignment| !seen.ids.contains(*assignment));
        missing.assignments = store.candidates(account, Resource::Assignments, &unseen, again_after).await?;
        let known = wrote || is_there || !missing.users.is_empty() || !missing.assignments.is_empty();
        // What the guard holds is let go by `rosterd deletions accept`, not by looking at it.
        let is_open =
            |it: &Candidate| !matches!(it.standing, Standing::Held(Reason::Guard | Reason::EmptyList));
        missing.users.retain(is_open);
        missing.assignments.retain(is_open);
        // Whoever asks wants an answer of today.
        let not_gone = &mut self.memory.not_gone;
        not_gone.remove(&(Resource::Users, id));
        for place in &unseen {
            not_gone.remove(&(Resource::Assignments, *place));
        }
        let token = Token { owner: me.id, sees_all: me.is_administrator() };
        self.settle(token, missing, [Walk::default(); 2], Lane::Poll, report).await?;
        if with_rates && is_there {
            self.read_rates(id, Lane::Poll, report).await?;
            let which = Which { user: Some(id), ..Which::default() };
            self.settle_rates(which, Lane::Poll, None, report).await?;
        }
        Ok(known)
    }
}
