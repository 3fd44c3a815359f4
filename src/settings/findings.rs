//! What is wrong with the settings.

use std::fmt;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(super) Findings);

impl SettingsError {
    /// What is wrong, a sentence each.
    pub fn faults(&self) -> &[String] {
        &self.0.faults
    }

    /// What is allowed but may be the cause of a fault, a sentence each.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.0.warnings
    }
}

/// The sentences that loading collects.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Findings {
    pub(super) fn fault(&mut self, sentence: impl Into<String>) {
        self.faults.push(sentence.into());
    }

    pub(super) fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.push(sentence.into());
    }

    /// The value of `result`; its error becomes a fault.
    pub(super) fn ok<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|fault| self.fault(fault)).ok()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        f.write_str(&self.faults.iter().cloned().chain(warnings).collect::<Vec<_>>().join("\n"))
    }
}
