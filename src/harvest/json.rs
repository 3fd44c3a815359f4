//! JSON values as Harvest sends them: a number keeps its digits, and every object stays an object.
//!
//! `serde_json::Value` is not safe for untrusted text. If an object's first key is one of its private names
//! (`$serde_json::private::RawValue`, or `$serde_json::private::Number` with the feature `arbitrary_precision`), it
//! reads the object as another value.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::Deref;

use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// rosterd rejects records that are nested deeper: parsing takes stack here and in PostgreSQL.
const MAX_DEPTH: usize = 127;

/// Far more than names and roles need.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// Few records are longer.
const USUAL_BYTES: usize = 1 << 10;

/// Text, unescaped. If it has no escapes, it is part of the record's text and not copied.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        self
    }
}

/// The members of an object, sorted by key, so that their hash does not depend on the order in the response.
/// If a key occurs twice, the last value counts, as in `jsonb`.
pub type Members<'a> = BTreeMap<Text<'a>, Json<'a>>;

pub enum Json<'a> {
    Null,
    Bool(bool),
    /// The number as sent.
    Number(&'a str),
    Text(Text<'a>),
    Array(Vec<Self>),
    Object(Members<'a>),
}

/// Parses the members of an object; `None` if it is no object, a text is invalid Unicode, or a value is nested too deep.
pub(super) fn members(object: &RawValue) -> Option<Members<'_>> {
    MembersWithin(MAX_DEPTH).of(object)
}

/// The members in a form that no other members have, for their hash.
pub(super) fn digest(members: &Members<'_>) -> Vec<u8> {
    let mut digest = Vec::with_capacity(USUAL_BYTES);
    append_members(members, &mut digest);
    digest
}

fn append_members(members: &Members<'_>, digest: &mut Vec<u8>) {
    digest.push(b'{');
    for (key, value) in members {
        append_text(b'"', key, digest);
        value.append(digest);
    }
    digest.push(b'}');
}

/// A text starts with a byte for its kind and ends with NUL, which [`unstorable`] refuses in texts.
fn append_text(kind: u8, text: &str, digest: &mut Vec<u8>) {
    digest.push(kind);
    digest.extend_from_slice(text.as_bytes());
    digest.push(0);
}

/// Reads the members of an object. Their values are nested at most this deep.
struct MembersWithin(usize);

impl MembersWithin {
    fn of(self, object: &RawValue) -> Option<Members<'_>> {
        self.deserialize(&mut serde_json::Deserializer::from_str(object.get())).ok()
    }
}

impl<'de> DeserializeSeed<'de> for MembersWithin {
    type Value = Members<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersWithin {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::new();
        while let Some(key) = map.next_key()? {
            let value = Json::parse(map.next_value()?, self.0);
            members
                .insert(key, value.ok_or_else(|| A::Error::custom("invalid Unicode, or nested too deep"))?);
        }
        Ok(members)
    }
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
            let exponent = number.split(['e', 'E']).nth(1).map_or(Ok(0), str::parse::<i16>);
            let storable = number.len() <= 500 && exponent.is_ok_and(|exponent| exponent.abs() <= 500);
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
            b'"' => Self::Text(Text(match text.strip_prefix('"')?.strip_suffix('"')? {
                escaped if escaped.contains('\\') => Cow::Owned(serde_json::from_str(text).ok()?),
                text => Cow::Borrowed(text),
            })),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Self::Array(items.into_iter().map(|item| Self::parse(item, depth)).collect::<Option<_>>()?)
            }
            b'{' => Self::Object(MembersWithin(depth).of(raw)?),
            _ => Self::Number(text),
        })
    }

    fn append(&self, digest: &mut Vec<u8>) {
        match self {
            Self::Null => digest.push(b'n'),
            Self::Bool(flag) => digest.push(if *flag { b't' } else { b'f' }),
            Self::Number(digits) => append_text(b'0', digits, digest),
            Self::Text(text) => append_text(b'"', text, digest),
            Self::Array(items) => {
                digest.push(b'[');
                for item in items {
                    item.append(digest);
                }
                digest.push(b']');
            }
            Self::Object(members) => append_members(members, digest),
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The digits as sent, if the value is a number.
    pub fn as_digits(&self) -> Option<&str> {
        if let Self::Number(digits) = self { Some(digits) } else { None }
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

    /// Keys and texts that look like the marks of a digest.
    #[test]
    fn different_members_have_different_digests() {
        let texts = [
            r#"{"a":{},"b":1,"}c":2}"#,
            r#"{"a":{"}b":1},"c":2}"#,
            r#"{"a":{"b":1},"c":2}"#,
            r#"{"a":[[],"b"]}"#,
            r#"{"a":[["b"]]}"#,
            r#"{"a":["]","b"]}"#,
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":null}"#,
            r#"{"a":"n"}"#,
            r#"{"a":true}"#,
            r#"{"a":false}"#,
            r#"{"a":1.0}"#,
            "{}",
        ];
        let digests = texts.map(|text| {
            let raw = RawValue::from_string(text.to_owned()).expect("JSON");
            digest(&members(&raw).expect("members"))
        });
        let different: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), texts.len());
    }

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
