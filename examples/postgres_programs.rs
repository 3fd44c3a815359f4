//! Prints the directory of PostgreSQL's server programs, and downloads them if this machine has none. For `.ci/postgres.sh`.

#![expect(clippy::unwrap_used, reason = "a script reports the panic")]

use std::path::Path;
use std::process::ExitCode;

use rosterd::app::{Failure, development_options};
use rosterd::store::local::LocalPostgres;

#[tokio::main]
async fn main() -> ExitCode {
    let directory = tempfile::Builder::new().prefix("rosterd-programs-").tempdir().unwrap();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgresql");
    let options = development_options(&directory.path().join("postgres"), programs).unwrap();
    match LocalPostgres::start(&options).await {
        Ok(postgres) => {
            println!("{}", postgres.psql().parent().unwrap().display());
            postgres.stop().await.unwrap();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", Failure::from(error));
            ExitCode::FAILURE
        }
    }
}
