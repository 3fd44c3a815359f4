//! `rosterd completions` and `rosterd man`: made of the command line's own definition.

use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use super::output;
use crate::app::{Exit, Failure};

pub(super) fn completions(mut command: Command, shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "rosterd", &mut script);
    output::script(&script)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man_pages(command: Command, dir: &Path) -> Result<ExitCode, Failure> {
    clap_mangen::generate_to(command, dir).map_err(|error| {
        Failure::new(Exit::Internal, format!("cannot write man pages into {}: {error}", dir.display()))
    })?;
    Ok(ExitCode::SUCCESS)
}
