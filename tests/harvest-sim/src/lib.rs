#![doc = include_str!("../README.md")]

mod changes;
mod clock;
mod faults;
mod http;
mod oauth;
mod options;
mod request_log;
mod sim;
mod state;
mod sync;

pub use clock::Timestamp;
pub use faults::{Fault, RetryAfter};
pub use oauth::{Account, Grant, OAuth, Outcome, Refusal, TokenRequest};
pub use options::{Limit, Options, Paging, Records};
pub use request_log::{Host, Request};
pub use sim::Sim;
pub use state::{Assignment, AssignmentId, Company, Project, ProjectId, RateId, RoleId, User, UserId};
