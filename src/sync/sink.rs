//! Where a cycle's pages and verdicts go: into the database, or onto the screen. Reading is the same for all.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::report::Report;
use crate::harvest::wire::Read;
use crate::harvest::{Decode, Rejected};
use crate::roster::{Candidate, Ids, Reading, Reason, Request, Resource};
use crate::store::census::Census;
use crate::store::rates::AbsentRates;
use crate::store::state::{AccountEnd, AccountState, Mark};
use crate::store::{StoreError, Table};

/// Records that are to be believed alike.
pub struct Batch<R> {
    /// Those that could be read.
    pub images: Vec<Read<R>>,
    /// Those that could not.
    pub rejected: Vec<Rejected>,
    /// How far they are to be believed.
    pub reading: Reading,
}

impl<R> Default for Batch<R> {
    fn default() -> Self {
        Self { images: Vec::new(), rejected: Vec::new(), reading: Reading::Full }
    }
}

/// The watermark that the last page brings.
pub struct LastPage {
    /// What to write.
    pub mark: Mark,
    /// Whether it must be written even if nothing else is.
    pub due: bool,
}

/// What a complete walk showed.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every id, those of records that cannot be read included.
    pub ids: Ids,
    /// Fingerprints of records whose very id cannot be read.
    pub nameless: HashSet<String>,
    /// How many rows the list has, where all its pages said the same.
    pub total: Option<u64>,
}

impl Seen {
    /// Whether the list was empty.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.nameless.is_empty()
    }
}

/// What becomes of the candidates for deletion of one list.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Harvest confirmed that they are gone: by this answer, or by an earlier one about their person.
    pub gone: Vec<(i64, Option<Request>)>,
    /// They wait for a person.
    pub held: Vec<(i64, Reason)>,
    /// A first 404 to a recently created record; or absent from its user's list, and not requested yet.
    pub missed: Vec<i64>,
}

/// What becomes of what was read. Counts go into the report.
pub trait Sink: Sync {
    /// What is known of the account.
    fn account(&self) -> impl Future<Output = Result<AccountState, StoreError>> + Send;

    /// Those of the users that are new: neither the mirror nor any of its assignments knows them. A user whom a mirrored
    /// assignment names was looked up when that assignment was new.
    fn unknown_users(&self, named: Vec<i64>) -> impl Future<Output = Result<Vec<i64>, StoreError>> + Send;

    /// Takes batches, one after the other, as one; with the last page of a read, the watermark too. Says whether
    /// anything was written.
    fn take<R: Decode + Table>(
        &self,
        batches: Vec<Batch<R>>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Stores those of the records that the database refused before and accepts now. Here and below a sink that writes
    /// nothing has nothing to do.
    fn retry_refused<R: Decode + Table>(
        &self,
        _with_pay: bool,
        _report: &mut Report,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Live rows of the mirror that a complete walk did not show.
    fn unseen(
        &self,
        resource: Resource,
        seen: &Seen,
    ) -> impl Future<Output = Result<Vec<Candidate>, StoreError>> + Send;

    /// Candidates that need no further full read: accepted by a person, or due for a second 404.
    fn pending(&self) -> impl Future<Output = Result<HashMap<Resource, Vec<Candidate>>, StoreError>> + Send;

    /// Rates on record as absent, by kind; those may be asked for that were found absent before that time. A sink without
    /// a record of them has none.
    fn absent_rates(
        &self,
        _before: Option<DateTime<Utc>>,
    ) -> impl Future<Output = Result<HashMap<Resource, AbsentRates>, StoreError>> + Send {
        async { Ok(HashMap::new()) }
    }

    /// How many rows each list should have.
    fn census(&self) -> impl Future<Output = Result<HashMap<Resource, Census>, StoreError>> + Send;

    /// How many projects have live assignments in the mirror.
    fn live_projects(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Carries the verdicts on one list's candidates out.
    fn conclude<R: Decode + Table>(
        &self,
        verdicts: Verdicts,
        report: &mut Report,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A full read of this list is over: what it did not show is no longer a record that cannot be read.
    fn walked(
        &self,
        _resource: Resource,
        _seen: &Seen,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Remembers, or forgets, a total that a full read left unexplained: Harvest's, and what it should be.
    fn unexplained(
        &self,
        _resource: Resource,
        _unexplained: Option<(u64, u64)>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Notes how the cycle ended.
    fn finish(
        &self,
        _report: &Report,
        _end: AccountEnd,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }
}
