//! What Harvest knows about one company, and how it changes. Nothing here has heard of HTTP.

mod access;
mod company;
mod moment;
mod rates;
mod records;
mod roles;
mod seed;
mod table;
mod verbs;

pub(crate) use access::{Sight, claims};
pub use company::Company;
pub(crate) use moment::{Moment, Shows};
pub(crate) use rates::{History, Rate, RateKind};
pub use records::{Assignment, AssignmentId, Project, ProjectId, RateId, RoleId, User, UserId};
pub(crate) use roles::Role;
pub(crate) use table::{Keyed, Row};
