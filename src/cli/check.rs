//! `rosterd check`: one line per check, in one of three states, with the fix.

use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde::Serialize;

use super::{PATIENCE, output};
use crate::app::{App, Exit, Failure};
use crate::harvest::HarvestError;
use crate::harvest::pace::Lane;
use crate::settings::{Account, Settings, SettingsError};
use crate::sync::budget::Budgets;
use crate::telemetry::count;

/// Clocks that differ by more than this are worth a look.
const TOLERATED: TimeDelta = TimeDelta::seconds(30);

#[derive(Args, Debug)]
pub(super) struct Options {
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// It works, but the operator should read this.
    Warning,
    Failed,
}

/// One check's outcome.
#[derive(Serialize)]
struct Line {
    check: String,
    state: State,
    /// False only for a check that failed.
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
        self.add(check, State::Ok, detail, None);
    }

    fn warn(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(check, State::Warning, detail, None);
    }

    fn bad(&mut self, check: impl Into<String>, failure: &Failure) {
        self.add(check, State::Failed, failure.to_string(), Some(failure.exit));
    }

    fn add(&mut self, check: impl Into<String>, state: State, detail: impl Into<String>, exit: Option<Exit>) {
        let (check, detail) = (check.into(), detail.into());
        self.0.push(Line { check, state, ok: state != State::Failed, detail, exit });
    }

    /// Compares a clock with this machine's: `now` was read between `before` and `after`.
    fn clock(&mut self, whose: &str, now: DateTime<Utc>, before: DateTime<Utc>, after: DateTime<Utc>) {
        let check = format!("clock of {whose}");
        let (apart, how) = if now > after { (now - after, "ahead of") } else { (before - now, "behind") };
        if apart <= TOLERATED {
            return self.good(check, "less than 30 s from this machine's clock");
        }
        let seconds = apart.num_seconds();
        self.warn(
            check,
            format!(
                "{seconds} s {how} this machine's clock; synchronize the wrong clock, for example by NTP"
            ),
        );
    }

    fn has(&self, check: &str) -> bool {
        self.0.iter().any(|line| line.check == check)
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
                    match line.state {
                        State::Ok => '✓',
                        State::Warning => '!',
                        State::Failed => '✗',
                    },
                    line.check,
                    line.detail
                ))?;
            }
        }
        Ok(self.0.iter().find_map(|line| line.exit).map_or(ExitCode::SUCCESS, ExitCode::from))
    }
}

/// Settings that cannot be read are the first check that fails, and the last that can be made.
pub(super) fn bad_settings(options: &Options, error: &SettingsError) -> Result<ExitCode, Failure> {
    let mut checks = Checks::default();
    checks.bad("settings", &Failure::new(Exit::Settings, error.faults().join("\n")));
    for warning in error.warnings() {
        checks.warn("settings", warning);
    }
    checks.finish(options)
}

pub(super) async fn check(mut settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    let mut checks = Checks::default();
    let warnings = std::mem::take(&mut settings.warnings);
    match settings.require_accounts() {
        Ok(accounts) => checks.good(
            "settings",
            format!("{}, polled every {}", count(accounts.len(), "account"), settings.sync.poll_interval),
        ),
        Err(error) => checks.bad("settings", &error.into()),
    }
    for warning in warnings {
        checks.warn("settings", warning);
    }
    if settings.harvest.user_agent_contact.is_none() {
        let advice = "not set; Harvest asks API clients for an address or page at which it can reach you; set \
                      harvest.user_agent_contact";
        checks.warn("contact", advice);
    }
    let data_dir = settings.database.url.is_none().then(|| settings.database.data_dir.clone());
    match App::open(settings, PATIENCE).await {
        Ok(app) => {
            // Checks count against the budget that all processes share, where there is one to write to.
            let place = match &app.local {
                Some(local) => private(local.data_dir()),
                None => app.store.target().to_string(),
            };
            let budgets = if database(&app, &place, &mut checks).await {
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
        Err(failure) => match data_dir {
            Some(dir) => checks.bad("database", &at(&private(&dir), &failure)),
            None => checks.bad("database", &failure),
        },
    }
    checks.finish(&options)
}

fn private(dir: &Path) -> String {
    format!("private PostgreSQL in {}, because database.url is empty", dir.display())
}

/// The failure, and which database it is about.
fn at(place: &str, failure: &Failure) -> Failure {
    Failure::new(failure.exit, format!("{failure}\n  database: {place}"))
}

/// Says whether the mirror is there and can be written.
async fn database(app: &App, place: &str, checks: &mut Checks) -> bool {
    let before = app.clock.now();
    let now = app.store.now().await;
    let after = app.clock.now();
    let (now, server) = match (now, app.store.server().await) {
        (Ok(now), Ok(server)) => (now, server),
        (Err(error), _) | (_, Err(error)) => {
            checks.bad("database", &Failure::from(error).at(app.store.target()));
            return false;
        }
    };
    let is_writable = app.store.require_writable().await;
    let writable = is_writable.is_ok() && server.missing_privilege.is_none();
    match is_writable {
        Ok(()) => checks.good("database", format!("{place}, version {}", server.version)),
        Err(error) => checks.bad("database", &error.into()),
    }
    checks.clock("the database", now, before, after);
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
            checks.warn("schema", "not migrated yet; `run` and `sync` will apply the migrations");
        }
        Ok(schema) => {
            let missing = count(schema.pending, "migration");
            let advice = if server.may_create {
                format!("not applied: {missing}, and database.migrate is false; run `rosterd migrate`")
            } else {
                format!(
                    "not applied: {missing}, and this database user may not create schemas; run `rosterd migrate` as a \
                     database user who may, or GRANT CREATE ON DATABASE to this one"
                )
            };
            checks.bad("schema", &Failure::new(Exit::Settings, advice));
        }
        Err(error) => checks.bad("schema", &Failure::from(error).at(app.store.target())),
    }
    match app.require_privileges(&server) {
        Ok(()) if migrated => checks.good("privileges", "this user may write the mirror"),
        Ok(()) => {}
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
    let asked = client.me_and_clocks(Lane::Poll).await;
    let after = app.clock.now();
    let (me, clocks) = match asked {
        Ok(asked) => asked,
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
    if let Some(now) = clocks.server
        && !checks.has("clock of Harvest")
    {
        checks.clock("Harvest", now, clocks.local, after);
    }
    match client.company(Lane::Poll).await {
        Ok(company) => {
            checks.good(format!("{name} company"), company.name.unwrap_or_else(|| "no name sent".to_owned()));
        }
        Err(HarvestError::Forbidden { .. }) if !me.is_administrator() => {}
        Err(error) => checks.bad(format!("{name} company"), &error.into()),
    }
}
