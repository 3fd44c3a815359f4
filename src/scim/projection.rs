//! The parameters `attributes` and `excludedAttributes` (RFC 7644, section 3.9).

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::path::without_schema;

/// Which attributes a response has. `id` and `schemas` are always returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// Names in lower case without schema; `None` for all attributes.
    only: Option<BTreeSet<String>>,
    without: BTreeSet<String>,
}

/// An empty list is no list. Names of other schemas are kept, so that a list of them selects no attribute.
fn names<'a>(list: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let names = list.into_iter().map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| without_schema(name).unwrap_or_else(|| name.to_ascii_lowercase())).collect()
}

impl Projection {
    /// From the names in the two parameters.
    pub fn new<'a>(
        attributes: impl IntoIterator<Item = &'a str>,
        excluded: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self { only: Some(names(attributes)).filter(|only| !only.is_empty()), without: names(excluded) }
    }

    /// From a query string. Other parameters are ignored.
    pub fn from_query_string(query: &str) -> Self {
        let value = |name: &str| {
            let mut parameters = url::form_urlencoded::parse(query.as_bytes());
            parameters
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
                .unwrap_or_default()
        };
        Self::new(value("attributes").split(','), value("excludedAttributes").split(','))
    }

    /// Whether an attribute or a part of it may be wanted. The name is in lower case.
    pub fn wants(&self, name: &str) -> bool {
        let is_it = |named: &String| named.split('.').next() == Some(name);
        !self.without.contains(name) && self.only.as_ref().is_none_or(|only| only.iter().any(is_it))
    }

    /// Removes the attributes of a resource that are not wanted.
    pub(super) fn apply(&self, resource: &mut Json) {
        let Json::Object(members) = resource else { return };
        members.retain(|name, value| {
            if name == "id" || name == "schemas" {
                return true;
            }
            let name = name.to_ascii_lowercase();
            let is_wanted = self.only.as_ref().is_none_or(|only| only.contains(&name));
            !self.without.contains(&name) && self.apply_below(&name, value, is_wanted)
        });
    }

    /// Removes sub-attributes; whether any remains. `is_wanted`: whether the attribute itself is wanted.
    fn apply_below(&self, name: &str, value: &mut Json, is_wanted: bool) -> bool {
        match value {
            Json::Object(members) => {
                members.retain(|sub, _| {
                    let path = format!("{name}.{}", sub.to_ascii_lowercase());
                    let is_named = || self.only.as_ref().is_some_and(|only| only.contains(&path));
                    (is_wanted || is_named()) && !self.without.contains(&path)
                });
                !members.is_empty()
            }
            Json::Array(items) => {
                items.retain_mut(|item| self.apply_below(name, item, is_wanted));
                !items.is_empty()
            }
            _ => is_wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn expect(query: &str, expected: &Json) {
        let mut user = json!({
            "schemas": ["s"], "id": "7", "userName": "ada", "active": true,
            "name": {"givenName": "Ada", "familyName": "L"},
            "emails": [{"value": "a@x", "type": "work"}],
        });
        Projection::from_query_string(query).apply(&mut user);
        let object = expected.as_object().expect("an object");
        let mut with_fixed = object.clone();
        with_fixed.insert("id".to_owned(), json!("7"));
        with_fixed.insert("schemas".to_owned(), json!(["s"]));
        assert_eq!(user, Json::Object(with_fixed), "{query}");
    }

    #[test]
    fn attributes_select_attributes_and_sub_attributes_in_any_case_and_with_schema() {
        expect("attributes=USERNAME", &json!({"userName": "ada"}));
        expect("attributes=name.givenname,active", &json!({"name": {"givenName": "Ada"}, "active": true}));
        expect("attributes=emails.value", &json!({"emails": [{"value": "a@x"}]}));
        expect(
            "attributes=urn%3Aietf%3Aparams%3Ascim%3Aschemas%3Acore%3A2.0%3AUser%3AuserName",
            &json!({"userName": "ada"}),
        );
        expect("attributes=title", &json!({}));
    }

    #[test]
    fn excluded_attributes_are_left_out_except_id_and_schemas() {
        let rest = json!({"name": {"familyName": "L"}, "emails": [{"value": "a@x", "type": "work"}]});
        expect("excludedAttributes=id,schemas,USERNAME,active,name.givenName", &rest);
        expect("attributes=userName,active&excludedAttributes=active", &json!({"userName": "ada"}));
    }

    #[test]
    fn empty_lists_select_everything() {
        let all = json!({
            "userName": "ada", "active": true, "name": {"givenName": "Ada", "familyName": "L"},
            "emails": [{"value": "a@x", "type": "work"}],
        });
        expect("attributes=&excludedAttributes=,", &all);
        expect("startIndex=3", &all);
    }
}
