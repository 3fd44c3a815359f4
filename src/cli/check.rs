//! `rosterd check`: checks settings, database and credentials, and prints one line per check.

use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde::Serialize;

use super::output;
use super::support::DATABASE_WAIT;
use crate::app::{App, Exit, Failure};
use crate::daemon::limiter::LimiterTask;
use crate::harvest::HarvestError;
use crate::harvest::rate_limit::Priority;
use crate::roster::write_policy::WriteMode;
use crate::settings::{Account, Settings, SettingsError};
use crate::store::status::ServerFacts;
use crate::telemetry::count;
use crate::webhooks::route::{self, Route};

/// A larger difference between two clocks is a warning.
const MAX_CLOCK_DIFFERENCE: TimeDelta = TimeDelta::seconds(30);

#[derive(Args)]
pub(super) struct Options {
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// rosterd works, but the operator should read the detail.
    Warning,
    Failed,
}

#[derive(Serialize)]
struct Line {
    check: String,
    state: State,
    ok: bool,
    /// What was found; if something is wrong, also the fix.
    detail: String,
    #[serde(skip)]
    exit: Option<Exit>,
}

#[derive(Default)]
struct Checks(Vec<Line>);

impl Checks {
    fn ok(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(check, State::Ok, detail, None);
    }

    fn warn(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(check, State::Warning, detail, None);
    }

    fn fail(&mut self, check: impl Into<String>, failure: &Failure) {
        self.add(check, State::Failed, failure.to_string(), Some(failure.exit));
    }

    fn add(&mut self, check: impl Into<String>, state: State, detail: impl Into<String>, exit: Option<Exit>) {
        let (check, detail) = (check.into(), detail.into());
        self.0.push(Line { check, state, ok: state != State::Failed, detail, exit });
    }

    /// Compares the owner's clock with this machine's: `now` was read between `before` and `after`.
    fn clock(&mut self, owner: &str, now: DateTime<Utc>, before: DateTime<Utc>, after: DateTime<Utc>) {
        let check = format!("clock of {owner}");
        let (difference, direction) =
            if now > after { (now - after, "ahead of") } else { (before - now, "behind") };
        if difference <= MAX_CLOCK_DIFFERENCE {
            return self.ok(check, "less than 30 s from this machine's clock");
        }
        let detail = format!(
            "{} s {direction} this machine's clock; synchronize the wrong clock, for example by NTP",
            difference.num_seconds()
        );
        self.warn(check, detail);
    }

    fn has(&self, check: &str) -> bool {
        self.0.iter().any(|line| line.check == check)
    }

