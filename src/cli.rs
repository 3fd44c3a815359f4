//! The command line: its definition and dispatch, with one file per command. Data goes to stdout, everything else to
//! stderr.

mod accounts;
mod assignment;
mod auth;
mod carry_out;
mod check;
mod confirmation;
mod deletions;
mod explain;
mod findings;
mod forget;
mod health;
mod manual;
mod migrate;
mod outbox;
mod output;
mod progress;
mod psql;
mod reconcile;
mod run;
mod scim;
mod signals;
mod since;
mod status;
mod support;
mod sync;
mod user;
mod verify;
mod webhooks;
mod writes;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use nix::sys::resource::{Resource, setrlimit};
use tokio::runtime::Builder;

use crate::app::{Exit, Failure};
use crate::settings::Settings;
use crate::telemetry;

/// Mirror Harvest users and assignments into PostgreSQL
#[derive(Parser)]
#[command(
    name = "rosterd",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ROSTERD_REVISION"), ")"),
    after_help = "Each change also becomes one event in a transactional outbox.\n\n\
                  Example:\n  HARVEST_ACCOUNT_ID=123456 HARVEST_ACCESS_TOKEN=… DATABASE_URL=postgres://… rosterd run\n\n\
                  Exit codes:\n   \
                  0  success\n   \
                  1  differences found, record not found, mirror too old, or not confirmed\n   \
                  2  wrong arguments\n  \
                  65  wrong or ambiguous data\n  \
                  69  Harvest, the database, a receiver or the port of http.listen is unavailable\n  \
                  70  a bug in rosterd\n  \
                  75  another rosterd is active, or another session holds a lock that a migration needs\n  \
                  77  Harvest or the settings refused the token, the account or a write\n  \
                  78  invalid settings, or a database that refuses the login or cannot be used"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// Read settings from this TOML file (or `ROSTERD_CONFIG`)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set the format of log lines
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Pretty if stderr is a terminal, otherwise JSON
    Auto,
    /// One JSON object per line
    Json,
    /// Readable text
    Pretty,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon: migrate, then poll until SIGTERM or SIGINT
    #[command(after_help = "Example:\n  rosterd run --config /etc/rosterd.toml")]
    Run,
    /// Run one cycle and exit
    #[command(after_help = "If a daemon is running, sync delegates to it and exits with its result.\n\n\
                      Examples:\n  rosterd sync --full\n  rosterd sync --dry-run --values\n  rosterd sync --user 1001")]
    Sync(sync::Options),
    /// Apply the database migrations and exit
    #[command(after_help = "Example:\n  DATABASE_URL=postgres://owner@db/roster rosterd migrate")]
    Migrate,
    /// Check settings, database and Harvest credentials
    #[command(
        after_help = "Prints one line per check: ✓ ok, ! works but read this, ✗ fails. The exit code is 0 unless a \
                            check fails.\n\nExample:\n  rosterd check --json"
    )]
    Check(check::Options),
    /// Show what the mirror holds and how fresh it is
    #[command(after_help = "Examples:\n  rosterd status --json\n  rosterd status --fresh-within 15m")]
    Status(status::Options),
    /// Open psql on rosterd's database
    #[command(
        after_help = "If the private PostgreSQL is not running, rosterd starts it for as long as psql runs. The \
                            exit code is psql's.\n\nExamples:\n  rosterd psql\n  rosterd psql -- --command 'TABLE directory.sync_status'"
    )]
    Psql(psql::Options),
    /// Compare the mirror with Harvest and write nothing
    #[command(
        after_help = "Reads all records and compares each field. Exits with 1 if there are differences.\n\n\
                            Example:\n  rosterd verify --values"
    )]
    Verify(verify::Options),
    /// List, accept or reject held deletions
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd deletions list\n  rosterd deletions accept user 1001 1002"
    )]
    Deletions(deletions::Command),
    /// Show a record's versions, cycles, requests and events
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd explain user 1001\n  rosterd explain assignment 290021 --json"
    )]
    Explain(explain::Command),
    /// Print or follow events, or begin a new stream permanently
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd outbox tail --follow --type 'user.*'\n  rosterd outbox new-stream"
    )]
    Outbox(outbox::Command),
    /// Create, change or archive a user at Harvest
    #[command(
        subcommand,
        after_help = "Needs write.mode.\n\nExamples:\n  rosterd user deactivate ada@example.com --dry-run\n  \
                      rosterd user create --email ada@example.com --first Ada --last Lovelace"
    )]
    User(user::Command),
    /// Assign users to projects at Harvest
    #[command(
        subcommand,
        after_help = "Needs write.mode.\n\nExamples:\n  rosterd assignment add ada@example.com WEB\n  \
                      rosterd assignment remove 1001 WEB --archive"
    )]
    Assignment(assignment::Command),
    /// Make Harvest's users as a list says
    #[command(
        after_help = "Needs write.mode. The list is CSV with a header or JSON lines, with email and any of first_name, \
                      last_name, active and telephone. The e-mail address identifies a user; empty and absent values \
                      stay as they are. Reads what changed at Harvest first. A second run changes nothing.\n\n\
                      Examples:\n  rosterd reconcile users.csv --dry-run\n  \
                      rosterd reconcile users.csv --scope-domain example.com --deactivate-missing --yes\n  \
                      psql --command 'COPY (TABLE staff) TO STDOUT CSV HEADER' | rosterd reconcile - --yes"
    )]
    Reconcile(reconcile::Options),
    /// List writes to Harvest, and decide about held ones
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd writes list --open\n  rosterd writes accept --all 12"
    )]
    Writes(writes::Command),
    /// Serve SCIM 2.0 for a directory, without a Harvest token
    #[command(
        after_help = "A process apart from `rosterd run`, with a database user of the role roster_scim. If scim.listen is set, \
                      `rosterd run` serves SCIM too.\n\nExamples:\n  rosterd scim --config /etc/rosterd-scim.toml\n  \
                      rosterd scim token 123456 okta"
    )]
    Scim(scim::Options),
    /// List, test, pause and replay webhooks
    #[command(
        subcommand,
        after_help = "The settings file has the endpoints ([webhooks.NAME]).\n\n\
                      Examples:\n  rosterd webhooks list\n  rosterd webhooks test hr-bot\n  \
                      rosterd webhooks replay hr-bot --since 2h"
    )]
    Webhooks(webhooks::Command),
    /// Erase a user, all pay data or an account permanently
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd forget user 1001\n  rosterd forget pay\n  rosterd forget account 123456"
    )]
    Forget(forget::Command),
    /// Obtain OAuth2 tokens with a user's consent
    #[command(subcommand, after_help = "Example:\n  rosterd auth login")]
    Auth(auth::Command),
    /// Ask the running daemon for its health
    #[command(after_help = "For health checks of containers.\n\nExample:\n  rosterd health --ready")]
    Health(health::Options),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  rosterd completions bash > /etc/bash_completion.d/rosterd")]
    Completions {
        /// Write the script for this shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory
    #[command(after_help = "Example:\n  rosterd man /usr/local/share/man/man1")]
    Man {
        /// Write into this existing directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

impl Global {
    /// Reads the settings and starts the log.
    fn prepare(&self, is_daemon: bool) -> Result<Settings, Failure> {
        let settings = Settings::from_environment(self.config.as_deref())?;
        self.start_log(&settings, is_daemon)?;
        Ok(settings)
    }

    fn start_log(&self, settings: &Settings, is_daemon: bool) -> Result<(), Failure> {
        let is_terminal = std::io::stderr().is_terminal();
        let chosen = match self.log_format {
            None => settings.log.format,
            Some(Format::Auto) => None,
            Some(Format::Json) => Some(telemetry::Format::Json),
            Some(Format::Pretty) => Some(telemetry::Format::Pretty),
        };
        let automatic = if is_terminal { telemetry::Format::Pretty } else { telemetry::Format::Json };
        // On a terminal, commands show progress bars and the result, and log only problems.
        let is_quiet = !is_daemon && is_terminal && settings.log.level == "info";
        let filter = if is_quiet { "warn" } else { settings.log.level.as_str() };
        telemetry::init(chosen.unwrap_or(automatic), filter)
            .map_err(|error| Failure::new(Exit::Settings, error))
    }
}

impl Cli {
    /// Whether the command prints one or two lines at most, so that a slow reader of its output cannot block it.
    fn prints_little(&self) -> bool {
        match &self.command {
            Command::Run | Command::Scim(_) => true,
            Command::Sync(options) => !options.dry_run,
            _ => false,
        }
    }

    /// Runs the command and reports its failure.
    async fn execute(self) -> ExitCode {
        // Dropped last, so that all log lines reach stderr.
        let _flush = telemetry::Flush;
        match Box::pin(self.try_execute()).await {
            Ok(code) => code,
            Err(failure) => {
                output::message(format_args!("rosterd: {failure}"));
                failure.exit.into()
            }
        }
    }

    async fn try_execute(self) -> Result<ExitCode, Failure> {
        let Self { global, command } = self;
        let settings = || global.prepare(false);
        match command {
            Command::Run => {
                signals::ignore_hangup()?;
                run::run(global.prepare(true)?).await?;
            }
            Command::Sync(options) => sync::sync(settings()?, options).await?,
            Command::Migrate => Box::pin(migrate::migrate(settings()?)).await?,
            Command::Check(options) => {
                return match Settings::from_environment(global.config.as_deref()) {
                    Ok(settings) => {
                        global.start_log(&settings, false)?;
                        check::check(settings, options).await
                    }
                    Err(error) => check::invalid_settings(&options, &error),
                };
            }
            Command::Status(options) => status::status(settings()?, options).await?,
            Command::Psql(options) => return psql::psql(&settings()?, options).await,
            Command::Verify(options) => return verify::verify(settings()?, options).await,
            Command::Deletions(command) => deletions::deletions(settings()?, command).await?,
            Command::Explain(command) => explain::explain(settings()?, command).await?,
            Command::Outbox(command) => outbox::outbox(settings()?, command).await?,
            Command::Scim(scim::Options { command: Some(scim::Command::Token(token)) }) => {
                scim::token(&token)?;
            }
            Command::Scim(scim::Options { command: None }) => {
                signals::ignore_hangup()?;
                let settings = Settings::without_accounts(global.config.as_deref())?;
                global.start_log(&settings, true)?;
                Box::pin(scim::scim(settings)).await?;
            }
            Command::Forget(command) => forget::forget(settings()?, command).await?,
            Command::User(command) => Box::pin(user::user(settings()?, command)).await?,
            Command::Assignment(command) => Box::pin(assignment::assignment(settings()?, command)).await?,
            Command::Reconcile(options) => {
                return Box::pin(reconcile::reconcile(settings()?, options)).await;
            }
            Command::Writes(command) => Box::pin(writes::writes(settings()?, command)).await?,
            Command::Webhooks(command) => Box::pin(webhooks::webhooks(settings()?, command)).await?,
            Command::Auth(command) => Box::pin(auth::auth(settings()?, command)).await?,
            Command::Health(options) => {
                // `rosterd scim` has no credentials of Harvest.
                let settings = Settings::without_accounts(global.config.as_deref())?;
                global.start_log(&settings, false)?;
                return health::health(&settings, &options).await;
            }
            Command::Completions { shell } => manual::completions(Self::command(), shell)?,
            Command::Man { dir } => manual::man_pages(Self::command(), &dir)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
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
            Exit::Internal.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    /// In characters.
    const MAX_SUMMARY: usize = 60;

    #[test]
    fn command_line_definition_is_valid() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn each_command_has_an_example_and_short_summaries() {
        fn check(command: &Command) {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("rosterd "), "{name} has no example");
            let arguments = command.get_arguments().filter_map(|argument| argument.get_help());
            for summary in command.get_about().into_iter().chain(arguments).map(ToString::to_string) {
                assert!(summary.chars().count() <= MAX_SUMMARY, "{name}: {summary}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&super::Cli::command());
    }
}
