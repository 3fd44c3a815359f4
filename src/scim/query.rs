//! The parameters of a list, and its response (RFC 7644, sections 3.4.2 and 3.4.3).

use std::collections::BTreeMap;
use std::num::IntErrorKind;
use std::str::FromStr;

use serde_json::{Value as Json, json};

use super::body;
use super::error::ScimError;
use super::projection::Projection;

/// The number of resources in a response at most.
pub const MAX_COUNT: u64 = 200;
const DEFAULT_COUNT: u64 = 100;

#[derive(Clone, PartialEq, Eq)]
pub struct ListQuery<Q> {
    pub filter: Option<Q>,
    /// The position of the first one, from 1. Fits into a `bigint`.
    pub start_index: u64,
    /// The number of resources at most, up to 200; 0 if only the total is wanted.
    pub count: u64,
    pub projection: Projection,
}

impl<Q: FromStr<Err = ScimError>> ListQuery<Q> {
    /// The parameters of a `GET`. Sorting and unknown parameters are ignored.
    pub fn from_query_string(query: &str) -> Result<Self, ScimError> {
        let mut parameters = BTreeMap::new();
        for pair in query.split('&') {
            // A filter has spaces. Where they are sent as %20, a plus is a plus, as in many e-mail addresses.
            let pair = if pair.contains("%20") { pair.replace('+', "%2B") } else { pair.to_owned() };
            for (name, value) in url::form_urlencoded::parse(pair.as_bytes()) {
                let name = name.to_ascii_lowercase();
                if parameters.insert(name.clone(), value.into_owned()).is_some() && is_known(&name) {
                    return Err(ScimError::invalid_value(format!("the parameter {name} is repeated")));
                }
            }
        }
        let text = |name: &str| parameters.get(name).map(String::as_str);
        let names = |name: &str| text(name).unwrap_or_default().split(',');
        Ok(Self {
            filter: text("filter").map(str::parse).transpose()?,
            start_index: start_index(text("startindex"))?,
            count: count(text("count"))?,
            projection: Projection::new(names("attributes"), names("excludedattributes")),
        })
    }

    pub fn from_search_body(body: &[u8]) -> Result<Self, ScimError> {
        let object = body::parse(body)?;
        let text = |name: &str| match object.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(Json::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(ScimError::invalid_value(format!("{name} is neither text nor a number"))),
        };
        let names = |name: &str| match object.get(name) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::String(text)) => Ok(text.split(',').collect()),
            Some(Json::Array(names)) if names.iter().all(Json::is_string) => {
                Ok(names.iter().filter_map(Json::as_str).collect())
            }
            Some(_) => Err(ScimError::invalid_value(format!("{name} is not a list of names"))),
        };
        Ok(Self {
            filter: text("filter")?.map(|filter| filter.parse()).transpose()?,
            start_index: start_index(text("startindex")?.as_deref())?,
            count: count(text("count")?.as_deref())?,
            projection: Projection::new(names("attributes")?, names("excludedattributes")?),
        })
    }
}

fn is_known(name: &str) -> bool {
    ["filter", "startindex", "count", "attributes", "excludedattributes"].contains(&name)
}

fn start_index(text: Option<&str>) -> Result<u64, ScimError> {
    Ok(text.map(|text| number("startIndex", text)).transpose()?.unwrap_or(1).max(1))
}

fn count(text: Option<&str>) -> Result<u64, ScimError> {
    Ok(text.map(|text| number("count", text)).transpose()?.unwrap_or(DEFAULT_COUNT).min(MAX_COUNT))
}

/// A number from 0 to the largest `bigint`. Smaller ones are 0, larger ones are the largest.
fn number(name: &str, text: &str) -> Result<u64, ScimError> {
    let number = text.trim().parse::<i64>().or_else(|error| match error.kind() {
        IntErrorKind::PosOverflow => Ok(i64::MAX),
        IntErrorKind::NegOverflow => Ok(0),
        _ => Err(ScimError::invalid_value(format!("{name} is not a whole number"))),
    })?;
    Ok(u64::try_from(number).unwrap_or(0))
}

