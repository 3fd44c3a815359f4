//! The body of PATCH (RFC 7644, section 3.5.2).

use serde_json::Value as Json;

use super::body::{self, Object};
use super::error::ScimError;
use super::intent::{IntentBuilder, UserIntent, Verb};
use super::path::Target;
use super::value::{self, Choice};

const MAX_OPERATIONS: usize = 1000;

impl UserIntent {
    /// The body of `PATCH /Users/{id}`. The operations are read in order, and the last one counts.
    pub fn from_patch(body: &[u8]) -> Result<Self, ScimError> {
        let body = body::parse(body)?;
        let operations = match body.get("operations") {
            Some(Json::Array(operations)) => operations.as_slice(),
            Some(operation @ Json::Object(_)) => std::slice::from_ref(operation),
            _ => return Err(ScimError::invalid_syntax("the body has no list of Operations")),
        };
        if operations.len() > MAX_OPERATIONS {
            return Err(ScimError::new(413, "the body has more than 1,000 operations"));
        }
        let mut builder = IntentBuilder::default();
        for operation in operations {
            let Json::Object(operation) = operation else {
                return Err(ScimError::invalid_syntax("an operation is not an object"));
            };
            let verb = verb(operation)?;
            if let Err(problem) = apply(&mut builder, verb, operation) {
                builder.note(problem);
            }
        }
        builder.finish()
    }
}

fn verb(operation: &Object) -> Result<Verb, ScimError> {
    let name = operation.get("op").and_then(Json::as_str).map(|name| name.trim().to_ascii_lowercase());
    match name.as_deref() {
        Some("add") => Ok(Verb::Add),
        Some("replace") => Ok(Verb::Replace),
        Some("remove") => Ok(Verb::Remove),
        _ => Err(ScimError::invalid_syntax("the op of an operation is not add, replace or remove")),
    }
}

fn apply(builder: &mut IntentBuilder, verb: Verb, operation: &Object) -> Result<(), ScimError> {
    let target = match operation.get("path") {
        None | Some(Json::Null) => None,
        Some(Json::String(path)) if path.trim().is_empty() => None,
        Some(Json::String(path)) => Some(Target::parse(path)?),
        Some(_) => {
            return Err(ScimError::bad_request("invalidPath", "the path of an operation is not a string"));
        }
    };
    let value = operation.get("value");
    match (verb, target, value) {
        (Verb::Remove, None, _) => {
            return Err(ScimError::bad_request("noTarget", "an operation removes and has no path"));
        }
        // Only these values are removed.
        (Verb::Remove, Some(target @ (Target::Emails | Target::Phones)), Some(list)) if !list.is_null() => {
            match value::choose(&target, list, true)? {
                Choice::Other => builder.ignore(target.path()),
                Choice::Nothing | Choice::Text(_) => builder.remove(&target),
            }
        }
        (Verb::Remove, Some(target), _) => builder.remove(&target),
        (_, _, None) => return Err(ScimError::invalid_value("an operation has no value")),
        (_, Some(target), Some(value)) => builder.set(&target, value, verb),
        (_, None, Some(Json::Object(members))) => builder.set_all(members, verb),
        (_, None, Some(_)) => {
            return Err(ScimError::invalid_value("an operation has no path, and its value is not an object"));
        }
    }
    Ok(())
}
