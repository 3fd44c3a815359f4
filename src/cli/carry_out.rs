//! Plans writes to Harvest, asks for confirmation, and has them carried out: by the running daemon, or by this process if
//! there is none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::confirmation::{CHANGES_HARVEST, Confirmation};
use super::support::{DATABASE_WAIT, operator, with_mirror};
use super::{output, signals};
use crate::app::{App, Exit, Failure};
use crate::daemon::limiter::LimiterTask;
use crate::daemon::worker;
use crate::roster::AccountId;
use crate::roster::write::{Write, WriteFields, WriteKind};
use crate::roster::write_policy::WriteMode;
use crate::settings::{Account, Settings};
use crate::store::Fence;
use crate::store::lease::Lease;
use crate::store::writes::{JournalEntry, WriteSelection};
use crate::sync::error::CycleError;
use crate::telemetry::count;

/// How long a write may make no progress.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often the journal is read: often at first, because a free daemon needs less than a second.
const QUICK_INTERVAL: Duration = Duration::from_millis(50);
const SLOW_INTERVAL: Duration = Duration::from_millis(500);
const QUICK_TIME: Duration = Duration::from_secs(3);
/// How often a long run shows its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// How often this process tries to take over the account from a process that has died.
const LEASE_INTERVAL: Duration = Duration::from_secs(1);

/// The options of every command that writes to Harvest.
#[derive(Args)]
pub(super) struct WriteOptions {
    /// The account, if the settings have several
    #[arg(long, value_name = "ID")]
    pub account: Option<i64>,
    #[command(flatten)]
    pub confirmation: Confirmation,
    /// Print the writes as one JSON document
    #[arg(long)]
    pub json: bool,
}

impl WriteOptions {
    /// Fails before any work if writes are off, if no confirmation is possible, or if the account is not clear.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), Failure> {
        super::accounts::require(settings, self.account)?;
        if self.account.is_none() && settings.accounts().len() > 1 {
            let advice = "the settings have several accounts; add --account to choose one";
            return Err(Failure::new(Exit::Settings, advice));
        }
        if settings.write.rules.mode == WriteMode::Off {
            let advice = "write.mode is \"off\", so rosterd sends only GET requests to Harvest; to plan writes, set it to \
                          \"dry\", and to send them, to \"on\" (docs/WRITES.md)";
            return Err(Failure::new(Exit::Credentials, advice));
        }
        self.confirmation.require_possible()
    }

    pub(super) fn account<'a>(&self, app: &'a App) -> Result<&'a Account, Failure> {
        let accounts = app.settings.require_accounts()?;
        let chosen = accounts.iter().find(|account| self.account.is_none_or(|id| id == account.id));
        chosen.ok_or_else(|| Failure::new(Exit::Settings, "no account is set"))
    }
}

/// The fields that the command line has: those that are not null.
pub(super) fn given_fields(kind: WriteKind, mut fields: Value) -> Result<WriteFields, Failure> {
    if let Value::Object(fields) = &mut fields {
        fields.retain(|_, value| !value.is_null());
    }
    WriteFields::parse(kind, fields).map_err(|error| Failure::new(Exit::Usage, error))
}

/// Carries out one write: `plan` makes it and its line in the plan, without values.
pub(super) async fn carry_out(
    settings: Settings,
    options: &WriteOptions,
    plan: impl AsyncFnOnce(&App, AccountId) -> Result<(Write, String), Failure>,
) -> Result<(), Failure> {
    signals::until_stopped(async |stop| {
        with_mirror(settings, async |app| {
            let (write, line) = plan(app, AccountId(options.account(app)?.id)).await?;
            if !confirm(app, options, vec![line]).await? {
                return Ok(());
            }
            send(app, options, &[write], &format!("cli:{}", operator()), stop).await
        })
        .await
    })
    .await
}

/// Shows the lines of a plan and asks, unless the command line has `--yes`. Returns whether to go on.
pub(super) async fn confirm(
    app: &App,
    options: &WriteOptions,
    mut lines: Vec<String>,
) -> Result<bool, Failure> {
    if app.settings.write.rules.mode == WriteMode::Dry {
        lines.push("write.mode is \"dry\": the writes are journalled and not sent".to_owned());
    }
    options.confirmation.obtain(CHANGES_HARVEST, async || Ok(lines.join("\n"))).await
}

