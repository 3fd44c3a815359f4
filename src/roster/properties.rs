//! Properties of the core, tested over random histories.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::DateTime;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::event::EventContext;
use super::field::FieldValues;
use super::*;

type Mirror = HashMap<i64, MirrorRow<User>>;

/// Later than every `updated_at`.
const INCREMENTAL: Authority = Authority::Incremental { now: DateTime::<chrono::Utc>::MAX_UTC };

/// A state of one of a few users, with absent keys and times within a few seconds, so that collisions are frequent.
fn state() -> impl Strategy<Value = User> {
    fn field<T: Clone + std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Field<T>> {
        (0..5, value).prop_map(|(kind, value)| match kind {
            0 => Field::Absent,
            1 => Field::Null,
            _ => Field::Value(value),
        })
    }
    let names = || field(prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned));
    let roles = prop::collection::vec(prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned), 0..3);
    let active = (0..4, any::<bool>())
        .prop_map(|(kind, active)| if kind == 0 { Field::Absent } else { Field::Value(active) });
    let rate = field((0..4_i64).prop_map(|units| Decimal::new(units * 10, 1)));
    (1..5_i64, names(), names(), active, field(roles), rate, 0..6_i64).prop_map(
        |(id, first_name, avatar_url, is_active, roles, cost_rate, second)| User {
            id,
            first_name,
            avatar_url,
            is_active,
            roles,
            cost_rate,
            updated_at: Field::Value(DateTime::from_timestamp(second, 0).expect("a time")),
            ..User::default()
        },
    )
}

fn states() -> impl Strategy<Value = Vec<User>> {
    prop::collection::vec(state(), 0..12)
}

fn authority() -> impl Strategy<Value = Authority> {
    prop::sample::select(vec![INCREMENTAL, Authority::Full])
}

/// As the decoder returns it: the hash of an absent key differs from the hash of null.
fn fetched(record: &User, authority: Authority) -> Fetched<User> {
    let present =
        record.fields().into_iter().chain(record.quiet()).map(|(name, value)| format!("{name}={value};"));
    let absent = [
        ("first_name", record.first_name == Field::Absent),
        ("avatar_url", record.avatar_url == Field::Absent),
        ("is_active", record.is_active == Field::Absent),
        ("roles", record.roles == Field::Absent),
        ("cost_rate", record.cost_rate == Field::Absent),
    ]
    .map(|(name, absent)| format!("{name} absent: {absent};"));
    let text: String = present.chain(absent).collect();
    let raw = serde_json::value::to_raw_value(&json!({ "id": record.id })).expect("JSON");
    let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes()).cast_signed();
    Fetched { record: Arc::new(record.clone()), raw, hash, project: None, authority, request: None }
}

fn context() -> EventContext<'static> {
    EventContext {
        account: AccountId(7),
        stream: Uuid::nil(),
        cycle: Uuid::nil(),
        mode: "full",
        request: None,
        now: DateTime::UNIX_EPOCH,
    }
}

/// Plans a page, applies it as the store does, and returns the events.
fn page(mirror: &mut Mirror, states: &[User], authority: Authority) -> Vec<Event> {
    let fetched: Vec<_> = states.iter().map(|state| fetched(state, authority)).collect();
    let writes = plan(mirror, &fetched);
    let events =
        writes.iter().filter_map(|write| write.change.as_ref()).map(|change| Event::new(change, &context()));
    let events = events.collect();
    for RowWrite { record, fetched, version, .. } in writes {
        let record = Arc::unwrap_or_clone(record);
        mirror.insert(record.id, MirrorRow { record, version, hash: fetched.hash, deleted: false });
    }
    events
}

/// Deletes users as the store does, and returns the events.
fn delete_all(mirror: &mut Mirror, ids: &[i64]) -> Vec<Event> {
    let rows = ids.iter().filter_map(|id| Some((*id, mirror.get(id)?.clone()))).collect();
    let deletions = tombstones(rows);
    for deletion in &deletions {
        let row = mirror.get_mut(&deletion.id()).expect("a row");
        (row.version, row.deleted, row.record.is_active) = (deletion.version, true, Field::Value(false));
    }
    deletions.iter().map(|deletion| Event::new(deletion, &context())).collect()
}

