//! The records of the mirror, by Harvest's names.
//!
//! Harvest's records and the mirror's have the same type. Only a field from Harvest can be [`Field::Absent`].

use std::fmt;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::field::{Field, Fields, Value};

/// A Harvest account (a company); the number in the `Harvest-Account-Id` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct AccountId(pub i64);

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The access role that sees all users.
pub const ADMINISTRATOR: &str = "administrator";

/// A mirrored list of Harvest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// `/v2/users`
    Users,
    /// `/v2/user_assignments`
    Assignments,
    /// `/v2/users/{id}/billable_rates`
    BillableRates,
    /// `/v2/users/{id}/cost_rates`
    CostRates,
}

impl Resource {
    /// The account's lists, in the order in which they are read.
    pub const LISTS: [Self; 2] = [Self::Users, Self::Assignments];
    pub const ALL: [Self; 4] = [Self::Users, Self::Assignments, Self::BillableRates, Self::CostRates];

    pub const RATES: [Self; 2] = [Self::BillableRates, Self::CostRates];

    /// Last part of the list's path, key of its array, and name in tables, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Assignments => "user_assignments",
            Self::BillableRates => "billable_rates",
            Self::CostRates => "cost_rates",
        }
    }

    /// The columns that hold pay data. The dates of a rate count, because they show when a user's pay changed.
    pub(crate) fn pay_fields(self) -> &'static [&'static str] {
        match self {
            Self::Users => &["default_hourly_rate", "cost_rate"],
            Self::Assignments => &["hourly_rate", "budget"],
            Self::BillableRates | Self::CostRates => &["amount", "start_date", "end_date"],
        }
    }

    /// The name of one record in the outbox.
    pub fn aggregate(self) -> &'static str {
        match self {
            Self::Users => "user",
            Self::Assignments => "user_assignment",
            Self::BillableRates => "billable_rate",
            Self::CostRates => "cost_rate",
        }
    }
}

/// A record that can be compared and whose changes can be emitted.
pub trait Record: Clone + Send + Sync + 'static {
    /// The list it comes from.
    const RESOURCE: Resource;
    /// The names of all fields, each followed by a space.
    const FIELD_NAMES: &'static str;

    /// Harvest's id, unique within account and resource.
    fn id(&self) -> i64;
    /// Whether it is active (not archived). Rates are always active.
    fn is_active(&self) -> &Field<bool> {
        &Field::Value(true)
    }
    /// The user of a rate, which events name even after the rate was deleted.
    fn part_of_user(&self) -> Option<i64> {
        None
    }
    /// Harvest's time of the last change, in whole seconds.
    fn updated_at(&self) -> Option<DateTime<Utc>>;
    /// The fields whose change makes an event, by column name: all but `updated_at` and `avatar_url`.
    fn fields(&self) -> Fields<'_>;
    /// The columns that make no event: `updated_at` and `avatar_url`.
    fn quiet(&self) -> Fields<'_>;
    /// This record with the known values of its absent fields.
    #[must_use]
    fn or_known(self, known: &Self) -> Self;
    /// This record with the emitted fields of the known one. If they compare equal, the mirror keeps the representation
    /// (such as the order of a set) of the last event.
    #[must_use]
    fn with_emitted_fields_of(self, known: &Self) -> Self;
    #[must_use]
    fn with_id(self, id: i64) -> Self;
}

