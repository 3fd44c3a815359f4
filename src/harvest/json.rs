//! JSON values as Harvest sends them: a number keeps its digits, and every object stays an object.
//!
//! `serde_json::Value` is not safe for untrusted text. If an object's first key is one of its private names
//! (`$serde_json::private::RawValue`, or `$serde_json::private::Number` with the feature `arbitrary_precision`), it
//! reads the object as another value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::value::RawValue;

/// rosterd rejects records that are nested deeper: parsing takes stack here and in PostgreSQL.
const MAX_DEPTH: usize = 127;

/// Far more than names and roles need.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// The members of an object, sorted by key, so that the serialized text does not depend on the order in the response.
/// If a key occurs twice, the last value counts, as in `jsonb`.
pub type Members<'a> = BTreeMap<String, Json<'a>>;

#[derive(Serialize)]
#[serde(untagged)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    /// The number as sent.
    Number(&'a RawValue),
    /// Text, unescaped.
    Text(String),
    Array(Vec<Self>),
    Object(Members<'a>),
}

/// Parses the members of an object; `None` if a text is invalid Unicode or a value is nested too deep.
pub(super) fn members<'a>(object: &BTreeMap<String, &'a RawValue>) -> Option<Members<'a>> {
    object.iter().map(|(key, value)| Some((key.clone(), Json::parse(value, MAX_DEPTH)?))).collect()
}

/// The body with each byte that is not UTF-8 replaced by the JSON escape of a lone surrogate (`\udc80` to `\udcff`, the
/// notation of Python's `surrogateescape`). Without this, such a byte would make the whole page unreadable. With it,
/// only the record that contains the byte is rejected, because its text is invalid Unicode. Outside a text the escape
/// is a syntax error.
pub(super) fn escape_invalid_utf8(body: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(body).is_ok() {
        return Cow::Borrowed(body);
    }
    let mut text = String::with_capacity(body.len() + 64);
    for part in body.utf8_chunks() {
        text.push_str(part.valid());
        for byte in part.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\udc{byte:02x}");
        }
    }
    Cow::Owned(text.into_bytes())
}

/// Why a `jsonb` column would refuse the value. One such record would make PostgreSQL refuse the statement for its
/// page.
pub(super) fn unstorable(key: &str, value: &Json<'_>) -> Option<&'static str> {
    const NUL: &str = "holds a NUL character, which PostgreSQL cannot store";
    match value {
        _ if key.contains('\0') => Some(NUL),
        Json::Text(text) if text.len() > MAX_TEXT_BYTES => Some("holds a text longer than 64 KiB"),
        Json::Text(text) => text.contains('\0').then_some(NUL),
        // PostgreSQL's `numeric` ends at 131,072 digits; no amount of money needs 500.
        Json::Number(number) => {
            let digits = number.get();
            let exponent = digits.split(['e', 'E']).nth(1).map_or(Ok(0), str::parse::<i16>);
            let storable = digits.len() <= 500 && exponent.is_ok_and(|exponent| exponent.abs() <= 500);
            (!storable).then_some("holds a number with more than 500 digits or an exponent beyond 500")
        }
        Json::Array(items) => items.iter().find_map(|item| unstorable("", item)),
        Json::Object(fields) => fields.iter().find_map(|(key, value)| unstorable(key, value)),
        Json::Null | Json::Bool(_) => None,
    }
}

impl<'a> Json<'a> {
    /// A `RawValue` is valid JSON without surrounding white space, so its first byte determines the type.
    fn parse(raw: &'a RawValue, depth: usize) -> Option<Self> {
        let (text, depth) = (raw.get(), depth.checked_sub(1)?);
        Some(match text.as_bytes().first()? {
            b'n' => Self::Null,
            b't' | b'f' => Self::Bool(text == "true"),
            b'"' => Self::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Self::Array(items.into_iter().map(|item| Self::parse(item, depth)).collect::<Option<_>>()?)
            }
            b'{' => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
                let members = members.into_iter().map(|(key, value)| Some((key, Self::parse(value, depth)?)));
                Self::Object(members.collect::<Option<_>>()?)
            }
            _ => Self::Number(raw),
        })
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The digits as sent, if the value is a number.
    pub fn as_digits(&self) -> Option<&str> {
        if let Self::Number(number) = self { Some(number.get()) } else { None }
    }

    /// The number, if the value is a 64-bit integer without fraction and exponent.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_digits()?.parse().ok()
    }

    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        if let Self::Object(members) = self { members.get(key) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_utf8_is_not_copied() {
        assert!(matches!(escape_invalid_utf8("{\"a\":\"ä\"}".as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn invalid_byte_becomes_a_lone_surrogate() {
        assert_eq!(escape_invalid_utf8(b"\"caf\xe9\"").as_ref(), br#""caf\udce9""#);
        assert_eq!(escape_invalid_utf8(b"\"\xc3").as_ref(), br#""\udcc3"#);
    }
}
