//! `rosterd forget`: erase a user, all pay data, or an account.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::consent::Consent;
use super::{PATIENCE, output, require_schema, with_app};
use crate::app::{App, Exit, Failure};
use crate::roster::AccountId;
use crate::settings::Settings;
use crate::store::forget::{Erased, Mode};
use crate::telemetry::count;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Erase a user permanently, in events too; the id stays
    #[command(
        after_help = "A user that Harvest still has comes back with the next full read: delete the user there first.\n\n\
                            Examples:\n  rosterd forget user 1001 --dry-run\n  rosterd forget user 1001"
    )]
    User(UserOptions),
    /// Erase the pay data of all accounts permanently
    #[command(after_help = "Pay data comes back with the next full read unless rates.mirror is false.\n\n\
                            Example:\n  ROSTERD__RATES__MIRROR=false rosterd forget pay")]
    Pay(Consent),
    /// Erase an account and its OAuth2 tokens permanently
    #[command(
        after_help = "The numbers of the account's events stay. An account that is still in the settings is erased \
                            with --yes only, because the next cycle reads it again.\n\n\
                            Example:\n  rosterd forget account 123456"
    )]
    Account(AccountOptions),
}

#[derive(Args, Debug)]
pub(super) struct UserOptions {
    /// Harvest's id of the user
    #[arg(value_name = "ID")]
    user: i64,
    /// Only in this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args, Debug)]
pub(super) struct AccountOptions {
    /// Harvest's id of the account
    #[arg(value_name = "ID")]
    account: i64,
    #[command(flatten)]
    consent: Consent,
}

pub(super) async fn forget(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    let consent = match &command {
        Command::User(UserOptions { consent, .. }) | Command::Pay(consent) => consent,
        Command::Account(AccountOptions { account, consent }) => {
            refuse_configured(&settings, *account, consent)?;
            consent
        }
    };
    consent.require_terminal()?;
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        match &command {
            Command::User(options) => user(app, options).await?,
            Command::Pay(consent) => pay(app, consent).await?,
            Command::Account(options) => account(app, options).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}

fn is_configured(settings: &Settings, account: i64) -> bool {
    settings.accounts().iter().any(|configured| configured.id == account)
}

fn refuse_configured(settings: &Settings, account: i64, consent: &Consent) -> Result<(), Failure> {
    if !is_configured(settings, account) || consent.is_given() || consent.is_dry_run() {
        return Ok(());
    }
    let advice = format!(
        "account {account} is still in the settings, and the next cycle reads it again: take it out of the settings first, \
         or add --yes"
    );
    Err(Failure::new(Exit::Usage, advice))
}

async fn user(app: &App, UserOptions { user, account, consent }: &UserOptions) -> Result<(), Failure> {
    let (user, only) = (*user, account.map(AccountId));
    let scope = only.map_or_else(|| "all accounts".to_owned(), |account| format!("account {account}"));
    let nothing =
        || Failure::new(Exit::Differences, format!("no table of {scope} holds values of user {user}"));
    if !consent.is_given() {
        let found = app.store.forget_user(user, only, Mode::Preview).await?;
        if found.is_nothing() && found.unreadable == 0 {
            return Err(nothing());
        }
        warn_of_return(found.is_at_harvest);
        if !consent.ask(format_args!("would erase user {user} of {scope}: {}", amounts(found))).await? {
            return Ok(());
        }
    }
    let erased = app.store.forget_user(user, only, Mode::Erase).await?;
    if !erased.is_nothing() || erased.unreadable > 0 {
        output::line(format_args!("erased user {user} of {scope}: {}", amounts(erased)))?;
    }
    if erased.is_nothing() {
        return Err(nothing());
    }
    if consent.is_given() {
        warn_of_return(erased.is_at_harvest);
    }
    Ok(())
}

fn warn_of_return(is_at_harvest: bool) {
    if is_at_harvest {
        warn(
            "as far as rosterd knows, Harvest still has this user, and the next full read brings everything back: delete the \
             user at Harvest first",
        );
    }
}

async fn pay(app: &App, consent: &Consent) -> Result<(), Failure> {
    if !consent.is_given() {
        let found = app.store.forget_pay(Mode::Preview).await?;
        if !consent.ask(format_args!("would erase the pay data of all accounts: {}", amounts(found))).await? {
            return Ok(());
        }
    }
    let erased = app.store.forget_pay(Mode::Erase).await?;
    output::line(format_args!("erased the pay data of all accounts: {}", amounts(erased)))?;
    if app.settings.rates.mirror {
        warn(
            "rates.mirror is true, and the next full read brings pay data back: set it to false and restart the daemon",
        );
    }
    Ok(())
}

async fn account(app: &App, AccountOptions { account, consent }: &AccountOptions) -> Result<(), Failure> {
    let account = *account;
    let unknown = || Failure::new(Exit::Differences, format!("the database has no account {account}"));
    if !consent.is_given() {
        let found = app.store.forget_account(AccountId(account), Mode::Preview).await?.ok_or_else(unknown)?;
        if !consent.ask(format_args!("would erase account {account}: {}", amounts(found))).await? {
            return Ok(());
        }
    }
    let erased = app.store.forget_account(AccountId(account), Mode::Erase).await?.ok_or_else(unknown)?;
    output::line(format_args!("erased account {account}: {}", amounts(erased)))?;
    if is_configured(&app.settings, account) {
        warn("the account is in the settings, and the next `run` or `sync` reads it again: take it out");
    }
    Ok(())
}

fn amounts(Erased { rows, versions, rejected, unreadable, events, .. }: Erased) -> String {
    let mut parts = vec![
        count(rows, "row"),
        count(versions, "past version"),
        count(rejected, "rejected record"),
        format!("values of {}", count(events, "event")),
    ];
    if unreadable > 0 {
        parts.push(format!("{} whose user cannot be read", count(unreadable, "rejected record")));
    }
    parts.join(", ")
}

fn warn(what: &str) {
    output::say(format_args!("warning: {what}"));
}
