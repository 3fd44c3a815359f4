//! From the end of a write to an error response.

use super::calls::{RETRY_SECONDS, not_found};
use crate::roster::role::UNKNOWN_MEMBER;
use crate::roster::write::{Write, WriteKind};
use crate::scim::{ResourceType, ScimError};
use crate::store::scim::ScimOutcome;

/// A person decides about a held write.
const HELD_RETRY_SECONDS: u32 = 3600;
const NOT_FOUND: i16 = 404;

/// The response for a write that is held, or that ended without the change.
pub(super) fn refusal(write: &Write, outcome: &ScimOutcome) -> ScimError {
    let error = outcome.error.as_deref().unwrap_or("no reason is known");
    match outcome.outcome.as_deref() {
        None => ScimError::unavailable(
            HELD_RETRY_SECONDS,
            "held: too many users would lose access; an operator decides with `rosterd writes accept` or `reject`",
        ),
        Some("planned") => {
            let fields = write.fields.names();
            let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
            ScimError::new(
                403,
                format!("write.mode is \"dry\": rosterd would send {}{fields} to Harvest", write.kind.name()),
            )
        }
        Some("refused") => refused(write, outcome, error),
        Some("rejected") => ScimError::new(403, "an operator rejected this change"),
        Some("lost") => {
            ScimError::unavailable(RETRY_SECONDS, "Harvest did not answer; send the request again")
        }
        _ => ScimError::unavailable(RETRY_SECONDS, "the change was withdrawn; send the request again"),
    }
}

fn refused(write: &Write, outcome: &ScimOutcome, error: &str) -> ScimError {
    let (is_creation, is_role) = (write.kind == WriteKind::UserCreate, write.kind.resource().is_none());
    match (outcome.status, outcome.user_id) {
        // The look before the creation found the user.
        (None, Some(_)) if is_creation => ScimError::uniqueness(error),
        (None, _) if is_role && is_taken(error) => ScimError::uniqueness(error),
        (Some(NOT_FOUND), _) if error == UNKNOWN_MEMBER => ScimError::invalid_value(error),
        (Some(NOT_FOUND), _) if is_role => not_found(ResourceType::Group),
        (Some(NOT_FOUND), _) if !is_creation => not_found(ResourceType::User),
        (None, _) => ScimError::new(403, error),
        (Some(_), _) if is_taken(error) => ScimError::uniqueness(error),
        (Some(status), _) => ScimError::invalid_value(format!("Harvest refused it ({status}): {error}")),
    }
}

/// Whether a message says that another user has the e-mail address, or another role the name.
fn is_taken(message: &str) -> bool {
    message.to_lowercase().contains("taken")
}
