//! `rosterd outbox`: the stream of events.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::consent::Consent;
use super::{PATIENCE, output, require_schema, signals, with_app};
use crate::app::{App, Exit, Failure};
use crate::roster::event;
use crate::settings::Settings;
use crate::store::Store;
use crate::store::requests::Bell;
use crate::telemetry::{chain, count};

/// How often one who follows looks when no bell rings; a bell may be lost, or not be heard behind a pooler.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Prints events as JSON lines, in order, with the pay that is in them
    #[command(
        after_help = "Without --from it begins with the oldest event that is kept. Number one more than the last that was \
                      printed goes on where it ended.\n\n\
                      Examples:\n  rosterd outbox tail --from 1021\n  rosterd outbox tail --follow --type '*.deleted'"
    )]
    Tail(TailOptions),
    /// Begin a new stream permanently: consumers must reload
    #[command(
        after_help = "For a database that was restored to an earlier state without a trace, such as a volume's snapshot. \
                      rosterd notices a restore by PostgreSQL's own means, and a failover, without this command. \
                      Every account is read in full at once.\n\n\
                      Example:\n  rosterd outbox new-stream"
    )]
    NewStream(Consent),
}

#[derive(Args, Debug)]
pub(super) struct TailOptions {
    /// Begins with this number
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    from: Option<i64>,
    /// Waits for more, until it is stopped
    #[arg(long)]
    follow: bool,
    /// Only these types: * stands for anything, ? for one letter
    #[arg(long = "type", value_name = "GLOB", value_parser = known_types)]
    kind: Option<String>,
}

pub(super) async fn outbox(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    if let Command::NewStream(consent) = &command {
        consent.require_terminal()?;
    }
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        match &command {
            Command::Tail(options) => tail(app, options).await?,
            Command::NewStream(consent) => new_stream(app, consent).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}

async fn new_stream(app: &App, consent: &Consent) -> Result<(), Failure> {
    if !consent.is_given() {
        let status = app.store.status().await?;
        let of = |items: usize, noun| count(items, noun);
        let outbox = &status.outbox;
        let preview = format!(
            "would begin a new stream: stream {} ends at event {} ({} kept); {} must reload; {} read in full",
            outbox.stream_id,
            outbox.seq,
            count(outbox.seq - outbox.floor_seq, "event"),
            of(status.consumers.len(), "registered consumer"),
            of(status.accounts.len(), "account"),
        );
        if !consent.ask(preview).await? {
            return Ok(());
        }
    }
    let stream = app.store.new_stream().await?;
    output::line(format_args!("the new stream is {stream}; every account is read in full"))
}

async fn tail(app: &App, options: &TailOptions) -> Result<(), Failure> {
    let (floor, stream) = app.store.outbox_floor().await?;
    let like = options.kind.as_deref().map(like);
    let mut tail =
        Tail { store: &app.store, like, after: options.from.map_or(floor, |from| from - 1), stream };
    if !options.follow {
        return tail.print().await.map(drop);
    }
    let stop = CancellationToken::new();
    signals::stop_on_signal(stop.clone())?;
    stop.run_until_cancelled(Box::pin(tail.follow())).await.unwrap_or(Ok(()))
}

struct Tail<'a> {
    store: &'a Store,
    like: Option<String>,
    after: i64,
    stream: Uuid,
}

impl Tail<'_> {
    /// Prints all there is; false when nobody reads on.
    async fn print(&mut self) -> Result<bool, Failure> {
        loop {
            let (floor, stream) = self.store.outbox_floor().await?;
            let lines = self.store.lines(self.after, self.like.as_deref()).await?;
            if stream != self.stream {
                return Err(lost("history was rewound, and a new stream has begun"));
            }
            // Numbers have no gap: what is missing was removed.
            if self.after < floor || lines.first().is_some_and(|line| line.seq != self.after + 1) {
                return Err(lost(&format!("the events after {} were removed", self.after)));
            }
            if lines.is_empty() {
                return Ok(true);
            }
            for line in lines {
                if let Some(json) = line.json
                    && !output::is_read(json)?
                {
                    return Ok(false);
                }
                self.after = line.seq;
            }
        }
    }

    /// Prints what comes, for ever; a database that is away is waited for.
    async fn follow(&mut self) -> Result<(), Failure> {
        let (mut bell, mut said): (Option<Bell>, bool) = (None, false);
        loop {
            if bell.is_none() {
                bell = self.store.doorbell().await.unwrap_or_default();
            }
            match self.print().await {
                Ok(false) => return Ok(()),
                Ok(true) => said = false,
                Err(failure) if failure.exit == Exit::Unavailable => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!("{failure}; waiting for it, and going on after event {}", self.after);
                    }
                    bell = None;
                }
                Err(failure) => return Err(failure),
            }
            match &mut bell {
                Some(ringing) => {
                    let rung = timeout(LOOK, ringing.rung()).await;
                    // One that is broken is asked for anew.
                    if let Ok(Err(error)) = rung {
                        tracing::debug!(error = %chain(&error), after = self.after, "the doorbell is broken");
                        bell = None;
                    }
                }
                None => sleep(LOOK).await,
            }
        }
    }
}

fn lost(what: &str) -> Failure {
    let advice = "load afresh, and follow from where that was taken (docs/CONSUMING.md)";
    Failure::new(Exit::Differences, format!("{what}; {advice}"))
}

/// Refuses a glob that no event's type can match.
fn known_types(glob: &str) -> Result<String, String> {
    let known = event::types();
    if known.iter().any(|known| matches(glob.as_bytes(), known.as_bytes())) {
        return Ok(glob.to_owned());
    }
    Err(format!("no event has such a type; the types are {}", known.join(", ")))
}

/// Whether a glob matches, as [`like`] makes PostgreSQL match.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        Some((wanted, rest)) => text
            .split_first()
            .is_some_and(|(letter, text)| [b'?', *letter].contains(wanted) && matches(rest, text)),
    }
}

/// A glob as a pattern for `LIKE`.
fn like(glob: &str) -> String {
    glob.chars()
        .map(|c| match c {
            '*' => "%".to_owned(),
            '?' => "_".to_owned(),
            '%' | '_' | '\\' => format!("\\{c}"),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn globs_match_types_as_a_whole() {
        for (glob, is_known) in [
            ("*", true),
            ("user.*", true),
            ("*.deleted", true),
            ("cost_rate.?reated", true),
            ("user.created", true),
            ("user", false),
            ("users.*", false),
            ("billable_rate.deactivated", false),
            ("", false),
        ] {
            assert_eq!(super::known_types(glob).is_ok(), is_known, "{glob}");
        }
    }

    #[test]
    fn a_glob_is_a_pattern_and_its_letters_are_letters() {
        assert_eq!(super::like("user.*"), "user.%");
        assert_eq!(super::like("user_assignment.?reated"), "user\\_assignment._reated");
    }
}
