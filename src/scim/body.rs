//! Bodies of requests: JSON whose keys are in lower case, because names of SCIM attributes are compared without case.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::error::ScimError;

/// Bodies that are nested deeper are refused. SCIM needs five levels.
const MAX_DEPTH: usize = 64;

/// An object of SCIM. Its keys are in lower case.
pub type Object = Map<String, Json>;

/// Parses the body of a message, which names its schemas. Which ones is not checked: clients confuse them.
pub fn parse(body: &[u8]) -> Result<Object, ScimError> {
    let mut object = object(body)?;
    let is_named = match object.remove("schemas") {
        Some(Json::String(urn)) => !urn.is_empty(),
        Some(Json::Array(urns)) => !urns.is_empty() && urns.iter().all(Json::is_string),
        _ => false,
    };
    is_named.then_some(object).ok_or_else(|| {
        ScimError::invalid_syntax("schemas is missing: name the schemas of the body in a list of strings")
    })
}

fn object(body: &[u8]) -> Result<Object, ScimError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = Seed(MAX_DEPTH).deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    match value {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err(ScimError::invalid_syntax("the body is not a JSON object")),
        // The library's text may quote the body.
        Err(error) => Err(ScimError::invalid_syntax(format!(
            "the body is not valid JSON with unique keys and at most {MAX_DEPTH} levels: line {}, column {}",
            error.line(),
            error.column()
        ))),
    }
}

/// The number of levels that are left. `serde_json::Value` itself would keep the last of repeated keys, and read objects
/// with some private keys as other values.
struct Seed(usize);

impl Seed {
    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        self.0.checked_sub(1).ok_or_else(|| E::custom("too many levels"))
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let (depth, mut items) = (self.deeper()?, Vec::new());
        while let Some(item) = list.next_element_seed(Seed(depth))? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let (depth, mut object) = (self.deeper()?, Map::new());
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(Seed(depth))?;
            if object.insert(key.to_ascii_lowercase(), value).is_some() {
                return Err(A::Error::custom("a key is repeated"));
            }
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_lowered_values_are_kept_and_a_byte_order_mark_is_skipped() {
        let body = "\u{feff}{\"Schemas\": [\"x\"], \"UserName\": \"Ada\", \"a\": [1, -1, 1.5, true, null]}";
        let expected = json!({"username": "Ada", "a": [1, -1, 1.5, true, null]});
        assert_eq!(Json::Object(parse(body.as_bytes()).expect("valid")), expected);
    }

    #[test]
    fn private_keys_of_the_json_library_are_ordinary_keys() {
        let body = br#"{"schemas": "x", "a": {"$serde_json::private::RawValue": "true"}}"#;
        let object = parse(body).expect("valid");
        assert_eq!(object["a"], json!({"$serde_json::private::rawvalue": "true"}));
    }

    #[test]
    fn malformed_bodies_are_invalid_syntax_and_are_not_quoted() {
        let nested = |levels: usize| {
            format!(r#"{{"schemas": ["x"], "a": {}{}}}"#, "[".repeat(levels), "]".repeat(levels))
        };
        assert!(parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        let bodies = [
            String::new(),
            "[]".to_owned(),
            "{\"schemas\": [\"x\"]} secret".to_owned(),
            r#"{"schemas": ["x"], "secret": 1, "Secret": 2}"#.to_owned(),
            r#"{"schemas": ["x"], "secret": tru}"#.to_owned(),
            nested(MAX_DEPTH),
            nested(100_000),
        ];
        for body in bodies {
            let error = parse(body.as_bytes()).expect_err("invalid");
            assert_eq!((error.status, error.scim_type), (400, Some("invalidSyntax")));
            assert!(!error.detail.to_lowercase().contains("secret"), "{}", error.detail);
        }
        assert!(parse(b"{\"schemas\": [\"x\"], \"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn schemas_must_be_named_but_may_be_any() {
        for schemas in ["", r#""schemas": []"#, r#""schemas": null"#, r#""schemas": [1]"#, r#""schemas": """#]
        {
            assert!(parse(format!("{{{schemas}}}").as_bytes()).is_err(), "{schemas}");
        }
        assert!(parse(br#"{"schemas": ["urn:scim:schemas:core:1.0"]}"#).is_ok());
    }
}
