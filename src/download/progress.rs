//! Says what is downloaded, with its size and progress.

use std::io::{IsTerminal, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::source::Archive;

/// Where progress appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Log lines at the beginning and at the end.
    Log,
    /// stderr: a bar on a terminal, otherwise a line for each quarter.
    Stderr,
}

impl Report {
    /// For commands: stderr if it is a terminal, otherwise the log.
    pub(crate) fn for_this_process() -> Self {
        if std::io::stderr().is_terminal() { Self::Stderr } else { Self::Log }
    }

    pub(super) fn waiting(self, archive: &Archive) {
        let name = &archive.name;
        match self {
            Self::Stderr => line(&format!("waiting for another process, which downloads {name}")),
            Self::Log => {
                tracing::info!(event = "download.waiting", archive = name, "another process downloads");
            }
        }
    }

    pub(super) fn finished(self, archive: &Archive, dir: &Path) {
        let (name, dir) = (&archive.name, dir.display());
        match self {
            Self::Stderr => line(&format!("{name} is in {dir}")),
            Self::Log => {
                tracing::info!(event = "download.finished", archive = name, dir = %dir, "downloaded, verified and unpacked");
            }
        }
    }
}

pub(super) struct Progress<'a> {
    report: Report,
    archive: &'a Archive,
    dir: &'a Path,
    bar: ProgressBar,
    total: Option<u64>,
    /// The quarters that were printed.
    quarters: u64,
}

impl<'a> Progress<'a> {
    pub(super) fn new(report: Report, archive: &'a Archive, dir: &'a Path) -> Self {
        Self { report, archive, dir, bar: ProgressBar::hidden(), total: None, quarters: 0 }
    }

    /// The headers of the response arrived.
    pub(super) fn begin(&mut self, host: &str, total: Option<u64>) {
        self.total = total;
        let (name, dir) = (&self.archive.name, self.dir.display());
        let size = total.map_or_else(|| "unknown size".to_owned(), megabytes);
        if self.report == Report::Log {
            tracing::info!(event = "download.started", archive = name, host, bytes = total, dir = %dir, "downloading {size}");
            return;
        }
        line(&format!("downloading {name} ({size}) from {host} into {dir}, once"));
        if std::io::stderr().is_terminal() {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}");
            self.bar = if let Ok(style) = style { bar.with_style(style) } else { bar };
        }
    }

    pub(super) fn received(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        let Some(total) = self.total.filter(|total| *total > 0) else { return };
        let quarters = bytes * 4 / total;
        if self.report == Report::Stderr && self.bar.is_hidden() && quarters > self.quarters {
            self.quarters = quarters;
            line(&format!("downloaded {} % of {}", quarters * 25, megabytes(total)));
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Unlike `eprintln!`, not captured by tests, and without a panic if the reader of stderr is gone.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
