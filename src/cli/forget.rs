//! `rosterd forget`: erase a user, all pay data or an account permanently.

use clap::{Args, Subcommand};

use super::confirmation::Confirmation;
use super::output;
use super::support::with_mirror;
use crate::app::{App, Exit, Failure};
use crate::roster::AccountId;
use crate::settings::Settings;
use crate::store::forget::{EraseScope, Erased};
use crate::telemetry::count;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Erase a user permanently, from events too; the id stays
    #[command(
        after_help = "If Harvest still has the user, the next full read stores everything again. Delete the user at Harvest first.\n\n\
                            Examples:\n  rosterd forget user 1001 --dry-run\n  rosterd forget user 1001"
    )]
    User(UserOptions),
    /// Erase the pay data of all accounts permanently
    #[command(after_help = "Unless rates.mirror is false, the next full read stores pay data again.\n\n\
                            Example:\n  ROSTERD__RATES__MIRROR=false rosterd forget pay")]
    Pay(Confirmation),
    /// Erase an account and its OAuth2 tokens permanently
    #[command(
        after_help = "The numbers of the account's events stay. If the account is still in the settings, --yes is needed, \
                            because the next cycle reads the account again.\n\n\
                            Example:\n  rosterd forget account 123456"
    )]
    Account(AccountOptions),
}

#[derive(Args)]
pub(super) struct UserOptions {
    /// Harvest's id of the user
    #[arg(value_name = "ID")]
    user: i64,
    /// Erase the user only in this account
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Args)]
pub(super) struct AccountOptions {
    /// Harvest's id of the account
    #[arg(value_name = "ID")]
    account: i64,
    #[command(flatten)]
    confirmation: Confirmation,
}

pub(super) async fn forget(settings: Settings, command: Command) -> Result<(), Failure> {
    let confirmation = match &command {
        Command::User(UserOptions { confirmation, .. }) | Command::Pay(confirmation) => confirmation,
        Command::Account(AccountOptions { account, confirmation }) => {
            refuse_configured(&settings, *account, confirmation)?;
            confirmation
        }
    };
    confirmation.require_possible()?;
    with_mirror(settings, async |app| match &command {
        Command::User(options) => forget_user(app, options).await,
        Command::Pay(confirmation) => forget_pay(app, confirmation).await,
        Command::Account(options) => forget_account(app, options).await,
    })
    .await
}

fn is_configured(settings: &Settings, account: i64) -> bool {
    settings.accounts().iter().any(|configured| configured.id == account)
}

fn refuse_configured(settings: &Settings, account: i64, confirmation: &Confirmation) -> Result<(), Failure> {
    if !is_configured(settings, account) || confirmation.is_given() || confirmation.is_dry_run() {
        return Ok(());
    }
    let advice = format!(
        "account {account} is still in the settings, and the next cycle reads it again; remove it from the settings first, \
         or add --yes"
    );
    Err(Failure::new(Exit::Usage, advice))
}

async fn forget_user(
    app: &App,
    UserOptions { user, account, confirmation }: &UserOptions,
) -> Result<(), Failure> {
    let (user, only) = (*user, account.map(AccountId));
    let scope = only.map_or_else(|| "all accounts".to_owned(), |account| format!("account {account}"));
    let nothing =
        || Failure::new(Exit::Differences, format!("no table of {scope} holds values of user {user}"));
    let preview = async || {
        let found = app.store.forget_user(user, only, EraseScope::Preview).await?;
        if found.is_nothing() && found.unreadable == 0 {
            return Err(nothing());
        }
        warn_if_at_harvest(&found);
        Ok(format!("would erase user {user} of {scope}: {}", amounts(&found)))
    };
    if !confirmation.obtain(preview).await? {
        return Ok(());
    }
    let erased = app.store.forget_user(user, only, EraseScope::Erase).await?;
    if !erased.is_nothing() || erased.unreadable > 0 {
        output::print(format_args!("erased user {user} of {scope}: {}", amounts(&erased)))?;
    }
    if erased.is_nothing() {
        return Err(nothing());
    }
    if confirmation.is_given() {
        warn_if_at_harvest(&erased);
    }
    Ok(())
}

fn warn_if_at_harvest(found: &Erased) {
    if found.is_at_harvest {
        warn(
            "according to the last read, Harvest still has this user, and the next full read stores everything again; delete the \
             user at Harvest first",
        );
    }
}

async fn forget_pay(app: &App, confirmation: &Confirmation) -> Result<(), Failure> {
    let preview = async || {
        let found = app.store.forget_pay(EraseScope::Preview).await?;
        Ok(format!("would erase the pay data of all accounts: {}", amounts(&found)))
    };
    if !confirmation.obtain(preview).await? {
        return Ok(());
    }
    let erased = app.store.forget_pay(EraseScope::Erase).await?;
    output::print(format_args!("erased the pay data of all accounts: {}", amounts(&erased)))?;
    if app.settings.rates.mirror {
        warn(
            "rates.mirror is true, and the next full read stores pay data again; set it to false and restart the daemon",
        );
    }
    Ok(())
}

async fn forget_account(
    app: &App,
    AccountOptions { account, confirmation }: &AccountOptions,
) -> Result<(), Failure> {
    let account = *account;
    let unknown = || Failure::new(Exit::Differences, format!("the database has no account {account}"));
    let forget = async |scope| app.store.forget_account(AccountId(account), scope).await?.ok_or_else(unknown);
    let preview = async || {
        let found = forget(EraseScope::Preview).await?;
        Ok(format!("would erase account {account}: {}", amounts(&found)))
    };
    if !confirmation.obtain(preview).await? {
        return Ok(());
    }
    let erased = forget(EraseScope::Erase).await?;
    output::print(format_args!("erased account {account}: {}", amounts(&erased)))?;
    if is_configured(&app.settings, account) {
        warn("the account is in the settings, and the next `run` or `sync` reads it again; remove it");
    }
    Ok(())
}

fn amounts(erased: &Erased) -> String {
    let Erased { rows, versions, rejected, unreadable, events, writes, .. } = *erased;
    let mut parts = vec![
        count(rows, "row"),
        count(versions, "past version"),
        count(rejected, "rejected record"),
        format!("values of {}", count(events, "event")),
    ];
    if writes > 0 {
        parts.push(count(writes, "write"));
    }
    if unreadable > 0 {
        parts.push(format!("{} whose user cannot be read", count(unreadable, "rejected record")));
    }
    parts.join(", ")
}

fn warn(text: &str) {
    output::message(format_args!("warning: {text}"));
}
