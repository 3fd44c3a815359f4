//! JSON values as Harvest sends them: a number keeps its digits, and every object stays an object.
//!
//! `serde_json::Value` is not safe for text from outside. It reads an object whose first key is one of its private names
//! (`$serde_json::private::RawValue`, with `arbitrary_precision` also `$serde_json::private::Number`) as another value.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

/// Deeper records are refused: reading them takes stack, here and in PostgreSQL.
const DEEPEST: usize = 127;

/// The members of an object, sorted by key, so that its text does not depend on the order in which they were sent. Of a
/// key that is sent twice the last value counts, as in `jsonb`.
pub type Members<'a> = BTreeMap<String, Json<'a>>;

/// One value.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// The number as sent.
    Number(&'a RawValue),
    /// Text without its escapes.
    Text(String),
    /// A list.
    Array(Vec<Self>),
    /// An object.
    Object(Members<'a>),
}

/// Reads the members of an object; `None` where one of them holds text that is no Unicode, or is nested too deep.
pub(super) fn members<'a>(object: &BTreeMap<String, &'a RawValue>) -> Option<Members<'a>> {
    object.iter().map(|(key, value)| Some((key.clone(), Json::read(value, DEEPEST)?))).collect()
}

impl<'a> Json<'a> {
    /// A `RawValue` is valid JSON without white space around it, so its first byte says what it is.
    fn read(raw: &'a RawValue, depth: usize) -> Option<Self> {
        let (text, depth) = (raw.get(), depth.checked_sub(1)?);
        Some(match text.as_bytes().first()? {
            b'n' => Self::Null,
            b't' | b'f' => Self::Bool(text == "true"),
            b'"' => Self::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Self::Array(items.into_iter().map(|item| Self::read(item, depth)).collect::<Option<_>>()?)
            }
            b'{' => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
                let members = members.into_iter().map(|(key, value)| Some((key, Self::read(value, depth)?)));
                Self::Object(members.collect::<Option<_>>()?)
            }
            _ => Self::Number(raw),
        })
    }

    /// The flag, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number's digits, if it is one.
    pub fn as_digits(&self) -> Option<&str> {
        if let Self::Number(number) = self { Some(number.get()) } else { None }
    }

    /// The number, if it is a whole one of 64 bits, written without fraction and exponent.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_digits()?.parse().ok()
    }

    /// The items, if it is a list.
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The member of that key, if it is an object that has one.
    pub fn get(&self, key: &str) -> Option<&Self> {
        if let Self::Object(members) = self { members.get(key) } else { None }
    }
}
