//! `rosterd webhooks`: list, test and steer the endpoints of webhooks.

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::output::{self, seconds};
use super::since::Since;
use super::support::{operator, with_mirror};
use crate::app::{App, Exit, Failure};
use crate::settings::{Settings, Webhook};
use crate::store::webhooks::commands::{Change, ReplayFrom, WebhookStatus};
use crate::telemetry::{count, duration};
use crate::webhooks::Endpoint;
use crate::webhooks::message::{Message, TEST};
use crate::webhooks::outcome::Outcome;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List endpoints with state, lag and last failure
    #[command(after_help = "Examples:\n  rosterd webhooks list\n  rosterd webhooks list --json")]
    List {
        /// Print one JSON document instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Send one signed test message
    #[command(after_help = "Prints the status and the beginning of the answer. Moves no position.\n\n\
                            Example:\n  rosterd webhooks test hr-bot")]
    Test(Target),
    /// Resume the delivery now, also after a pause or a 410
    #[command(after_help = "Example:\n  rosterd webhooks retry hr-bot")]
    Retry(Target),
    /// Stop the delivery until `retry`; events wait
    #[command(after_help = "Events wait until outbox.retention removes them.\n\n\
                            Example:\n  rosterd webhooks pause hr-bot --reason 'receiver is being moved'")]
    Pause {
        #[command(flatten)]
        target: Target,
        /// Store this reason; without names of users
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Pass over the failing event permanently
    #[command(after_help = "The event must be the one that fails, or one that rosterd has passed over.\n\n\
                            Example:\n  rosterd webhooks skip hr-bot --seq 812 --reason 'too large for the receiver'")]
    Skip {
        #[command(flatten)]
        target: Target,
        /// The number of the event
        #[arg(long, value_name = "SEQ")]
        seq: i64,
        /// Store this reason; without names of users
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Deliver events again, from a number or a time
    #[command(
        after_help = "Events of an account's first full read are left out unless the endpoint has initial = true.\n\n\
                            Examples:\n  rosterd webhooks replay hr-bot --from 812\n  \
                            rosterd webhooks replay hr-bot --from oldest\n  \
                            rosterd webhooks replay hr-bot --since 2h\n  \
                            rosterd webhooks replay hr-bot --event 812"
    )]
    Replay(ReplayOptions),
    /// Delete an endpoint's position permanently
    #[command(after_help = "The settings must not have the endpoint any more.\n\n\
                            Example:\n  rosterd webhooks remove hr-bot")]
    Remove(Target),
}

