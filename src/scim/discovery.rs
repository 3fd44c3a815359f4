//! The discovery documents (RFC 7644, section 4). They have exactly the members that the RFC defines: conformance suites
//! refuse others.

use serde_json::{Value as Json, json};

use super::query::MAX_COUNT;
use super::resource::ResourceType;
use super::schema::{Attribute, GROUP, USER};

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

pub fn resource_types(base: &str, with_groups: bool) -> Vec<Json> {
    let document = |kind: ResourceType| {
        let name = kind.name();
        json!({
            "schemas": [format!("{CORE}:ResourceType")],
            "id": name,
            "name": name,
            "endpoint": format!("/{name}s"),
            "description": describe(kind).0,
            "schema": kind.schema(),
            "meta": {"resourceType": "ResourceType", "location": format!("{base}/ResourceTypes/{name}")},
        })
    };
    ResourceType::all(with_groups).map(document).collect()
}

pub fn schemas(base: &str, with_groups: bool) -> Vec<Json> {
    let document = |kind: ResourceType| {
        let (schema, (description, attributes)) = (kind.schema(), describe(kind));
        let attributes = attributes.iter().filter(|attribute| with_groups || !attribute.is_groups());
        json!({
            "schemas": [format!("{CORE}:Schema")],
            "id": schema,
            "name": kind.name(),
            "description": description,
            "attributes": attributes.map(Attribute::definition).collect::<Vec<_>>(),
            "meta": {"resourceType": "Schema", "location": format!("{base}/Schemas/{schema}")},
        })
    };
    ResourceType::all(with_groups).map(document).collect()
}

fn describe(kind: ResourceType) -> (&'static str, &'static [Attribute]) {
    match kind {
        ResourceType::User => ("A user of the Harvest account", USER),
        ResourceType::Group => ("A job role of the Harvest account", GROUP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_documents_are_as_published() {
        let base = "https://scim.example.com/scim/v2/7";
        let documents = json!({
            "ServiceProviderConfig": service_provider_config(base),
            "ResourceTypes": resource_types(base, false),
            "Schemas": schemas(base, false),
        });
        insta::assert_json_snapshot!(documents);
    }

    #[test]
    fn group_is_in_the_discovery_documents_only_with_groups() {
        let base = "https://scim.example.com/scim/v2/7";
        let [types, schemas] = [resource_types(base, true), schemas(base, true)];
        assert_eq!((types.len(), schemas.len()), (2, 2));
        let groups = |schema: &Json| {
            let attributes = schema["attributes"].as_array().expect("attributes");
            attributes.iter().find(|attribute| attribute["name"] == "groups").cloned()
        };
        assert_eq!(groups(&super::schemas(base, false)[0]), None);
        let documents =
            json!({"ResourceType": types[1], "Schema": schemas[1], "groups": groups(&schemas[0])});
        insta::assert_json_snapshot!(documents);
    }
}
