//! Where a cycle's pages go: into the database, or onto the screen. Reading is the same for both.

use std::collections::HashMap;

use super::report::Report;
use crate::harvest::wire::Read;
use crate::harvest::{Decode, Rejected};
use crate::roster::{Reading, Resource};
use crate::store::state::{AccountEnd, ListState, Mark};
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

/// What becomes of what was read. Counts go into the report.
pub trait Sink: Sync {
    /// How far each list has been read.
    fn states(&self) -> impl Future<Output = Result<HashMap<Resource, ListState>, StoreError>> + Send;

    /// Those of the users that the mirror has never seen.
    fn unknown_users(&self, named: Vec<i64>) -> impl Future<Output = Result<Vec<i64>, StoreError>> + Send;

    /// Takes batches, one after the other, as one; with the last page of a read, the watermark too. Says whether
    /// anything was written.
    fn take<R: Decode + Table>(
        &self,
        batches: Vec<Batch<R>>,
        last: Option<LastPage>,
        report: &mut Report,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Notes how the cycle ended.
    fn finish(&self, report: &Report, end: AccountEnd)
    -> impl Future<Output = Result<(), StoreError>> + Send;
}
