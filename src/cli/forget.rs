//! `rosterd forget`: erase a user, all pay data or an account permanently.

use clap::{Args, Subcommand};

use super::confirmation::{Confirmation, PERMANENT};
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

/// Shows what `forget` would erase, asks, erases it, and says so. `None` if nothing was to be erased.
async fn erase(
    confirmation: &Confirmation,
    what: &str,
    forget: impl AsyncFn(EraseScope) -> Result<Erased, Failure>,
) -> Result<Option<Erased>, Failure> {
    let preview =
        async || Ok(format!("would erase {what}: {}", amounts(&forget(EraseScope::Preview).await?)));
    if !confirmation.obtain(PERMANENT, preview).await? {
        return Ok(None);
    }
    let erased = forget(EraseScope::Erase).await?;
    output::print(format_args!("erased {what}: {}", amounts(&erased)))?;
    Ok(Some(erased))
}

async fn forget_user(
    app: &App,
    UserOptions { user, account, confirmation }: &UserOptions,
) -> Result<(), Failure> {
    let scope = account.map_or_else(|| "all accounts".to_owned(), |account| format!("account {account}"));
    let nothing =
        || Failure::new(Exit::Differences, format!("no table of {scope} holds values of user {user}"));
    let forget = async |erase| {
        let found = app.store.forget_user(*user, account.map(AccountId), erase).await?;
        if found.is_nothing() && found.unreadable == 0 {
            return Err(nothing());
        }
        if found.is_at_harvest && (confirmation.is_given() || erase == EraseScope::Preview) {
            warn(
                "according to the last read, Harvest still has this user, and the next full read stores everything again; \
                 delete the user at Harvest first",
            );
        }
        Ok(found)
    };
    match erase(confirmation, &format!("user {user} of {scope}"), forget).await? {
        Some(erased) if erased.is_nothing() => Err(nothing()),
        _ => Ok(()),
    }
}

async fn forget_pay(app: &App, confirmation: &Confirmation) -> Result<(), Failure> {
    let forget = async |scope| Ok(app.store.forget_pay(scope).await?);
    let erased = erase(confirmation, "the pay data of all accounts", forget).await?;
    if erased.is_some() && app.settings.rates.mirror {
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
    let what = format!("account {account}");
    let unknown = || Failure::new(Exit::Differences, format!("the database has no {what}"));
    let forget =
        async |scope| app.store.forget_account(AccountId(*account), scope).await?.ok_or_else(unknown);
    let erased = erase(confirmation, &what, forget).await?;
    if erased.is_some() && is_configured(&app.settings, *account) {
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
