//! Findings of a dry run or of `verify`: printed as they come, or kept for a JSON document.

use std::sync::{Mutex, PoisonError};

use super::output;
use crate::sync::finding::Finding;

pub(super) struct Findings(Option<Mutex<Vec<Finding>>>);

impl Findings {
    pub fn new(keep: bool) -> Self {
        Self(keep.then(Mutex::default))
    }

    /// A line that cannot be written here is an error with the summary.
    pub fn print(&self, finding: Finding) {
        match &self.0 {
            Some(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).push(finding),
            None => drop(output::line(finding.line)),
        }
    }

    pub fn into_inner(self) -> Vec<Finding> {
        self.0.map(|kept| kept.into_inner().unwrap_or_else(PoisonError::into_inner)).unwrap_or_default()
    }
}
