//! The count probe. Harvest leaves no trace of a deletion, but tells how many rows a list has: one request a list, and
//! a difference is noticed within a poll instead of within hours.

use std::collections::HashMap;
use std::fmt;

use super::cycle::{Cycle, CycleError};
use super::sink::{Seen, Sink};
use crate::harvest::pace::Lane;
use crate::roster::Resource;
use crate::store::StoreError;
use crate::store::census::Census;
use crate::store::state::AccountState;

/// Why what changed cannot be all that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The clocks moved: stamps from before and after do not compare.
    ClockMoved,
    /// New users, and the account shows another company.
    OtherCompany,
    /// Harvest says it has none, and the mirror has some.
    Empty {
        /// The list.
        resource: Resource,
    },
    /// Harvest has another number of rows than it should by what the mirror knows.
    Count {
        /// The list.
        resource: Resource,
        /// What Harvest says.
        total: u64,
        /// What the mirror expects.
        expected: u64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockMoved => f.write_str("Harvest's clock and ours moved against each other"),
            Self::OtherCompany => f.write_str("the account shows another company than before"),
            Self::Empty { resource } => write!(f, "Harvest says it has no {} at all", resource.name()),
            Self::Count { resource, total, expected } => {
                write!(f, "Harvest has {total} {} and should have {expected}", resource.name())
            }
        }
    }
}

/// Each list's total, where Harvest tells it.
pub(super) type Totals = HashMap<Resource, u64>;

impl<S: Sink> Cycle<'_, S> {
    /// Asks for each list's total. A list that does not answer is left out: reading it will meet the same trouble. Without a
    /// token nothing will answer.
    pub(super) async fn totals(&self, lane: Lane) -> Result<Totals, CycleError> {
        let mut totals = Totals::new();
        if self.rules.count_probe {
            for resource in Resource::LISTS {
                totals.extend(self.total(resource, lane).await?.map(|total| (resource, total)));
            }
        }
        Ok(totals)
    }

    async fn total(&self, resource: Resource, lane: Lane) -> Result<Option<u64>, CycleError> {
        match self.unless_stopped(self.client.total(resource, lane)).await {
            Err(CycleError::Harvest(error)) if !error.is_without_token() => {
                tracing::debug!(
                    account_id = self.client.account().0,
                    error = %crate::telemetry::chain(&error),
                    "no total of {}", resource.name()
                );
                Ok(None)
            }
            told => told,
        }
    }

    /// Whether rows vanished: before what changed is read, new ones can only have made a total larger. A token that is
    /// no administrator's sees fewer for other reasons.
    pub(super) async fn vanished(
        &self,
        known: &AccountState,
        totals: &Totals,
    ) -> Result<Option<Doubt>, StoreError> {
        if totals.is_empty() || !known.is_administrator() {
            return Ok(None);
        }
        let census = self.sink.census().await?;
        // All of them at once, whatever is held: as long as that lasts, no cycle is good.
        let empty = |resource: &Resource| {
            totals.get(resource) == Some(&0) && census.get(resource).is_some_and(Census::has_some)
        };
        if let Some(resource) = Resource::LISTS.into_iter().find(empty) {
            return Ok(Some(Doubt::Empty { resource }));
        }
        Ok(doubts(known, &census, totals).find(|(_, total, expected)| total < expected).map(doubt))
    }

    /// Whether the mirror has live rows of a list, but for those that a person decided to keep.
    pub(super) async fn has_some(&self, resource: Resource) -> Result<bool, StoreError> {
        Ok(self.sink.census().await?.get(&resource).is_some_and(Census::has_some))
    }

    /// Whether the totals are what they should be, now that what changed has been read. Something may have happened
    /// since they were told, so a total that is not as it should be is asked for once more.
    pub(super) async fn miscounted(
        &mut self,
        known: &AccountState,
        mut totals: Totals,
        lane: Lane,
    ) -> Result<Option<Doubt>, CycleError> {
        if totals.is_empty() {
            return Ok(None);
        }
        let census = self.sink.census().await?;
        for (resource, told) in &mut totals {
            if *told != expected(&census, *resource)
                && let Some(total) = self.total(*resource, lane).await?
            {
                *told = total;
            }
            // Explained by what happened since: who was missing in the list is in it again, and may go another time.
            if *told == expected(&census, *resource) && known.list(*resource).unexplained.is_some() {
                self.memory.not_gone.retain(|(list, _)| list != resource);
                self.sink.unexplained(*resource, None).await?;
            }
        }
        let sees_all = known.is_administrator();
        let mut doubts = doubts(known, &census, &totals);
        Ok(doubts.find(|(_, total, expected)| sees_all || total > expected).map(doubt))
    }

    /// After a full read: a total that is still not as it should be is said once, and starts no other full read until
    /// it changes. With `all_asked` false some of what is missing has not been asked for: that is no explanation.
    pub(super) async fn explain(
        &self,
        known: &AccountState,
        walks: [(Resource, &Seen); 2],
        all_asked: bool,
    ) -> Result<(), StoreError> {
        // Before the count: what cannot be read and was not shown is no longer there.
        for (resource, seen) in walks {
            self.sink.walked(resource, seen).await?;
        }
        let census = self.sink.census().await?;
        for (resource, seen) in walks {
            let before = known.list(resource).unexplained;
            let expected = expected(&census, resource);
            let now = match seen.total {
                Some(total) if total != expected && all_asked => Some((total, expected)),
                Some(_) => None,
                // The list moved while it was walked, or tells no total: nothing new is known.
                None => before,
            };
            if let Some((total, expected)) = now.filter(|_| now != before) {
                tracing::warn!(
                    event = "drift.found",
                    account_id = self.client.account().0,
                    resource = resource.name(),
                    total,
                    expected,
                    "Harvest says it has {total} {} but should have {expected}, and a full read does not explain it",
                    resource.name()
                );
            }
            self.sink.unexplained(resource, now).await?;
        }
        Ok(())
    }
}

fn expected(census: &HashMap<Resource, Census>, resource: Resource) -> u64 {
    census.get(&resource).map_or(0, Census::expected)
}

/// The totals that are not as they should be, but for those that a full read did not explain either.
fn doubts<'a>(
    known: &'a AccountState,
    census: &'a HashMap<Resource, Census>,
    totals: &'a Totals,
) -> impl Iterator<Item = (Resource, u64, u64)> + use<'a> {
    Resource::LISTS
        .into_iter()
        .filter_map(|resource| Some((resource, *totals.get(&resource)?, expected(census, resource))))
        .filter(|(resource, total, expected)| {
            total != expected && known.list(*resource).unexplained != Some((*total, *expected))
        })
}

fn doubt((resource, total, expected): (Resource, u64, u64)) -> Doubt {
    Doubt::Count { resource, total, expected }
}
