//! The `rosterd` command.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, setrlimit};
use rosterd::cli::Cli;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A core file would hold tokens and people. Less than what is allowed is always allowed.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // One thread waits for Harvest and PostgreSQL: it has little else to do, and the allocator keeps memory for each thread
    // that ever had much of it. With a thread a core the daemon's first read of 5,000 people took 3 to 7 MiB more on two.
    // Whoever prints at length may be held up by a pager: heartbeats and signals then need a thread of their own.
    let mut runtime =
        if cli.prints_little() { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    match runtime.enable_all().build() {
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
