//! The laws of the core, over random histories: they hold for every company, not for an example.

use std::collections::{BTreeMap, HashMap};

use chrono::DateTime;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::event::Telling;
use super::field::Image;
use super::*;

type Mirror = HashMap<i64, Mirrored<User>>;

/// Long after every stamp.
const INCREMENTAL: Reading = Reading::Incremental { now: DateTime::<chrono::Utc>::MAX_UTC };

/// An image of one of a few people, some keys missing, stamped within a few seconds: collisions are the point.
fn image() -> impl Strategy<Value = User> {
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
        |(id, first_name, avatar_url, is_active, roles, cost_rate, stamp)| User {
            id,
            first_name,
            avatar_url,
            is_active,
            roles,
            cost_rate,
            updated_at: Field::Value(DateTime::from_timestamp(stamp, 0).expect("a time")),
            ..User::default()
        },
    )
}

fn images() -> impl Strategy<Value = Vec<User>> {
    prop::collection::vec(image(), 0..12)
}

fn reading() -> impl Strategy<Value = Reading> {
    prop::sample::select(vec![INCREMENTAL, Reading::Full])
}

/// As the decoder would hand it over: the hash tells absent from null.
fn fetched(record: &User) -> Fetched<User> {
    let told =
        record.fields().into_iter().chain(record.quiet()).map(|(name, value)| format!("{name}={value};"));
    let absent = [
        ("first_name", record.first_name == Field::Absent),
        ("avatar_url", record.avatar_url == Field::Absent),
        ("is_active", record.is_active == Field::Absent),
        ("roles", record.roles == Field::Absent),
        ("cost_rate", record.cost_rate == Field::Absent),
    ]
    .map(|(name, absent)| format!("{name} absent: {absent};"));
    let text: String = told.chain(absent).collect();
    let raw = serde_json::value::to_raw_value(&json!({ "id": record.id })).expect("JSON");
    Fetched { record: record.clone(), raw, hash: xxhash_rust::xxh3::xxh3_64(text.as_bytes()).cast_signed() }
}

fn telling() -> Telling<'static> {
    Telling {
        account: AccountId(7),
        stream: Uuid::nil(),
        cycle: Uuid::nil(),
        mode: "full",
        request: None,
        now: DateTime::UNIX_EPOCH,
    }
}

/// Plans a page, applies it as the store would, and tells the events.
fn page(mirror: &mut Mirror, images: &[User], reading: Reading) -> Vec<Event> {
    let writes = plan(mirror, images.iter().map(fetched).collect(), reading);
    let events =
        writes.iter().filter_map(|write| write.change.as_ref()).map(|change| Event::new(change, &telling()));
    let events = events.collect();
    for Write { record, hash, version, .. } in writes {
        mirror.insert(record.id, Mirrored { record, version, hash, deleted: false });
    }
    events
}

/// Buries people as the store would, and tells the events.
fn bury_all(mirror: &mut Mirror, ids: &[i64]) -> Vec<Event> {
    let rows = ids.iter().filter_map(|id| Some((*id, mirror.get(id)?.clone()))).collect();
    let deletions = bury(rows);
    for deletion in &deletions {
        let row = mirror.get_mut(&deletion.id()).expect("a row");
        (row.version, row.deleted, row.record.is_active) = (deletion.version, true, Field::Value(false));
    }
    deletions.iter().map(|deletion| Event::new(deletion, &telling())).collect()
}

/// What a consumer ends up with: the last image and version of each, and whether it is deleted.
fn fold(events: &[Event]) -> BTreeMap<i64, (i64, Json, bool)> {
    let mut folded = BTreeMap::new();
    for event in events {
        let payload: Json = serde_json::from_str(&event.payload.0).expect("JSON");
        let id = payload["id"].as_i64().expect("an id");
        let before: Option<&(i64, Json, bool)> = folded.get(&id);
        assert_eq!(event.version, before.map_or(0, |(version, ..)| *version) + 1, "versions run 1, 2, 3 …");
        let image = before.filter(|(_, _, deleted)| !deleted).map_or(&Json::Null, |(_, image, _)| image);
        assert_eq!(&payload["before"], image, "before is what the last event left");
        assert_ne!(&payload["after"], image, "an event without a change is none");
        let deleted = event.r#type.ends_with(".deleted");
        let mut image = payload[if deleted { "before" } else { "after" }].clone();
        if deleted {
            image["is_active"] = false.into();
        }
        folded.insert(id, (event.version, image, deleted));
    }
    folded
}