/// Has the writes carried out and prints their results.
pub(super) async fn send(
    app: &App,
    options: &WriteOptions,
    writes: &[Write],
    actor: &str,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let account = options.account(app)?;
    let entries = Carrier { app, account, writes, actor, stop, wake: Arc::default() }.carry_out().await?;
    report(&entries, options.json)
}

/// Prints the results. The worst one decides the exit code.
fn report(entries: &[JournalEntry], as_json: bool) -> Result<(), Failure> {
    for entry in entries {
        output::print_unless_json(as_json, line(entry))?;
    }
    if as_json {
        output::json(&json!({ "writes": entries }))?;
    }
    for (states, exit, what) in [
        (&["in_doubt", "lost"][..], Exit::Busy, "without a clear answer; see `rosterd writes list --open`"),
        (&["refused"], Exit::Credentials, "refused"),
        (&["withdrawn", "rejected"], Exit::Differences, "withdrawn or rejected by others"),
        (&["held"], Exit::Differences, "held for a person; see `rosterd writes list --held`"),
    ] {
        let number = entries.iter().filter(|it| states.contains(&it.state.as_str())).count();
        if number > 0 {
            return Err(Failure::new(exit, format!("{} {what}", count(number, "write"))));
        }
    }
    Ok(())
}

pub(super) fn line(entry: &JournalEntry) -> String {
    let JournalEntry {
        id, account_id, kind, user_id, project_id, assignment_id, fields, actor, state, ..
    } = entry;
    let mut line = format!("{id} account {account_id} {kind}");
    for (name, id) in [("user", user_id), ("project", project_id), ("assignment", assignment_id)] {
        line.extend(id.map(|id| format!(" {name} {id}")));
    }
    line.extend((!fields.is_empty()).then(|| format!(" ({})", fields.join(", "))));
    line.extend([": ", state]);
    line.extend(entry.status.map(|status| format!(" ({status})")));
    line.extend(entry.error.as_ref().map(|error| format!(", {error}")));
    line + &format!("; asked by {actor} at {}", output::seconds(entry.asked_at))
}

fn is_open(entry: &JournalEntry) -> bool {
    ["waiting", "in_doubt"].contains(&entry.state.as_str())
}

struct Carrier<'a> {
    app: &'a App,
    account: &'a Account,
    writes: &'a [Write],
    actor: &'a str,
    stop: &'a CancellationToken,
    wake: Arc<Notify>,
}

