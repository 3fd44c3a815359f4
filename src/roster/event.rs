//! The contract with consumers: the outbox row of a change.

use chrono::{DateTime, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::change::{Change, ChangeKind};
use super::field::{FieldValues, Value};
use super::model::{AccountId, Record, Resource};

/// Namespace of the events' ids: `UUIDv5(NAMESPACE, "STREAM_ID/AGGREGATETYPE/ACCOUNT/ID/VERSION")`.
/// It never changes: consumers may compute an id themselves.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_4a0e_52c7_5b7e_9c1a_2d84_0c6b_90e3);

/// An outbox row without `seq`, which the database assigns, and `recorded_at`. No `Debug`, because of the payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    pub resource: Resource,
    pub kind: ChangeKind,
    /// Equal for each attempt to write the same change.
    pub id: Uuid,
    /// `user`, `user_assignment`, `billable_rate` or `cost_rate`.
    pub aggregatetype: &'static str,
    /// `ACCOUNT/ID`.
    pub aggregateid: String,
    pub record_id: i64,
    /// Such as `user.deactivated`.
    pub r#type: String,
    /// The JSON document, with names and pay data.
    pub payload: String,
    pub version: i64,
    /// The record's `updated_at`; for a deletion, when it was confirmed.
    pub occurred_at: DateTime<Utc>,
}

/// The cycle and the time of an event.
#[derive(Clone, Copy, Debug)]
pub struct EventContext<'a> {
    pub account: AccountId,
    /// The outbox's stream (`roster.outbox_head.stream_id`).
    pub stream: Uuid,
    pub cycle: Uuid,
    /// That cycle's mode: `incremental` or `full`.
    pub mode: &'static str,
    /// The [`SourceRequest`](super::SourceRequest) whose answer showed the change, where there was one.
    pub request: Option<&'a str>,
    /// Used as the time of the event if the record has no `updated_at`.
    pub now: DateTime<Utc>,
}

impl Event {
    pub fn new<R: Record>(change: &Change<R>, context: &EventContext) -> Self {
        let aggregatetype = R::RESOURCE.aggregate();
        let aggregateid = [&*context.account.0.to_string(), "/", &*change.id().to_string()].concat();
        let r#type = change.event_type();
        let (stream, version) = (context.stream.to_string(), change.version.to_string());
        let name = [&*stream, aggregatetype, &*aggregateid, &*version].join("/");
        Self {
            resource: R::RESOURCE,
            kind: change.kind,
            id: Uuid::new_v5(&NAMESPACE, name.as_bytes()),
            payload: payload(change, context, &r#type),
            aggregatetype,
            aggregateid,
            record_id: change.id(),
            r#type,
            version: change.version,
            occurred_at: change.occurred_at(context.now),
        }
    }
}

/// Few payloads are longer. A text that grows while it is written is copied several times.
const USUAL_BYTES: usize = 2 << 10;

/// All types of events, such as `user.created`.
pub fn types() -> Vec<String> {
    let of = |resource: Resource| {
        let is_rate = Resource::RATES.contains(&resource);
        let kinds = ChangeKind::ALL.into_iter().filter(move |kind| {
            !is_rate || !matches!(kind, ChangeKind::Deactivated | ChangeKind::Reactivated)
        });
        kinds.map(move |kind| format!("{}.{}", resource.aggregate(), kind.name()))
    };
    Resource::ALL.into_iter().flat_map(of).collect()
}

#[derive(Serialize)]
struct Document<'a> {
    account_id: AccountId,
    id: i64,
    /// The user of a rate, also of a deleted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<i64>,
    r#type: &'a str,
    version: i64,
    changed: Changed<'a>,
    before: Option<FieldValues<'a>>,
    after: Option<FieldValues<'a>>,
    cycle_id: Uuid,
    mode: &'static str,
    request: Option<&'a str>,
    stream_id: Uuid,
}

/// `{"email": {"from": …, "to": …}}`
struct Changed<'a>(Vec<(&'static str, Value<'a>, Value<'a>)>);

impl Serialize for Changed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct FromTo<'a> {
            from: Value<'a>,
            to: Value<'a>,
        }
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        for (name, from, to) in &self.0 {
            object.serialize_entry(name, &FromTo { from: *from, to: *to })?;
        }
        object.end()
    }
}

