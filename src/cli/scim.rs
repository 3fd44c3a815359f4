//! `rosterd scim`: SCIM as a separate process, and its tokens.

use clap::{Args, Subcommand};

use super::support::with_opened;
use super::{output, signals};
use crate::app::{App, DATABASE_WAIT_AT_START, Exit, Failure};
use crate::http::scim::{Access, is_name, new_token, token_line};
use crate::settings::Settings;

#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a token for a directory, and print it once
    #[command(
        after_help = "Prints the token, and the line for scim.tokens_file, which holds only its hash. Needs no \
                            settings.\n\nExample:\n  rosterd scim token 123456 okta"
    )]
    Token(Token),
}

#[derive(Args)]
pub(super) struct Token {
    /// Id of the Harvest account
    #[arg(value_name = "ACCOUNT", value_parser = clap::value_parser!(i64).range(1..))]
    account: i64,
    /// Name of the directory, which the journal shows
    #[arg(value_name = "NAME")]
    name: String,
    /// Make a token that may only read
    #[arg(long)]
    read: bool,
}

pub(super) async fn scim(settings: Settings) -> Result<(), Failure> {
    let stop = signals::stop_on_signal()?;
    let opening = Box::pin(App::open(settings, DATABASE_WAIT_AT_START));
    // A signal during this wait ends the process at once: there is no work to finish.
    let Some(app) = stop.run_until_cancelled(opening).await else { return Ok(()) };
    let ended = with_opened(app?, async |app| Box::pin(app.scim(stop.clone())).await).await;
    tracing::info!(event = "scim.stopped", "stopped");
    ended
}

pub(super) fn token(Token { account, name, read }: &Token) -> Result<(), Failure> {
    if !is_name(name) {
        let advice = "a token's name has 1 to 64 letters, digits, dots, hyphens and underscores";
        return Err(Failure::new(Exit::Usage, advice));
    }
    let Some(token) = new_token() else {
        return Err(Failure::new(Exit::Internal, "the system has no random numbers"));
    };
    let access = if *read { Access::Read } else { Access::Write };
    output::message("give the directory the first line, and add the second line to scim.tokens_file:");
    output::print(&token)?;
    output::print(token_line(*account, name, access, &token))
}
