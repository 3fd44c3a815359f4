#![doc = include_str!("../README.md")]

mod clock;
mod faults;
mod http;
mod limit;
mod oauth;
mod options;
mod sim;
mod state;
mod sync;
mod verbs;

pub use clock::Stamp;
pub use faults::{Fault, RetryAfter};
pub use limit::{Host, Request};
pub use oauth::{Account, Grant, OAuth, Outcome, Refusal, TokenRequest};
pub use options::{Limit, Options, Paging, Records};
pub use sim::Sim;
pub use state::{Assignment, AssignmentId, Company, Project, ProjectId, RateId, RoleId, User, UserId};