#[expect(clippy::expect_used, reason = "string keys and finite values always make JSON")]
fn payload<R: Record>(change: &Change<R>, context: &EventContext, r#type: &str) -> String {
    let document = Document {
        account_id: context.account,
        id: change.id(),
        user_id: change.after.as_deref().or(change.before.as_deref()).and_then(Record::part_of_user),
        r#type,
        version: change.version,
        changed: Changed(change.changed()),
        before: change.before.as_ref().map(|record| FieldValues(record.fields())),
        after: change.after.as_ref().map(|record| FieldValues(record.fields())),
        cycle_id: context.cycle,
        mode: context.mode,
        request: context.request,
        stream_id: context.stream,
    };
    let mut json = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut json, &document).expect("an event is JSON");
    json.shrink_to_fit();
    String::from_utf8(json).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rust_decimal::Decimal;

    use super::*;
    use crate::roster::{Assignment, Field, User};

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn context() -> EventContext<'static> {
        EventContext {
            account: AccountId(123_456),
            stream: Uuid::from_u128(1),
            cycle: Uuid::from_u128(2),
            mode: "incremental",
            request: Some("GET /v2/users?updated_since=2026-02-28T08:59:00Z, page 2"),
            now: time("2026-03-01T10:00:00.25Z"),
        }
    }

    fn user() -> User {
        User {
            id: 1001,
            first_name: Field::Value("Ada".into()),
            last_name: Field::Value("Nkemelu".into()),
            email: Field::Value("ada@example.com".into()),
            weekly_capacity: Field::Value(126_000),
            is_active: Field::Value(true),
            roles: Field::Value(vec!["Engineer".into()]),
            access_roles: Field::Value(vec!["member".into()]),
            default_hourly_rate: Field::Value(Decimal::new(1750, 1)),
            cost_rate: Field::Null,
            created_at: Field::Value(time("2024-01-02T03:04:05Z")),
            updated_at: Field::Value(time("2026-02-28T09:00:00Z")),
            ..User::default()
        }
    }

    fn assignment() -> Assignment {
        Assignment {
            id: 5001,
            user_id: Field::Value(1001),
            project_id: Field::Value(77),
            is_active: Field::Value(true),
            budget: Field::Value(Decimal::new(12_345, 2)),
            created_at: Field::Value(time("2024-01-02T03:04:05Z")),
            updated_at: Field::Value(time("2026-02-28T09:00:01Z")),
            ..Assignment::default()
        }
    }

    /// One event of each type, as in the outbox.
    fn every_type<R: Record>(record: &R, edited: R, archived: R) -> String {
        let [record, edited, archived] = [record.clone(), edited, archived].map(Arc::new);
        let deletion =
            Change { kind: ChangeKind::Deleted, version: 5, before: Some(record.clone()), after: None };
        let changes = [
            Change::creation(record.clone(), 1),
            Change::edit(record.clone(), edited, 2),
            Change::edit(record.clone(), archived.clone(), 3),
            Change::edit(archived, record.clone(), 4),
            deletion,
        ];
        let events = changes.iter().map(|change| {
            let event = Event::new(change, &context());
            let payload: serde_json::Value = serde_json::from_str(&event.payload).expect("JSON");
            let payload = serde_json::to_string_pretty(&payload).expect("JSON");
            format!(
                "{} {} {} v{} at {}\n{payload}\n\n",
                event.id, event.aggregateid, event.r#type, event.version, event.occurred_at
            )
        });
        events.collect()
    }

    #[test]
    fn events_of_users_are_as_agreed() {
        let edited = User {
            email: Field::Value("ada.n@example.com".into()),
            cost_rate: Field::Value(Decimal::new(60, 0)),
            roles: Field::Value(vec!["Engineer".into(), "Lead".into()]),
            ..user()
        };
        let archived =
            User { is_active: Field::Value(false), telephone: Field::Value(String::new()), ..user() };
        insta::assert_snapshot!(every_type(&user(), edited, archived));
    }

    #[test]
    fn events_of_assignments_are_as_agreed() {
        let edited =
            Assignment { budget: Field::Null, is_project_manager: Field::Value(true), ..assignment() };
        let archived = Assignment { is_active: Field::Value(false), ..assignment() };
        insta::assert_snapshot!(every_type(&assignment(), edited, archived));
    }

    #[test]
    fn event_ids_are_equal_for_equal_changes_only() {
        let id = |version| Event::new(&Change::creation(Arc::new(user()), version), &context()).id;
        assert_eq!(id(1), id(1));
        assert_ne!(id(1), id(2));
        let expected = format!("{}/user/123456/1001/1", Uuid::from_u128(1));
        assert_eq!(id(1), Uuid::new_v5(&NAMESPACE, expected.as_bytes()));
    }

    #[test]
    fn debug_output_has_no_personal_data() {
        let text = format!("{:?}", user());
        assert!(!text.contains("Ada") && !text.contains("example.com"), "{text}");
    }
}
