//! Error responses (RFC 7644, section 3.12).

use serde_json::{Value as Json, json};

/// An error response. `detail` may contain names of attributes, and never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ScimError {
    pub status: u16,
    /// The keyword by which clients distinguish errors with one status.
    pub scim_type: Option<&'static str>,
    pub detail: String,
    /// Seconds for the header `Retry-After`.
    pub retry_after: Option<u32>,
}

impl ScimError {
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, scim_type: None, detail: detail.into(), retry_after: None }
    }

    /// Status 400: the request is wrong.
    pub fn bad_request(scim_type: &'static str, detail: impl Into<String>) -> Self {
        Self { scim_type: Some(scim_type), ..Self::new(400, detail) }
    }

    /// Status 400: the body is not JSON, or not a message of SCIM.
    pub fn invalid_syntax(detail: impl Into<String>) -> Self {
        Self::bad_request("invalidSyntax", detail)
    }

    /// Status 400: an attribute or a parameter has a value that it cannot have.
    pub fn invalid_value(detail: impl Into<String>) -> Self {
        Self::bad_request("invalidValue", detail)
    }

    /// Status 400: the filter is not supported.
    pub fn invalid_filter(detail: impl Into<String>) -> Self {
        Self::bad_request("invalidFilter", detail)
    }

    /// Status 400: the attribute cannot be changed so.
    pub fn mutability(detail: impl Into<String>) -> Self {
        Self::bad_request("mutability", detail)
    }

    /// Status 409: another user has the e-mail address, `userName` or `externalId`.
    pub fn uniqueness(detail: impl Into<String>) -> Self {
        Self { scim_type: Some("uniqueness"), ..Self::new(409, detail) }
    }

    /// Status 503: the same request may succeed after so many seconds.
    pub fn unavailable(retry_after: u32, detail: impl Into<String>) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(503, detail) }
    }

    pub fn to_json(&self) -> Json {
        let mut body = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
            "status": self.status.to_string(),
            "detail": self.detail,
        });
        if let Some(scim_type) = self.scim_type {
            body["scimType"] = json!(scim_type);
        }
        body
    }
}