#[derive(Args)]
pub(super) struct Target {
    /// The endpoint's name in the settings
    #[arg(value_name = "NAME")]
    name: String,
    /// Print one JSON document instead of a line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(group = ArgGroup::new("place").args(["from", "since", "event"]).required(true))]
pub(super) struct ReplayOptions {
    #[command(flatten)]
    target: Target,
    /// Move to this event number, to `oldest` or to `now`
    #[arg(long, value_name = "SEQ", value_parser = parse_from)]
    from: Option<ReplayFrom>,
    /// Move to the first event of the last `2h`, or since a time
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,
    /// Send only this event, once, and move no position
    #[arg(long, value_name = "SEQ")]
    event: Option<i64>,
}

fn parse_from(text: &str) -> Result<ReplayFrom, String> {
    match text {
        "oldest" => Ok(ReplayFrom::Oldest),
        "now" => Ok(ReplayFrom::Now),
        _ => text.parse().map(ReplayFrom::Seq).map_err(|_| "give an event number, oldest or now".to_owned()),
    }
}

pub(super) async fn webhooks(settings: Settings, command: Command) -> Result<(), Failure> {
    with_mirror(settings, async |app| match &command {
        Command::List { json } => list(app, *json).await,
        Command::Test(target) => test(app, target).await,
        Command::Retry(target) => {
            let changed = app.store.set_webhook_state(&target.name, "on", &operator(), None).await?;
            let lost = "events were removed before they were delivered; run `rosterd webhooks replay`";
            done(target, changed, lost, "resumed")
        }
        Command::Pause { target, reason } => {
            let changed =
                app.store.set_webhook_state(&target.name, "paused", &operator(), reason.as_deref()).await?;
            done(target, changed, "it has stopped already, because events were removed", "paused")
        }
        Command::Skip { target, seq, reason } => {
            let by = operator();
            let changed = app.store.skip_webhook_event(&target.name, *seq, &by, reason.as_deref()).await?;
            let refusal = format!("event {seq} does not fail; see `rosterd webhooks list`");
            done(target, changed, &refusal, &format!("passes over event {seq}"))
        }
        Command::Replay(options) => replay(app, options).await,
        Command::Remove(target) => remove(app, target).await,
    })
    .await
}

fn done(target: &Target, change: Change, refusal: &str, effect: &str) -> Result<(), Failure> {
    let name = &target.name;
    match change {
        Change::Done => {
            output::print_unless_json(target.json, format_args!("webhook {name}: {effect}"))?;
            if target.json { output::json(&json!({ "webhook": name, "result": effect })) } else { Ok(()) }
        }
        Change::Refused => Err(Failure::new(Exit::Differences, format!("webhook {name}: {refusal}"))),
        Change::Unknown => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Failure {
    let advice = format!(
        "no webhook {name} is registered; the daemon registers those of its settings when it starts (see `rosterd webhooks list`)"
    );
    Failure::new(Exit::Differences, advice)
}

#[derive(Serialize)]
struct Line {
    /// Scheme, host and port of the address. `None` if these settings do not have the endpoint.
    origin: Option<String>,
    /// Whether the receiver is notified when an operator is needed. `None` if these settings do not have the endpoint.
    notices: Option<bool>,
    #[serde(flatten)]
    status: WebhookStatus,
}

async fn list(app: &App, json: bool) -> Result<(), Failure> {
    let of = |status: WebhookStatus| {
        let webhook = app.settings.webhooks.iter().find(|webhook| webhook.name == status.name);
        Line { origin: webhook.map(Webhook::origin), notices: webhook.map(|it| it.notices), status }
    };
    let lines: Vec<_> = app.store.webhooks().await?.into_iter().map(of).collect();
    if json {
        return output::json(&lines);
    }
    let is_unknown = |it: &&Webhook| !lines.iter().any(|line| line.status.name == it.name);
    for webhook in app.settings.webhooks.iter().filter(is_unknown) {
        output::print(format_args!("{}: not registered; start the daemon", webhook.name))?;
    }
    lines.iter().try_for_each(|line| output::print(sentence(line)))
}

fn sentence(Line { origin, notices, status }: &Line) -> String {
    let by = status.state_by.as_ref().map(|by| format!(" by {by}"));
    let reason = status.reason.as_ref().map(|reason| format!(" ({reason})"));
    let behind = (status.behind > 0).then(|| {
        let age = duration(status.oldest_seconds.unwrap_or(0));
        format!("; {} after it, the oldest {age} old", count(status.behind, "event"))
    });
    let failing = status.failing_since.map(|since| {
        let what = status.failed_seq.map_or_else(|| "a message".to_owned(), |seq| format!("event {seq}"));
        let failure = status.failure.as_deref().unwrap_or("unknown");
        let next = status.next_attempt_at.map(|at| format!(", next attempt at {}", seconds(at)));
        let attempts = count(status.attempts, "attempt");
        format!("; {what} fails since {} ({failure}, {attempts}{})", seconds(since), next.unwrap_or_default())
    });
    let seqs = || status.set_aside.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let set_aside = (!status.set_aside.is_empty()).then(|| format!("; passed over: {}", seqs()));
    let start = format!(
        "{} ({}): {}{}{}; {} delivered, acknowledged up to {}",
        status.name,
        origin.as_deref().unwrap_or("not in these settings"),
        status.state,
        by.unwrap_or_default(),
        reason.unwrap_or_default(),
        count(status.delivered, "event"),
        status.acked_seq
    );
    let notices = (*notices == Some(true)).then(|| "; gets notices".to_owned());
    [Some(start), behind, failing, set_aside, notices].into_iter().flatten().collect()
}

async fn test(app: &App, target: &Target) -> Result<(), Failure> {
    let endpoint = app.webhook(&target.name)?;
    let (_, stream) = app.store.outbox_floor().await?;
    let message = Message::control(TEST, &endpoint.name, stream, app.clock.now());
    // Receivers drop messages whose id they know.
    let message = Message { id: Uuid::new_v4(), ..message };
    send(app, &endpoint, &message, target.json).await
}

/// Sends a message with the code of the daemon, and prints the answer.
async fn send(app: &App, endpoint: &Endpoint, message: &Message, json: bool) -> Result<(), Failure> {
    let attempt = app.webhook_sender()?.send(endpoint, message).await;
    let body = String::from_utf8_lossy(&attempt.body).into_owned();
    let result = match &attempt.outcome {
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::Gone => "gone".to_owned(),
        Outcome::Failed(failure) => failure.text.clone(),
    };
    let took = attempt.took.as_millis();
    if json {
        output::json(&json!({
            "webhook": endpoint.name, "type": message.r#type, "id": message.id, "status": attempt.status,
            "result": result, "took_ms": u64::try_from(took).unwrap_or(u64::MAX), "body": body,
        }))?;
    } else {
        let status =
            attempt.status.map_or_else(|| "no response".to_owned(), |status| format!("status {status}"));
        output::print(format_args!("{} to {}: {status} after {took} ms", message.r#type, endpoint.origin()))?;
        if !body.is_empty() {
            output::print(body)?;
        }
    }
    if attempt.outcome == Outcome::Delivered {
        return Ok(());
    }
    let advice = match result.as_str() {
        redirect if redirect.starts_with("redirect") => {
            "; rosterd follows no redirect, so set url to the address it leads to"
        }
        "tls" => {
            "; this machine does not trust the receiver's certificate, or the certificate is expired or for another host; if \
             its authority is your own, name a file of certificate authorities in SSL_CERT_FILE"
        }
        "dns" => "; the host of url has no address, so check url and DNS",
        _ => "",
    };
    Err(Failure::new(
        Exit::Unavailable,
        format!("webhook {} was not delivered: {result}{advice}", endpoint.name),
    ))
}

async fn replay(app: &App, options: &ReplayOptions) -> Result<(), Failure> {
    let ReplayOptions { target, from, since, event } = options;
    if let Some(seq) = event {
        return replay_event(app, target, *seq).await;
    }
    let from = match (from, since) {
        (Some(from), _) => *from,
        (None, Some(since)) => ReplayFrom::Since(since.time(app).await?),
        (None, None) => return Err(Failure::new(Exit::Usage, "give --from, --since or --event")),
    };
    match app.store.replay_webhook(&target.name, from).await? {
        None => Err(unknown(&target.name)),
        Some(Err((first, last))) => {
            let advice =
                format!("the outbox has the events {first} to {last}; give one of them, oldest or now");
            Err(Failure::new(Exit::Differences, advice))
        }
        Some(Ok(after)) => {
            done(target, Change::Done, "", &format!("continues with event {}", after.saturating_add(1)))
        }
    }
}

/// Sends one event outside of the order.
async fn replay_event(app: &App, target: &Target, seq: i64) -> Result<(), Failure> {
    let endpoint = app.webhook(&target.name)?;
    let event = app.store.webhook_event(seq, &endpoint.filter).await?;
    let absent = || Failure::new(Exit::Differences, format!("the outbox has no event {seq}"));
    let event = event.ok_or_else(absent)?;
    let message = Message::of(&event).ok_or_else(absent)?;
    send(app, &endpoint, &message, target.json).await?;
    Ok(app.store.webhook_event_sent(&endpoint.name, &event).await?)
}

async fn remove(app: &App, target: &Target) -> Result<(), Failure> {
    if app.settings.webhooks.iter().any(|webhook| webhook.name == target.name) {
        let advice =
            format!("the settings have webhook {0}; remove the section [webhooks.{0}] first", target.name);
        return Err(Failure::new(Exit::Differences, advice));
    }
    let removed = app.store.remove_webhook(&target.name).await?;
    done(target, if removed { Change::Done } else { Change::Unknown }, "", "removed")
}
