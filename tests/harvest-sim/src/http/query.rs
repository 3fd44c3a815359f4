//! Query strings. Links repeat all parameters except credentials and positions.

use chrono::{DateTime, NaiveDateTime, Utc};

use super::response::Response;

/// Parameters that logs and links must not contain.
const CREDENTIALS: [&str; 6] =
    ["access_token", "account_id", "client_secret", "code", "code_verifier", "refresh_token"];
/// Parameters that each link sets itself.
const POSITION: [&str; 4] = ["page", "cursor", "per_page", "ref"];

/// The decoded parameters in their original order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub fn of(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    pub fn of_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// All parameters except the credentials.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        fields.filter(|(key, _)| !CREDENTIALS.contains(key))
    }

    /// The last value with this name, as in Rails.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `true` or `false`. Other values do not filter.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Parses an ISO 8601 time with `T`; without a time zone it is UTC. A space is refused, therefore also an
    /// unescaped `+`, which decodes to a space.
    pub fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, Response> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        if text.contains(' ') {
            return Err(Response::bad_request());
        }
        DateTime::parse_from_rfc3339(text)
            .map(|time| time.with_timezone(&Utc))
            .or_else(|_| text.parse::<NaiveDateTime>().map(|time| time.and_utc()))
            .map(Some)
            .map_err(|_| Response::bad_request())
    }

    /// The query of a link: the filters and `position`, sorted by name.
    pub fn link(&self, position: &[(&str, &str)]) -> String {
        let kept = self.fields().filter(|(key, _)| !POSITION.contains(key));
        let mut all: Vec<(&str, &str)> = kept.chain(position.iter().copied()).collect();
        all.sort_by_key(|&(key, _)| key);
        form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish()
    }

    /// The query string for the log.
    pub fn without_credentials(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(self.fields()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_needs_a_t_and_may_omit_the_time_zone() {
        let noon = "2024-02-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap();
        for text in ["2024-02-01T12:00:00Z", "2024-02-01T13:00:00%2B01:00", "2024-02-01T12:00:00"] {
            let query = Query::of(&format!("updated_since={text}"));
            assert_eq!(query.time("updated_since").ok().flatten(), Some(noon), "{text}");
        }
        for text in ["2024-02-01 12:00:00%2B00:00", "2024-02-01T12:00:00+00:00", "yesterday", "2024-02-01"] {
            let query = Query::of(&format!("updated_since={text}"));
            assert!(query.time("updated_since").is_err(), "{text}");
        }
    }

    #[test]
    fn links_keep_filters_and_drop_credentials() {
        let query = Query::of("user_id=3&access_token=secret&page=4&is_active=true&account_id=1");
        assert_eq!(
            query.link(&[("page", "2"), ("per_page", "1"), ("ref", "next")]),
            "is_active=true&page=2&per_page=1&ref=next&user_id=3"
        );
        assert_eq!(query.without_credentials(), "user_id=3&page=4&is_active=true");
    }
}
