//! Lines of libraries: at WARN at most, since ERROR pages someone, and with an `event` as every alert expects it.

use std::fmt;

use tracing::{Event, Level, Subscriber, field::Field, field::Visit};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// The `event` of a library's line.
pub(super) const EVENT: &str = "library";

/// Whether a line with this target is a library's.
pub(super) fn is_library(target: &str) -> bool {
    target.split("::").next() != Some("rosterd")
}

/// The level that a library's line shows.
pub(super) fn level(level: Level) -> Level {
    level.max(Level::WARN)
}

/// Lines for people: the library's own format, except for libraries' lines.
pub(super) struct Pretty(Format<Full>);

impl Default for Pretty {
    fn default() -> Self {
        Self(tracing_subscriber::fmt::format().with_target(false))
    }
}

impl<S, N> FormatEvent<S, N> for Pretty
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if !is_library(metadata.target()) {
            return self.0.format_event(context, writer, event);
        }
        let mut target = Target(metadata.target().to_owned());
        event.record(&mut target);
        SystemTime.format_time(&mut writer)?;
        write!(writer, " {:>5} ", level(*metadata.level()))?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer, " event={EVENT:?} target={:?}", target.0)
    }
}

/// Where a line comes from. For lines of the `log` crate a field says so.
struct Target(String);

impl Visit for Target {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            value.clone_into(&mut self.0);
        }
    }
}
