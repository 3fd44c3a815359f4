//! Requests of directories, and refusals. The requests are new ones in the form that the vendors' documents describe.

use serde_json::json;

use super::*;

const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

fn try_patch(operations: &Json) -> Result<UserIntent, ScimError> {
    UserIntent::from_patch(json!({"schemas": [PATCH], "Operations": operations}).to_string().as_bytes())
}

#[track_caller]
fn patch(operations: &Json) -> UserIntent {
    try_patch(operations).expect("a valid PATCH")
}

fn try_put(attributes: &Json) -> Result<UserIntent, ScimError> {
    let mut body = attributes.clone();
    body["schemas"] = json!([USER]);
    UserIntent::from_put(body.to_string().as_bytes())
}

#[track_caller]
fn put(attributes: &Json) -> UserIntent {
    try_put(attributes).expect("a valid PUT")
}

fn text(value: &str) -> Field<String> {
    Field::Value(value.to_owned())
}

/// The intent without the names of ignored attributes.
fn wanted(intent: UserIntent) -> UserIntent {
    UserIntent { ignored: BTreeSet::new(), ..intent }
}

fn inactive() -> UserIntent {
    UserIntent { active: Field::Value(false), ..UserIntent::default() }
}

#[track_caller]
fn expect_nothing(operations: &Json, ignored: &[&str]) {
    let intent = patch(operations);
    assert_eq!(intent.ignored.iter().map(String::as_str).collect::<Vec<_>>(), ignored);
    assert_eq!(wanted(intent), UserIntent::default());
}

#[track_caller]
fn expect_refusal(result: Result<UserIntent, ScimError>, scim_type: &str, words: &str) {
    let error = result.expect_err(scim_type);
    assert_eq!((error.status, error.scim_type), (400, Some(scim_type)), "{error}");
    assert!(error.detail.contains(words), "{error}");
}

#[test]
fn q1_entra_deactivates_with_either_form_of_false() {
    for value in [json!("False"), json!(false), json!("false"), json!([{"$ref": null, "value": "False"}])] {
        assert_eq!(patch(&json!([{"op": "Replace", "path": "active", "value": value}])), inactive());
    }
    assert_eq!(patch(&json!([{"op": "Add", "path": "active", "value": "True"}])).active, Field::Value(true));
}

#[test]
fn q2_entra_sets_the_address_at_work() {
    let path = "emails[type eq \"work\"].value";
    for op in ["Add", "Replace", "replace"] {
        assert_eq!(patch(&json!([{"op": op, "path": path, "value": "a@x.test"}])).email, text("a@x.test"));
    }
}

#[test]
fn q3_entra_replaces_several_attributes_without_a_path() {
    let department = format!("{ENTERPRISE}:department");
    let intent = patch(&json!([{"op": "Replace", "value": {
        "displayName": "B", "name.givenName": "A", "emails[type eq \"work\"].value": "a@x.test", (&department): "S",
    }}]));
    assert_eq!(intent.ignored, BTreeSet::from([department.to_lowercase()]));
    let expected = UserIntent {
        display_name: text("B"),
        given_name: text("A"),
        email: text("a@x.test"),
        ..UserIntent::default()
    };
    assert_eq!(wanted(intent), expected);
}

#[test]
fn q4_entra_sends_attributes_that_are_ignored() {
    let manager = format!("{ENTERPRISE}:manager");
    expect_nothing(
        &json!([
            {"op": "Add", "path": manager, "value": "9"},
            {"op": "Add", "path": "title", "value": "Engineer"},
            {"op": "Replace", "path": "addresses[type eq \"work\"].locality", "value": "Turin"},
            {"op": "Remove", "path": "roles[primary eq \"True\" or a pr].value"},
        ]),
        &["addresses", "roles", "title", &manager.to_lowercase()],
    );
}

#[test]
fn q8_okta_deactivates_without_a_path() {
    assert_eq!(patch(&json!([{"op": "replace", "value": {"active": false}}])), inactive());
}

