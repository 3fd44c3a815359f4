//! `rosterd outbox`: print the stream of events, or begin a new one.

use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::confirmation::{Confirmation, PERMANENT};
use super::since::Since;
use super::support::with_mirror;
use super::{output, signals};
use crate::app::{App, Exit, Failure};
use crate::settings::Settings;
use crate::settings::glob::matching_types;
use crate::store::Store;
use crate::store::notifications::Listener;
use crate::telemetry::{chain, count};

/// How often `tail --follow` reads without a notification. A notification may be lost, and a pooler may pass none on.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print events as JSON lines, pay data included
    #[command(
        after_help = "Without --from and --since, the first event is the oldest that is kept. To continue after event N, use \
                      --from N+1.\n\n\
                      Examples:\n  rosterd outbox tail --from 1021\n  rosterd outbox tail --since 2h\n  rosterd outbox tail --follow --type '*.deleted'"
    )]
    Tail(TailOptions),
    /// Begin a new stream permanently: consumers must reload
    #[command(
        after_help = "Use this command after a volume's snapshot was restored, which leaves no trace in the database. \
                      rosterd detects a failover that may have lost events, and a restore by PostgreSQL's own tools, without this command. \
                      Every account is read in full at once.\n\n\
                      Example:\n  rosterd outbox new-stream"
    )]
    NewStream(Confirmation),
}

#[derive(Args)]
pub(super) struct TailOptions {
    /// Start at this event number
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    from: Option<i64>,
    /// Start at events of this age, or of this time (RFC 3339)
    #[arg(long, value_name = "AGE|TIME", value_parser = Since::parse, conflicts_with = "from")]
    since: Option<Since>,
    /// Wait for further events until stopped
    #[arg(long)]
    follow: bool,
    /// Print only these types (* any text, ? any character)
    #[arg(long = "type", value_name = "GLOB", value_parser = parse_types)]
    types: Option<EventTypes>,
}

pub(super) async fn outbox(settings: Settings, command: Command) -> Result<(), Failure> {
    if let Command::NewStream(confirmation) = &command {
        confirmation.require_possible()?;
    }
    with_mirror(settings, async |app| match &command {
        Command::Tail(options) => tail(app, options).await,
        Command::NewStream(confirmation) => new_stream(app, confirmation).await,
    })
    .await
}

async fn new_stream(app: &App, confirmation: &Confirmation) -> Result<(), Failure> {
    let preview = async || {
        let status = app.store.status().await?;
        let outbox = &status.outbox;
        Ok(format!(
            "would begin a new stream: stream {} ends at event {} ({} kept); {} must reload; {} read in full",
            outbox.stream_id,
            outbox.seq,
            count(outbox.seq - outbox.floor_seq, "event"),
            count(status.consumers.len(), "registered consumer"),
            count(status.accounts.len(), "account"),
        ))
    };
    if !confirmation.obtain(PERMANENT, preview).await? {
        return Ok(());
    }
    let stream = app.store.new_stream().await?;
    output::print(format_args!("the new stream is {stream}; every account is read in full"))
}

async fn tail(app: &App, options: &TailOptions) -> Result<(), Failure> {
    let (floor, stream) = app.store.outbox_floor().await?;
    let types = options.types.clone().map(|EventTypes(types)| types);
    let after = match (options.from, options.since) {
        (Some(from), _) => from - 1,
        (None, Some(since)) => app.store.last_seq_before(since.time(app).await?).await?,
        (None, None) => floor,
    };
    let mut tail = Tail { store: &app.store, types, after, stream };
    if !options.follow {
        return tail.print().await.map(drop);
    }
    let stop = signals::stop_on_signal()?;
    stop.run_until_cancelled(Box::pin(tail.follow())).await.unwrap_or(Ok(()))
}

struct Tail<'a> {
    store: &'a Store,
    /// `None`: all.
    types: Option<Vec<String>>,
    /// The last event that was printed or skipped.
    after: i64,
    stream: Uuid,
}

impl Tail<'_> {
    /// Prints all events up to the head. Returns false if the reader has closed the pipe.
    async fn print(&mut self) -> Result<bool, Failure> {
        loop {
            let (floor, stream) = self.store.outbox_floor().await?;
            let lines = self.store.events_after(self.after, self.types.as_deref()).await?;
            if stream != self.stream {
                return Err(must_reload("a new stream has begun"));
            }
            // Event numbers have no gaps: a missing event was removed.
            if self.after < floor || lines.first().is_some_and(|line| line.seq != self.after + 1) {
                return Err(must_reload(&format!("the events after {} were removed", self.after)));
            }
            if lines.is_empty() {
                return Ok(true);
            }
            for line in lines {
                if let Some(json) = line.json
                    && !output::print_while_read(json)?
                {
                    return Ok(false);
                }
                self.after = line.seq;
            }
        }
    }

    /// Prints events as they are written. Waits while the database is unavailable.
    async fn follow(&mut self) -> Result<(), Failure> {
        let (mut listener, mut is_warned): (Option<Listener>, bool) = (None, false);
        loop {
            if listener.is_none() {
                listener = self.store.listen_for_events().await.unwrap_or_default();
            }
            match self.print().await {
                Ok(false) => return Ok(()),
                Ok(true) => is_warned = false,
                Err(failure) if failure.exit == Exit::Unavailable => {
                    if !std::mem::replace(&mut is_warned, true) {
                        tracing::warn!("{failure}; will continue after event {}", self.after);
                    }
                    listener = None;
                }
                Err(failure) => return Err(failure),
            }
            match &mut listener {
                Some(listening) => {
                    let notified = timeout(POLL_INTERVAL, listening.notified()).await;
                    if let Ok(Err(error)) = notified {
                        tracing::debug!(error = %chain(&error), after = self.after, "the listener failed");
                        listener = None;
                    }
                }
                None => sleep(POLL_INTERVAL).await,
            }
        }
    }
}

fn must_reload(cause: &str) -> Failure {
    let advice =
        "reload from a snapshot, then follow from the snapshot's event number (see docs/CONSUMING.md)";
    Failure::new(Exit::Differences, format!("{cause}; {advice}"))
}

#[derive(Clone)]
struct EventTypes(Vec<String>);

fn parse_types(glob: &str) -> Result<EventTypes, String> {
    matching_types(glob).map(EventTypes)
}