fn image_of(record: &User) -> Json {
    serde_json::from_str(&serde_json::to_string(&Image(record.fields())).expect("JSON")).expect("JSON")
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
    fn the_fold_of_the_events_is_the_mirror(
        pages in prop::collection::vec((images(), reading(), prop::collection::vec(1..5_i64, 0..2)), 0..8),
    ) {
        let (mut mirror, mut events) = (Mirror::new(), Vec::new());
        for (images, reading, leavers) in &pages {
            events.extend(page(&mut mirror, images, *reading));
            events.extend(bury_all(&mut mirror, leavers));
        }
        prop_assert_eq!(fold(&events), as_folded(&mirror));
    }

    #[test]
    fn applying_twice_does_nothing_the_second_time(before in images(), images in images(), reading in reading()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Reading::Full);
        page(&mut mirror, &images, reading);
        let again = plan(&mirror, images.iter().map(fetched).collect(), reading);
        prop_assert!(again.is_empty(), "{} rows would be written again", again.len());
    }

    #[test]
    fn order_and_repetition_do_not_matter(before in images(), mut images in images(), seed in any::<u64>(), reading in reading()) {
        // Of two images with one stamp the later read counts, so only different stamps commute.
        images.sort_by_key(|image| (image.id, image.updated_at.value().copied()));
        images.dedup_by_key(|image| (image.id, image.updated_at.value().copied()));
        let mut shuffled: Vec<User> = images.iter().cloned().chain(images.iter().take(3).cloned()).collect();
        let turn = usize::try_from(seed % 7).expect("small") % shuffled.len().max(1);
        shuffled.rotate_left(turn);
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Reading::Full);
        let (mut one, mut other) = (mirror.clone(), mirror);
        let told = page(&mut one, &images, reading);
        prop_assert_eq!(told, page(&mut other, &shuffled, reading));
        prop_assert!(same(&one, &other));
    }

    #[test]
    fn page_splits_do_not_matter(before in images(), mut images in images(), at in 0..12_usize) {
        // One image an id, as a keyset walk gives them.
        images.sort_by_key(|image| image.id);
        images.dedup_by_key(|image| image.id);
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Reading::Full);
        let (mut whole, mut split) = (mirror.clone(), mirror);
        let told = page(&mut whole, &images, Reading::Full);
        let (front, back) = images.split_at(at.min(images.len()));
        let mut pieces = page(&mut split, front, Reading::Full);
        pieces.extend(page(&mut split, back, Reading::Full));
        prop_assert_eq!(told, pieces);
        prop_assert!(same(&whole, &split));
    }

    #[test]
    fn an_older_stamp_never_wins_in_an_incremental_read(before in images(), images in images()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Reading::Full);
        let stamps: HashMap<i64, _> = mirror.iter().map(|(id, row)| (*id, row.record.updated_at())).collect();
        page(&mut mirror, &images, INCREMENTAL);
        for (id, row) in &mirror {
            if let Some(stamp) = stamps.get(id) {
                prop_assert!(row.record.updated_at() >= *stamp);
            }
        }
    }

    #[test]
    fn a_full_read_overrides_even_a_newer_stamp(before in images(), images in images()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Reading::Full);
        page(&mut mirror, &images, Reading::Full);
        for image in &images {
            let stamps = images.iter().filter(|other| other.id == image.id).map(Record::updated_at);
            let stamps: Option<Vec<_>> = stamps.collect();
            if let (Some(stamps), Some(row)) = (stamps, mirror.get(&image.id)) {
                prop_assert_eq!(row.record.updated_at(), stamps.into_iter().max());
            }
        }
    }

    #[test]
    fn an_absent_key_never_overwrites(before in images(), images in images(), reading in reading()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Reading::Full);
        let known = mirror.clone();
        let silent: Vec<User> = images
            .into_iter()
            .map(|image| User { id: image.id, updated_at: image.updated_at, ..User::default() })
            .filter(|image| known.contains_key(&image.id))
            .collect();
        let events = page(&mut mirror, &silent, reading);
        prop_assert!(events.is_empty());
        prop_assert!(same(&known, &mirror));
    }

    #[test]
    fn nobody_is_deleted_by_what_a_list_does_not_show(before in images(), images in images(), reading in reading()) {
        let mut mirror = Mirror::new();
        page(&mut mirror, &before, Reading::Full);
        let ids: Vec<i64> = mirror.keys().copied().collect();
        let events = page(&mut mirror, &images, reading);
        prop_assert!(events.iter().all(|event| !event.r#type.ends_with(".deleted")));
        prop_assert!(ids.iter().all(|id| mirror.contains_key(id)));
    }
}

#[test]
fn a_stamp_from_a_clock_that_was_put_back_stands_in_nobodys_way() {
    let at = |second| Field::Value(DateTime::from_timestamp(second, 0).expect("a time"));
    let person = |name: &str, stamp| User {
        id: 1,
        first_name: Field::Value(name.into()),
        is_active: Field::Value(true),
        updated_at: at(stamp),
        ..User::default()
    };
    let mut mirror = Mirror::new();
    page(&mut mirror, &[person("a", 4000)], Reading::Full);
    let now = |second| Reading::Incremental { now: DateTime::from_timestamp(second, 0).expect("a time") };
    assert!(page(&mut mirror.clone(), &[person("b", 3990)], now(4010)).is_empty(), "an older image");
    assert_eq!(page(&mut mirror, &[person("b", 1000)], now(1005)).len(), 1, "the clock went back by an hour");
}

#[test]
fn whoever_is_first_seen_without_is_active_waits() {
    let unknown = User { id: 1, ..User::default() };
    assert!(unstorable(&unknown).is_some());
    assert!(plan(&Mirror::new(), vec![fetched(&unknown)], Reading::Full).is_empty());
}

#[test]
fn a_record_that_comes_back_is_created_again_at_the_next_version() {
    let record = User { id: 1, is_active: Field::Value(true), ..User::default() };
    let tombstone =
        Mirrored { hash: fetched(&record).hash, record: record.clone(), version: 4, deleted: true };
    let writes = plan(&Mirror::from([(1, tombstone)]), vec![fetched(&record)], Reading::Full);
    let change = writes[0].change.as_ref().expect("a change");
    assert_eq!((change.kind, change.version), (Kind::Created, 5));
    assert!(change.before.is_none());
}
