//! `rosterd auth`: OAuth2 tokens, obtained with a Harvest user's consent in a browser.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::output;
use super::support::with_app;
use crate::app::{App, Exit, Failure};
use crate::harvest::IdentityError;
use crate::harvest::oauth::{OAuthTokens, OpenAccount};
use crate::http::redirect::Redirect;
use crate::roster::AccountId;
use crate::settings::{Credential, Settings};

/// How long rosterd waits for the browser to return from Harvest's page.
const CONSENT_TIMEOUT: Duration = Duration::from_mins(10);

#[derive(Subcommand)]
pub(super) enum Command {
    /// Obtain OAuth2 tokens with consent in a browser
    #[command(
        after_help = "Stores the tokens in the database. Register the application at https://id.getharvest.com/developers with the \
                      redirect URL http://127.0.0.1:8976/callback. If the browser runs on another machine, run there \
                      first:\n  ssh -L 8976:127.0.0.1:8976 this-machine\n\n\
                      Example:\n  HARVEST_OAUTH_CLIENT_ID=… HARVEST_OAUTH_CLIENT_SECRET=… DATABASE_URL=postgres://… \
                      rosterd auth login"
    )]
    Login(LoginOptions),
}

#[derive(Args)]
pub(super) struct LoginOptions {
    /// Use this account, if there are several
    #[arg(long, value_name = "ID")]
    account: Option<i64>,
    /// Listen on this local port for the browser's return
    #[arg(long, default_value_t = 8976)]
    port: u16,
}

pub(super) async fn auth(settings: Settings, command: Command) -> Result<(), Failure> {
    let Command::Login(options) = command;
    Box::pin(with_app(settings, async |app| {
        app.prepare().await?;
        login(app, &options).await
    }))
    .await
}

async fn login(app: &App, options: &LoginOptions) -> Result<(), Failure> {
    let (account, credential) = credential(&app.settings, options.account)?;
    let application = app.application(credential)?;
    let redirect = Redirect::bind(options.port).await.map_err(|error| {
        let advice = format!(
            "cannot listen on port {} of this machine for the browser's return ({error}); choose another port with --port \
             and register it in the application's redirect URL",
            options.port
        );
        Failure::new(Exit::Settings, advice)
    })?;
    let consent = application.consent(redirect.url());
    output::message(
        "Open this page in a browser on this machine and approve the access. rosterd writes only if write.mode is \"on\".",
    );
    output::print(&consent.url)?;
    let code = tokio::time::timeout(CONSENT_TIMEOUT, redirect.code(consent.state.clone())).await;
    let code = code.map_err(|_| refused("no answer within 10 minutes; run `rosterd auth login` again"))?;
    let code =
        code.map_err(|why| refused(format!("Harvest did not grant access ({why}); nothing was changed")))?;
    let tokens = application.exchange(consent, code, &*app.clock).await.map_err(failed)?;
    let accessible = application.accounts(&tokens).await.map_err(failed)?;
    store(app, pick(&accessible, account)?, credential, &tokens).await
}

/// Returns the configured account, if any, and the credential with its OAuth2 application.
fn credential(settings: &Settings, only: Option<i64>) -> Result<(Option<i64>, &Credential), Failure> {
    let with_oauth: Vec<_> = settings
        .accounts()
        .iter()
        .filter(|account| matches!(account.credential, Credential::OAuth { .. }))
        .filter(|account| only.is_none_or(|only| only == account.id))
        .collect();
    match (with_oauth.as_slice(), settings.credential_without_account()) {
        ([account], _) => Ok((Some(account.id), &account.credential)),
        ([], Some(application)) => Ok((only, application)),
        ([], None) => {
            let advice = "the settings have no account with OAuth2; register an application at \
                          https://id.getharvest.com/developers, then set HARVEST_OAUTH_CLIENT_ID and \
                          HARVEST_OAUTH_CLIENT_SECRET and remove the access token";
            Err(Failure::new(Exit::Settings, advice))
        }
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|account| account.id.to_string()).collect();
            let advice = format!(
                "the settings have several accounts with OAuth2; choose one with --account: {}",
                ids.join(", ")
            );
            Err(Failure::new(Exit::Settings, advice))
        }
    }
}

/// Chooses the account among those that the user has access to.
fn pick(accessible: &[OpenAccount], wanted: Option<i64>) -> Result<&OpenAccount, Failure> {
    match (accessible, wanted) {
        ([], _) => Err(refused(
            "this Harvest user has access to no account; sign in at Harvest as a user who has",
        )),
        ([only], None) => Ok(only),
        (several, None) => {
            let all: Vec<_> =
                several.iter().map(|account| format!("{} ({})", account.id, account.name)).collect();
            let advice = format!(
                "this Harvest user has access to several accounts; run `rosterd auth login` again with --account and one \
                 of {}",
                all.join(", ")
            );
            Err(Failure::new(Exit::Settings, advice))
        }
        (accessible, Some(wanted)) => {
            accessible.iter().find(|account| account.id == wanted).ok_or_else(|| {
                let ids: Vec<_> = accessible.iter().map(|account| account.id.to_string()).collect();
                refused(format!(
                    "this Harvest user has no access to account {wanted}, only to {}; correct HARVEST_ACCOUNT_ID or \
                     --account, or sign in at Harvest as another user",
                    ids.join(", ")
                ))
            })
        }
    }
}

async fn store(
    app: &App,
    account: &OpenAccount,
    credential: &Credential,
    tokens: &OAuthTokens,
) -> Result<(), Failure> {
    app.keep_consent(AccountId(account.id), credential, tokens).await?;
    output::message(format_args!(
        "rosterd has access to account {} ({}). Run `rosterd check` to verify it.",
        account.id, account.name
    ));
    if app.settings.accounts().iter().all(|known| known.id != account.id) {
        output::message(format_args!("Now set HARVEST_ACCOUNT_ID={}.", account.id));
    }
    Ok(())
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::new(Exit::Credentials, why.into())
}

fn failed(error: IdentityError) -> Failure {
    let exit = if error.is_credentials() { Exit::Credentials } else { Exit::Unavailable };
    Failure::new(exit, error)
}
