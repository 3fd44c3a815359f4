//! The records as Harvest stores them. `http::view` decides which fields a token's owner sees.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::table::{Keyed, Row};
use crate::clock::Timestamp;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> i64 {
                id.0
            }
        }
    };
}

id!(
    /// A user's id in this account.
    UserId
);
id!(
    /// A project's id.
    ProjectId
);
id!(
    /// A user assignment's id.
    AssignmentId
);
id!(
    /// A rate's id, unique within its kind (billable or cost).
    RateId
);
id!(
    /// A job role's id.
    RoleId
);

/// A user.
#[derive(Clone, PartialEq)]
pub struct User {
    pub(crate) id: UserId,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// E-mail address. The documents do not say that it is unique.
    pub email: String,
    /// Usually empty.
    pub telephone: String,
    /// A Rails time zone name (`Kyiv`), not an IANA name.
    pub timezone: String,
    /// Seconds per week.
    pub weekly_capacity: i64,
    /// Harvest assigns this user to each new project.
    pub has_access_to_all_future_projects: bool,
    /// True for a contractor, false for an employee.
    pub is_contractor: bool,
    /// False once archived.
    pub is_active: bool,
    /// `google`, `outlook` or none.
    pub calendar_integration_source: Option<String>,
    /// The default billable rate.
    pub default_hourly_rate: Option<f64>,
    /// The cost of an hour for the company.
    pub cost_rate: Option<f64>,
    /// Names of job roles, an open set.
    pub roles: Vec<String>,
    /// Access roles, an open set. They determine `permissions_claims`.
    pub access_roles: Vec<String>,
    /// Address of the picture; may be empty.
    pub avatar_url: String,
    /// Undocumented fields, sent after all others.
    pub extra: Map<String, Value>,
    /// When the record was created.
    pub created_at: Timestamp,
    /// When the record last changed; some changes keep this value.
    pub updated_at: Timestamp,
}

impl User {
    /// The user's id.
    pub fn id(&self) -> UserId {
        self.id
    }

    /// The full name, as assignments show it.
    pub fn name(&self) -> String {
        format!("{} {}", self.first_name, self.last_name)
    }

    pub(crate) fn has_access(&self, role: &str) -> bool {
        self.access_roles.iter().any(|access_role| access_role == role)
    }
}

/// A project, with the fields that assignments need.
#[derive(Clone)]
pub struct Project {
    pub(crate) id: ProjectId,
    /// The project's name.
    pub name: String,
    /// The project's code: text, empty text or none.
    pub code: Option<String>,
    /// False once archived.
    pub is_active: bool,
    /// Whether the project's hours are billed.
    pub is_billable: bool,
    /// The client's id.
    pub client_id: i64,
    /// The client's name.
    pub client_name: String,
    /// When the record was created.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
}

impl Project {
    /// The project's id.
    pub fn id(&self) -> ProjectId {
        self.id
    }
}

/// A user assignment: a user's membership in a project.
#[derive(Clone, PartialEq)]
pub struct Assignment {
    pub(crate) id: AssignmentId,
    /// The assigned user.
    pub user: UserId,
    /// The project.
    pub project: ProjectId,
    /// Whether the user manages the project.
    pub is_project_manager: bool,
    /// False once archived.
    pub is_active: bool,
    /// If true, Harvest sends the user's default rate as `hourly_rate`.
    pub use_default_rates: bool,
    /// Hours or money, as the project defines it.
    pub budget: Option<f64>,
    /// The rate for this project, used if `use_default_rates` is false.
    pub hourly_rate: Option<f64>,
    /// When the record was created.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
}

impl Assignment {
    /// The assignment's id.
    pub fn id(&self) -> AssignmentId {
        self.id
    }
}

macro_rules! row {
    ($record:ty) => {
        impl Keyed for $record {
            fn key(&self) -> i64 {
                self.id.0
            }
        }

        impl Row for $record {
            fn is_active(&self) -> bool {
                self.is_active
            }
            fn updated_at(&self) -> Timestamp {
                self.updated_at
            }
        }
    };
}

row!(User);
row!(Project);
row!(Assignment);
