//! The parameters of a list, and its response (RFC 7644, sections 3.4.2 and 3.4.3).

use serde_json::Value as Json;

use super::error::ScimError;
use super::projection::Projection;
use super::user_query::UserQuery;

/// The parameters of a list.
#[derive(Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Which users.
    pub filter: Option<UserQuery>,
    /// The position of the first user, from 1. Fits into a `bigint`.
    pub start_index: u64,
    /// The number of users at most, up to 200; 0 if only the total is wanted.
    pub count: u64,
    /// Which attributes.
    pub projection: Projection,
}

impl ListQuery {
    /// The parameters of `GET /Users`.
    pub fn from_query_string(_query: &str) -> Result<Self, ScimError> {
        todo!()
    }

    /// The body of `POST /Users/.search`.
    pub fn from_search_body(_body: &[u8]) -> Result<Self, ScimError> {
        todo!()
    }
}

/// The response with a part of a list.
pub fn list_response(_total: u64, _start_index: u64, _resources: Vec<Json>) -> Json {
    todo!()
}