/// What a consumer computes from the events: last state and version of each record, and whether it is deleted.
fn fold(events: &[Event]) -> BTreeMap<i64, (i64, Json, bool)> {
    let mut folded = BTreeMap::new();
    for event in events {
        let payload: Json = serde_json::from_str(&event.payload).expect("JSON");
        let id = payload["id"].as_i64().expect("an id");
        let before: Option<&(i64, Json, bool)> = folded.get(&id);
        assert_eq!(event.version, before.map_or(0, |(version, ..)| *version) + 1, "versions run 1, 2, 3 …");
        let state = before.filter(|(_, _, deleted)| !deleted).map_or(&Json::Null, |(_, state, _)| state);
        assert_eq!(&payload["before"], state, "`before` is the state after the last event");
        assert_ne!(&payload["after"], state, "each event has a change");
        let deleted = event.r#type.ends_with(".deleted");
        let mut state = payload[if deleted { "before" } else { "after" }].clone();
        if deleted {
            state["is_active"] = false.into();
        }
        folded.insert(id, (event.version, state, deleted));
    }
    folded
}

fn image_of(record: &User) -> Json {
    serde_json::from_str(&serde_json::to_string(&FieldValues(record.fields())).expect("JSON")).expect("JSON")
}

fn as_folded(mirror: &Mirror) -> BTreeMap<i64, (i64, Json, bool)> {
    mirror.iter().map(|(id, row)| (*id, (row.version, image_of(&row.record), row.deleted))).collect()
}

/// The mirrored fields alone, as numbers and sets compare.
fn same(a: &Mirror, b: &Mirror) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|(id, row)| b.get(id).is_some_and(|other| row.record.fields() == other.record.fields()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn folded_events_equal_the_mirror(
        pages in prop::collection::vec((states(), authority(), prop::collection::vec(1..5_i64, 0..2)), 0..8),
    ) {
        let (mut mirror, mut events) = (Mirror::new(), Vec::new());
        for (states, authority, leavers) in &pages {
            events.extend(page(&mut mirror, states, *authority));
            events.extend(delete_all(&mut mirror, leavers));
        }
        prop_assert_eq!(fold(&events), as_folded(&mirror));
    }

    #[test]
    fn pages_applied_twice_write_nothing_the_second_time(before in states(), states in states(), authority in authority()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Authority::Full);
        page(&mut mirror, &states, authority);
        let fetched: Vec<_> = states.iter().map(|state| fetched(state, authority)).collect();
        let again = plan(&mirror, &fetched);
        prop_assert!(again.is_empty(), "{} rows would be written again", again.len());
    }

    #[test]
    fn order_and_repetition_of_records_do_not_matter(before in states(), mut states in states(), seed in any::<u64>(), authority in authority()) {
        // Of two states with equal `updated_at` the last one counts, so only different ones commute.
        states.sort_by_key(|state| (state.id, state.updated_at.value().copied()));
        states.dedup_by_key(|state| (state.id, state.updated_at.value().copied()));
        let mut shuffled: Vec<User> = states.iter().cloned().chain(states.iter().take(3).cloned()).collect();
        let turn = usize::try_from(seed % 7).expect("small") % shuffled.len().max(1);
        shuffled.rotate_left(turn);
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Authority::Full);
        let (mut one, mut other) = (mirror.clone(), mirror);
        let events = page(&mut one, &states, authority);
        prop_assert!(events == page(&mut other, &shuffled, authority));
        prop_assert!(same(&one, &other));
    }

    #[test]
    fn splitting_a_page_does_not_change_the_result(before in states(), mut states in states(), at in 0..12_usize) {
        // One state of each id, as pagination by cursor returns them.
        states.sort_by_key(|state| state.id);
        states.dedup_by_key(|state| state.id);
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Authority::Full);
        let (mut whole, mut split) = (mirror.clone(), mirror);
        let events = page(&mut whole, &states, Authority::Full);
        let (front, back) = states.split_at(at.min(states.len()));
        let mut pieces = page(&mut split, front, Authority::Full);
        pieces.extend(page(&mut split, back, Authority::Full));
        prop_assert!(events == pieces);
        prop_assert!(same(&whole, &split));
    }

    #[test]
    fn older_records_never_replace_newer_rows_in_incremental_reads(before in states(), states in states()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Authority::Full);
        let times: HashMap<i64, _> = mirror.iter().map(|(id, row)| (*id, row.record.updated_at())).collect();
        page(&mut mirror, &states, INCREMENTAL);
        for (id, row) in &mirror {
            if let Some(time) = times.get(id) {
                prop_assert!(row.record.updated_at() >= *time);
            }
        }
    }

    #[test]
    fn full_reads_replace_rows_with_a_newer_updated_at(before in states(), states in states()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Authority::Full);
        page(&mut mirror, &states, Authority::Full);
        for state in &states {
            let times = states.iter().filter(|other| other.id == state.id).map(Record::updated_at);
            let times: Option<Vec<_>> = times.collect();
            if let (Some(times), Some(row)) = (times, mirror.get(&state.id)) {
                prop_assert_eq!(row.record.updated_at(), times.into_iter().max());
            }
        }
    }

    #[test]
    fn absent_keys_never_overwrite_values(before in states(), states in states(), authority in authority()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Authority::Full);
        let known = mirror.clone();
        let without_fields: Vec<User> = states
            .into_iter()
            .map(|state| User { id: state.id, updated_at: state.updated_at, ..User::default() })
            .filter(|state| known.contains_key(&state.id))
            .collect();
        let events = page(&mut mirror, &without_fields, authority);
        prop_assert!(events.is_empty());
        prop_assert!(same(&known, &mirror));
    }

    #[test]
    fn records_absent_from_a_page_are_never_deleted(before in states(), states in states(), authority in authority()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Authority::Full);
        let ids: Vec<i64> = mirror.keys().copied().collect();
        let events = page(&mut mirror, &states, authority);
        prop_assert!(events.iter().all(|event| !event.r#type.ends_with(".deleted")));
        prop_assert!(ids.iter().all(|id| mirror.contains_key(id)));
    }
}

