//! The JSON as Harvest sends it, read tolerantly: unknown fields are kept in `raw`, absent is not null, money
//! is taken from its digits, ids are 64 bits wide, `access_roles` are understood as well as the old flags.
//!
//! One bad record does not spoil its page: it is [`Rejected`] by itself. Reasons name fields, never values.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::json::{self, Json, Members};
use crate::roster::{
    ADMINISTRATOR, Assignment, BillableRate, CostRate, Fetched, Field, Project, Record, Request, Resource,
    Seq, User,
};

/// Part of each content hash. A release that reads more of a record than the one before raises it, so that
/// every row is compared anew once.
const DECODER: u64 = 1;

/// The fields that tell pay, left out of everything where `rates.mirror = false`.
const PAY: [&str; 4] = ["default_hourly_rate", "cost_rate", "hourly_rate", "budget"];

/// The longest record that is looked into: taken apart, a text of numbers is thirty times as long.
const LONGEST_RECORD: usize = 1 << 20;
/// The most roles that are believed: lists are compared as sets, each item with each.
const MOST_ITEMS: usize = 1000;
/// The longest text of a record that is believed; names and roles are nowhere near.
const LONGEST_TEXT: usize = 64 << 10;
/// The longest address: mail knows 320 bytes, and an index of PostgreSQL's ends at 2,700.
const LONGEST_EMAIL: usize = 1000;

/// Why a record is rejected that is a JSON object and yet cannot be parsed.
const NOT_UNICODE_OR_TOO_DEEP: &str = "holds text that is no Unicode, or is nested too deep";

/// A record that cannot be read.
#[derive(Clone)]
pub struct Rejected {
    /// Its id, where that can be read.
    pub id: Option<i64>,
    /// The user it belongs to, where that can be read.
    pub user_id: Option<i64>,
    /// Its text as received (without pay where that is not mirrored).
    pub raw: Box<RawValue>,
    /// Why, by field names.
    pub reason: String,
    /// What brought it.
    pub request: Request,
}

