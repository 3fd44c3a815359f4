//! What Harvest knows about one company, and how it changes. Nothing here has heard of HTTP.

mod access;
mod company;
mod moment;
mod records;
mod seed;
mod table;
mod verbs;

pub(crate) use access::{Sight, claims};
pub use company::Company;
pub(crate) use moment::{Moment, Shows};
pub use records::{Assignment, AssignmentId, Project, ProjectId, User, UserId};
pub(crate) use table::Row;