#[test]
fn q9_okta_puts_everything_that_it_knows() {
    let intent = put(&json!({
        "id": "7", "externalId": "00u1", "userName": "ada@x.test", "password": "secret", "groups": [],
        "name": {"givenName": "Ada", "familyName": "L", "middleName": ""}, "locale": "en-GB",
        "emails": [{"primary": true, "value": "ada@x.test", "type": "work"}], "displayName": "Ada L",
        "meta": {"resourceType": "User"},
    }));
    assert_eq!(intent.ignored, ["locale", "name.middlename", "password"].map(ToOwned::to_owned).into());
    let expected = UserIntent {
        external_id: text("00u1"),
        user_name: text("ada@x.test"),
        given_name: text("Ada"),
        family_name: text("L"),
        email: text("ada@x.test"),
        display_name: text("Ada L"),
        ..UserIntent::default()
    };
    assert_eq!(wanted(intent), expected);
}

#[test]
fn q11_onelogin_names_an_old_schema_and_a_user_name_that_is_no_address() {
    let body = r#"{"schemas": ["urn:scim:schemas:core:1.0"], "userName": "ada.l", "emails": [{"value": "a@x.test"}]}"#;
    let intent = UserIntent::from_post(body.as_bytes()).expect("valid");
    assert_eq!((intent.user_name, intent.email), (text("ada.l"), text("a@x.test")));
}

#[test]
fn q14_sailpoint_adds_active() {
    assert_eq!(patch(&json!([{"op": "add", "value": {"active": false}}])), inactive());
    assert_eq!(patch(&json!([{"op": "Add", "path": "active", "value": "false"}])), inactive());
}

#[test]
fn q15_a_part_of_the_name_leaves_the_other_part() {
    let intent = patch(&json!([{"op": "replace", "path": "name", "value": {"givenName": "A"}}]));
    assert_eq!(intent, UserIntent { given_name: text("A"), ..UserIntent::default() });
}

#[test]
fn q16_only_the_telephone_number_at_work_is_removed() {
    let remove = |path: &str| patch(&json!([{"op": "remove", "path": path}]));
    expect_nothing(&json!([{"op": "remove", "path": "phoneNumbers[type eq \"mobile\"]"}]), &["phonenumbers"]);
    let cleared = UserIntent { telephone: Field::Null, ..UserIntent::default() };
    for path in ["phoneNumbers[type eq \"work\"]", "phoneNumbers[type eq \"work\"].value", "phoneNumbers"] {
        assert_eq!(remove(path), cleared);
    }
    let mobile =
        json!([{"op": "remove", "path": "phoneNumbers", "value": [{"type": "mobile", "value": "1"}]}]);
    expect_nothing(&mobile, &["phonenumbers"]);
}

#[test]
fn q17_operations_may_be_none_spelt_in_any_case_and_repeated() {
    expect_nothing(&json!([]), &[]);
    let body = json!({"schemas": PATCH, "operations": {"OP": "ADD", "Path": "DisplayName", "VALUE": "B"}});
    let intent = UserIntent::from_patch(body.to_string().as_bytes()).expect("valid");
    assert_eq!(intent.display_name, text("B"));
    let replace = |value: &str| json!({"op": "replace", "path": "displayName", "value": value});
    assert_eq!(patch(&json!([replace("A"), replace("B"), replace("C")])).display_name, text("C"));
    let operations = |count: usize| Json::Array(vec![replace("A"); count]);
    assert!(try_patch(&operations(1000)).is_ok());
    assert_eq!(try_patch(&operations(1001)).expect_err("too many").status, 413);
}

#[test]
fn lists_and_single_values_stand_for_each_other() {
    for emails in [json!("a@x.test"), json!(["a@x.test"]), json!({"value": "a@x.test"})] {
        assert_eq!(put(&json!({"emails": emails})).email, text("a@x.test"));
    }
    assert_eq!(put(&json!({"displayName": ["A"]})).display_name, text("A"));
    assert_eq!(put(&json!({"displayName": " A "})).display_name, text("A"));
}

