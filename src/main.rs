//! The `rosterd` command.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, setrlimit};
use rosterd::cli::Cli;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A core file would contain tokens and personal data. Lowering a limit always succeeds.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // The daemon mostly waits for Harvest and PostgreSQL, so one thread is enough. The allocator keeps memory per
    // thread: with one thread per core, the first read of 5,000 users needed 3 to 7 MiB more on two cores. A command
    // with long output can block on a pager, so its heartbeats and signals need other threads.
    let mut runtime =
        if cli.prints_little() { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    match runtime.enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli.execute());
            // Tasks that still run are dropped, which is safe at any point. The process must not wait for them.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rosterd: cannot start the asynchronous runtime: {error}");
            rosterd::app::Exit::Internal.into()
        }
    }
}
