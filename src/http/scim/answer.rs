//! Responses.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ALLOW, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Response, StatusCode};
use futures::StreamExt;
use futures::stream;
use serde_json::Value as Json;

use crate::scim::{GroupRow, Projection, ScimError, UserGroup, UserRow};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Default)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Option<Json>,
    headers: Vec<(HeaderName, String)>,
}

impl Answer {
    pub fn ok(body: Json) -> Self {
        Self { body: Some(body), ..Self::default() }
    }

    pub fn empty(status: StatusCode) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn user(user: &UserRow, groups: &[UserGroup], base: &str, projection: &Projection) -> Self {
        Self::ok(user.render(groups, base, projection)).with(ETAG, user.etag())
    }

    pub fn group(group: &GroupRow, base: &str, projection: &Projection) -> Self {
        Self::ok(group.render(base, projection)).with(ETAG, group.etag())
    }

    /// The same for a new resource.
    #[must_use]
    pub fn created(self, location: String) -> Self {
        Self { status: StatusCode::CREATED, ..self.with(LOCATION, location) }
    }

    /// The same response for every failure of authentication.
    pub fn unauthorized() -> Self {
        let detail = "the request has no bearer token that is valid for this account";
        Self::from(ScimError::new(401, detail)).with(WWW_AUTHENTICATE, "Bearer")
    }

    pub fn not_allowed(allowed: &str) -> Self {
        Self::from(ScimError::new(405, "the resource does not have this method")).with(ALLOW, allowed)
    }

    #[must_use]
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The response. After the body and before the end of the response, `answered` runs: it records that the client has the
    /// result. It does not run if the client is gone.
    pub fn into_response(
        self,
        request_id: &str,
        answered: Option<impl Future<Output = ()> + Send + 'static>,
    ) -> Response<Body> {
        let text = self.body.map(|body| Bytes::from(body.to_string()));
        let has_body = text.is_some();
        let body = match (text, answered) {
            (Some(text), Some(answered)) => {
                let end = stream::once(answered).filter_map(|()| async { None });
                Body::from_stream(stream::iter([Ok::<_, Infallible>(text)]).chain(end))
            }
            (text, _) => text.map_or_else(Body::empty, Body::from),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/scim+json"));
        }
        for (name, value) in self.headers.into_iter().chain([(REQUEST_ID, request_id.to_owned())]) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

impl From<ScimError> for Answer {
    fn from(error: ScimError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let answer = Self { status, body: Some(error.to_json()), headers: Vec::new() };
        match error.retry_after {
            Some(seconds) => answer.with(RETRY_AFTER, seconds.to_string()),
            None => answer,
        }
    }
}
