//! Decodes records. Unknown fields are kept in `raw`, an absent field is not null, money keeps its digits, ids have 64
//! bits, and `access_roles` are accepted as well as the flags before 2022.
//!
//! A record that cannot be decoded is an [`UnreadableRecord`] and does not affect the others on its page. Reasons name
//! fields, never values.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::json::{self, Json, Members, Text};
use crate::roster::{
    ADMINISTRATOR, Assignment, Authority, BillableRate, CostRate, Fetched, Field, Project, Record, Resource,
    SourceRequest, User,
};

/// Part of `seed`. Increase it if the decoder reads an existing field in another way.
const DECODER_VERSION: u64 = 1;

/// rosterd does not parse longer records: parsed, a list of numbers takes thirty times the memory.
const MAX_RECORD_BYTES: usize = 1 << 20;
/// Lists of roles are compared as sets, each item with each, so their length is limited.
const MAX_ITEMS: usize = 1000;
/// Mail addresses have at most 320 bytes, and an entry of a PostgreSQL index at most 2,700.
const MAX_EMAIL_BYTES: usize = 1000;

/// The reason for a JSON object with an id that cannot be parsed as a whole.
const INVALID_UNICODE_OR_TOO_DEEP: &str = "holds text that is not valid Unicode, or is nested too deep";

#[derive(Clone)]
pub struct UnreadableRecord {
    /// Its id, if that can be read.
    pub id: Option<i64>,
    /// The user that it belongs to, if that can be read.
    pub user_id: Option<i64>,
    /// Its text as received, without pay data if that is not mirrored.
    pub raw: Box<RawValue>,
    pub reason: String,
    pub request: SourceRequest,
}

/// Without the text, which holds personal data.
impl std::fmt::Debug for UnreadableRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnreadableRecord")
            .field("id", &self.id)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

pub trait Decode: Record {
    /// Reads the fields from the object; the error is a reason for [`UnreadableRecord`].
    fn decode(id: i64, object: &Object) -> Result<Self, String>;
    /// Removes copies of other records from the object before its content is hashed.
    fn remove_copies(_object: &mut Members<'_>) {}
    /// The id of the user that the record refers to.
    fn user(&self) -> Option<i64> {
        None
    }
    /// The user that the record belongs to, also if the rest of the object cannot be read.
    fn owner(_object: &Members<'_>) -> Option<i64> {
        None
    }
    /// Sets the user, for records whose object does not name it.
    fn set_user(&mut self, _id: i64) {}
    /// The project that the object describes.
    fn project(_object: &Members<'_>) -> Option<Project> {
        None
    }
}

/// Decodes one record that this request returned. Its authority is full.
pub fn read<R: Decode>(
    raw: &RawValue,
    with_pay_data: bool,
    request: &SourceRequest,
) -> Result<Fetched<R>, UnreadableRecord> {
    let rejected = |id, user_id, raw, reason: &str| {
        let (reason, request) = (reason.to_owned(), request.clone());
        UnreadableRecord { id, user_id, raw, reason, request }
    };
    let stripped;
    let mut raw = raw;
    let mut object = match parse(raw) {
        Ok(object) => object,
        Err((id, reason)) => {
            // Pay data cannot be removed from a text that is not parsed, so none of the text is kept.
            let raw = if with_pay_data { raw } else { RawValue::NULL };
            let user_id = id.filter(|_| R::RESOURCE == Resource::Users);
            return Err(rejected(id, user_id, raw.to_owned(), &reason));
        }
    };
    if !with_pay_data && holds_pay_data(&object) {
        stripped = without_pay_data(raw);
        raw = &stripped;
        object = json::members(raw).unwrap_or_default();
    }
    let raw = raw.to_owned();
    let user_id = R::owner(&object).filter(|id| *id > 0);
    let id = match object.get("id").map(Json::as_i64) {
        Some(Some(id)) if id > 0 => id,
        Some(_) => return Err(rejected(None, user_id, raw, "id is not a positive 64-bit number")),
        None => return Err(rejected(None, user_id, raw, "id is missing")),
    };
    if let Some(reason) = object.iter().find_map(|(key, value)| json::unstorable(key, value)) {
        return Err(rejected(Some(id), user_id, raw, reason));
    }
    let record = match R::decode(id, &Object(&object)) {
        Ok(record) => record,
        Err(reason) => return Err(rejected(Some(id), user_id, raw, &reason)),
    };
    let project = R::project(&object);
    R::remove_copies(&mut object);
    let hash = xxh3_64_with_seed(&json::digest(&object), seed::<R>()).cast_signed();
    let (record, request) = (Arc::new(record), Some(request.clone()));
    Ok(Fetched { record, raw, hash, project, authority: Authority::Full, request })
}

/// Seed of the content hashes. With a new field it changes, so that each row is compared once more.
fn seed<R: Record>() -> u64 {
    xxh3_64_with_seed(R::FIELD_NAMES.as_bytes(), DECODER_VERSION)
}

/// Whether the member holds pay data, in a user or in an assignment. Rates are not read at all without pay data.
fn is_pay_data(key: &str) -> bool {
    Resource::LISTS.iter().any(|list| list.pay_fields().contains(&key))
}

/// Whether the object, or one in it, has a member with pay data.
fn holds_pay_data(object: &Members<'_>) -> bool {
    fn within(value: &Json<'_>) -> bool {
        match value {
            Json::Object(object) => holds_pay_data(object),
            Json::Array(items) => items.iter().any(within),
            _ => false,
        }
    }
    object.iter().any(|(key, value)| is_pay_data(key) || within(value))
}

/// The text of a value without pay data in any object. Its depth was checked.
fn without_pay_data(raw: &RawValue) -> Box<RawValue> {
    let text = if let Ok(mut members) = serde_json::from_str::<BTreeMap<Text<'_>, &RawValue>>(raw.get()) {
        members.retain(|key, _| !is_pay_data(key));
        let members = members.into_iter().map(|(key, value)| (key, without_pay_data(value)));
        serde_json::value::to_raw_value(&members.collect::<BTreeMap<_, _>>())
    } else if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
        serde_json::value::to_raw_value(&items.into_iter().map(without_pay_data).collect::<Vec<_>>())
    } else {
        return raw.to_owned();
    };
    text.unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Parses an object; the error is the record's id, if that can be read, and the reason.
