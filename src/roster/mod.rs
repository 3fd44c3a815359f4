//! The pure core: records, changes, events, the watermark, and the states of absent records.
//!
//! No async code, no I/O and no clock: ordinary functions on ordinary values.

pub mod change;
mod diff;
pub mod event;
pub mod field;
mod ids;
pub mod missing;
pub mod model;
pub mod order;
pub mod permits;
pub mod reconcile;
pub mod role;
pub mod watermark;
pub mod write;
mod write_kind;
pub mod write_policy;

#[cfg(test)]
mod properties;

pub use change::{Change, ChangeKind};
pub use diff::{Authority, Fetched, MirrorRow, RowWrite, plan, tombstones, unstorable};
pub use event::Event;
pub use field::{Field, Value};
pub use ids::IdSet;
pub use missing::{AbsentRecord, AbsentState, Action, DeletionGuard, HoldReason, Observation};
pub use model::{
    ADMINISTRATOR, AccountId, Assignment, BillableRate, Company, CostRate, Project, Record, Resource, User,
};
pub use order::{Order, Seq, SourceRequest};
pub use role::Role;
