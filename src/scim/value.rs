//! Values of attributes as directories send them: lists where one value is meant, truth values as texts.

use serde_json::Value as Json;

use super::error::ScimError;
use super::path::Target;
use super::schema::WORK;
use crate::roster::write::is_storable;

/// An id as rosterd writes it.
pub(super) fn parse_id(text: &str) -> Option<i64> {
    text.parse().ok().filter(|id: &i64| *id > 0 && id.to_string() == text)
}

/// The value inside lists with one item and objects with a `value`. An empty list is null.
fn scalar(mut value: &Json) -> &Json {
    loop {
        value = match value {
            Json::Array(items) if items.len() <= 1 => items.first().unwrap_or(&Json::Null),
            Json::Object(members) => match members.get("value") {
                Some(value) => value,
                None => return value,
            },
            _ => return value,
        }
    }
}

/// The items of a list. Another value is a list of itself, and null is an empty list.
pub fn items(value: &Json) -> &[Json] {
    match value {
        Json::Null => &[],
        Json::Array(items) => items,
        item => std::slice::from_ref(item),
    }
}

/// A text without surrounding white space. `None` for null.
pub fn text(path: &str, value: &Json) -> Result<Option<String>, ScimError> {
    match scalar(value) {
        Json::Null => Ok(None),
        Json::String(text) => storable(path, text).map(Some),
        _ => Err(ScimError::invalid_value(format!("{path} is not a string"))),
    }
}

fn storable(path: &str, text: &str) -> Result<String, ScimError> {
    let text = text.trim();
    is_storable(text).map_err(|problem| ScimError::invalid_value(format!("{path} {problem}")))?;
    Ok(text.to_owned())
}

/// A truth value, also as text in any case. `None` for null.
pub fn flag(target: &Target, value: &Json) -> Result<Option<bool>, ScimError> {
    match scalar(value) {
        Json::Null => Ok(None),
        Json::Bool(flag) => Ok(Some(*flag)),
        Json::String(text) if text.trim().eq_ignore_ascii_case("true") => Ok(Some(true)),
        Json::String(text) if text.trim().eq_ignore_ascii_case("false") => Ok(Some(false)),
        _ => Err(ScimError::invalid_value(format!("{} is neither true nor false", target.path()))),
    }
}

/// What a list of e-mail addresses or telephone numbers says of the one that rosterd has.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing: the list has values of other types only.
    Other,
    Nothing,
    Text(String),
}

struct Entry {
    text: String,
    kind: String,
    is_primary: bool,
}

/// Chooses from a list of addresses or numbers. `is_addition`: what the list does not have stays.
pub fn choose(target: &Target, list: &Json, is_addition: bool) -> Result<Choice, ScimError> {
    let items = items(list);
    if items.is_empty() {
        return Ok(Choice::Nothing);
    }
    let entries = items.iter().map(|item| entry(target, item)).collect::<Result<Vec<_>, _>>()?;
    let (empty, full): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.text.is_empty());
    let is_email = *target == Target::Emails;
    let of_kind = |entries: &[Entry], kind: &str| entries.iter().position(|entry| entry.kind == kind);
    let chosen = |entries: &[Entry]| {
        let primary = entries.iter().position(|entry| is_email && entry.is_primary);
        let only = (is_email && !is_addition && entries.len() == 1).then_some(0);
        primary.or_else(|| of_kind(entries, WORK)).or_else(|| of_kind(entries, "")).or(only)
    };
    Ok(match chosen(&full) {
        Some(at) => full.into_iter().nth(at).map_or(Choice::Other, |entry| Choice::Text(entry.text)),
        None if chosen(&empty).is_some() => Choice::Nothing,
        None => Choice::Other,
    })
}

fn entry(target: &Target, item: &Json) -> Result<Entry, ScimError> {
    let (value, kind, is_primary) = match item {
        Json::Object(members) => {
            let kind = members.get("type").and_then(Json::as_str).unwrap_or_default();
            let is_primary = members.get("primary").is_some_and(|it| flag(target, it) == Ok(Some(true)));
            (members.get("value").unwrap_or(&Json::Null), kind, is_primary)
        }
        item => (item, "", false),
    };
    let text = text(target.path(), value)?.unwrap_or_default();
    Ok(Entry { text, kind: kind.trim().to_ascii_lowercase(), is_primary })
}
