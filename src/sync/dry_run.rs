//! What a cycle would write, line by line, and nothing written: no lease, no migration, no watermark.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::report::Report;
use super::sink::{Batch, LastPage, Sink};
use crate::harvest::Decode;
use crate::roster::{AccountId, Resource, User, plan, unstorable};
use crate::store::state::{AccountEnd, ListState};
use crate::store::{Store, StoreError, Table};

/// Prints the plan of an account.
pub struct DryRun<'a> {
    store: Option<&'a Store>,
    account: AccountId,
    values: bool,
    print: &'a (dyn Fn(&str) + Sync),
    planned_users: Mutex<HashSet<i64>>,
}

impl<'a> DryRun<'a> {
    /// Without a `store`, where the database has no schema yet, the mirror is empty. `values`: lines tell from → to.
    pub fn new(
        store: Option<&'a Store>,
        account: AccountId,
        values: bool,
        print: &'a (dyn Fn(&str) + Sync),
    ) -> Self {
        Self { store, account, values, print, planned_users: Mutex::default() }
    }
}

impl Sink for DryRun<'_> {
    async fn states(&self) -> Result<HashMap<Resource, ListState>, StoreError> {
        match self.store {
            Some(store) => store.list_states(self.account).await,
            None => Ok(HashMap::new()),
        }
    }

    async fn unknown_users(&self, mut named: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        if let Some(store) = self.store {
            let known = store.fingerprints::<User>(self.account, &named).await?;
            named.retain(|id| !known.contains_key(id));
        }
        let planned = self.planned_users.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|id| !planned.contains(id));
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
                let id = rejected.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
                (self.print)(&format!("{aggregate} {id} cannot be read: {}", rejected.reason));
                counts.rejected += 1;
            }
            for image in images.iter().filter(|image| !rows.contains_key(&image.record.id())) {
                if let Some(reason) = unstorable(&image.record) {
                    (self.print)(&format!("{aggregate} {} cannot be stored: {reason}", image.record.id()));
                    counts.rejected += 1;
                }
            }
            if R::RESOURCE == Resource::Users {
                self.planned_users.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            }
            for write in plan(&rows, images, batch.reading) {
                match &write.change {
                    Some(change) if self.values => (self.print)(&change.with_values()),
                    Some(change) => (self.print)(&change.to_string()),
                    None => counts.refreshed += 1,
                }
                counts.changed += u64::from(write.change.is_some());
            }
        }
        Ok(false)
    }

    async fn finish(&self, _report: &Report, _end: AccountEnd) -> Result<(), StoreError> {
        Ok(())
    }
}
