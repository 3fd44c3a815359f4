//! `rosterd check`: proves the set-up, a line each, and says what to do where it does not hold.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{PATIENCE, output};
use crate::app::{App, Exit, Failure};
use crate::harvest::HarvestError;
use crate::harvest::pace::Lane;
use crate::settings::{Account, Settings, SettingsError};
use crate::sync::budget::Budgets;
use crate::telemetry::count;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// One check's outcome.
#[derive(Serialize)]
struct Line {
    check: String,
    ok: bool,
    /// What was found, or what is wrong and what to do.
    detail: String,
    #[serde(skip)]
    exit: Option<Exit>,
}

#[derive(Default)]
struct Checks(Vec<Line>);

impl Checks {
    fn good(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Line { check: check.into(), ok: true, detail: detail.into(), exit: None });
    }

    fn bad(&mut self, check: impl Into<String>, failure: &Failure) {
        self.0.push(Line {
            check: check.into(),
            ok: false,
            detail: failure.to_string(),
            exit: Some(failure.exit),
        });
    }

    /// Prints them; the first that failed decides the exit code.
    fn finish(self, options: &Options) -> Result<ExitCode, Failure> {
        if options.json {
            let json =
                serde_json::to_string_pretty(&self.0).map_err(|error| Failure::new(Exit::Internal, error))?;
            output::line(json)?;
        } else {
            for line in &self.0 {
                output::line(format_args!(
                    "{} {}: {}",
                    if line.ok { '✓' } else { '✗' },
                    line.check,
                    line.detail
                ))?;
            }
        }
        Ok(self.0.iter().find_map(|line| line.exit).map_or(ExitCode::SUCCESS, ExitCode::from))
    }
}

/// Settings that cannot be read are the first check that fails, and the last that can be made.
pub(super) fn bad_settings(options: &Options, error: SettingsError) -> Result<ExitCode, Failure> {
    let mut checks = Checks::default();
    checks.bad("settings", &error.into());
    checks.finish(options)
}

pub(super) async fn check(settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    let mut checks = Checks::default();
    match settings.require_accounts() {
        Ok(accounts) => checks.good(
            "settings",
            format!("{}, polled every {}", count(accounts.len(), "account"), settings.sync.poll_interval),
        ),
        Err(error) => checks.bad("settings", &error.into()),
    }
    if settings.harvest.user_agent_contact.is_none() {
        checks.good("contact", "none set; Harvest asks for a way to reach you: harvest.user_agent_contact");
    }
    match App::open(settings, PATIENCE).await {
        Ok(app) => {
            // Checks count against the budget that all processes share, where there is one to write to.
            let budgets = if database(&app, &mut checks).await {
                app.budgets(App::replica(), PATIENCE).await.or_else(|failure| {
                    checks.bad("budget", &failure);
                    app.reserved_budgets()
                })
            } else {
                app.reserved_budgets()
            };
            match budgets {
                Ok(budgets) => {
                    for account in app.settings.accounts() {
                        harvest(&app, account, &budgets, &mut checks).await;
                    }
                    budgets.stop().await;
                }
                Err(failure) => checks.bad("budget", &failure),
            }
            app.close().await;
        }
        Err(failure) => checks.bad("database", &failure),
    }
    checks.finish(&options)
}

/// Says whether the mirror is there and can be written.
async fn database(app: &App, checks: &mut Checks) -> bool {
    let server = match app.store.server().await {
        Ok(server) => server,
        Err(error) => {
            checks.bad("database", &Failure::from(error).at(app.store.target()));
            return false;
        }
    };
    let is_writable = app.store.require_writable().await;
    let writable = is_writable.is_ok() && server.missing_privilege.is_none();
    match is_writable {
        Ok(()) => checks.good("database", format!("PostgreSQL {}", server.version)),
        Err(error) => checks.bad("database", &error.into()),
    }
    let schema = match app.store.schema_state().await {
        Ok(schema) if schema.pending > 0 => {
            app.store.require_ownership(schema.applied > 0).await.map(|()| schema)
        }
        schema => schema,
    };
    let migrated = schema.as_ref().is_ok_and(|schema| schema.pending == 0);
    match schema {
        Ok(schema) if schema.pending == 0 => {
            checks.good("schema", format!("up to date ({})", count(schema.applied, "migration")));
        }
        Ok(_) if server.may_create && app.settings.database.migrate => {
            checks.good("schema", "not up to date yet; `run` and `sync` will migrate it");
        }
        Ok(schema) => {
            let advice = format!(
                "the database lacks {}; run `rosterd migrate` as a user who may create schemas in this database",
                count(schema.pending, "migration")
            );
            checks.bad("schema", &Failure::new(Exit::Settings, advice));
        }
        Err(error) => checks.bad("schema", &Failure::from(error).at(app.store.target())),
    }
    match app.require_privileges(&server) {
        Ok(()) => checks.good("privileges", "this user may write the mirror"),
        Err(failure) => checks.bad("privileges", &failure),
    }
    if migrated && let Err(failure) = app.refuse_pay().await {
        checks.bad("pay", &failure);
    }
    migrated && writable
}

async fn harvest(app: &App, account: &Account, budgets: &Budgets, checks: &mut Checks) {
    let name = format!("account {}", account.id);
    let client = match app.client(account, budgets) {
        Ok(client) => client,
        Err(failure) => return checks.bad(name, &failure),
    };
    let me = match client.me(Lane::Poll).await {
        Ok(me) => me,
        Err(error) => return checks.bad(name, &error.into()),
    };
    let roles = if me.access_roles.is_empty() { "none sent".to_owned() } else { me.access_roles.join(", ") };
    let who = format!("the token is user {}'s (access roles: {roles})", me.id);
    if me.is_administrator() {
        checks.good(&name, who);
    } else {
        let advice = format!(
            "{who}, who is no administrator and sees only a part of the people; use an administrator's token"
        );
        checks.bad(&name, &Failure::new(Exit::Credentials, advice));
    }
    match client.company(Lane::Poll).await {
        Ok(company) => {
            checks.good(format!("{name} company"), company.name.unwrap_or_else(|| "no name sent".to_owned()));
        }
        Err(HarvestError::Forbidden { .. }) if !me.is_administrator() => {}
        Err(error) => checks.bad(format!("{name} company"), &error.into()),
    }
}
