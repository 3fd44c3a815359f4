//! Findings of a dry run or of `verify`.

use parking_lot::Mutex;

use super::output;
use crate::sync::mirror::finding::Finding;

/// Prints each finding at once, or keeps all of them for a JSON document.
pub(super) struct Findings(Option<Mutex<Vec<Finding>>>);

impl Findings {
    pub(super) fn new(json: bool) -> Self {
        Self(json.then(Mutex::default))
    }

    /// Ignores a failed write, which the summary of a dry run reports.
    pub(super) fn add(&self, finding: Finding) {
        match &self.0 {
            Some(kept) => kept.lock().push(finding),
            None => drop(output::print(finding.line)),
        }
    }

    pub(super) fn into_inner(self) -> Vec<Finding> {
        self.0.map(Mutex::into_inner).unwrap_or_default()
    }
}
