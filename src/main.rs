//! The `rosterd` command.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, setrlimit};
use rosterd::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A core file would hold tokens and people. Less than what is allowed is always allowed.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli.execute());
            // Whatever still runs is dropped, which is safe anywhere; nothing may keep the process from ending.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rosterd: cannot start the asynchronous runtime: {error}");
            rosterd::app::Exit::Internal.into()
        }
    }
}
