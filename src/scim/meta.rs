//! The attribute `meta`, which each resource has.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value as Json, json};

pub(super) struct Meta {
    pub created: Option<DateTime<Utc>>,
    pub last_modified: Option<DateTime<Utc>>,
    pub version: String,
}

/// The entity tag of a resource, from the versions of its row and of what directories store about it.
pub(super) fn etag(version: i64, link_version: i64) -> String {
    format!("W/\"{version}-{link_version}\"")
}

impl Meta {
    pub fn render(&self, resource_type: &str, location: &str) -> Json {
        let mut meta = json!({"resourceType": resource_type, "location": location, "version": self.version});
        for (name, time) in [("created", self.created), ("lastModified", self.last_modified)] {
            if let Some(time) = time {
                meta[name] = json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            }
        }
        meta
    }
}
