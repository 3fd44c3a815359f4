use super::*;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";

fn ada() -> UserRow {
    UserRow {
        id: 7,
        first_name: "Ada".to_owned(),
        last_name: "Lovelace".to_owned(),
        email: "ada@example.com".to_owned(),
        telephone: Some("123".to_owned()),
        is_active: true,
        version: 2,
        ..UserRow::default()
    }
}

fn archived() -> UserRow {
    UserRow { is_active: false, ..ada() }
}

fn put(attributes: Json) -> UserIntent {
    let mut body = attributes;
    body["schemas"] = json!([USER]);
    UserIntent::from_put(body.to_string().as_bytes()).expect("a valid body")
}

fn writes(changes: &Changes) -> Vec<(WriteKind, Json)> {
    assert!(changes.writes.iter().all(|write| write.user == Some(7)));
    changes.writes.iter().map(|write| (write.kind, write.fields.to_json())).collect()
}

#[track_caller]
fn expect(attributes: Json, row: &UserRow, expected: &[(WriteKind, Json)]) -> Changes {
    let changes = put(attributes).changes(row).expect("changes");
    assert_eq!(writes(&changes), expected);
    changes
}

fn text(value: &str) -> Field<String> {
    Field::Value(value.to_owned())
}

#[test]
fn equal_values_write_nothing() {
    let same = json!({
        "userName": "ADA@example.com", "name": {"givenName": "Ada", "familyName": "Lovelace"},
        "displayName": "Ada Lovelace", "emails": [{"value": "Ada@Example.com", "primary": true}],
        "phoneNumbers": [{"value": "123", "type": "work"}], "active": true,
    });
    assert_eq!(expect(same, &ada(), &[]), Changes::default());
    assert_eq!(expect(json!({}), &archived(), &[]), Changes::default());
}

#[test]
fn changed_fields_are_one_write() {
    let changes = json!({"name": {"givenName": "A."}, "emails": [{"value": "a@x.test"}], "phoneNumbers": []});
    let expected = json!({"first_name": "A.", "email": "a@x.test", "telephone": ""});
    expect(changes, &ada(), &[(WriteKind::UserUpdate, expected)]);
}

#[test]
fn deactivation_is_alone_and_sent_even_if_the_mirror_has_it() {
    for row in [ada(), archived()] {
        let wanted = json!({
            "active": "False", "name": {"givenName": "Other"}, "displayName": "Left", "externalId": "x1",
            "emails": [{"value": "other@x.test"}], "phoneNumbers": [],
        });
        let changes = expect(wanted, &row, &[(WriteKind::UserDeactivate, json!({}))]);
        assert_eq!(changes.left_out, ["first_name", "email", "telephone"]);
        let link =
            LinkChange { external_id: text("x1"), user_name: Field::Absent, display_name: text("Left") };
        assert_eq!(changes.link, link);
    }
}

#[test]
fn reactivation_comes_before_other_fields() {
    let reactivate = (WriteKind::UserReactivate, json!({}));
    expect(json!({"active": true}), &archived(), std::slice::from_ref(&reactivate));
    let update = (WriteKind::UserUpdate, json!({"last_name": "King"}));
    expect(json!({"active": true, "name": {"familyName": "King"}}), &archived(), &[reactivate, update]);
}

#[test]
fn archived_users_refuse_names_and_addresses_and_accept_the_rest() {
    for attributes in [json!({"name": {"givenName": "A."}}), json!({"emails": [{"value": "a@x.test"}]})] {
        let error = put(attributes).changes(&archived()).expect_err("locked");
        assert_eq!((error.status, error.scim_type), (400, Some("mutability")));
        assert!(error.detail.contains("archived in Harvest"), "{error}");
    }
    let phone = json!({"phoneNumbers": [{"value": "9"}]});
    expect(phone, &archived(), &[(WriteKind::UserUpdate, json!({"telephone": "9"}))]);
    let changes = expect(json!({"externalId": "x1", "userName": "ada"}), &archived(), &[]);
    assert_eq!((changes.link.external_id, changes.link.user_name), (text("x1"), text("ada")));
}

#[test]
fn user_name_is_stored_only_where_it_is_not_the_address() {
    let link =
        |attributes: Json, row: &UserRow| put(attributes).changes(row).expect("changes").link.user_name;
    let named = UserRow { user_name: Some("al".to_owned()), ..ada() };
    assert_eq!(link(json!({"userName": "al"}), &ada()), text("al"));
    assert_eq!(link(json!({"userName": "al"}), &named), Field::Absent);
    assert_eq!(link(json!({"userName": "Ada@Example.com"}), &named), Field::Null);
    let renamed = json!({"userName": "a@x.test", "emails": [{"value": "a@x.test"}]});
    assert_eq!(link(renamed.clone(), &ada()), Field::Absent);
    assert_eq!(link(renamed, &named), Field::Null);
}

