//! The records as Harvest stores them; what of them is shown to whom is decided where they are rendered.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::table::{Keyed, Row};
use crate::clock::Stamp;

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
    /// A person's id in this account.
    UserId
);
id!(
    /// A project's id.
    ProjectId
);
id!(
    /// The id of one person's place on one project.
    AssignmentId
);
id!(
    /// The id of a rate among those of its kind, billable or cost.
    RateId
);
id!(
    /// A job role's id.
    RoleId
);

/// A person.
#[derive(Clone, PartialEq)]
pub struct User {
    pub(crate) id: UserId,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// Address; not proved unique by any document.
    pub email: String,
    /// Usually empty.
    pub telephone: String,
    /// A Rails name (`Kyiv`), not one of the IANA data base.
    pub timezone: String,
    /// Seconds a week.
    pub weekly_capacity: i64,
    /// New projects assign this person by themselves.
    pub has_access_to_all_future_projects: bool,
    /// Not an employee.
    pub is_contractor: bool,
    /// False once archived.
    pub is_active: bool,
    /// `google`, `outlook` or nothing.
    pub calendar_integration_source: Option<String>,
    /// The default billable rate.
    pub default_hourly_rate: Option<f64>,
    /// What an hour costs the company.
    pub cost_rate: Option<f64>,
    /// Names of job roles, an open set.
    pub roles: Vec<String>,
    /// What this person may do, an open set; `permissions_claims` follow from it.
    pub access_roles: Vec<String>,
    /// Picture, may be empty.
    pub avatar_url: String,
    /// Fields nobody has documented yet, sent after all others.
    pub extra: Map<String, Value>,
    /// When the record was made.
    pub created_at: Stamp,
    /// When it last changed, as far as Harvest admits.
    pub updated_at: Stamp,
}

impl User {
    /// This person's id.
    pub fn id(&self) -> UserId {
        self.id
    }

    /// The copy of the name that assignments carry.
    pub fn name(&self) -> String {
        format!("{} {}", self.first_name, self.last_name)
    }

    pub(crate) fn has_access(&self, role: &str) -> bool {
        self.access_roles.iter().any(|held| held == role)
    }
}

/// A project, as far as assignments need one.
#[derive(Clone)]
pub struct Project {
    pub(crate) id: ProjectId,
    /// Its name.
    pub name: String,
    /// Its code: text, empty text or nothing.
    pub code: Option<String>,
    /// False once archived.
    pub is_active: bool,
    /// Whether its hours are billed.
    pub is_billable: bool,
    /// The client's id …
    pub client_id: i64,
    /// … and name.
    pub client_name: String,
    /// When the record was made.
    pub created_at: Stamp,
    /// When it last changed.
    pub updated_at: Stamp,
}

impl Project {
    /// This project's id.
    pub fn id(&self) -> ProjectId {
        self.id
    }
}

/// A person's place on a project.
#[derive(Clone, PartialEq)]
pub struct Assignment {
    pub(crate) id: AssignmentId,
    /// Who.
    pub user: UserId,
    /// On what.
    pub project: ProjectId,
    /// Leads the project.
    pub is_project_manager: bool,
    /// False once archived.
    pub is_active: bool,
    /// With this, `hourly_rate` shows the person's default rate.
    pub use_default_rates: bool,
    /// Hours or money, as the project counts.
    pub budget: Option<f64>,
    /// The rate on this project, where it is not the default one.
    pub hourly_rate: Option<f64>,
    /// When the record was made.
    pub created_at: Stamp,
    /// When it last changed.
    pub updated_at: Stamp,
}

impl Assignment {
    /// This assignment's id.
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
            fn updated_at(&self) -> Stamp {
                self.updated_at
            }
        }
    };
}

row!(User);
row!(Project);
row!(Assignment);