    /// Prints all checks. The first failure decides the exit code.
    fn finish(self, options: &Options) -> Result<ExitCode, Failure> {
        if options.json {
            output::json(&self.0)?;
        } else {
            for line in &self.0 {
                output::print(format_args!(
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

/// Prints what is wrong with settings that cannot be read. No other check is possible then.
pub(super) fn invalid_settings(options: &Options, error: &SettingsError) -> Result<ExitCode, Failure> {
    let mut checks = Checks::default();
    checks.fail("settings", &Failure::new(Exit::Settings, error.faults().join("\n")));
    for warning in error.warnings() {
        checks.warn("settings", warning);
    }
    checks.finish(options)
}

pub(super) async fn check(mut settings: Settings, options: Options) -> Result<ExitCode, Failure> {
    let mut checks = Checks::default();
    check_settings(&mut settings, &mut checks);
    let data_dir = settings.database.url.is_none().then(|| settings.database.data_dir.clone());
    match App::open(settings, DATABASE_WAIT).await {
        Ok(app) => {
            let place = match &app.local {
                Some(local) => private_postgres(local.data_dir()),
                None => app.store.target().to_string(),
            };
            let is_usable = check_database(&app, &place, &mut checks).await;
            check_scim(&app, &mut checks);
            check_webhooks(&app, is_usable, &mut checks).await;
            check_accounts(&app, is_usable, &mut checks).await;
            app.close().await;
        }
        Err(failure) => match data_dir {
            Some(dir) => {
                let place = private_postgres(&dir);
                let failure = Failure::new(failure.exit, format!("{failure}\n  database: {place}"));
                checks.fail("database", &failure);
            }
            None => checks.fail("database", &failure),
        },
    }
    checks.finish(&options)
}

fn check_settings(settings: &mut Settings, checks: &mut Checks) {
    // Printed here, and therefore not logged when the database is opened.
    let warnings = std::mem::take(&mut settings.warnings);
    match settings.require_accounts() {
        Ok(accounts) => checks.ok(
            "settings",
            format!("{}, polled every {}", count(accounts.len(), "account"), settings.sync.poll_interval),
        ),
        Err(error) => checks.fail("settings", &error.into()),
    }
    for warning in warnings {
        checks.warn("settings", warning);
    }
    if settings.harvest.user_agent_contact.is_none() {
        let advice = "not set; Harvest asks API clients for a contact: set harvest.user_agent_contact to an e-mail address \
                      or a page";
        checks.warn("contact", advice);
    }
}

fn private_postgres(dir: &Path) -> String {
    format!("private PostgreSQL in {}, because database.url is empty", dir.display())
}

/// Returns whether the database has the current schema and is writable.
async fn check_database(app: &App, place: &str, checks: &mut Checks) -> bool {
    let before = app.clock.now();
    let now = app.store.now().await;
    let after = app.clock.now();
    let (now, server) = match (now, app.store.server().await) {
        (Ok(now), Ok(server)) => (now, server),
        (Err(error), _) | (_, Err(error)) => {
            checks.fail("database", &Failure::from(error).at(app.store.target()));
            return false;
        }
    };
    let writable = app.store.require_suitable().await;
    let is_writable = writable.is_ok() && server.missing_privilege.is_none();
    match writable {
        Ok(()) => checks.ok("database", format!("{place}, version {}", server.version)),
        Err(error) => checks.fail("database", &error.into()),
    }
    checks.clock("the database", now, before, after);
    let is_migrated = check_schema(app, &server, checks).await;
    match app.require_privileges(&server) {
        Ok(()) if is_migrated => {
            checks.ok("privileges", "the database user can write all tables of the mirror");
        }
        Ok(()) => {}
        Err(failure) => checks.fail("privileges", &failure),
    }
    if is_migrated && let Err(failure) = app.refuse_pay().await {
        checks.fail("pay", &failure);
    }
    is_migrated && is_writable
}

/// Returns whether all migrations are applied.
async fn check_schema(app: &App, server: &ServerFacts, checks: &mut Checks) -> bool {
    let schema = match app.store.schema_state().await {
        Ok(schema) if schema.pending > 0 => {
            app.store.require_ownership(schema.applied > 0).await.map(|()| schema)
        }
        schema => schema,
    };
    match schema {
        Ok(schema) if schema.pending == 0 => {
            checks.ok("schema", format!("up to date ({})", count(schema.applied, "migration")));
            return true;
        }
        Ok(_) if server.may_create && app.settings.database.migrate => {
            checks.warn("schema", "not migrated yet; `run` and `sync` will apply the migrations");
        }
        Ok(schema) => {
            let pending = count(schema.pending, "migration");
            let advice = if server.may_create {
                format!("{pending} not applied, and database.migrate is false; run `rosterd migrate`")
            } else {
                format!(
                    "{pending} not applied, and this database user may not create schemas; run `rosterd migrate` as a \
                     database user who may, or GRANT CREATE ON DATABASE to this one"
                )
            };
            checks.fail("schema", &Failure::new(Exit::Settings, advice));
        }
        Err(error) => checks.fail("schema", &Failure::from(error).at(app.store.target())),
    }
    false
}

/// Checks what `run` needs to serve SCIM.
fn check_scim(app: &App, checks: &mut Checks) {
    let Some(listen) = app.settings.scim.listen else { return };
    let (options, tokens) = match app.scim_options() {
        Ok(options) => options,
        Err(failure) => return checks.fail("scim", &failure),
    };
    let groups = if options.with_roles { ", with job roles as groups" } else { "" };
    let detail = format!("{} for {} on {listen}{groups}", count(tokens.len(), "token"), options.public_url);
    let known: Vec<i64> = app.settings.accounts().iter().map(|account| account.id).collect();
    let unknown: Vec<_> = tokens.accounts().into_iter().filter(|id| !known.contains(id)).collect();
    if let Some(id) = unknown.first() {
        let advice = format!(
            "{detail}; scim.tokens_file names account {id}, which is not in the settings: correct one of them"
        );
        return checks.warn("scim", advice);
    }
    match options.mode {
        WriteMode::On if options.with_roles && !app.settings.write.rules.allow.contains("roles") => {
            let advice = "write.allow does not have \"roles\", so directories can only read groups";
            checks.warn("scim", format!("{detail}; {advice}"));
        }
        WriteMode::On => checks.ok("scim", detail),
        WriteMode::Dry => {
            checks.warn("scim", format!("{detail}; write.mode is \"dry\", so changes are refused with 403"));
        }
        WriteMode::Off => {
            checks.warn("scim", format!("{detail}; write.mode is \"off\", so directories can only read"));
        }
    }
}

/// Checks the endpoints of webhooks, without sending anything. The settings have read their secrets.
async fn check_webhooks(app: &App, is_database_usable: bool, checks: &mut Checks) {
    let known = if is_database_usable { app.store.webhooks().await.unwrap_or_default() } else { Vec::new() };
    for webhook in &app.settings.webhooks {
        let (name, origin) = (&webhook.name, webhook.origin());
        let check = format!("webhook {name}");
        let state = known.iter().find(|it| it.name == *name).map(|it| it.state.as_str());
        let stopped = match state {
            Some("gone") => Some(format!(
                "stopped, because its receiver answered 410; when it is back, run `rosterd webhooks retry {name}`"
            )),
            Some("lost") => Some(format!(
                "stopped, because events were removed before their delivery; run `rosterd webhooks replay {name}`"
            )),
            Some("paused") => Some(format!("paused; `rosterd webhooks retry {name}` resumes it")),
            _ => None,
        };
        if let Some(advice) = stopped {
            checks.warn(check, advice);
            continue;
        }
        let signed = format!("{origin}, signed with {}", count(webhook.secrets.len(), "secret"));
        match route::find(&webhook.url).await {
            Some(Route::Direct) => checks.ok(check, signed),
            Some(Route::Proxy(proxy)) => checks.ok(check, format!("{signed}, through the proxy {proxy}")),
            None => checks.warn(check, format!("{origin}: the host has no address; check url and DNS")),
        }
    }
}

/// Checks the accounts with permits of the shared rate limit. If the database is not usable, `rate_limit.reserve` limits
/// the requests.
async fn check_accounts(app: &App, is_database_usable: bool, checks: &mut Checks) {
    let limiter = if is_database_usable {
        app.budgets(App::replica(), DATABASE_WAIT).await.or_else(|failure| {
            checks.fail("budget", &failure);
            app.reserved_budgets()
        })
    } else {
        app.reserved_budgets()
    };
    match limiter {
        Ok(limiter) => {
            for account in app.settings.accounts() {
                check_account(app, account, &limiter, checks).await;
            }
            limiter.stop().await;
        }
        Err(failure) => checks.fail("budget", &failure),
    }
}

async fn check_account(app: &App, account: &Account, limiter: &LimiterTask, checks: &mut Checks) {
    let name = format!("account {}", account.id);
    let client = match app.client(account, limiter) {
        Ok(client) => client,
        Err(failure) => return checks.fail(name, &failure),
    };
    let response = client.me_and_clocks(Priority::Poll).await;
    let after = app.clock.now();
    let (me, clocks) = match response {
        Ok(response) => response,
        Err(error) => return checks.fail(name, &error.into()),
    };
    let roles = if me.access_roles.is_empty() { "none sent".to_owned() } else { me.access_roles.join(", ") };
    let owner = format!("the token belongs to user {} (access roles: {roles})", me.id);
    if me.is_administrator() {
        checks.ok(&name, owner);
    } else {
        let advice = format!(
            "{owner}, who is no administrator and does not see all users; use an administrator's token"
        );
        checks.fail(&name, &Failure::new(Exit::Credentials, advice));
    }
    if let Some(now) = clocks.server
        && !checks.has("clock of Harvest")
    {
        checks.clock("Harvest", now, clocks.local, after);
    }
    match client.company(Priority::Poll).await {
        Ok(company) => {
            checks.ok(format!("{name} company"), company.name.unwrap_or_else(|| "no name sent".to_owned()));
        }
        Err(HarvestError::Forbidden { .. }) if !me.is_administrator() => {}
        Err(error) => checks.fail(format!("{name} company"), &error.into()),
    }
}