/// Defines a record from one list of its fields: the struct and each function that must handle every field. A new field
/// cannot be forgotten in one of them.
macro_rules! record {
    (
        $(#[$doc:meta])* $name:ident in $resource:ident $(, activity $active:ident)? $(, part of $user:ident)?
        mirrored { $($field:ident: $type:ty,)* }
        quiet { $($quiet:ident: $quiet_type:ty,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq)]
        // The fields are the columns, which have comments in the migrations.
        pub struct $name {
            pub id: i64,
            $(pub $field: Field<$type>,)*
            $(pub $quiet: Field<$quiet_type>,)*
        }

        impl Record for $name {
            const RESOURCE: Resource = Resource::$resource;
            const FIELD_NAMES: &'static str =
                concat!($(stringify!($field), " ",)* $(stringify!($quiet), " ",)*);

            fn id(&self) -> i64 {
                self.id
            }
            $(fn is_active(&self) -> &Field<bool> {
                &self.$active
            })?
            $(fn part_of_user(&self) -> Option<i64> {
                self.$user.value().copied()
            })?
            fn updated_at(&self) -> Option<DateTime<Utc>> {
                self.updated_at.value().copied()
            }
            fn fields(&self) -> Fields<'_> {
                vec![$((stringify!($field), Value::from(&self.$field)),)*]
            }
            fn quiet(&self) -> Fields<'_> {
                vec![$((stringify!($quiet), Value::from(&self.$quiet)),)*]
            }
            fn or_known(self, known: &Self) -> Self {
                Self {
                    id: self.id,
                    $($field: self.$field.or_known(&known.$field),)*
                    $($quiet: self.$quiet.or_known(&known.$quiet),)*
                }
            }
            fn with_emitted_fields_of(self, known: &Self) -> Self {
                Self { $($quiet: self.$quiet,)* ..known.clone() }
            }
            fn with_id(self, id: i64) -> Self {
                Self { id, ..self }
            }
        }

        /// Users appear as ids only.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("id", &self.id).finish_non_exhaustive()
            }
        }
    };
}

record! {
    User in Users, activity is_active
    mirrored {
        first_name: String,
        last_name: String,
        email: String,
        telephone: String,
        timezone: String,
        weekly_capacity: i32,
        has_access_to_all_future_projects: bool,
        is_contractor: bool,
        is_active: bool,
        roles: Vec<String>,
        access_roles: Vec<String>,
        permissions_claims: Vec<String>,
        is_admin: bool,
        is_project_manager: bool,
        can_see_rates: bool,
        can_create_projects: bool,
        can_create_invoices: bool,
        calendar_integration_enabled: bool,
        calendar_integration_source: String,
        employee_id: String,
        default_hourly_rate: Decimal,
        cost_rate: Decimal,
        created_at: DateTime<Utc>,
    }
    quiet {
        avatar_url: String,
        updated_at: DateTime<Utc>,
    }
}

record! {
    Assignment in Assignments, activity is_active
    mirrored {
        user_id: i64,
        project_id: i64,
        is_active: bool,
        is_project_manager: bool,
        use_default_rates: bool,
        hourly_rate: Decimal,
        budget: Decimal,
        created_at: DateTime<Utc>,
    }
    quiet {
        updated_at: DateTime<Utc>,
    }
}

macro_rules! rate {
    ($(#[$doc:meta])* $name:ident in $resource:ident) => {
        record! {
            $(#[$doc])*
            $name in $resource, part of user_id
            mirrored {
                user_id: i64,
                amount: Decimal,
                start_date: NaiveDate,
                end_date: NaiveDate,
                created_at: DateTime<Utc>,
            }
            quiet {
                updated_at: DateTime<Utc>,
            }
        }
    };
}

rate! {
    /// What an hour of a user is billed at for a period; pay data.
    BillableRate in BillableRates
}
rate! {
    /// What an hour of a user costs for a period; pay data.
    CostRate in CostRates
}

/// The company of an account, as far as the token may see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Company {
    pub name: Option<String>,
    /// Its web address at Harvest.
    pub base_uri: Option<String>,
}

impl Company {
    /// Whether a name or an address is known on both sides and differs.
    pub fn differs(&self, from: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        differ(&self.name, &from.name) || differ(&self.base_uri, &from.base_uri)
    }
}

/// The project's name and code in an assignment. They change with the project, so they are not compared as part of the
/// assignment.
#[derive(Clone)]
pub struct Project {
    pub id: i64,
    pub name: Field<String>,
    /// Code; Harvest sends null or an empty text if there is none.
    pub code: Field<String>,
}
