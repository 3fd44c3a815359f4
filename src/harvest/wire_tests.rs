//! The decoder with records in every format that Harvest is known to have sent since 2019.

use serde::Serialize;
use serde_json::json;

use super::*;
use crate::roster::{Field, Record};

/// A user of 2026, in the format of 2022 and later.
const CURRENT: &str = r#"{"id":3758384,"first_name":"Warrin","last_name":"Watch","email":"w@example.com","telephone":"",
    "timezone":"Kyiv","weekly_capacity":144000,"has_access_to_all_future_projects":false,"is_contractor":false,
    "is_active":true,"calendar_integration_enabled":false,"calendar_integration_source":null,
    "created_at":"2021-05-05T08:19:32Z","updated_at":"2022-04-21T09:59:47Z","can_create_projects":false,
    "default_hourly_rate":175.0,"cost_rate":60.25,"roles":["Sample Role"],"access_roles":["member"],
    "permissions_claims":["timers:read:own"],"avatar_url":"https://cache.example.com/4.png","new_in_2027":{"a":[1]}}"#;

/// A user of 2019, as a Member sees it: flags instead of access roles, and no rates.
const OLD: &str = r#"{"id":2516167,"first_name":"Aaron","last_name":"Burr","email":"a@example.com","telephone":"",
    "timezone":"Eastern Time (US & Canada)","weekly_capacity":126000,"has_access_to_all_future_projects":false,
    "is_contractor":false,"is_admin":true,"is_project_manager":false,"can_see_rates":false,
    "can_create_projects":false,"can_create_invoices":false,"is_active":true,"created_at":"2019-01-18T21:21:18Z",
    "updated_at":"2019-01-18T21:25:16Z","roles":[],"avatar_url":"https://cache.example.com/t.png?1547846478"}"#;

const ASSIGNMENT: &str = r#"{"id":4294967297001,"is_project_manager":true,"is_active":true,"use_default_rates":false,
    "budget":120,"created_at":"2021-05-05T12:52:20Z","updated_at":"2021-05-05T12:52:20Z","hourly_rate":10.10,
    "project":{"id":28674500,"name":"First project","code":null},"user":{"id":3758380,"name":"Jo Example"}}"#;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

fn read_as<R: Decode>(text: &str) -> Result<Fetched<R>, UnreadableRecord> {
    read(&raw(text), true, &"".into())
}

fn user(text: &str) -> User {
    Arc::unwrap_or_clone(read_as::<User>(text).expect("a user").record)
}

/// `CURRENT` with one field replaced.
fn current_with(key: &str, value: impl Serialize) -> String {
    let mut object: BTreeMap<String, Box<RawValue>> = serde_json::from_str(CURRENT).expect("JSON");
    object.insert(key.to_owned(), serde_json::value::to_raw_value(&value).expect("JSON"));
    serde_json::to_string(&object).expect("JSON")
}

#[test]
fn every_field_of_a_user_is_read() {
    let user = user(CURRENT);
    let absent: Vec<&str> = user
        .fields()
        .into_iter()
        .filter(|(_, value)| *value == crate::roster::Value::Null)
        .map(|(name, _)| name)
        .collect();
    // Fields that Harvest no longer sends, or sends as null.
    let expected = [
        "is_project_manager",
        "can_see_rates",
        "can_create_invoices",
        "calendar_integration_source",
        "employee_id",
    ];
    assert_eq!(absent, expected);
    assert!(user.cost_rate == Field::Value("60.25".parse().expect("a decimal")));
    assert!(user.telephone == Field::Value(String::new()), "an empty text is not null");
}

#[test]
fn absent_field_is_not_null() {
    let (old, current) = (user(OLD), user(CURRENT));
    assert!(old.cost_rate == Field::Absent);
    assert!(current.calendar_integration_source == Field::Null);
}