#[test]
fn user_name_remains_when_only_the_address_changes() {
    let emails = json!({"emails": [{"value": "a@x.test"}]});
    let changes = put(emails.clone()).changes(&ada()).expect("changes");
    assert_eq!(changes.link.user_name, text("ada@example.com"));
    let named = UserRow { user_name: Some("al".to_owned()), ..ada() };
    assert_eq!(put(emails).changes(&named).expect("changes").link.user_name, Field::Absent);
}

#[test]
fn display_name_and_external_id_are_stored_and_cleared() {
    let known =
        UserRow { display_name: Some("Countess".to_owned()), external_id: Some("x1".to_owned()), ..ada() };
    let link = |attributes: Json, row: &UserRow| put(attributes).changes(row).expect("changes").link;
    let cleared = LinkChange { external_id: Field::Null, display_name: text(""), user_name: Field::Absent };
    assert_eq!(link(json!({"displayName": null, "externalId": ""}), &known), cleared);
    let removed = UserRow { display_name: Some(String::new()), ..ada() };
    assert_eq!(link(json!({"displayName": null, "externalId": ""}), &removed), LinkChange::default());
    assert_eq!(link(json!({"displayName": "Ada Lovelace"}), &removed).display_name, Field::Null);
    let renamed = json!({"name": {"givenName": "A."}, "displayName": "A. Lovelace"});
    assert_eq!(link(renamed, &known).display_name, Field::Null);
}

#[test]
fn creation_needs_user_name_both_names_and_an_address() {
    let complete = json!({"userName": "ada@x.test", "name": {"givenName": "Ada", "familyName": "L"}});
    let creation = put(complete.clone()).creation().expect("a creation");
    let fields = json!({"first_name": "Ada", "last_name": "L", "email": "ada@x.test"});
    assert_eq!(creation.fields.to_json(), fields);
    assert_eq!((creation.link, creation.then_deactivate), (LinkChange::default(), false));
    for (path, missing) in [
        ("/userName", "userName"),
        ("/name/givenName", "name.givenName"),
        ("/name/familyName", "name.familyName"),
    ] {
        let mut partial = complete.clone();
        let (parent, key) = path.rsplit_once('/').expect("a path");
        partial.pointer_mut(parent).and_then(Json::as_object_mut).expect("an object").remove(key);
        let error = put(partial).creation().expect_err(missing);
        assert_eq!(error.scim_type, Some("invalidValue"));
        assert!(error.detail.contains(missing), "{error}");
    }
    let mut without_address = complete;
    without_address["userName"] = json!("ada");
    let error = put(without_address).creation().expect_err("no address");
    assert!(error.detail.contains("emails"), "{error}");
}

#[test]
fn creation_takes_the_address_from_emails_and_keeps_a_different_user_name() {
    let creation = put(json!({
        "userName": "ada", "name": {"givenName": "Ada", "familyName": "L"}, "displayName": "Ada L",
        "externalId": "x1", "active": false, "phoneNumbers": [{"value": "5"}],
        "emails": [{"value": "h@x.test", "type": "home"}, {"value": "w@x.test", "type": "work"}],
    }));
    let creation = creation.creation().expect("a creation");
    assert_eq!(
        (creation.fields.text("email"), creation.fields.text("telephone")),
        (Some("w@x.test"), Some("5"))
    );
    let link = LinkChange { external_id: text("x1"), user_name: text("ada"), display_name: Field::Absent };
    assert_eq!(creation.link, link);
    assert!(creation.then_deactivate);
}

#[test]
fn rehire_reactivates_the_user_and_replaces_the_link() {
    let hidden = UserRow { is_hidden: true, external_id: Some("old".to_owned()), ..archived() };
    let wanted = |active: Json| {
        put(json!({
            "userName": "ada@example.com", "name": {"givenName": "Ada", "familyName": "King"}, "active": active,
        }))
    };
    let changes = wanted(Json::Null).rehire(&hidden).expect("changes");
    let update = (WriteKind::UserUpdate, json!({"last_name": "King"}));
    assert_eq!(writes(&changes), [(WriteKind::UserReactivate, json!({})), update]);
    let unlinked = LinkChange { external_id: Field::Null, user_name: Field::Null, display_name: Field::Null };
    assert_eq!(changes.link, unlinked);
    let inactive = wanted(json!(false)).rehire(&hidden).expect("changes");
    assert_eq!(writes(&inactive), [(WriteKind::UserDeactivate, json!({}))]);
    assert!(put(json!({"userName": "ada@example.com"})).rehire(&hidden).is_err());
}
