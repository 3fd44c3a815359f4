//! What the mirror says about a write before it is sent.

use crate::roster::write::{Write, WriteKind};
use crate::roster::{Assignment, Field, MirrorRow, User};

/// Why the write cannot be sent, whatever the settings allow.
pub(super) fn impossible(
    write: &Write,
    user: Option<&MirrorRow<User>>,
    assignment: Option<&MirrorRow<Assignment>>,
) -> Option<String> {
    if write.kind == WriteKind::UserCreate || write.kind.resource().is_none() {
        return None;
    }
    let Some(user) = user.filter(|row| !row.deleted) else {
        return Some("the mirror has no such user; read it with `rosterd sync --user ID`".to_owned());
    };
    let is_archived = user.record.is_active == Field::Value(false);
    let locked = ["first_name", "last_name", "email"].iter().find(|field| write.fields.contains(field));
    if let Some(field) = locked.filter(|_| is_archived) {
        return Some(format!(
            "Harvest does not change {field} of an archived user; reactivate the user first"
        ));
    }
    write.assignment?;
    // The policy decides by the user, so a foreign assignment must not pass.
    let is_theirs = assignment.is_some_and(|row| {
        !row.deleted
            && row.record.user_id.value().copied() == write.user
            && row.record.project_id.value().copied() == write.project
    });
    (!is_theirs).then(|| "the mirror has no such assignment of this user to this project".to_owned())
}

/// Whether the mirror says that nothing is to be done. A deactivation is sent anyway, because the mirror may be a minute old
/// and this write must not be lost.
pub(super) fn is_so_already(
    write: &Write,
    user: Option<&MirrorRow<User>>,
    assignment: Option<&MirrorRow<Assignment>>,
) -> bool {
    match write.kind {
        WriteKind::UserUpdate | WriteKind::UserReactivate => {
            user.is_some_and(|row| write.fields.differing(write.kind, &row.record).is_empty())
        }
        WriteKind::AssignmentUpdate | WriteKind::AssignmentArchive => {
            assignment.is_some_and(|row| write.fields.differing(write.kind, &row.record).is_empty())
        }
        _ => false,
    }
}
