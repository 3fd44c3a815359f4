//! The operations of a PATCH (RFC 7644, section 3.5.2).

use serde_json::Value as Json;

use super::body::Object;
use super::error::ScimError;
use super::intent::Verb;

const MAX_OPERATIONS: usize = 1000;

pub(super) struct Operation<'b> {
    /// Never [`Verb::Put`].
    pub verb: Verb,
    path: Option<&'b Json>,
    pub value: Option<&'b Json>,
}

impl<'b> Operation<'b> {
    pub fn list(body: &'b Object) -> Result<impl Iterator<Item = Result<Self, ScimError>>, ScimError> {
        let operations = match body.get("operations") {
            Some(Json::Array(operations)) => operations.as_slice(),
            Some(operation @ Json::Object(_)) => std::slice::from_ref(operation),
            _ => return Err(ScimError::invalid_syntax("the body has no list of Operations")),
        };
        if operations.len() > MAX_OPERATIONS {
            return Err(ScimError::new(413, "the body has more than 1,000 operations"));
        }
        Ok(operations.iter().map(|operation| match operation {
            Json::Object(operation) => Ok(Self {
                verb: verb(operation)?,
                path: operation.get("path"),
                value: operation.get("value"),
            }),
            _ => Err(ScimError::invalid_syntax("an operation is not an object")),
        }))
    }

    /// The path. `None` if there is none.
    pub fn path(&self) -> Result<Option<&'b str>, ScimError> {
        match self.path {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(path)) => Ok(Some(path.as_str()).filter(|path| !path.trim().is_empty())),
            Some(_) => Err(ScimError::bad_request("invalidPath", "the path of an operation is not a string")),
        }
    }

    pub fn without_path() -> ScimError {
        ScimError::bad_request("noTarget", "an operation removes and has no path")
    }

    pub fn without_object() -> ScimError {
        ScimError::invalid_value("an operation has no path, and its value is not an object")
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