impl Carrier<'_> {
    /// Requests the writes and waits until they are finished or held. Sends them itself if no other process holds the
    /// account.
    async fn carry_out(&self) -> Result<Vec<JournalEntry>, Failure> {
        let replica = App::replica();
        let limiter = self.app.budgets(replica.clone(), DATABASE_WAIT).await?;
        let result = self.send_or_follow(&limiter, replica.id).await;
        limiter.stop().await;
        result
    }

    async fn send_or_follow(
        &self,
        limiter: &LimiterTask,
        replica: Uuid,
    ) -> Result<Vec<JournalEntry>, Failure> {
        let follow = self.request_and_follow();
        tokio::pin!(follow);
        let fence = tokio::select! {
            result = &mut follow => return result,
            fence = self.acquire(replica) => fence?,
        };
        let result = self.send(fence, limiter, &mut follow).await;
        worker::give_back(&self.app.store, &fence, replica).await;
        result
    }

    async fn acquire(&self, replica: Uuid) -> Result<Fence, Failure> {
        loop {
            if let Lease::Acquired(fence) =
                self.app.store.acquire(AccountId(self.account.id), replica).await?
            {
                return Ok(fence);
            }
            sleep(LEASE_INTERVAL).await;
        }
    }

    /// Sends the account's writes until `follow` ends.
    async fn send(
        &self,
        fence: Fence,
        limiter: &LimiterTask,
        follow: impl Future<Output = Result<Vec<JournalEntry>, Failure>>,
    ) -> Result<Vec<JournalEntry>, Failure> {
        let client = self.app.client(self.account, limiter)?;
        client.set_next_poll(None);
        let sender = self.app.write_sender(&client, self.wake.clone());
        let Some(sender) = sender else { return follow.await };
        let end = CancellationToken::new();
        let follow = async {
            let result = follow.await;
            end.cancel();
            result
        };
        tokio::join!(follow, Box::pin(sender.run(fence, &end))).0
    }

    /// Requests the writes in groups and follows each of them. Deactivations are over before other writes begin, and
    /// creations begin last: then seats are free.
    async fn request_and_follow(&self) -> Result<Vec<JournalEntry>, Failure> {
        let group = |write: &Write| (write.kind.is_loss(), write.kind.is_creation());
        let mut entries = Vec::with_capacity(self.writes.len());
        for writes in self.writes.chunk_by(|a, b| group(a) == group(b)) {
            let mut ids = Vec::with_capacity(writes.len());
            for write in writes.iter().take_while(|_| !self.stop.is_cancelled()) {
                match self.app.store.ask_write(AccountId(self.account.id), write, self.actor).await {
                    Ok(id) => ids.push(id),
                    Err(error) => {
                        let _ = self.withdraw_unsent(&ids).await;
                        return Err(error.into());
                    }
                }
            }
            self.wake.notify_one();
            let followed = self.follow(&ids, entries.len()).await?;
            entries.extend(followed);
            if ids.len() < writes.len() {
                return Err(CycleError::Stopped.into());
            }
        }
        Ok(entries)
    }

    /// Follows the journal until the writes are finished or held, or make no progress. `before` writes are finished.
    async fn follow(&self, ids: &[Uuid], before: usize) -> Result<Vec<JournalEntry>, Failure> {
        let began = Instant::now();
        let (mut progress, mut last_open, mut shown) = (began, usize::MAX, began);
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            let selection = WriteSelection { ids: ids.to_vec(), ..WriteSelection::default() };
            let mut entries = self.app.store.list_writes(&selection).await?;
            let open = entries.iter().filter(|it| is_open(it)).count();
            if open < last_open {
                (progress, last_open) = (Instant::now(), open);
            }
            if open == 0 {
                let places: HashMap<_, _> = ids.iter().zip(0..).collect();
                entries.sort_by_key(|entry| places.get(&entry.id));
                return Ok(entries);
            }
            if self.stop.is_cancelled() || progress.elapsed() >= PATIENCE {
                return self.withdraw(&entries).await;
            }
            if shown.elapsed() >= PROGRESS_INTERVAL {
                shown = Instant::now();
                let (finished, all) = (before + ids.len() - open, self.writes.len());
                output::message(format_args!("{finished} of {} finished", count(all, "write")));
            }
            let interval = if began.elapsed() < QUICK_TIME { QUICK_INTERVAL } else { SLOW_INTERVAL };
            tokio::select! {
                () = sleep(interval) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Withdraws those of the writes that were not sent, and returns their number.
    async fn withdraw_unsent(&self, ids: &[Uuid]) -> Result<usize, Failure> {
        let mut withdrawn = 0;
        for id in ids {
            withdrawn += usize::from(self.app.store.withdraw_write(*id, self.actor).await?);
        }
        Ok(withdrawn)
    }

    /// Gives up: withdraws what was not sent, and says so.
    async fn withdraw(&self, entries: &[JournalEntry]) -> Result<Vec<JournalEntry>, Failure> {
        let open: Vec<Uuid> = entries.iter().filter(|it| is_open(it)).map(|it| it.id).collect();
        let withdrawn = self.withdraw_unsent(&open).await?;
        let sent = open.len() - withdrawn;
        let cause = entries.iter().find_map(|entry| entry.error.as_deref());
        let cause = cause.map(|cause| format!("; {cause}")).unwrap_or_default();
        let advice = format!(
            "{} not sent and withdrawn, {} sent without an answer (see `rosterd writes list`){cause}",
            count(withdrawn, "write"),
            count(sent, "write"),
        );
        Err(Failure::new(if sent > 0 { Exit::Busy } else { Exit::Unavailable }, advice))
    }
}
