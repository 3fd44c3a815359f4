//! What a cycle would write, line by line, and nothing written: no lease, no migration, no watermark.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use super::finding::Finding;
use super::report::Report;
use super::sink::{Batch, LastPage, Seen, Sink, Verdicts};
use crate::harvest::Decode;
use crate::roster::{AccountId, Candidate, Kind, Resource, plan, unstorable};
use crate::store::census::Census;
use crate::store::rates::AbsentRates;
use crate::store::state::AccountState;
use crate::store::{Store, StoreError, Table};

/// Prints the plan of an account.
pub struct DryRun<'a> {
    /// `None` where the database has no schema yet: the mirror is empty.
    pub store: Option<&'a Store>,
    /// The account.
    pub account: AccountId,
    /// Lines tell from → to.
    pub values: bool,
    /// Where the findings go.
    pub print: &'a (dyn Fn(Finding) + Sync),
    /// See [`super::apply::Writer`].
    pub again_after: TimeDelta,
    /// What was planned so far.
    pub planned: Planned,
}

/// What the mirror would hold by now, beyond what it does.
#[derive(Default)]
pub struct Planned(Mutex<(HashSet<i64>, HashMap<Resource, Census>)>);

impl Planned {
    fn with<T>(&self, change: impl FnOnce(&mut HashSet<i64>, &mut HashMap<Resource, Census>) -> T) -> T {
        let (users, census) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(users, census)
    }
}

impl Sink for DryRun<'_> {
    async fn account(&self) -> Result<AccountState, StoreError> {
        match self.store {
            Some(store) => store.account_state(self.account).await,
            None => Ok(AccountState::default()),
        }
    }

    async fn unknown_users(&self, mut named: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        if let Some(store) = self.store {
            store.retain_new_users(self.account, &mut named).await?;
        }
        // Each is looked up once, though no assignment is stored that would say so.
        self.planned.with(|users, _| named.retain(|id| users.insert(*id)));
        Ok(named)
    }

    async fn take<R: Decode + Table>(
        &self,
        batches: Vec<Batch<R>>,
        _last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<bool, StoreError> {
        let aggregate = R::RESOURCE.aggregate();
        for batch in batches {
            let images: Vec<_> = batch.images.into_iter().map(|read| read.fetched).collect();
            let ids: Vec<i64> = images.iter().map(|image| image.record.id()).collect();
            let rows = match self.store {
                Some(store) if !ids.is_empty() => store.rows::<R>(self.account, &ids).await?,
                _ => HashMap::new(),
            };
            let counts = report.of(R::RESOURCE);
            for rejected in &batch.rejected {
                (self.print)(Finding::unreadable(aggregate, rejected));
                counts.rejected += 1;
            }
            for image in
                images.iter().filter(|image| rows.get(&image.record.id()).is_none_or(|row| row.deleted))
            {
                if let Some(reason) = unstorable(&image.record) {
                    let id = image.record.id();
                    let line = format!("{aggregate} {id} cannot be stored: {reason}");
                    (self.print)(Finding::new(aggregate, id, "unstorable", line).because(reason));
                    counts.rejected += 1;
                }
            }
            let mut created = 0;
            for write in plan(&rows, images, batch.reading) {
                match &write.change {
                    Some(change) => (self.print)(Finding::change(change, self.values)),
                    None => counts.refreshed += 1,
                }
                created += u64::from(write.change.as_ref().is_some_and(|it| it.kind == Kind::Created));
                counts.changed += u64::from(write.change.is_some());
            }
            self.planned.with(|users, census| {
                census.entry(R::RESOURCE).or_default().live += created;
                if R::RESOURCE == Resource::Users {
                    users.extend(ids);
                }
            });
        }
        Ok(false)
    }

    async fn unseen(&self, resource: Resource, seen: &Seen) -> Result<Vec<Candidate>, StoreError> {
        match self.store {
            Some(store) => store.missing(self.account, resource, &seen.ids, self.again_after).await,
            None => Ok(Vec::new()),
        }
    }

    async fn pending(&self) -> Result<HashMap<Resource, Vec<Candidate>>, StoreError> {
        match self.store {
            Some(store) => store.pending(self.account, self.again_after).await,
            None => Ok(HashMap::new()),
        }
    }

    async fn absent_rates(
        &self,
        before: Option<DateTime<Utc>>,
    ) -> Result<HashMap<Resource, AbsentRates>, StoreError> {
        match self.store {
            Some(store) => store.absent_rates(self.account, self.again_after, before).await,
            None => Ok(HashMap::new()),
        }
    }

    async fn census(&self) -> Result<HashMap<Resource, Census>, StoreError> {
        let mut census = match self.store {
            Some(store) => store.census(self.account).await?,
            None => HashMap::new(),
        };
        self.planned.with(|_, planned| {
            for (resource, more) in planned {
                let list = census.entry(*resource).or_default();
                list.live += more.live;
                list.missing += more.missing;
            }
        });
        Ok(census)
    }

    async fn live_projects(&self) -> Result<u64, StoreError> {
        match self.store {
            Some(store) => store.live_projects(self.account).await,
            None => Ok(0),
        }
    }

    async fn conclude<R: Decode + Table>(
        &self,
        verdicts: Verdicts,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let aggregate = R::RESOURCE.aggregate();
        let Verdicts { gone, held, missed } = verdicts;
        for (id, _) in &gone {
            let line = format!("{aggregate} {id} would delete");
            (self.print)(Finding::new(aggregate, *id, "deleted", line));
        }
        for (id, reason) in &held {
            let line = format!("{aggregate} {id} would hold: {}", reason.name());
            (self.print)(Finding::new(aggregate, *id, "held", line).because(reason.name()));
        }
        for id in &missed {
            let line = format!("{aggregate} {id} would wait for a second 404: it was created recently");
            (self.print)(Finding::new(aggregate, *id, "first_404", line));
        }
        let counts = report.of(R::RESOURCE);
        counts.changed += gone.len() as u64;
        counts.deleted += gone.len() as u64;
        counts.held += held.len() as u64;
        let missing = (gone.len() + held.len() + missed.len()) as u64;
        self.planned.with(|_, census| census.entry(R::RESOURCE).or_default().missing += missing);
        Ok(())
    }
}
