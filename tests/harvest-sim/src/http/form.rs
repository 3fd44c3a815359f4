//! Token requests: the fields of the body, a form or JSON, and the application's credentials.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::call::text;
use super::query::Query;
use crate::oauth::Grant;

/// A decoded token request.
pub(super) struct Form {
    fields: Query,
    basic: Option<(String, String)>,
}

impl Form {
    pub fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let content_type = text(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        let fields = if content_type.starts_with("application/json") {
            Query::of_pairs(json(body))
        } else {
            Query::of(&String::from_utf8_lossy(body))
        };
        Self { fields, basic: text(headers, AUTHORIZATION.as_str()).and_then(basic) }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The application's id and secret, from the `Basic` header or, as documented, from the body.
    pub fn client(&self) -> Option<(&str, &str)> {
        match &self.basic {
            Some((id, secret)) => Some((id, secret)),
            None => self.get("client_id").zip(self.get("client_secret")),
        }
    }

    pub fn grant(&self) -> Grant {
        match self.get("grant_type") {
            Some("authorization_code") => Grant::AuthorizationCode,
            Some("refresh_token") => Grant::RefreshToken,
            _ => Grant::Other,
        }
    }
}

fn json(body: &[u8]) -> impl Iterator<Item = (String, String)> {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    fields.into_iter().filter_map(|(name, value)| match value {
        Value::String(text) => Some((name, text)),
        Value::Number(number) => Some((name, number.to_string())),
        _ => None,
    })
}

/// Decodes a `Basic` header. In OAuth2, the id and the secret are also form-encoded (RFC 6749, section 2.3.1).
fn basic(header: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let plain = |text: &str| {
        form_urlencoded::parse(format!("={text}").as_bytes()).next().map(|(_, text)| text.into_owned())
    };
    plain(id).zip(plain(secret))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn form(content_type: &'static str, authorization: Option<String>, body: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        Form::of(&headers, body.as_bytes())
    }

    #[test]
    fn form_and_json_bodies_are_equivalent() {
        for form in [
            form("application/x-www-form-urlencoded", None, "grant_type=refresh_token&client_id=a%2Bb"),
            form(
                "application/json; charset=utf-8",
                None,
                r#"{"grant_type":"refresh_token","client_id":"a+b"}"#,
            ),
        ] {
            assert_eq!((form.grant(), form.get("client_id")), (Grant::RefreshToken, Some("a+b")));
            assert_eq!(form.client(), None, "there is no secret");
        }
        assert_eq!(form("application/json", None, "grant_type=refresh_token").grant(), Grant::Other);
    }

    #[test]
    fn basic_header_credentials_are_base64_and_form_decoded() {
        let header = |text: &str| Some(format!("Basic {}", BASE64_STANDARD.encode(text)));
        let body = "client_id=of&client_secret=body";
        let kind = "application/x-www-form-urlencoded";
        assert_eq!(form(kind, header("a%3Ab:c+%26"), body).client(), Some(("a:b", "c &")));
        assert_eq!(form(kind, header("no colon"), body).client(), Some(("of", "body")));
    }
}
