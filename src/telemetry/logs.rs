//! Starts the process's log and chooses what each library may log.

use std::{
    env,
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    thread,
};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{ParseError, Targets},
    fmt::{self, MakeWriter, format::JsonFields},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

use super::{line_format::Line, queue};

/// Libraries that log more than an operator wants, by the prefix of their names (`hyper` includes `hyper_util`), each
/// with the most verbose level that `filter` can choose. If `filter` does not name a library, it logs warnings and
/// errors only.
///
/// HTTP and TLS libraries stop at debug, which names hosts, sizes and kinds of frames. At trace they log buffers,
/// handshakes and header fields. sqlx logs statements, never the values bound to them. A notice of the server may come
/// from a trigger and quote a row.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One flat JSON object: `timestamp, level, message, event, …`.
    Json,
    Pretty,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter {filter:?} is invalid")]
    Filter { filter: String, source: ParseError },
    #[error("cannot start the log")]
    Taken(#[from] TryInitError),
}

/// Sends the process's logs and panics to stderr from now on. `filter` is a list of directives as in `RUST_LOG`. Text
/// lines are coloured on a terminal, unless `NO_COLOR` is set. Lines wait in a bounded queue: before the process exits,
/// it must call [`flush`](super::flush).
pub fn init(format: Format, filter: &str) -> Result<(), TelemetryError> {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colors = !no_color && io::stderr().is_terminal();
    subscriber(format, filter, colors, queue::stderr)?.try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// The tests inject `writer`.
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
    Ok(tracing_subscriber::registry().with(wanted).with(library_limits(filter)).with(lines))
}

/// Hides lines of libraries that `filter` asks for, and never shows more than `filter` does.
fn library_limits(filter: &str) -> Targets {
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
            fmt::layer().fmt_fields(JsonFields::new()).event_format(Line::json()).with_writer(writer).boxed()
        }
        Format::Pretty => {
            fmt::layer().event_format(Line::pretty()).with_ansi(colors).with_writer(writer).boxed()
        }
    }
}

/// Logs one line instead of a backtrace. A formatted message may quote the data that caused the panic, such as a string
/// that could not be sliced. So only a message that is a literal in the source is logged.
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
