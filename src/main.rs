//! The `rosterd` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    rosterd::main()
}
