use chrono::TimeDelta;

use super::*;
use crate::scim::schemas;

fn ada() -> UserRow {
    UserRow {
        id: 1001,
        first_name: "Ada".to_owned(),
        last_name: "Lovelace".to_owned(),
        email: "ada@example.com".to_owned(),
        telephone: Some("+44 20 7946 0000".to_owned()),
        is_active: true,
        created_at: DateTime::from_timestamp(1_772_000_000, 0),
        updated_at: DateTime::from_timestamp(1_772_000_060, 0),
        version: 12,
        external_id: Some("00u1".to_owned()),
        ..UserRow::default()
    }
}

#[test]
fn user_is_rendered_with_all_attributes() {
    let user = ada().render(&[], "https://scim.example.com/scim/v2/7", &Projection::default());
    insta::assert_json_snapshot!(user);
}

#[test]
fn link_replaces_user_name_and_display_name_and_counts_for_version_and_time() {
    let link_updated_at = ada().updated_at.map(|time| time + TimeDelta::seconds(1));
    let row = UserRow {
        user_name: Some("al".to_owned()),
        display_name: Some("Countess".to_owned()),
        external_id: None,
        telephone: Some(String::new()),
        link_version: 3,
        link_updated_at,
        ..ada()
    };
    let user = row.render(&[], "", &Projection::default());
    assert_eq!((&user["userName"], &user["displayName"]), (&json!("al"), &json!("Countess")));
    assert_eq!(user["meta"]["version"], "W/\"12-3\"");
    assert_eq!(user["meta"]["lastModified"], "2026-02-25T06:14:21Z");
    assert!(user.get("externalId").is_none() && user.get("phoneNumbers").is_none());
    let removed =
        UserRow { display_name: Some(String::new()), ..row }.render(&[], "", &Projection::default());
    assert!(removed.get("displayName").is_none());
}

#[test]
fn schema_lists_exactly_the_attributes_of_a_rendered_user() {
    let schema = schemas("", true).remove(0);
    let groups = [UserGroup { id: 7, name: "Design".to_owned() }];
    let user = ada().render(&groups, "", &Projection::default());
    let names = |list: &Json| -> Vec<String> {
        let list = list.as_array().expect("attributes").iter();
        list.map(|attribute| attribute["name"].as_str().expect("a name").to_owned()).collect()
    };
    let common = ["schemas", "id", "externalId", "meta"];
    let members = |json: &Json| {
        let first = json.as_array().map_or(json, |items| &items[0]);
        let mut keys: Vec<String> = first.as_object().expect("an object").keys().cloned().collect();
        keys.retain(|key| !common.contains(&key.as_str()));
        keys
    };
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(names(&schema["attributes"])), sorted(members(&user)));
    for attribute in schema["attributes"].as_array().expect("attributes") {
        if attribute["type"] == "complex" {
            let value = &user[attribute["name"].as_str().expect("a name")];
            assert_eq!(sorted(names(&attribute["subAttributes"])), sorted(members(value)));
        }
    }
    assert_eq!(names(&schema["attributes"]).last().map(String::as_str), Some("active"));
}
