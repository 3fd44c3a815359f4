//! Confirmation of a permanent effect: a preview and a question on a terminal, `--yes` elsewhere.

use std::io::{BufRead, IsTerminal};

use clap::Args;

use super::output;
use crate::app::{Exit, Failure};

pub(super) const PERMANENT: &str = "This is permanent.";
/// Another write may undo it.
pub(super) const CHANGES_HARVEST: &str = "This changes Harvest.";

#[derive(Args)]
pub(super) struct Confirmation {
    /// Do not ask for confirmation; needed without a terminal
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Print what would happen and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Confirmation {
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether the command line has `--yes`.
    pub(super) fn is_given(&self) -> bool {
        self.yes
    }

    /// Fails, before any work, if the command needs a confirmation and cannot ask for it.
    pub(super) fn require_possible(&self) -> Result<(), Failure> {
        let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if self.yes || self.dry_run || can_ask {
            return Ok(());
        }
        let advice = "this command cannot be undone, and there is no terminal to ask for confirmation; see what would happen \
                      with --dry-run, then add --yes";
        Err(Failure::new(Exit::Usage, advice))
    }

    /// Whether to go on: always with `--yes`, never with `--dry-run`, else if the user answers yes. The preview is made
    /// only if it is shown.
    pub(super) async fn obtain(
        &self,
        effect: &str,
        preview: impl AsyncFnOnce() -> Result<String, Failure>,
    ) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        let preview = preview().await?;
        if self.dry_run {
            output::print(format_args!("{preview}\nnothing was changed (--dry-run)"))?;
            return Ok(false);
        }
        output::message(format_args!("{preview}\n{effect} Type yes to continue:"));
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