#[test]
fn address_is_the_primary_one_or_the_one_at_work_or_the_only_one() {
    let email = |list: Json| put(&json!({"emails": list})).email;
    let home = json!({"value": "h@x.test", "type": "home"});
    let work = json!({"value": "w@x.test", "type": "Work"});
    let primary = json!({"value": "p@x.test", "type": "other", "primary": "True"});
    assert_eq!(email(json!([home, work, primary])), text("p@x.test"));
    assert_eq!(email(json!([home, work])), text("w@x.test"));
    assert_eq!(email(json!([home])), text("h@x.test"));
    assert_eq!(email(json!([home, home])), Field::Absent);
    // The address at work stays, and a private one is added.
    expect_nothing(&json!([{"op": "add", "path": "emails", "value": [home]}]), &["emails"]);
    expect_nothing(
        &json!([{"op": "replace", "path": "emails[type eq \"home\"].value", "value": "h@x.test"}]),
        &["emails"],
    );
}

#[test]
fn telephone_is_the_one_at_work() {
    let telephone = |list: Json| put(&json!({"phoneNumbers": list})).telephone;
    let mobile = json!({"value": "1", "type": "mobile", "primary": true});
    assert_eq!(telephone(json!([mobile, {"value": "2", "type": "work"}])), text("2"));
    assert_eq!(telephone(json!([mobile])), Field::Absent);
    assert_eq!(telephone(json!([{"value": "3"}])), text("3"));
    assert_eq!(telephone(json!([{"value": "", "type": "mobile"}])), Field::Absent);
    assert_eq!(telephone(json!([{"value": "", "type": "work"}])), Field::Null);
    assert_eq!(telephone(json!([])), Field::Null);
}

#[test]
fn put_clears_optional_attributes_and_refuses_empty_required_ones() {
    let cleared = UserIntent {
        external_id: Field::Null,
        display_name: Field::Null,
        telephone: Field::Null,
        ..UserIntent::default()
    };
    for empty in [json!(null), json!(""), json!([])] {
        assert_eq!(
            put(&json!({"externalId": empty, "displayName": empty, "phoneNumbers": empty, "active": null})),
            cleared
        );
        for attributes in [
            json!({"userName": empty}),
            json!({"emails": empty}),
            json!({"name": {"givenName": empty}}),
            json!({"name": {"familyName": empty}}),
        ] {
            expect_refusal(try_put(&attributes), "invalidValue", "is required and empty");
        }
    }
}

#[test]
fn patch_does_not_remove_required_attributes() {
    for path in [
        "userName",
        "name",
        "name.givenName",
        "name.familyName",
        "emails",
        "emails[type eq \"work\"]",
        "active",
        USER,
    ] {
        expect_refusal(
            try_patch(&json!([{"op": "remove", "path": path}])),
            "mutability",
            "cannot be removed",
        );
        if path != USER {
            let null = json!([{"op": "replace", "path": path, "value": null}]);
            expect_refusal(try_patch(&null), "mutability", "cannot be removed");
        }
    }
    let cleared = UserIntent { external_id: Field::Null, ..UserIntent::default() };
    assert_eq!(patch(&json!([{"op": "remove", "path": "externalId"}])), cleared);
    expect_nothing(&json!([{"op": "remove", "path": "title"}]), &["title"]);
}

#[test]
fn wrong_operations_and_paths_are_refused() {
    expect_refusal(try_patch(&json!([{"op": "remove"}])), "noTarget", "no path");
    for path in
        ["emails[type eq \"work\"", "emails[type co \"w\"].value", "9a", "a b", "emails[a eq 1].b.c", ".a"]
    {
        expect_refusal(try_patch(&json!([{"op": "add", "path": path, "value": "x"}])), "invalidPath", "");
    }
    let long = format!("a{}", "b".repeat(2_000));
    expect_refusal(try_patch(&json!([{"op": "add", "path": long, "value": "x"}])), "invalidPath", "2,000");
    expect_refusal(try_patch(&json!([{"op": "move", "path": "active"}])), "invalidSyntax", "op");
    expect_refusal(try_patch(&json!(["add"])), "invalidSyntax", "object");
    expect_refusal(try_patch(&json!(null)), "invalidSyntax", "Operations");
    expect_refusal(try_patch(&json!([{"op": "add", "path": "title"}])), "invalidValue", "no value");
    expect_refusal(try_patch(&json!([{"op": "add", "value": "x"}])), "invalidValue", "not an object");
}