fn parse(raw: &RawValue) -> Result<Members<'_>, (Option<i64>, String)> {
    if raw.get().len() > MAX_RECORD_BYTES {
        return Err((only_id(raw), "is longer than 1 MiB".to_owned()));
    }
    json::members(raw).ok_or_else(|| {
        let is_object = raw.get().starts_with('{');
        let reason = if is_object { INVALID_UNICODE_OR_TOO_DEEP } else { "is not a JSON object" };
        (only_id(raw), reason.to_owned())
    })
}

/// The id of a record that cannot be parsed otherwise: with it, the record counts as present in the list.
fn only_id(raw: &RawValue) -> Option<i64> {
    #[derive(Deserialize)]
    struct Named {
        id: i64,
    }
    let named: Named = serde_json::from_str(raw.get()).ok()?;
    (named.id > 0).then_some(named.id)
}

/// Typed access to the members of an object. Errors are reasons for [`UnreadableRecord`].
pub struct Object<'a>(&'a Members<'a>);

impl<'a> Object<'a> {
    fn field<T>(
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
        self.field(key, "text", |value| value.as_str().map(ToOwned::to_owned))
    }

    fn email(&self, key: &str) -> Result<Field<String>, String> {
        self.field(key, "a text of up to 1,000 bytes", |value| {
            value.as_str().filter(|text| text.len() <= MAX_EMAIL_BYTES).map(ToOwned::to_owned)
        })
    }

    fn flag(&self, key: &str) -> Result<Field<bool>, String> {
        self.field(key, "true or false", Json::as_bool)
    }

    fn seconds(&self, key: &str) -> Result<Field<i32>, String> {
        self.field(key, "a number of seconds", |value| {
            let digits: Decimal = value.as_digits()?.parse().ok()?;
            digits.is_integer().then_some(digits)?.to_i32()
        })
    }

    /// Exact, from the digits as sent; Harvest sends `175.0` as well as `120`.
    fn money(&self, key: &str) -> Result<Field<Decimal>, String> {
        self.field(key, "an amount of up to 28 digits", |value| {
            let digits = value.as_digits()?;
            Decimal::from_str_exact(digits).or_else(|_| Decimal::from_scientific(digits)).ok()
        })
    }

    fn time(&self, key: &str) -> Result<Field<DateTime<Utc>>, String> {
        self.field(key, "a time such as 2024-05-01T22:34:41Z", |value| {
            let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
            // As PostgreSQL returns it: in microseconds, a leap second as the next second.
            let time = DateTime::from_timestamp_micros(time.timestamp_micros())?;
            // Years that PostgreSQL and every consumer can represent.
            (1..=9999).contains(&time.year()).then_some(time)
        })
    }

    fn date(&self, key: &str) -> Result<Field<NaiveDate>, String> {
        self.field(key, "a day such as 2024-05-01", |value| {
            let date: NaiveDate = value.as_str()?.parse().ok()?;
            (1..=9999).contains(&date.year()).then_some(date)
        })
    }

    fn texts(&self, key: &str) -> Result<Field<Vec<String>>, String> {
        self.field(key, "a list of up to 1,000 texts", |value| {
            let items = value.as_array().filter(|items| items.len() <= MAX_ITEMS)?;
            items.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect()
        })
    }

    /// The id of an embedded reference: `{"project": {"id": …, "name": …}}`.
    fn reference(&self, key: &str) -> Result<Field<i64>, String> {
        self.field(key, "a reference with an id", |value| value.get("id")?.as_i64())
    }

    /// `is_active` may be absent (then the mirror's value counts) but not null.
    fn is_active(&self) -> Result<Field<bool>, String> {
        match self.flag("is_active")? {
            Field::Null => Err("is_active is null".into()),
            field => Ok(field),
        }
    }
}

impl Decode for User {
    fn owner(object: &Members<'_>) -> Option<i64> {
        object.get("id")?.as_i64()
    }

    fn decode(id: i64, object: &Object) -> Result<Self, String> {
        let access_roles = object.texts("access_roles")?;
        let is_admin = match (object.flag("is_admin")?, access_roles.value()) {
            (Field::Absent, Some(roles)) => Field::Value(roles.iter().any(|role| role == ADMINISTRATOR)),
            (flag, _) => flag,
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
    fn decode(id: i64, object: &Object) -> Result<Self, String> {
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

    /// The embedded names are copies that change with each rename, so of the references only the ids count.
    fn remove_copies(object: &mut Members<'_>) {
        for key in ["user", "project"] {
            if let Some(Json::Object(reference)) = object.get_mut(key) {
                reference.retain(|field, _| &**field == "id");
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
        /// The user is in the address, not in the object.
        impl Decode for $record {
            fn decode(id: i64, object: &Object) -> Result<Self, String> {
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
