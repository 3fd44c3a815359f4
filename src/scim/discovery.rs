//! The discovery documents (RFC 7644, section 4). They have exactly the members that the RFC defines: conformance suites
//! refuse others.

use serde_json::{Value as Json, json};

use super::path::USER_SCHEMA;
use super::query::MAX_COUNT;
use super::schema::{Attribute, USER};

const CORE: &str = "urn:ietf:params:scim:schemas:core:2.0";

/// The document of `/ServiceProviderConfig`. `base` is the URL of the account's endpoint, as of the other documents.
pub fn service_provider_config(base: &str) -> Json {
    json!({
        "schemas": [format!("{CORE}:ServiceProviderConfig")],
        "patch": {"supported": true},
        "bulk": {"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": true, "maxResults": MAX_COUNT},
        "changePassword": {"supported": false},
        "sort": {"supported": false},
        "etag": {"supported": true},
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "A token of the file scim.tokens_file, in the header Authorization",
            "primary": true,
        }],
        "meta": {"resourceType": "ServiceProviderConfig", "location": format!("{base}/ServiceProviderConfig")},
    })
}

/// The documents of `/ResourceTypes`.
pub fn resource_types(base: &str) -> Vec<Json> {
    vec![json!({
        "schemas": [format!("{CORE}:ResourceType")],
        "id": "User",
        "name": "User",
        "endpoint": "/Users",
        "description": "A user of the Harvest account",
        "schema": USER_SCHEMA,
        "meta": {"resourceType": "ResourceType", "location": format!("{base}/ResourceTypes/User")},
    })]
}

/// The documents of `/Schemas`.
pub fn schemas(base: &str) -> Vec<Json> {
    vec![json!({
        "schemas": [format!("{CORE}:Schema")],
        "id": USER_SCHEMA,
        "name": "User",
        "description": "A user of the Harvest account",
        "attributes": USER.iter().map(Attribute::definition).collect::<Vec<_>>(),
        "meta": {"resourceType": "Schema", "location": format!("{base}/Schemas/{USER_SCHEMA}")},
    })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_documents_are_as_published() {
        let base = "https://scim.example.com/scim/v2/7";
        let documents = json!({
            "ServiceProviderConfig": service_provider_config(base),
            "ResourceTypes": resource_types(base),
            "Schemas": schemas(base),
        });
        insta::assert_json_snapshot!(documents);
    }
}
