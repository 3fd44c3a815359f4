//! Logs and metrics. Logs are lines on stderr: one flat JSON object per line, or text for people.
//!
//! Names, e-mail addresses, pay data and tokens appear at no level. Code of this crate must not log them. This module
//! guards against two other sources: libraries that log what they send and receive, and panic messages that quote a
//! record.

pub mod instruments;

mod line_format;
mod logs;
mod queue;
mod text;

pub use logs::{Format, init};
pub(crate) use queue::{Flush, flush, stderr};
pub use text::chain;
pub(crate) use text::{count, duration, sentences};
