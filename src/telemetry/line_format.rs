//! How a log line looks. Lines of this crate have the format of `tracing-subscriber`. Lines of libraries differ: they
//! have the level WARN at most, because ERROR pages someone, and an `event`, because each alert expects one.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{Event, Level, Subscriber, field::Field, field::Visit};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Json, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// The `event` of a library's line.
const EVENT: &str = "library";

/// Adds the rule for libraries to one of the formats of `tracing-subscriber`.
pub(super) struct Line<F>(F);

impl Line<Format<Full>> {
    pub(super) fn pretty() -> Self {
        Self(tracing_subscriber::fmt::format().with_target(false))
    }
}

impl Line<Format<Json>> {
    pub(super) fn json() -> Self {
        let format = tracing_subscriber::fmt::format().json().flatten_event(true);
        Self(format.with_current_span(false).with_span_list(false))
    }
}

struct LibraryLine {
    timestamp: String,
    level: Level,
    target: String,
    /// In the form of the layer's field format.
    fields: String,
}

trait WriteLibraryLine {
    fn write(writer: Writer<'_>, line: LibraryLine) -> fmt::Result;
}

impl WriteLibraryLine for Format<Full> {
    fn write(mut writer: Writer<'_>, line: LibraryLine) -> fmt::Result {
        let LibraryLine { timestamp, level, target, fields } = line;
        writeln!(writer, "{timestamp} {level:>5} {fields} event={EVENT:?} target={target:?}")
    }
}

impl WriteLibraryLine for Format<Json> {
    fn write(mut writer: Writer<'_>, line: LibraryLine) -> fmt::Result {
        let mut object: Map<String, Value> = serde_json::from_str(&line.fields).unwrap_or_default();
        object.retain(|name, _| !name.starts_with("log."));
        let fixed = [
            ("timestamp", &*line.timestamp),
            ("level", line.level.as_str()),
            ("event", EVENT),
            ("target", &line.target),
        ];
        object.extend(fixed.map(|(name, value)| (name.to_owned(), value.into())));
        writeln!(writer, "{}", Value::Object(object))
    }
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N> + WriteLibraryLine,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if metadata.target().split("::").next() == Some("rosterd") {
            return self.0.format_event(context, writer, event);
        }
        let mut target = Target(metadata.target().to_owned());
        event.record(&mut target);
        let (mut timestamp, mut fields) = (String::new(), String::new());
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        context.format_fields(Writer::new(&mut fields), event)?;
        let level = (*metadata.level()).max(Level::WARN);
        F::write(writer, LibraryLine { timestamp, level, target: target.0, fields })
    }
}

/// The module that logged the line. Lines of the `log` crate name it in a field.
struct Target(String);

impl Visit for Target {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            value.clone_into(&mut self.0);
        }
    }
}
