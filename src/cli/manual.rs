//! `rosterd completions` and `rosterd man`, generated from the definition of the command line.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use super::output;
use crate::app::{Exit, Failure};

pub(super) fn completions(mut command: Command, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "rosterd", &mut script);
    output::print_unescaped(&script)
}

pub(super) fn man_pages(command: Command, dir: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(command, dir).map_err(|error| {
        Failure::new(Exit::Internal, format!("cannot write man pages into {}: {error}", dir.display()))
    })
}
