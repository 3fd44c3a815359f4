//! Consent to what cannot be undone: a preview and a question on a terminal, `--yes` anywhere else.

use std::fmt::Display;
use std::io::{BufRead, IsTerminal};

use clap::Args;

use super::output;
use crate::app::{Exit, Failure};

#[derive(Args, Debug)]
pub(super) struct Consent {
    /// Do not ask; needed where there is no terminal
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Print what would happen and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Consent {
    /// Whether nothing may be changed.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether the command line itself says yes.
    pub(super) fn is_given(&self) -> bool {
        self.yes
    }

    /// Refuses, before any work, a command that needs consent and cannot ask for it.
    pub(super) fn require_terminal(&self) -> Result<(), Failure> {
        let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if self.yes || self.dry_run || can_ask {
            return Ok(());
        }
        let advice = "this cannot be undone, and there is no terminal to ask for confirmation: add --yes, or look first \
                      with --dry-run";
        Err(Failure::new(Exit::Usage, advice))
    }

    /// Shows the preview where it is wanted and asks. False: go no further.
    pub(super) async fn ask(&self, preview: impl Display) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        if self.dry_run {
            output::line(format_args!("{preview}\nnothing was changed (--dry-run)"))?;
            return Ok(false);
        }
        output::say(format_args!("{preview}\nThis cannot be undone. Type yes to continue:"));
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            std::io::stdin().lock().read_line(&mut answer).map(|_| answer)
        });
        match answer.await {
            Ok(Ok(answer)) if ["yes", "y"].contains(&answer.trim().to_ascii_lowercase().as_str()) => Ok(true),
            _ => Err(Failure::new(Exit::Differences, "not confirmed: nothing was changed")),
        }
    }
}