#[test]
fn wrong_values_are_refused_without_quoting_them() {
    for attributes in [
        json!({"userName": 1}),
        json!({"userName": {"secret": 1}}),
        json!({"active": "secret"}),
        json!({"active": 0}),
        json!({"name": "secret"}),
        json!({"emails": [{"value": "secret"}]}),
        json!({"emails": [{"value": 1}]}),
        json!({"displayName": "secret\u{0}"}),
        json!({"displayName": "secret".repeat(43)}),
    ] {
        let error = try_put(&attributes).expect_err("invalid");
        assert_eq!(error.scim_type, Some("invalidValue"), "{attributes}");
        assert!(!error.detail.contains("secret"), "{error}");
    }
    assert!(try_put(&json!({"displayName": "é".repeat(255)})).is_ok());
}

#[test]
fn deactivation_is_not_refused_for_other_attributes() {
    let intent = put(&json!({"active": false, "userName": "", "emails": "x", "phoneNumbers": 1}));
    assert_eq!(intent.ignored, ["emails", "phonenumbers", "username"].map(ToOwned::to_owned).into());
    assert_eq!(wanted(intent), inactive());
    let operations = json!([
        {"op": "remove", "path": "name"}, {"op": "remove"}, {"op": "add", "path": "a b", "value": 1},
        {"op": "replace", "path": "active", "value": "False"},
    ]);
    assert_eq!(wanted(patch(&operations)), inactive());
    // Whether this one deactivates is not clear.
    let unclear =
        json!([{"op": "add", "path": "active", "value": false}, {"op": "remove", "path": "active"}]);
    expect_refusal(try_patch(&unclear), "mutability", "active");
    let body = json!({"schemas": [USER], "active": false, "userName": ""});
    expect_refusal(UserIntent::from_post(body.to_string().as_bytes()), "invalidValue", "userName");
}

/// The directory would count the user as inactive.
#[test]
fn unclear_active_is_refused_and_not_ignored() {
    for (path, value) in
        [("active.value", json!(false)), ("active[value eq true]", json!(false)), ("active.a", json!(1))]
    {
        expect_refusal(
            try_patch(&json!([{"op": "replace", "path": path, "value": value}])),
            "invalidPath",
            "active",
        );
        expect_refusal(try_patch(&json!([{"op": "remove", "path": path}])), "invalidPath", "active");
    }
    let prefixed = format!("{USER}:active");
    for members in [
        json!({"active": false, (&prefixed): true}),
        json!({"active": false, "active ": true}),
        json!({"active": false, "active.value": false}),
    ] {
        expect_refusal(try_patch(&json!([{"op": "replace", "value": members}])), "invalidValue", "twice");
    }
    expect_refusal(
        try_patch(&json!([{"op": "replace", "value": {"active.value": false}}])),
        "invalidPath",
        "active",
    );
}

#[test]
fn names_of_ignored_attributes_are_bounded_and_have_no_filters() {
    let many: serde_json::Map<String, Json> =
        (0..500).map(|number| (format!("a{number}"), json!(1))).collect();
    assert_eq!(put(&Json::Object(many)).ignored.len(), MAX_IGNORED);
    let intent = put(&json!({"x".repeat(500): 1, "ims[value eq \"ada@x.test\"].type": 1, "ada@x.test": 1}));
    let expected = BTreeSet::from(["x".repeat(100), "ims".to_owned(), "(not a path)".to_owned()]);
    assert_eq!(intent.ignored, expected);
}

#[test]
fn core_schema_may_be_an_object_or_a_prefix() {
    let expected = UserIntent { given_name: text("A"), ..UserIntent::default() };
    let prefixed = format!("{USER}:name.givenName");
    assert_eq!(patch(&json!([{"op": "add", "path": prefixed, "value": "A"}])), expected);
    assert_eq!(patch(&json!([{"op": "add", "value": {(&prefixed): "A"}}])), expected);
    assert_eq!(patch(&json!([{"op": "add", "value": {USER: {"name": {"givenName": "A"}}}}])), expected);
}
