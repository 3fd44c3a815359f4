//! The attributes of a user, and the discovery documents.

use serde_json::Value as Json;

/// The document of `/ServiceProviderConfig`.
pub fn service_provider_config(base: &str) -> Json {
    todo!("{base}")
}

/// The documents of `/ResourceTypes`.
pub fn resource_types(base: &str) -> Vec<Json> {
    todo!("{base}")
}

/// The documents of `/Schemas`.
pub fn schemas(base: &str) -> Vec<Json> {
    todo!("{base}")
}
