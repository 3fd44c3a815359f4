//! Writes to Harvest. Any process may request a write in `roster.writes`; the process that holds the account's lease
//! decides about it, sends it, and stores the answer in mirror, outbox and journal with one transaction.
//!
//! A write that was sent and has no answer is in doubt. It is never sent again blindly: `settle` looks at Harvest first.

mod checks;
mod execute;
mod log;
mod look;
mod role;
mod sender;
mod settle;
mod trust;

pub use sender::WriteSender;
