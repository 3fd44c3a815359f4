//! Printing that never panics: a reader that has gone away (`| head`) or a full disk is no fault of ours.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use crate::app::{Exit, Failure};

/// Prints a line of data on stdout. That nobody reads on is fine; that it cannot be written is told.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    is_read(text).map(drop)
}

/// The same; tells whether anybody reads on.
pub(super) fn is_read(text: impl Display) -> Result<bool, Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::new(Exit::Internal, format!("cannot write the result to stdout: {error}")))
        }
    }
}

/// Says something to a person on stderr, if it can be said.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
