//! Progress bars for long reads.

use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::roster::Resource;

/// One bar per list on stderr, if stderr is a terminal.
pub(super) struct Bars([ProgressBar; 3]);

impl Bars {
    /// Bars are hidden while the command prints lines.
    pub(super) fn new(hidden: bool) -> Self {
        let all = MultiProgress::new();
        if hidden || !std::io::stderr().is_terminal() {
            all.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let bar = |resource: Resource| {
            let style = ProgressStyle::with_template("{prefix:>16} {wide_bar} {pos}/{len} {eta}");
            let bar = ProgressBar::new(0).with_prefix(resource.name());
            all.add(if let Ok(style) = style { bar.with_style(style) } else { bar })
        };
        Self([Resource::Users, Resource::Assignments, Resource::BillableRates].map(bar))
    }

    pub(super) fn update(&self, resource: Resource, seen: u64, total: Option<u64>) {
        let bar = match resource {
            Resource::Users => &self.0[0],
            Resource::Assignments => &self.0[1],
            Resource::BillableRates | Resource::CostRates => &self.0[2],
        };
        bar.set_length(total.unwrap_or(seen).max(seen));
        bar.set_position(seen);
    }

    pub(super) fn clear(&self) {
        for bar in &self.0 {
            bar.finish_and_clear();
        }
    }
}
