//! `rosterd forget`: erases what must not be kept.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{PATIENCE, output, require_schema, with_app};
use crate::app::{App, Exit, Failure};
use crate::roster::AccountId;
use crate::settings::Settings;
use crate::store::forget::Erased;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A person: their fields, pay and names, also in events that were told; their id stays
    #[command(after_help = "Example:\n  rosterd forget user 1001")]
    User(UserOptions),
    /// All pay: rates, budgets and the histories of rates, of all accounts
    #[command(after_help = "Example:\n  ROSTERD__RATES__MIRROR=false rosterd forget pay")]
    Pay,
    /// An account that is no longer mirrored, with its OAuth2 tokens; the numbers of its events stay
    #[command(after_help = "Example:\n  rosterd forget account 123456")]
    Account(AccountOptions),
}

#[derive(Args, Debug)]
pub(super) struct UserOptions {
    /// Harvest's id of the person
    #[arg(value_name = "ID")]
    user: i64,
    /// Only in this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
}

#[derive(Args, Debug)]
pub(super) struct AccountOptions {
    /// Harvest's number of the account
    #[arg(value_name = "ID")]
    account: i64,
}

pub(super) async fn forget(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        match &command {
            Command::User(options) => user(app, options).await?,
            Command::Pay => pay(app).await?,
            Command::Account(options) => account(app, options).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn user(app: &App, options: &UserOptions) -> Result<(), Failure> {
    let forgotten = app.store.forget_user(options.user, options.account.map(AccountId)).await?;
    let erased = forgotten.ok_or_else(|| nothing(format!("nobody knows a user {}", options.user)))?;
    tell(erased)?;
    if erased.is_at_harvest {
        warn("Harvest still has this user, and the next full read brings everything back: delete them there");
    }
    Ok(())
}

async fn pay(app: &App) -> Result<(), Failure> {
    tell(app.store.forget_pay().await?)?;
    if app.settings.rates.mirror {
        warn(
            "rates.mirror is true, and the next full read brings it back: set it to false and restart the daemon",
        );
    }
    Ok(())
}

async fn account(app: &App, options: &AccountOptions) -> Result<(), Failure> {
    let forgotten = app.store.forget_account(AccountId(options.account)).await?;
    tell(forgotten.ok_or_else(|| nothing(format!("the mirror has no account {}", options.account)))?)?;
    if app.settings.accounts().iter().any(|account| account.id == options.account) {
        warn("the account is in the settings, and the next `run` or `sync` brings it back: take it out");
    }
    Ok(())
}

fn tell(Erased { rows, events, .. }: Erased) -> Result<(), Failure> {
    output::line(format_args!("erased {rows} rows, and what {events} events said"))
}

fn warn(what: &str) {
    output::say(format_args!("warning: {what}"));
}

fn nothing(what: String) -> Failure {
    Failure::new(Exit::Differences, what)
}