pub fn list_response(total: u64, start_index: u64, resources: Vec<Json>) -> Json {
    let mut list = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": total,
        "startIndex": start_index,
        "itemsPerPage": resources.len(),
    });
    list["Resources"] = Json::Array(resources);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scim::UserQuery;

    type ListQuery = super::ListQuery<UserQuery>;

    #[track_caller]
    fn parsed(query: &str) -> ListQuery {
        ListQuery::from_query_string(query).expect(query)
    }

    #[test]
    fn paging_parameters_have_defaults_and_bounds() {
        let paging = |query: &str| {
            let ListQuery { start_index, count, .. } = parsed(query);
            (start_index, count)
        };
        assert_eq!(paging(""), (1, 100));
        assert_eq!(paging("startIndex=1&count=1"), (1, 1));
        assert_eq!(paging("startIndex=0&count=0"), (1, 0));
        assert_eq!(paging("startIndex=-5&count=-5"), (1, 0));
        assert_eq!(paging("STARTINDEX=3&Count=201&sortBy=userName"), (3, 200));
        let huge = "9".repeat(40);
        assert_eq!(paging(&format!("startIndex={huge}&count={huge}")), (i64::MAX.cast_unsigned(), 200));
        assert_eq!(paging(&format!("startIndex=-{huge}")), (1, 100));
    }

    #[test]
    fn parameters_that_are_no_numbers_or_repeated_are_invalid_values() {
        for query in
            ["startIndex=x", "count=", "count=1.5", "count=1&COUNT=2", "filter=id eq 1&filter=id eq 2"]
        {
            let error = ListQuery::from_query_string(query).err().expect(query);
            assert_eq!((error.status, error.scim_type), (400, Some("invalidValue")), "{query}");
        }
    }

    #[test]
    fn an_empty_filter_is_refused_and_does_not_list_everyone() {
        for query in ["filter=", "filter=%20", "FILTER=", "filter"] {
            let error = ListQuery::from_query_string(query).err().expect(query);
            assert_eq!(error.scim_type, Some("invalidFilter"), "{query}");
        }
    }

    #[test]
    fn a_plus_is_a_space_only_where_spaces_are_not_encoded() {
        let user_name = |query: &str| parsed(query).filter.and_then(|filter| filter.user_name);
        let expected = Some("a+b@x.test".to_owned());
        assert_eq!(user_name("filter=userName%20eq%20%22a+b@x.test%22&count=1"), expected);
        assert_eq!(user_name("filter=userName+eq+%22a%2Bb@x.test%22"), expected);
        assert_eq!(user_name("filter=userName eq \"a%2Bb@x.test\""), expected);
    }

    #[test]
    fn search_body_has_the_same_parameters_as_the_query_string() {
        let body = br#"{"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "count": 5,
            "startIndex": "2", "filter": "active eq true", "attributes": ["userName", "name.givenName"]}"#;
        let query = "count=5&startIndex=2&filter=active+eq+true&attributes=userName,name.givenName";
        assert!(ListQuery::from_search_body(body).expect("valid") == parsed(query));
        for body in ["{}", r#"{"schemas": ["x"], "count": []}"#, r#"{"schemas": ["x"], "attributes": 1}"#] {
            assert!(ListQuery::from_search_body(body.as_bytes()).is_err(), "{body}");
        }
        let unfiltered = ListQuery::from_search_body(br#"{"schemas": ["x"], "Filter": ""}"#);
        assert_eq!(unfiltered.err().and_then(|error| error.scim_type), Some("invalidFilter"));
    }

    #[test]
    fn list_response_counts_its_resources() {
        let list = list_response(5, 3, vec![json!({}), json!({})]);
        assert_eq!(list["totalResults"], 5);
        assert_eq!((&list["startIndex"], &list["itemsPerPage"]), (&json!(3), &json!(2)));
    }
}