#[test]
fn rows_from_the_future_are_replaced_after_harvests_clock_was_set_back() {
    let at = |second| Field::Value(DateTime::from_timestamp(second, 0).expect("a time"));
    let user = |name: &str, second| User {
        id: 1,
        first_name: Field::Value(name.into()),
        is_active: Field::Value(true),
        updated_at: at(second),
        ..User::default()
    };
    let mut mirror = Mirror::new();
    page(&mut mirror, &[user("a", 4000)], Authority::Full);
    let now = |second| Authority::Incremental { now: DateTime::from_timestamp(second, 0).expect("a time") };
    assert!(page(&mut mirror.clone(), &[user("b", 3990)], now(4010)).is_empty(), "an older state");
    assert_eq!(
        page(&mut mirror, &[user("b", 1000)], now(1005)).len(),
        1,
        "Harvest's clock was set back by an hour"
    );
}

#[test]
fn records_first_seen_without_is_active_are_not_stored() {
    let unknown = User { id: 1, ..User::default() };
    assert!(unstorable(&unknown).is_some());
    assert!(plan(&Mirror::new(), &[fetched(&unknown, Authority::Full)]).is_empty());
}

#[test]
fn restored_records_are_created_again_at_the_next_version() {
    let record = User { id: 1, is_active: Field::Value(true), ..User::default() };
    let fetched = fetched(&record, Authority::Full);
    let tombstone = MirrorRow { hash: fetched.hash, record, version: 4, deleted: true };
    let fetched = [fetched];
    let writes = plan(&Mirror::from([(1, tombstone)]), &fetched);
    let change = writes[0].change.as_ref().expect("a change");
    assert_eq!((change.kind, change.version), (ChangeKind::Created, 5));
    assert!(change.before.is_none());
}
