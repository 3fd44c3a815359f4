//! `rosterd auth`: a person's consent to read their Harvest account, by OAuth2.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{PATIENCE, output, with_app};
use crate::app::{App, Exit, Failure};
use crate::harvest::oauth::{IdentityError, OpenAccount, Tokens};
use crate::http::redirect::Redirect;
use crate::roster::AccountId;
use crate::settings::{Credential, Settings};

/// How long a person may take at Harvest's page.
const CONSENT: Duration = Duration::from_mins(10);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Asks for consent in a browser and stores the tokens in the database
    #[command(
        after_help = "Register the application at https://id.getharvest.com/developers with the redirect URL \
                      http://127.0.0.1:8976/callback. With a browser on another machine, first:\n  \
                      ssh -L 8976:127.0.0.1:8976 this-machine\n\n\
                      Example:\n  HARVEST_OAUTH_CLIENT_ID=… HARVEST_OAUTH_CLIENT_SECRET=… DATABASE_URL=postgres://… \
                      rosterd auth login"
    )]
    Login(LoginOptions),
}

#[derive(Args, Debug)]
pub(super) struct LoginOptions {
    /// This account, where the settings or the person have several
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Port of this machine to which the browser comes back
    #[arg(long, default_value_t = 8976)]
    port: u16,
}

pub(super) async fn auth(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    let Command::Login(options) = command;
    with_app(settings, PATIENCE, async |app| {
        app.prepare().await?;
        login(app, &options).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn login(app: &App, options: &LoginOptions) -> Result<(), Failure> {
    let (account, credential) = credential(&app.settings, options.account)?;
    let application = app.application(credential)?;
    let redirect = Redirect::bind(options.port).await.map_err(|error| {
        let advice = format!(
            "cannot listen on port {} of this machine, to which the browser comes back ({error}); give another with --port, \
             and register the application with it",
            options.port
        );
        Failure::new(Exit::Settings, advice)
    })?;
    let consent = application.consent(redirect.url());
    output::say("Open this page in a browser on this machine and say yes; rosterd only ever reads.");
    output::line(&consent.url)?;
    let code = tokio::time::timeout(CONSENT, redirect.code(consent.state.clone())).await;
    let code = code.map_err(|_| refused("nobody answered within ten minutes; run it again"))?;
    let code =
        code.map_err(|why| refused(&format!("Harvest gives no consent ({why}); nothing was changed")))?;
    let tokens = application.exchange(consent, code, &*app.clock).await.map_err(failed)?;
    let open = application.accounts(&tokens).await.map_err(failed)?;
    keep(app, pick(&open, account)?, credential, &tokens).await
}

/// Whose application it is: the account's, where the settings name one.
fn credential(settings: &Settings, only: Option<i64>) -> Result<(Option<i64>, &Credential), Failure> {
    let by_oauth: Vec<_> = settings
        .accounts()
        .iter()
        .filter(|account| matches!(account.credential, Credential::OAuth { .. }))
        .filter(|account| only.is_none_or(|only| only == account.id))
        .collect();
    match (by_oauth.as_slice(), settings.unnumbered()) {
        ([account], _) => Ok((Some(account.id), &account.credential)),
        ([], Some(application)) => Ok((only, application)),
        ([], None) => {
            let advice = "no account with OAuth2 is in the settings; register an application at \
                          https://id.getharvest.com/developers and set HARVEST_OAUTH_CLIENT_ID and \
                          HARVEST_OAUTH_CLIENT_SECRET (and no access token)";
            Err(Failure::new(Exit::Settings, advice))
        }
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|account| account.id.to_string()).collect();
            let advice = format!(
                "the settings have several accounts with OAuth2; give one with --account: {}",
                ids.join(", ")
            );
            Err(Failure::new(Exit::Settings, advice))
        }
    }
}

/// The account that is meant, among those that the person may enter.
fn pick(open: &[OpenAccount], wanted: Option<i64>) -> Result<&OpenAccount, Failure> {
    match (open, wanted) {
        ([], _) => Err(refused("this person may enter no Harvest account; ask one who may")),
        ([only], None) => Ok(only),
        (open, None) => {
            let all: Vec<_> = open.iter().map(|account| format!("{} ({})", account.id, account.name)).collect();
            let advice = format!(
                "this person may enter several accounts; run it again with --account and one of {}",
                all.join(", ")
            );
            Err(Failure::new(Exit::Settings, advice))
        }
        (open, Some(wanted)) => open.iter().find(|account| account.id == wanted).ok_or_else(|| {
            let ids: Vec<_> = open.iter().map(|account| account.id.to_string()).collect();
            refused(&format!(
                "this person may not enter account {wanted}, but {}; correct HARVEST_ACCOUNT_ID or --account, or sign in at \
                 Harvest as another person",
                ids.join(", ")
            ))
        }),
    }
}

async fn keep(
    app: &App,
    account: &OpenAccount,
    credential: &Credential,
    tokens: &Tokens,
) -> Result<(), Failure> {
    app.keep_consent(AccountId(account.id), credential, tokens).await?;
    output::say(format_args!(
        "Account {} ({}) is open to rosterd; `rosterd check` proves it.",
        account.id, account.name
    ));
    if app.settings.accounts().iter().all(|known| known.id != account.id) {
        output::say(format_args!("Now set HARVEST_ACCOUNT_ID={}.", account.id));
    }
    Ok(())
}

fn refused(why: &str) -> Failure {
    Failure::new(Exit::Credentials, why)
}

fn failed(error: IdentityError) -> Failure {
    let exit = if error.is_credentials() { Exit::Credentials } else { Exit::Unavailable };
    Failure::new(exit, error)
}
