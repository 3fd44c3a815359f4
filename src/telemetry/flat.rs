//! One event as one flat JSON object. The library's own JSON can flatten an event's fields but only nests
//! those of the spans around it, and `account_id` should be found in one place whoever set it. So: the fields
//! of the spans from the outermost in, then the event's, and the nearest wins.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use super::libraries;

/// Lines such as `{"timestamp":…,"level":"INFO","message":…,"event":"cycle.finished","account_id":1}`.
pub(super) struct Flat;

impl<S> FormatEvent<S, JsonFields> for Flat
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Map::<String, Value>::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            let extensions = span.extensions();
            let Some(recorded) = extensions.get::<FormattedFields<JsonFields>>() else { continue };
            // A span keeps its fields as the text of an object.
            if let Ok(recorded) = serde_json::from_str::<Map<String, Value>>(recorded) {
                fields.extend(recorded);
            }
        }
        let mut visitor = Fields { fields, target: event.metadata().target().to_owned() };
        event.record(&mut visitor);
        let Fields { mut fields, target } = visitor;

        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut line = Line { writer: &mut writer, first: true };
        line.entry("timestamp", &timestamp.into())?;
        let (level, name) = (*event.metadata().level(), fields.remove("event"));
        let is_library = libraries::is_library(&target);
        let level = if is_library { libraries::level(level) } else { level };
        line.entry("level", &level.as_str().into())?;
        line.entry("message", &fields.remove("message").unwrap_or_default())?;
        match name {
            Some(event) if !is_library => line.entry("event", &event)?,
            _ => {
                if is_library {
                    line.entry("event", &libraries::EVENT.into())?;
                }
                line.entry("target", &target.into())?;
            }
        }
        for (name, value) in &fields {
            // These are taken; a second one would make the object ambiguous.
            if !matches!(name.as_str(), "timestamp" | "level" | "target") {
                line.entry(name, value)?;
            }
        }
        line.end()
    }
}

/// An object written entry by entry, in the order of reading.
struct Line<'a, 'w> {
    writer: &'a mut Writer<'w>,
    first: bool,
}

impl Line<'_, '_> {
    fn entry(&mut self, name: &str, value: &Value) -> fmt::Result {
        let opening = if std::mem::take(&mut self.first) { '{' } else { ',' };
        write!(self.writer, "{opening}{}:{value}", Value::from(name))
    }

    fn end(self) -> fmt::Result {
        self.writer.write_str("}\n")
    }
}

/// Collects the fields of an event.
struct Fields {
    fields: Map<String, Value>,
    target: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        self.fields.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            // Where a line of the older `log` crate really came from.
            "log.target" => value.clone_into(&mut self.target),
            "log.module_path" | "log.file" => {}
            _ => self.put(field, value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    /// As `Duration::as_millis` has them: a number where it fits into one that readers of JSON can hold.
    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.record_u64(field, value),
            Err(_) => self.put(field, value.to_string()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() != "log.line" {
            self.put(field, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}
