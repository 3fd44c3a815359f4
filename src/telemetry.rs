//! Logs and metrics. Logs: lines on stderr, for machines (one flat JSON object each) or for people.
//!
//! No names, addresses, pay or tokens appear in them, at any level. What this crate logs it answers for
//! itself; here stand the guards against what others would log: libraries that print what they send and
//! receive, and panics whose message quotes a record.

mod flat;
mod libraries;
pub mod meters;
mod queue;

use std::{
    env,
    error::Error,
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    thread,
};

pub use queue::{Flush, flush, stderr};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{ParseError, Targets},
    fmt::{self, MakeWriter, format::JsonFields},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

/// Libraries that say more than an operator wants, by the beginning of their names (`hyper` is `hyper_util`
/// too), and how much they may say where the filter names them; otherwise it is warnings.
///
/// Those that have headers and bodies in hand stop at debug: there they name hosts, sizes and kinds of
/// frames. Trace is where buffers, handshakes and header fields get printed, so it is never to be had,
/// whatever the filter says. sqlx prints statements, never the values bound to them; what the server remarks beside
/// its answers may be a trigger's words, and quote a row.
const NOISY: [(&str, LevelFilter); 9] = [
    ("axum", LevelFilter::DEBUG),
    ("h2", LevelFilter::DEBUG),
    ("hyper", LevelFilter::DEBUG),
    ("reqwest", LevelFilter::DEBUG),
    ("rustls", LevelFilter::DEBUG),
    ("sqlx", LevelFilter::TRACE),
    ("sqlx::postgres::notice", LevelFilter::OFF),
    ("tokio_rustls", LevelFilter::DEBUG),
    ("tower", LevelFilter::DEBUG),
];

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One flat JSON object: `timestamp, level, message, event, …`.
    Json,
    /// For people.
    Pretty,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter makes no sense.
    #[error("reading the log filter {filter:?}")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Somebody else was first.
    #[error("starting the log")]
    Taken(#[from] TryInitError),
}

/// Sends the process's logs to stderr from here on, and its panics with them. `filter` is a list of
/// directives as in `RUST_LOG`. Lines for people are coloured on a terminal, unless `NO_COLOR` is set. Lines wait in a
/// bounded queue: before the process exits, it must [`flush`].
pub fn init(format: Format, filter: &str) -> Result<(), TelemetryError> {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colors = !no_color && io::stderr().is_terminal();
    subscriber(format, filter, colors, stderr)?.try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// All of it, with the place where lines go for the tests to choose.
fn subscriber<W>(
    format: Format,
    filter: &str,
    colors: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let lines = lines(format, colors, writer);
    Ok(tracing_subscriber::registry().with(wanted).with(allowed(filter)).with(lines))
}

/// What may be said at most. It only ever takes away from what `filter` asks for.
fn allowed(filter: &str) -> Targets {
    let most = |(library, most): (&'static str, LevelFilter)| {
        let named = filter.split(',').any(|directive| directive.trim_start().starts_with(library));
        (library, if named { most } else { most.min(LevelFilter::WARN) })
    };
    Targets::new().with_default(LevelFilter::TRACE).with_targets(NOISY.map(most))
}

fn lines<S, W>(format: Format, colors: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        Format::Json => {
            fmt::layer().fmt_fields(JsonFields::new()).event_format(flat::Flat).with_writer(writer).boxed()
        }
        Format::Pretty => {
            let format = libraries::Pretty::default();
            fmt::layer().event_format(format).with_ansi(colors).with_writer(writer).boxed()
        }
    }
}

/// A number with its noun, such as `1 row` and `2 rows`.
pub fn count(number: impl Copy + ToString, noun: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// An error and its causes, in one line: the whole chain is said once, where it is handled.
pub fn chain(error: &dyn Error) -> String {
    sentences(error).join(": ")
}

/// What an error says, then its causes. Some libraries repeat their cause in their own sentence: that is left out.
pub fn sentences(error: &dyn Error) -> Vec<String> {
    let mut said = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        if !said.iter().any(|said| said.contains(&sentence)) {
            said.push(sentence);
        }
        cause = error.source();
    }
    said
}

/// One line instead of a backtrace. A message that was put together may quote what it failed on (a string
/// that could not be cut quotes the string), so only one that stands in the source is repeated: the place
/// leads to the rest.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let cause = panic.payload().downcast_ref::<&'static str>();
    tracing::error!(
        event = "panic",
        location,
        thread = thread.name().unwrap_or_default(),
        cause = cause.copied().unwrap_or("not repeated here, as it may quote a record"),
        "rosterd panicked; this is a bug in rosterd"
    );
}

#[cfg(test)]
mod tests;
