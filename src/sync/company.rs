//! Which company an account shows. A deletion can be held, a creation cannot: consumers create accounts of their own for
//! created users. So if the account shows another company, and most users are absent, nothing of it is stored.

use std::collections::HashSet;

use super::cycle::{Cycle, CycleError};
use super::judge::held;
use super::report::Report;
use super::sink::{Seen, Sink, Verdicts};
use crate::harvest::pace::Lane;
use crate::roster::{Company, Reason, Resource, Standing, User};
use crate::store::state::AccountState;

impl<S: Sink> Cycle<'_, S> {
    /// The company, as far as the token may know it: only an administrator's may, and its name is not worth a failure.
    pub(super) async fn company(&self, lane: Lane) -> Result<Company, CycleError> {
        match self.unless_stopped(self.client.company(lane)).await {
            Err(CycleError::Harvest(_)) => Ok(Company::default()),
            answered => answered,
        }
    }

    /// Whether the account shows another company than at the last full read. Asked once a cycle, before new users are
    /// stored.
    pub(super) async fn is_other_company(
        &mut self,
        known: &AccountState,
        lane: Lane,
    ) -> Result<bool, CycleError> {
        if self.memory.company_is_known || known.company == Company::default() {
            return Ok(false);
        }
        let differs = self.company(lane).await?.differs(&known.company);
        self.memory.company_is_known = !differs;
        Ok(differs)
    }

    /// The company has another name or address than before: reads the users, and stores none. If most users of the mirror
    /// are absent it is another company, and their deletions are held; else it was renamed.
    ///
    /// # Errors
    /// [`CycleError::OtherCompany`].
    pub(super) async fn refuse_other_company(
        &self,
        lane: Lane,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let mut pages = self.client.list::<User>(None, lane);
        while self.unless_stopped(pages.next()).await?.is_some() {}
        let (ids, total) = pages.into_seen();
        let seen = Seen { ids, nameless: HashSet::new(), total };
        let mut absent = self.sink.unseen(Resource::Users, &seen).await?;
        absent.retain(|it| !matches!(it.standing, Standing::Accepted | Standing::Rejected));
        let live = self.sink.census().await?.get(&Resource::Users).map_or(0, |census| census.live);
        if absent.len() as u64 * 2 <= live {
            return Ok(());
        }
        let verdicts = Verdicts { held: held(&absent, Reason::Guard), ..Verdicts::default() };
        self.sink.conclude::<User>(verdicts, report).await?;
        Err(CycleError::OtherCompany { account: self.client.account(), absent: absent.len(), live })
    }
}
