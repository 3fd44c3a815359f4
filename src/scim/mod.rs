//! SCIM 2.0 (RFC 7643, RFC 7644) as pure functions: schema, filters, PATCH, and the writes that a request asks for.
//!
//! No async code, no HTTP, no SQL and no clock. `http` parses a request with these functions, stores and sends what they
//! return, and renders the result with them. There is no document that a PATCH edits: each body becomes a [`UserIntent`] or
//! a [`GroupIntent`], which is then compared with the row.

mod body;
mod changes;
mod discovery;
mod error;
mod filter;
mod group;
mod group_intent;
mod group_path;
mod group_query;
mod intent;
mod operation;
mod patch;
mod path;
mod projection;
mod query;
mod resource;
mod schema;
mod user;
mod user_query;
mod value;

#[cfg(test)]
mod properties;

pub use changes::{Changes, Creation, LinkChange};
pub use discovery::{resource_types, schemas, service_provider_config};
pub use error::ScimError;
pub use group::{GroupRow, UserGroup};
pub use group_intent::GroupIntent;
pub use group_query::GroupQuery;
pub use intent::UserIntent;
pub use projection::Projection;
pub use query::{ListQuery, list_response};
pub use resource::ResourceType;
pub use user::UserRow;
pub use user_query::UserQuery;