/// Without the record itself: people are ids.
impl std::fmt::Debug for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rejected").field("id", &self.id).field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// A record that can be read off the wire.
pub trait Decode: Record {
    /// Reads the fields out of the object.
    fn decode(id: i64, object: &mut Object) -> Result<Self, String>;
    /// Takes out of the object what is not the record's own, before its content is hashed.
    fn keep_own(_object: &mut Members<'_>) {}
    /// The id of the user it refers to, if it refers to one.
    fn user(&self) -> Option<i64> {
        None
    }
    /// The user it belongs to, as far as an object that may be unreadable otherwise says so.
    fn owner(_object: &Members<'_>) -> Option<i64> {
        None
    }
    /// Says whose it is, where that is not in the object.
    fn set_user(&mut self, _id: i64) {}
    /// The project it names, if it names one.
    fn project(_object: &Members<'_>) -> Option<Project> {
        None
    }
}

/// One record read, and the project it names.
pub struct Read<R> {
    /// The record.
    pub fetched: Fetched<R>,
    /// The project, for assignments.
    pub project: Option<Project>,
    /// What brought it, as far as that is still known.
    pub request: Option<Request>,
}

impl<R> Read<R> {
    /// The place of its request in the order.
    pub fn asked(&self) -> Seq {
        Seq::of(self.request.as_ref())
    }
}

/// Reads one object, which this request brought.
pub fn read<R: Decode>(raw: &RawValue, with_pay: bool, request: &Request) -> Result<Read<R>, Rejected> {
    let rejected = |id, user_id, raw, reason: &str| {
        let (reason, request) = (reason.to_owned(), request.clone());
        Rejected { id, user_id, raw, reason, request }
    };
    // Pay cannot be taken out of what is not read: then nothing of it is kept.
    let unread = |id: Option<i64>, reason: &str| {
        let raw = if with_pay { raw } else { RawValue::NULL };
        let user_id = id.filter(|_| R::RESOURCE == Resource::Users);
        rejected(id, user_id, raw.to_owned(), reason)
    };
    if raw.get().len() > LONGEST_RECORD {
        return Err(unread(only_id(raw), "is longer than 1 MiB"));
    }
    let mut sent: BTreeMap<String, &RawValue> =
        serde_json::from_str(raw.get()).map_err(|error| match only_id(raw) {
            Some(id) => unread(Some(id), NOT_UNICODE_OR_TOO_DEEP),
            None => unread(None, &format!("not a JSON object that can be read ({:?})", error.classify())),
        })?;
    let Some(mut object) = json::members(&sent) else {
        return Err(unread(only_id(raw), NOT_UNICODE_OR_TOO_DEEP));
    };
    let mut raw = raw.to_owned();
    if !with_pay && PAY.iter().any(|key| object.contains_key(*key)) {
        object.retain(|key, _| !PAY.contains(&key.as_str()));
        sent.retain(|key, _| !PAY.contains(&key.as_str()));
        raw = to_raw(&sent);
    }
    let user_id = R::owner(&object).filter(|id| *id > 0);
    let id = match object.get("id").map(Json::as_i64) {
        Some(Some(id)) if id > 0 => id,
        Some(_) => return Err(rejected(None, user_id, raw, "id is not a positive 64-bit number")),
        None => return Err(rejected(None, user_id, raw, "id is missing")),
    };
    if let Some(reason) = object.iter().find_map(|(key, value)| unstorable(key, value)) {
        return Err(rejected(Some(id), user_id, raw, reason));
    }
    let record = match R::decode(id, &mut Object(&object)) {
        Ok(record) => record,
        Err(reason) => return Err(rejected(Some(id), user_id, raw, &reason)),
    };
    let project = R::project(&object);
    R::keep_own(&mut object);
    let hash = xxh3_64_with_seed(to_raw(&object).get().as_bytes(), DECODER).cast_signed();
    Ok(Read { fetched: Fetched { record, raw, hash }, project, request: Some(request.clone()) })
}

/// The id of a record that cannot be read otherwise: it was there, so it is not missing.
fn only_id(raw: &RawValue) -> Option<i64> {
    #[derive(Deserialize)]
    struct Named {
        id: i64,
    }
    let named: Named = serde_json::from_str(raw.get()).ok()?;
    (named.id > 0).then_some(named.id)
}

#[expect(clippy::expect_used, reason = "a map with text keys that was parsed from JSON is JSON")]
fn to_raw(object: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(object).expect("parsed from JSON")
}

/// Why a `jsonb` column would refuse this: the one bad record must not fail the page that it is on.
fn unstorable(key: &str, value: &Json<'_>) -> Option<&'static str> {
    const NUL: &str = "holds a NUL character, which PostgreSQL cannot store";
    match value {
        _ if key.contains('\0') => Some(NUL),
        Json::Text(text) if text.len() > LONGEST_TEXT => Some("holds a text longer than 64 KiB"),
        Json::Text(text) => text.contains('\0').then_some(NUL),
        // PostgreSQL's numbers end at 131,072 digits; nobody's pay gets near a few hundred.
        Json::Number(number) => {
            let digits = number.get();
            let exponent = digits.split(['e', 'E']).nth(1).map_or(Ok(0), str::parse::<i16>);
            let small = digits.len() <= 500 && exponent.is_ok_and(|exponent| exponent.abs() <= 500);
            (!small).then_some("holds a number that is out of all proportion")
        }
        Json::Array(items) => items.iter().find_map(|item| unstorable("", item)),
        Json::Object(fields) => fields.iter().find_map(|(key, value)| unstorable(key, value)),
        Json::Null | Json::Bool(_) => None,
    }
}

/// An object from which typed fields are taken.
pub struct Object<'a>(&'a Members<'a>);

impl<'a> Object<'a> {
    fn take<T>(
        &self,
        key: &str,
        what: &str,
        read: impl Fn(&Json<'a>) -> Option<T>,
    ) -> Result<Field<T>, String> {
        match self.0.get(key) {
            None => Ok(Field::Absent),
            Some(Json::Null) => Ok(Field::Null),
            Some(value) => read(value).map(Field::Value).ok_or_else(|| format!("{key} is not {what}")),
        }
    }

    fn text(&self, key: &str) -> Result<Field<String>, String> {
        self.take(key, "text", |value| value.as_str().map(ToOwned::to_owned))
    }

    fn email(&self, key: &str) -> Result<Field<String>, String> {
        self.take(key, "a text of up to 1,000 bytes", |value| {
            value.as_str().filter(|text| text.len() <= LONGEST_EMAIL).map(ToOwned::to_owned)
        })
    }

    fn flag(&self, key: &str) -> Result<Field<bool>, String> {
        self.take(key, "true or false", Json::as_bool)
    }

    fn seconds(&self, key: &str) -> Result<Field<i32>, String> {
        self.take(key, "a number of seconds", |value| {
            let digits: Decimal = value.as_digits()?.parse().ok()?;
            digits.is_integer().then_some(digits)?.to_i32()
        })
    }

    /// Exact, by the digits that were sent; Harvest sends `175.0` as well as `120`.
    fn money(&self, key: &str) -> Result<Field<Decimal>, String> {
        self.take(key, "an amount of up to 28 digits", |value| {
            let digits = value.as_digits()?;
            Decimal::from_str_exact(digits).or_else(|_| Decimal::from_scientific(digits)).ok()
        })
    }

    fn time(&self, key: &str) -> Result<Field<DateTime<Utc>>, String> {
        self.take(key, "a time such as 2024-05-01T22:34:41Z", |value| {
            let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
            // As PostgreSQL will hand it back: in microseconds, a leap second as the next one.
            let time = DateTime::from_timestamp_micros(time.timestamp_micros())?;
            // Years that PostgreSQL and every consumer can hold.
            (1..=9999).contains(&time.year()).then_some(time)
        })
    }

    fn date(&self, key: &str) -> Result<Field<NaiveDate>, String> {
        self.take(key, "a day such as 2024-05-01", |value| {
            let date: NaiveDate = value.as_str()?.parse().ok()?;
            (1..=9999).contains(&date.year()).then_some(date)
        })
    }

    fn texts(&self, key: &str) -> Result<Field<Vec<String>>, String> {
        self.take(key, "a list of up to 1,000 texts", |value| {
            let items = value.as_array().filter(|items| items.len() <= MOST_ITEMS)?;
            items.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect()
        })
    }

    /// The id inside an embedded reference: `{"project": {"id": …, "name": …}}`.
    fn reference(&self, key: &str) -> Result<Field<i64>, String> {
        self.take(key, "a reference with an id", |value| value.get("id")?.as_i64())
    }

    /// `is_active` may be missing (then the mirror's counts) but not null.
    fn is_active(&self) -> Result<Field<bool>, String> {
        match self.flag("is_active")? {
            Field::Null => Err("is_active is null".into()),
            told => Ok(told),
        }
    }
}

impl Decode for User {
    fn owner(object: &Members<'_>) -> Option<i64> {
        object.get("id")?.as_i64()
    }

    fn decode(id: i64, object: &mut Object) -> Result<Self, String> {
        let access_roles = object.texts("access_roles")?;
        let is_admin = match (object.flag("is_admin")?, access_roles.value()) {
            (Field::Absent, Some(roles)) => Field::Value(roles.iter().any(|role| role == ADMINISTRATOR)),
            (told, _) => told,
        };
        Ok(Self {
            id,
            first_name: object.text("first_name")?,
            last_name: object.text("last_name")?,
            email: object.email("email")?,
            telephone: object.text("telephone")?,
            timezone: object.text("timezone")?,
            weekly_capacity: object.seconds("weekly_capacity")?,
            has_access_to_all_future_projects: object.flag("has_access_to_all_future_projects")?,
            is_contractor: object.flag("is_contractor")?,
            is_active: object.is_active()?,
            roles: object.texts("roles")?,
            access_roles,
            permissions_claims: object.texts("permissions_claims")?,
            is_admin,
            is_project_manager: object.flag("is_project_manager")?,
            can_see_rates: object.flag("can_see_rates")?,
            can_create_projects: object.flag("can_create_projects")?,
            can_create_invoices: object.flag("can_create_invoices")?,
            calendar_integration_enabled: object.flag("calendar_integration_enabled")?,
            calendar_integration_source: object.text("calendar_integration_source")?,
            employee_id: object.text("employee_id")?,
            default_hourly_rate: object.money("default_hourly_rate")?,
            cost_rate: object.money("cost_rate")?,
            created_at: object.time("created_at")?,
            avatar_url: object.text("avatar_url")?,
            updated_at: object.time("updated_at")?,
        })
    }
}

impl Decode for Assignment {
    fn decode(id: i64, object: &mut Object) -> Result<Self, String> {
        Ok(Self {
            id,
            user_id: object.reference("user")?,
            project_id: object.reference("project")?,
            is_active: object.is_active()?,
            is_project_manager: object.flag("is_project_manager")?,
            use_default_rates: object.flag("use_default_rates")?,
            hourly_rate: object.money("hourly_rate")?,
            budget: object.money("budget")?,
            created_at: object.time("created_at")?,
            updated_at: object.time("updated_at")?,
        })
    }

    /// The embedded names are copies that follow a rename at once: of the references only the ids count.
    fn keep_own(object: &mut Members<'_>) {
        for key in ["user", "project"] {
            if let Some(Json::Object(reference)) = object.get_mut(key) {
                reference.retain(|field, _| field == "id");
            }
        }
    }

    fn user(&self) -> Option<i64> {
        self.user_id.value().copied()
    }

    fn owner(object: &Members<'_>) -> Option<i64> {
        object.get("user")?.get("id")?.as_i64()
    }

    fn project(object: &Members<'_>) -> Option<Project> {
        let project = object.get("project")?;
        let text = |key| match project.get(key) {
            None => Field::Absent,
            Some(value) => value.as_str().map(ToOwned::to_owned).into(),
        };
        Some(Project { id: project.get("id")?.as_i64()?, name: text("name"), code: text("code") })
    }
}

macro_rules! decode_rate {
    ($record:ident) => {
        /// Whose rate it is stands in the address, not in the object.
        impl Decode for $record {
            fn decode(id: i64, object: &mut Object) -> Result<Self, String> {
                Ok(Self {
                    id,
                    user_id: Field::Absent,
                    amount: object.money("amount")?,
                    start_date: object.date("start_date")?,
                    end_date: object.date("end_date")?,
                    created_at: object.time("created_at")?,
                    updated_at: object.time("updated_at")?,
                })
            }

            fn set_user(&mut self, id: i64) {
                self.user_id = Field::Value(id);
            }
        }
    };
}

decode_rate!(BillableRate);
decode_rate!(CostRate);

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