#[test]
fn is_admin_comes_from_the_flag_or_from_the_access_roles() {
    assert!(user(OLD).is_admin == Field::Value(true), "the flag as sent");
    assert!(user(CURRENT).is_admin == Field::Value(false), "no flag, and member is no administrator");
    let admin = current_with("access_roles", json!(["manager", "administrator"]));
    assert!(user(&admin).is_admin == Field::Value(true));
}

#[test]
fn ids_have_64_bits_and_money_keeps_its_digits() {
    let read = read_as::<Assignment>(ASSIGNMENT).expect("an assignment");
    let assignment = read.record;
    assert_eq!(assignment.id, 4_294_967_297_001);
    assert!(assignment.hourly_rate == Field::Value("10.1".parse().expect("a decimal")));
    assert!(assignment.budget == Field::Value(120.into()));
    let long = current_with("cost_rate", raw("12345678901234567.12345678"));
    assert!(user(&long).cost_rate == Field::Value("12345678901234567.12345678".parse().expect("a decimal")));
    let project = read.project.expect("a project");
    assert_eq!(project.id, 28_674_500);
    assert!(project.name == Field::Value("First project".into()) && project.code == Field::Null);
}

#[test]
fn unknown_fields_stay_in_raw_as_received() {
    let read = read_as::<User>(CURRENT).expect("a user");
    assert_eq!(read.raw.get(), CURRENT);
}

#[test]
fn content_hash_depends_on_unknown_fields_but_not_on_the_order_of_keys() {
    let hash = |text: &str| read_as::<User>(text).expect("a user").hash;
    let sent: BTreeMap<String, &RawValue> = serde_json::from_str(CURRENT).expect("JSON");
    let mut pairs: Vec<_> = sent.into_iter().collect();
    pairs.reverse();
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    assert_eq!(hash(CURRENT), hash(&format!("{{{}}}", pairs.join(","))));
    assert_ne!(hash(CURRENT), hash(&current_with("new_in_2027", json!(2))));
}

