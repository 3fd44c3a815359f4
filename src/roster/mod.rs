//! The pure core: what a record is, what a change is, what an event says, when a watermark may move.
//!
//! No async, no I/O, no clock: ordinary functions on ordinary values. A new rule about what counts as
//! a change touches this room and its tests and nothing else.

pub mod change;
pub mod diff;
pub mod event;
pub mod field;
pub mod guard;
mod ids;
pub mod model;
pub mod order;
pub mod watermark;

#[cfg(test)]
mod laws;

pub use change::{Change, Kind};
pub use diff::{Fetched, Mirrored, Reading, Write, bury, plan, unstorable};
pub use event::Event;
pub use field::{Field, Value};
pub use guard::{Candidate, Guard, Miss, Reason, Standing};
pub use ids::Ids;
pub use model::{
    ADMINISTRATOR, AccountId, Assignment, BillableRate, Company, CostRate, Project, Record, Resource, User,
};
pub use order::{Order, Request, Seq};
