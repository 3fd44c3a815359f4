//! Decodes job roles.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::roster::Role;

/// A role on the wire.
#[derive(Deserialize)]
struct OnTheWire {
    id: i64,
    name: String,
    user_ids: BTreeSet<i64>,
    created_at: Option<DateTime<Utc>>,
    updated_at: Option<DateTime<Utc>>,
}

/// Reads one role. `None` if its fields are not as expected.
pub(super) fn read(text: &[u8]) -> Option<Role> {
    let OnTheWire { id, name, user_ids, created_at, updated_at } = serde_json::from_slice(text).ok()?;
    // PostgreSQL cannot store the character.
    let is_valid = id > 0 && !name.contains('\0');
    is_valid.then_some(Role { id, name, user_ids, created_at, updated_at })
}