/// Otherwise a new field would stay empty in the rows of records that do not change at Harvest.
#[test]
fn content_hash_depends_on_the_names_of_the_decoded_fields() {
    let (record, text) = (User::default(), r#"{"id":1,"is_active":true}"#);
    let names: Vec<_> = record.fields().into_iter().chain(record.quiet()).map(|(name, _)| name).collect();
    assert_eq!(User::FIELD_NAMES, names.join(" ") + " ");
    let (user, assignment) = (read_as::<User>(text), read_as::<Assignment>(text));
    assert_ne!(user.expect("a user").hash, assignment.expect("an assignment").hash);
}

#[test]
fn renamed_project_or_user_does_not_change_the_hash_of_an_assignment() {
    let hash = |text: &str| read_as::<Assignment>(text).expect("an assignment").hash;
    assert_eq!(
        hash(ASSIGNMENT),
        hash(&ASSIGNMENT.replace("First project", "Renamed").replace("Jo Example", "X"))
    );
    assert_ne!(hash(ASSIGNMENT), hash(&ASSIGNMENT.replace("28674500", "28674501")));
}

#[test]
fn rejection_names_the_field_and_never_the_value() {
    let json = |value: serde_json::Value| raw(&value.to_string());
    for (key, value, reason) in [
        ("first_name", json(json!(5)), "first_name is not text"),
        ("is_active", json(json!("yes")), "is_active is not true or false"),
        ("is_active", json(json!(null)), "is_active is null"),
        ("weekly_capacity", json(json!(99_999_999_999_i64)), "weekly_capacity is not a number of seconds"),
        ("cost_rate", json(json!("plenty")), "cost_rate is not an amount of up to 28 digits"),
        ("updated_at", json(json!("yesterday")), "updated_at is not a time such as 2024-05-01T22:34:41Z"),
        ("roles", json(json!(["x", 5])), "roles is not a list of up to 1,000 texts"),
        ("email", json(json!("a\u{0}b")), "holds a NUL character, which PostgreSQL cannot store"),
        (
            "new_in_2027",
            json(json!({"a": ["\u{0}"]})),
            "holds a NUL character, which PostgreSQL cannot store",
        ),
        (
            "new_in_2027",
            raw("1e999999"),
            "holds a number with more than 500 digits or an exponent beyond 500",
        ),
        (
            "cost_rate",
            raw("1e-999999999999"),
            "holds a number with more than 500 digits or an exponent beyond 500",
        ),
        ("new_in_2027", json(json!("x".repeat((64 << 10) + 1))), "holds a text longer than 64 KiB"),
        ("email", json(json!("x".repeat(1001))), "email is not a text of up to 1,000 bytes"),
        ("created_at", json(json!("0000-00-00")), "created_at is not a time such as 2024-05-01T22:34:41Z"),
        (
            "created_at",
            json(json!("+262000-01-01T00:00:00Z")),
            "created_at is not a time such as 2024-05-01T22:34:41Z",
        ),
        (
            "cost_rate",
            raw("12345678901234567890123456789012"),
            "cost_rate is not an amount of up to 28 digits",
        ),
    ] {
        let rejected = read_as::<User>(&current_with(key, value)).err().expect("a rejection");
        assert_eq!((rejected.id, rejected.reason.as_str()), (Some(3_758_384), reason));
    }
}

/// `serde_json::Value` reads such an object as a number, or as other JSON.
#[test]
fn objects_with_private_keys_of_serde_json_stay_objects() {
    let (number, raw_value) = ("$serde_json::private::Number", "$serde_json::private::RawValue");
    for object in [
        json!({ number: "7200" }),
        json!({ number: "no digits" }),
        json!({ raw_value: "{\"id\":1}" }),
        json!({ raw_value: "{not JSON" }),
        json!({ raw_value: 5, "a": [{ number: "1" }] }),
        json!([{ "a": { number: "1", "b": 2 } }]),
    ] {
        let text = current_with("new_in_2027", &object);
        let read = read_as::<User>(&text).expect("a user");
        assert_eq!(read.raw.get(), text, "kept as received");
        assert_ne!(read.hash, read_as::<User>(CURRENT).expect("a user").hash, "{text}");
        let without_pay_data = super::read::<User>(&raw(&text), false, &"".into()).expect("a user");
        assert!(without_pay_data.raw.get().contains(&object.to_string()), "{}", without_pay_data.raw);
        for (key, reason) in [
            ("weekly_capacity", "weekly_capacity is not a number of seconds"),
            ("cost_rate", "cost_rate is not an amount of up to 28 digits"),
            ("first_name", "first_name is not text"),
            ("is_active", "is_active is not true or false"),
            ("roles", "roles is not a list of up to 1,000 texts"),
        ] {
            let rejected = read_as::<User>(&current_with(key, &object)).err().expect("a rejection");
            assert_eq!((rejected.id, rejected.reason.as_str()), (Some(3_758_384), reason));
        }
        let rejected = read_as::<User>(&current_with("id", &object)).err().expect("a rejection");
        assert_eq!((rejected.id, rejected.reason.as_str()), (None, "id is not a positive 64-bit number"));
    }
}

#[test]
fn record_without_a_valid_id_is_rejected() {
    for id in ["null", "0", "-1", "\"5\"", "99999999999999999999"] {
        let text = CURRENT.replace("3758384", id);
        assert!(read_as::<User>(&text).err().expect("a rejection").id.is_none(), "{id}");
    }
    assert!(read_as::<User>("[]").is_err());
}

#[test]
fn unparsable_record_keeps_its_id() {
    let deep = format!(r#"{{"id":7,"is_active":true,"x":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    for text in [r#"{"id":7,"is_active":true,"first_name":"\ud800"}"#, &deep] {
        let rejected = read_as::<User>(text).err().expect("a rejection");
        assert_eq!(
            (rejected.id, rejected.reason.as_str()),
            (Some(7), "holds text that is not valid Unicode, or is nested too deep")
        );
    }
}

/// Parsed, it would take thirty times the memory.
#[test]
fn record_longer_than_1_mib_is_rejected_without_parsing() {
    let long = format!(r#"{{"notes":[{}1],"cost_rate":91743.57,"id":7}}"#, "1,".repeat(1 << 19));
    for with_pay_data in [true, false] {
        let rejected = read::<User>(&raw(&long), with_pay_data, &"".into()).err().expect("rejected");
        assert_eq!((rejected.id, rejected.reason.as_str()), (Some(7), "is longer than 1 MiB"));
        assert_eq!(rejected.raw.get().contains("91743.57"), with_pay_data);
    }
}

/// Each item would be compared with each.
#[test]
fn record_with_more_than_1000_roles_is_rejected() {
    let roles = |count: usize| current_with("roles", (0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(read_as::<User>(&roles(1000)).is_ok());
    let rejected = read_as::<User>(&roles(1001)).err().expect("rejected");
    assert_eq!(rejected.reason, "roles is not a list of up to 1,000 texts");
}

#[test]
fn times_have_the_precision_of_the_database() {
    let at = |text: &str| user(&current_with("created_at", json!(text))).created_at;
    let time = |text: &str| Field::Value(text.parse::<DateTime<Utc>>().expect("a time"));
    assert_eq!(at("2024-05-01T22:34:41.123456789Z"), time("2024-05-01T22:34:41.123456Z"));
    assert_eq!(at("2016-12-31T23:59:60Z"), time("2017-01-01T00:00:00Z"));
    assert_eq!(at("2024-05-01T22:34:41+02:00"), time("2024-05-01T20:34:41Z"));
}

#[test]
fn rate_has_no_user_until_set_user() {
    const RATE: &str = r#"{"id":1836493,"amount":175.0,"start_date":null,"end_date":"2025-12-31",
        "created_at":"2021-05-05T08:19:32Z","updated_at":"2021-05-05T08:19:32Z"}"#;
    let mut rate = Arc::unwrap_or_clone(read_as::<BillableRate>(RATE).expect("a rate").record);
    assert_eq!((&rate.user_id, &rate.start_date), (&Field::Absent, &Field::Null));
    assert_eq!(rate.end_date, Field::Value("2025-12-31".parse().expect("a day")));
    rate.set_user(5);
    assert_eq!(rate.part_of_user(), Some(5));
    let bad = RATE.replace("2025-12-31", "2025-02-30");
    assert_eq!(
        read_as::<CostRate>(&bad).err().expect("a rejection").reason,
        "end_date is not a day such as 2024-05-01"
    );
}

#[test]
fn escaped_backslash_before_u0000_is_not_a_nul_character() {
    let text = r#"{"id":1,"is_active":true,"first_name":"C:\\u0000"}"#;
    assert!(read_as::<User>(text).is_ok());
}

#[test]
fn record_without_pay_data_keeps_none_in_fields_and_raw() {
    let read = read::<User>(&raw(CURRENT), false, &"".into()).expect("a user");
    assert!(read.record.cost_rate == Field::Absent && read.record.default_hourly_rate == Field::Absent);
    assert!(!read.raw.get().contains("60.25") && read.raw.get().contains("new_in_2027"));
    let read = super::read::<Assignment>(&raw(ASSIGNMENT), false, &"".into()).expect("an assignment");
    assert!(!read.raw.get().contains("10.1") && read.record.budget == Field::Absent);
}

#[test]
fn pay_data_in_nested_objects_is_not_kept_either() {
    let text = r#"{"id": 1, "is_active": true, "teams": [1, {"cost_rate": 91743.57, "name": "A"}], "rates": {"cost_rate": 91743.57}}"#;
    let kept = |with_pay_data| {
        let read = super::read::<User>(&raw(text), with_pay_data, &"".into()).expect("a user");
        (read.raw.get().contains("91743.57"), read.raw.get().contains(r#"{"name":"A"}"#))
    };
    assert_eq!((kept(false), kept(true)), ((false, true), (true, false)));
}
