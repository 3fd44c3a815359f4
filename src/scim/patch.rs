//! The body of `PATCH /Users/{id}`.

use serde_json::Value as Json;

use super::body;
use super::error::ScimError;
use super::intent::{IntentBuilder, UserIntent, Verb};
use super::operation::Operation;
use super::path::Target;
use super::value::{self, Choice};

impl UserIntent {
    /// The body of `PATCH /Users/{id}`. The operations are read in order, and the last one counts.
    pub fn from_patch(body: &[u8]) -> Result<Self, ScimError> {
        let mut builder = IntentBuilder::default();
        for operation in Operation::list(&body::parse(body)?)? {
            if let Err(problem) = apply(&mut builder, &operation?) {
                builder.note(problem);
            }
        }
        builder.finish()
    }
}

fn apply(builder: &mut IntentBuilder, operation: &Operation<'_>) -> Result<(), ScimError> {
    let target = operation.path()?.map(Target::parse).transpose()?;
    match (operation.verb, target, operation.value) {
        (Verb::Remove, None, _) => return Err(Operation::without_path()),
        // Only these values are removed.
        (Verb::Remove, Some(target @ (Target::Emails | Target::Phones)), Some(list)) if !list.is_null() => {
            match value::choose(&target, list, true)? {
                Choice::Other => builder.ignore(target.path()),
                Choice::Nothing | Choice::Text(_) => builder.remove(&target),
            }
        }
        (Verb::Remove, Some(target), _) => builder.remove(&target),
        (_, _, None) => return Err(ScimError::invalid_value("an operation has no value")),
        (verb, Some(target), Some(value)) => builder.set(&target, value, verb),
        (verb, None, Some(Json::Object(members))) => builder.set_all(members, verb),
        (_, None, Some(_)) => return Err(Operation::without_object()),
    }
    Ok(())
}
