//! The fields of a write request, from a JSON object or a form and from the query. Rails merges them.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use chrono::NaiveDate;
use serde_json::{Map, Value};

use super::call::text;
use super::query::Query;
use super::response::Response;

pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// `None` if the body is malformed.
    pub fn of(headers: &HeaderMap, query: &Query, body: &[u8]) -> Option<Self> {
        let mut fields = Map::new();
        merge(&mut fields, query);
        let content_type = text(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        if content_type.starts_with("application/json") {
            if !body.is_empty() {
                fields.extend(serde_json::from_slice::<Map<String, Value>>(body).ok()?);
            }
        } else {
            merge(&mut fields, &Query::of(&String::from_utf8_lossy(body)));
        }
        Some(Self(fields))
    }

    /// All fields, for the request log.
    pub fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader { fields: &self.0, errors: Vec::new() }
    }
}

/// Adds form or query parameters. `roles[]=a&roles[]=b` is a list.
fn merge(fields: &mut Map<String, Value>, pairs: &Query) {
    for (name, value) in pairs.fields() {
        let value = Value::String(value.to_owned());
        match name.strip_suffix("[]") {
            None => drop(fields.insert(name.to_owned(), value)),
            Some(name) => match fields.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(list) => list.push(value),
                other => *other = value,
            },
        }
    }
}

/// Reads single fields and collects their validation errors.
pub(super) struct Reader<'f> {
    fields: &'f Map<String, Value>,
    errors: Vec<String>,
}

impl Reader<'_> {
    /// A required text that is not blank.
    pub fn required(&mut self, name: &str) -> String {
        let text = self.text(name);
        if text.is_none() {
            self.add_error(name, "can't be blank");
        }
        text.unwrap_or_default()
    }

    /// An optional text that is not blank.
    pub fn present(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if text.trim().is_empty() {
            self.add_error(name, "can't be blank");
        }
        Some(text)
    }

    /// A text. Null is an empty text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, |value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null => Some(String::new()),
            _ => None,
        })
    }

    /// A boolean. Null is the same as a missing field.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        self.read(name, |value| match value {
            Value::Bool(flag) => Some(Some(*flag)),
            Value::String(text) if text == "true" => Some(Some(true)),
            Value::String(text) if text == "false" => Some(Some(false)),
            Value::Null => Some(None),
            _ => None,
        })?
    }

    /// A non-negative integer.
    pub fn whole(&mut self, name: &str) -> Option<i64> {
        self.read(name, |value| id(value).filter(|number| *number >= 0))
    }

    /// A non-negative amount or null.
    #[expect(clippy::option_option, reason = "missing, null and a value are three different requests")]
    pub fn amount(&mut self, name: &str) -> Option<Option<f64>> {
        self.read(name, |value| {
            match value {
                Value::Null => Some(None),
                Value::Number(number) => Some(number.as_f64()),
                Value::String(text) => Some(Some(text.parse().ok()?)),
                _ => None,
            }
            .filter(|amount| amount.is_none_or(|amount| amount >= 0.0))
        })
    }

    /// An id, as a number or a text.
    pub fn id(&mut self, name: &str) -> Option<i64> {
        self.read(name, |value| if value.is_null() { Some(None) } else { id(value).map(Some) })?
    }

    pub fn ids(&mut self, name: &str) -> Option<Vec<i64>> {
        self.read(name, |value| value.as_array()?.iter().map(id).collect())
    }

    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        self.read(name, |value| value.as_array()?.iter().map(|it| it.as_str().map(str::to_owned)).collect())
    }

    /// A date or null.
    pub fn day(&mut self, name: &str) -> Option<NaiveDate> {
        self.read(name, |value| match value {
            Value::Null => Some(None),
            value => value.as_str()?.parse().ok().map(Some),
        })?
    }

    /// Adds a validation error.
    pub fn add_error(&mut self, name: &str, what: &str) {
        self.errors.push(format!("{} {what}", label(name)));
    }

    /// Returns a 422 with all validation errors, if there are any.
    pub fn finish(self) -> Result<(), Response> {
        if self.errors.is_empty() { Ok(()) } else { Err(Response::unprocessable(&self.errors.join(", "))) }
    }

    fn read<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let read = read(self.fields.get(name)?);
        if read.is_none() {
            self.add_error(name, "is invalid");
        }
        read
    }
}

fn id(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_i64(),
    }
}

/// The name of a field in Rails error messages: `First name` for `first_name`, `User` for `user_id`.
fn label(name: &str) -> String {
    let words = name.strip_suffix("_id").unwrap_or(name).replace('_', " ");
    let (first, rest) = words.split_at(words.len().min(1));
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn fields(content_type: &'static str, query: &str, body: &str) -> Option<Value> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Some(Fields::of(&headers, &Query::of(query), body.as_bytes())?.value())
    }

    #[test]
    fn body_and_query_fields_are_merged_without_credentials() {
        let expected = serde_json::json!({ "name": "A", "roles": ["b", "c"], "id": "7" });
        let form = "name=A&roles[]=b&roles[]=c";
        assert_eq!(
            fields("application/x-www-form-urlencoded", "id=7&access_token=secret", form).unwrap(),
            expected
        );
        let json = r#"{"name":"A","roles":["b","c"]}"#;
        assert_eq!(fields("application/json; charset=utf-8", "id=7", json).unwrap(), expected);
        assert_eq!(fields("application/json", "", r#"["no", "object"]"#), None);
        assert_eq!(fields("application/json", "", "{"), None);
    }

    #[test]
    fn validation_errors_are_joined_with_rails_field_names() {
        let Some(Value::Object(map)) = fields("application/json", "", r#"{"weekly_capacity":-1}"#) else {
            panic!("not an object")
        };
        let fields = Fields(map);
        let mut reader = fields.reader();
        reader.required("first_name");
        reader.whole("weekly_capacity");
        reader.add_error("user_id", "can't be blank");
        let response = reader.finish().err().unwrap();
        let expected = "First name can't be blank, Weekly capacity is invalid, User can't be blank";
        assert_eq!(response.body, format!(r#"{{"message":"{expected}"}}"#).into_bytes());
    }
}
