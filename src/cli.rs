//! The command line: one file a command. Data goes to stdout, everything else to stderr.

mod accounts;
mod auth;
mod check;
mod consent;
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
mod run;
mod signals;
mod status;
mod sync;
mod verify;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::app::{App, Exit, Failure};
use crate::settings::{LogFormat, Settings};
use crate::telemetry;

/// Keeps a PostgreSQL mirror of the people and project teams of Harvest accounts, and an outbox of every change.
#[derive(Debug, Parser)]
#[command(
    name = "rosterd",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ROSTERD_REVISION"), ")"),
    after_help = "Example:\n  HARVEST_ACCOUNT_ID=123456 HARVEST_ACCESS_TOKEN=… DATABASE_URL=postgres://… rosterd run\n\n\
                  Exit codes: 0 done · 1 differences found, no such record, mirror too old, or not confirmed · 2 bad usage · 69 Harvest, the \
                  database or the port of http.listen unavailable · 70 internal error · 75 another rosterd is at work · 77 Harvest refused the token or the \
                  account · 78 settings invalid"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct Global {
    /// Settings file (TOML); also `ROSTERD_CONFIG`
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Pretty if stderr is a terminal, else JSON
    Auto,
    /// One JSON object a line
    Json,
    /// For people
    Pretty,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon: migrates, then polls every account until SIGTERM or SIGINT
    #[command(after_help = "Example:\n  rosterd run --config /etc/rosterd.toml")]
    Run,
    /// One cycle and exit, for cron or a first look
    #[command(
        after_help = "Examples:\n  rosterd sync --full\n  rosterd sync --dry-run --values\n  rosterd sync --user 1001"
    )]
    Sync(sync::Options),
    /// Applies the migrations and exits
    #[command(after_help = "Example:\n  DATABASE_URL=postgres://owner@db/roster rosterd migrate")]
    Migrate,
    /// Check settings, database and Harvest credentials
    #[command(
        after_help = "One line per check: ✓ ok, ! works but read this, ✗ fails. The exit code is 0 unless a check \
                            fails.\n\nExample:\n  rosterd check --json"
    )]
    Check(check::Options),
    /// What the mirror holds and how fresh it is
    #[command(after_help = "Examples:\n  rosterd status --json\n  rosterd status --fresh-within 15m")]
    Status(status::Options),
    /// Open psql on rosterd's database
    #[command(
        after_help = "Starts the private PostgreSQL if it is not running, for as long as psql runs. Exits with \
                            psql's code.\n\nExamples:\n  rosterd psql\n  rosterd psql -- --command 'TABLE directory.sync_status'"
    )]
    Psql(psql::Options),
    /// Reads everything and compares the mirror with Harvest, field by field, writing nothing
    #[command(after_help = "Exits with 0 where they are the same and with 1 where they differ.\n\n\
                            Example:\n  rosterd verify --values")]
    Verify(verify::Options),
    /// List, accept or reject held deletions
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd deletions list\n  rosterd deletions accept user 1001 1002"
    )]
    Deletions(deletions::Command),
    /// Why a row is as it is: its versions, what changed when, in which cycle, and which events told of it
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd explain user 1001\n  rosterd explain assignment 290021 --json"
    )]
    Explain(explain::Command),
    /// Print or follow events, or begin a new stream
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd outbox tail --follow --type 'user.*'\n  rosterd outbox new-stream"
    )]
    Outbox(outbox::Command),
    /// Erase a user, all pay data or an account permanently
    #[command(
        subcommand,
        after_help = "Examples:\n  rosterd forget user 1001\n  rosterd forget pay\n  rosterd forget account 123456"
    )]
    Forget(forget::Command),
    /// OAuth2: a person's consent instead of a personal access token
    #[command(subcommand, after_help = "Example:\n  rosterd auth login")]
    Auth(auth::Command),
    /// Asks the running daemon whether it is well, for container health checks
    #[command(after_help = "Example:\n  rosterd health --ready")]
    Health(health::Options),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  rosterd completions bash > /etc/bash_completion.d/rosterd")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory
    #[command(after_help = "Example:\n  rosterd man /usr/local/share/man/man1")]
    Man {
        /// The directory, which must exist
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

impl Cli {
    /// Whether it prints a line or two at the most, so that no reader of its output can hold it up.
    pub fn prints_little(&self) -> bool {
        match &self.command {
            Command::Run => true,
            Command::Sync(options) => !options.dry_run,
            _ => false,
        }
    }

    /// Runs the command to its end.
    pub async fn execute(self) -> ExitCode {
        // Dropped last: what is logged until then reaches stderr.
        let _flush = telemetry::Flush;
        match Box::pin(self.try_execute()).await {
            Ok(code) => code,
            Err(failure) => {
                output::say(format_args!("rosterd: {failure}"));
                failure.exit.into()
            }
        }
    }

    async fn try_execute(self) -> Result<ExitCode, Failure> {
        // These need no settings.
        match &self.command {
            Command::Completions { shell } => return manual::completions(Self::command(), *shell),
            Command::Man { dir } => return manual::man_pages(Self::command(), dir),
            _ => {}
        }
        if matches!(self.command, Command::Run) {
            signals::survive_hangup()?;
        }
        let settings = match Settings::from_environment(self.global.config.as_deref()) {
            Ok(settings) => settings,
            Err(error) => match self.command {
                // `check` tells of bad settings in its own way.
                Command::Check(options) => return check::bad_settings(&options, &error),
                _ => return Err(error.into()),
            },
        };
        self.start_log(&settings)?;
        match self.command {
            Command::Run => run::run(settings).await,
            Command::Sync(options) => sync::sync(settings, options).await,
            Command::Migrate => Box::pin(migrate::migrate(settings)).await,
            Command::Check(options) => check::check(settings, options).await,
            Command::Status(options) => status::status(settings, options).await,
            Command::Psql(options) => psql::psql(&settings, options).await,
            Command::Verify(options) => verify::verify(settings, options).await,
            Command::Deletions(command) => deletions::deletions(settings, command).await,
            Command::Explain(command) => explain::explain(settings, command).await,
            Command::Outbox(command) => outbox::outbox(settings, command).await,
            Command::Forget(command) => forget::forget(settings, command).await,
            Command::Auth(command) => Box::pin(auth::auth(settings, command)).await,
            Command::Health(options) => health::health(&settings, &options).await,
            Command::Completions { .. } | Command::Man { .. } => Ok(ExitCode::SUCCESS),
        }
    }

    fn start_log(&self, settings: &Settings) -> Result<(), Failure> {
        let terminal = std::io::stderr().is_terminal();
        let format = match (self.global.log_format, settings.log.format) {
            (Some(Format::Json), _) | (None, LogFormat::Json) => telemetry::Format::Json,
            (Some(Format::Pretty), _) | (None, LogFormat::Pretty) => telemetry::Format::Pretty,
            (Some(Format::Auto), _) | (None, LogFormat::Auto) => {
                if terminal {
                    telemetry::Format::Pretty
                } else {
                    telemetry::Format::Json
                }
            }
        };
        // A person at a terminal sees a progress bar and the result; the log only where something is wrong.
        let watched = !matches!(self.command, Command::Run) && terminal;
        let quiet = watched && settings.log.level == "info";
        let filter = if quiet { "warn" } else { settings.log.level.as_str() };
        telemetry::init(format, filter).map_err(|error| Failure::new(Exit::Settings, error))
    }
}

/// How long a command that somebody waits for gives the database to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// For a command that looks into the mirror and changes nothing of its schema.
async fn require_schema(app: &App) -> Result<(), Failure> {
    match app.store.schema_state().await?.pending {
        0 => Ok(()),
        pending => Err(Failure::new(
            Exit::Settings,
            format!(
                "the database lacks {}; run `rosterd migrate`, `sync` or `run` first",
                telemetry::count(pending, "migration")
            ),
        )),
    }
}

/// Opens the database, does the work, and closes it again however the work ended.
async fn with_app(
    settings: Settings,
    patience: Duration,
    work: impl AsyncFnOnce(&App) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    with_opened(App::open(settings, patience).await?, work).await
}

async fn with_opened(
    app: App,
    work: impl AsyncFnOnce(&App) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let done = work(&app).await.map_err(|failure| failure.at(app.store.target()));
    app.close().await;
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in super::Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("rosterd "), "{} has no example", command.get_name());
        }
    }
}
