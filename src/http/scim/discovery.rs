//! The discovery documents.

use serde_json::Value as Json;

use super::answer::Answer;
use super::route::Route;
use crate::scim::{ScimError, list_response, resource_types, schemas, service_provider_config};

/// The document of a discovery route; `None` for other routes.
pub(super) fn answer(
    route: Route<'_>,
    query: &str,
    base: &str,
    with_groups: bool,
) -> Option<Result<Answer, ScimError>> {
    let (documents, name) = match route {
        Route::ServiceProviderConfig => {
            return Some(refuse_filter(query).map(|()| Answer::ok(service_provider_config(base))));
        }
        Route::ResourceTypes(name) => (resource_types(base, with_groups), name),
        Route::Schemas(name) => (schemas(base, with_groups), name),
        _ => return None,
    };
    Some(refuse_filter(query).and_then(|()| one_or_all(documents, name)))
}

fn one_or_all(documents: Vec<Json>, name: Option<&str>) -> Result<Answer, ScimError> {
    let Some(name) = name else {
        let total = documents.len() as u64;
        return Ok(Answer::ok(list_response(total, 1, documents)));
    };
    // Some clients escape the colons of a URN.
    let name = name.replace("%3A", ":").replace("%3a", ":");
    let found = documents.into_iter().find(|document| document["id"] == *name);
    found.map(Answer::ok).ok_or_else(|| ScimError::new(404, "there is no such document"))
}

/// RFC 7644, section 4: a filter on a discovery document is refused.
fn refuse_filter(query: &str) -> Result<(), ScimError> {
    let has_filter =
        url::form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key.eq_ignore_ascii_case("filter"));
    if has_filter {
        return Err(ScimError::new(403, "discovery documents cannot be filtered"));
    }
    Ok(())
}
