//! The data of one company and its changes. This module does not depend on HTTP.

mod access;
mod changes;
mod company;
mod moment;
mod rates;
mod records;
mod roles;
mod seed;
mod table;

pub(crate) use access::{Visibility, claims};
pub use company::Company;
pub(crate) use moment::{Moment, VisibleFrom};
pub(crate) use rates::{History, Rate, RateKind};
pub use records::{Assignment, AssignmentId, Project, ProjectId, RateId, RoleId, User, UserId};
pub(crate) use roles::Role;
pub(crate) use table::{Keyed, Row};
