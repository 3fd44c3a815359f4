//! The kinds of writes to Harvest, and the fields that each takes.

use std::str::FromStr;

use super::model::Resource;

pub(super) const NAME: &str = "name";
pub(super) const REPLACE: &str = "user_ids";
pub(super) const ADD: &str = "add_user_ids";
pub(super) const REMOVE: &str = "remove_user_ids";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriteKind {
    /// `POST /v2/users`. Harvest sends an invitation.
    UserCreate,
    /// `PATCH /v2/users/{id}`
    UserUpdate,
    /// `PATCH /v2/users/{id}` with `is_active: false`, alone.
    UserDeactivate,
    /// `PATCH /v2/users/{id}` with `is_active: true`, alone.
    UserReactivate,
    /// `DELETE /v2/users/{id}`
    UserDelete,
    /// `POST /v2/projects/{id}/user_assignments`
    AssignmentAdd,
    /// `PATCH /v2/projects/{id}/user_assignments/{id}`
    AssignmentUpdate,
    /// The same with `is_active: false`.
    AssignmentArchive,
    /// `DELETE /v2/projects/{id}/user_assignments/{id}`
    AssignmentRemove,
    /// `POST /v2/roles`
    RoleCreate,
    /// `PATCH /v2/roles/{id}`
    RoleUpdate,
    /// `DELETE /v2/roles/{id}`, which takes the role from all users.
    RoleDelete,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldType {
    Text,
    Flag,
    Money,
    Texts,
    Ids,
}

const USER_FIELDS: [(&str, FieldType); 5] = [
    ("first_name", FieldType::Text),
    ("last_name", FieldType::Text),
    ("email", FieldType::Text),
    ("telephone", FieldType::Text),
    ("access_roles", FieldType::Texts),
];
const ASSIGNMENT_FIELDS: [(&str, FieldType); 4] = [
    ("is_project_manager", FieldType::Flag),
    ("use_default_rates", FieldType::Flag),
    ("hourly_rate", FieldType::Money),
    ("budget", FieldType::Money),
];
const ROLE_FIELDS: [(&str, FieldType); 4] =
    [(NAME, FieldType::Text), (REPLACE, FieldType::Ids), (ADD, FieldType::Ids), (REMOVE, FieldType::Ids)];
impl WriteKind {
    pub const ALL: [Self; 12] = [
        Self::UserCreate,
        Self::UserUpdate,
        Self::UserDeactivate,
        Self::UserReactivate,
        Self::UserDelete,
        Self::AssignmentAdd,
        Self::AssignmentUpdate,
        Self::AssignmentArchive,
        Self::AssignmentRemove,
        Self::RoleCreate,
        Self::RoleUpdate,
        Self::RoleDelete,
    ];

    /// The name in `roster.writes`, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserCreate => "user_create",
            Self::UserUpdate => "user_update",
            Self::UserDeactivate => "user_deactivate",
            Self::UserReactivate => "user_reactivate",
            Self::UserDelete => "user_delete",
            Self::AssignmentAdd => "assignment_add",
            Self::AssignmentUpdate => "assignment_update",
            Self::AssignmentArchive => "assignment_archive",
            Self::AssignmentRemove => "assignment_remove",
            Self::RoleCreate => "role_create",
            Self::RoleUpdate => "role_update",
            Self::RoleDelete => "role_delete",
        }
    }

    /// The list of the record. `None` for a job role, which is not a record of the mirror.
    pub fn resource(self) -> Option<Resource> {
        Some(match self {
            Self::UserCreate
            | Self::UserUpdate
            | Self::UserDeactivate
            | Self::UserReactivate
            | Self::UserDelete => Resource::Users,
            Self::AssignmentAdd
            | Self::AssignmentUpdate
            | Self::AssignmentArchive
            | Self::AssignmentRemove => Resource::Assignments,
            Self::RoleCreate | Self::RoleUpdate | Self::RoleDelete => return None,
        })
    }

    /// Whether a person loses access, which the guard counts.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::UserDeactivate | Self::UserDelete)
    }

    /// Whether a second request would make a second record.
    pub fn is_creation(self) -> bool {
        matches!(self, Self::UserCreate | Self::AssignmentAdd | Self::RoleCreate)
    }

    pub fn is_deletion(self) -> bool {
        matches!(self, Self::UserDelete | Self::AssignmentRemove | Self::RoleDelete)
    }

    pub(super) fn fields(self) -> &'static [(&'static str, FieldType)] {
        match self {
            Self::UserCreate | Self::UserUpdate => &USER_FIELDS,
            Self::AssignmentAdd | Self::AssignmentUpdate => &ASSIGNMENT_FIELDS,
            Self::RoleCreate => &ROLE_FIELDS[..2],
            Self::RoleUpdate => &ROLE_FIELDS,
            _ => &[],
        }
    }

    /// What the kind itself sets.
    pub(super) fn sets_active(self) -> Option<bool> {
        match self {
            Self::UserDeactivate | Self::AssignmentArchive => Some(false),
            Self::UserReactivate => Some(true),
            _ => None,
        }
    }
}

impl FromStr for WriteKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| format!("there is no kind of write with the name {name:?}"))
    }
}
