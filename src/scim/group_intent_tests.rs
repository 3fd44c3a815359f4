use proptest::prelude::*;

use super::*;

fn patch(operations: &Json) -> Result<GroupIntent, ScimError> {
    let body = json!({"schemas": ["x"], "Operations": operations}).to_string();
    GroupIntent::from_patch(body.as_bytes())
}

/// The members that a PATCH gives to a role with the users 7 and 8.
#[track_caller]
fn members(operations: &Json) -> Vec<i64> {
    let intent = patch(operations).unwrap_or_else(|error| panic!("{operations}: {error}"));
    intent.members.apply(&[7, 8].into()).into_iter().collect()
}

#[test]
fn members_are_added_replaced_and_removed_as_each_directory_asks() {
    for (operations, expected) in [
        (json!([{"op": "Remove", "path": "members", "value": [{"value": "7"}]}]), vec![8]),
        (json!([{"op": "remove", "path": "members[value eq \"7\"]"}]), vec![8]),
        (json!([{"op": "remove", "path": "members[value eq \"7\" and type eq \"User\"]"}]), vec![8]),
        (json!([{"op": "remove", "path": "members[value eq \"fake-member-id\"]"}]), vec![7, 8]),
        (json!([{"op": "remove", "path": "members"}]), vec![]),
        (json!([{"op": "remove", "path": "members", "value": []}]), vec![7, 8]),
        (json!([{"op": "Add", "path": "members", "value": [{"$ref": null, "value": "7"}]}]), vec![7, 8]),
        (
            json!([{"op": "add", "path": "members", "value": [{"value": "9", "display": "a@x"}]}]),
            vec![7, 8, 9],
        ),
        (json!([{"op": "add", "path": "members", "value": {"value": "9"}}]), vec![7, 8, 9]),
        (json!([{"op": "add", "path": "members", "value": "9"}]), vec![7, 8, 9]),
        (json!([{"op": "add", "value": {"members": [{"value": "9"}]}}]), vec![7, 8, 9]),
        (json!([{"op": "replace", "path": "members", "value": [{"value": "9"}]}]), vec![9]),
        (
            json!([{"op": "replace", "value": {"urn:ietf:params:scim:schemas:core:2.0:Group:members": []}}]),
            vec![],
        ),
        (
            json!([
                {"op": "replace", "path": "members", "value": [{"value": "9"}]},
                {"op": "add", "path": "members", "value": [{"value": "7"}]},
                {"op": "remove", "path": "members[value eq \"9\"]"},
            ]),
            vec![7],
        ),
        (json!([{"op": "replace", "value": {"id": "9", "displayName": "New"}}]), vec![7, 8]),
        (json!([]), vec![7, 8]),
    ] {
        assert_eq!(members(&operations), expected, "{operations}");
    }
}

#[test]
fn malformed_changes_are_refused_and_named() {
    for (operation, scim_type) in [
        (json!({"op": "remove"}), "noTarget"),
        (json!({"op": "remove", "path": "displayName"}), "mutability"),
        (json!({"op": "replace", "path": "displayName", "value": " "}), "invalidValue"),
        (json!({"op": "replace", "path": "displayName", "value": null}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": [{"value": "fake-member-id"}]}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": [{"value": "7", "type": "Group"}]}), "invalidValue"),
        (json!({"op": "add", "path": "members", "value": ["07"]}), "invalidValue"),
        (json!({"op": "replace", "path": "members[value eq \"7\"]", "value": "8"}), "noTarget"),
        (json!({"op": "remove", "path": "members[value eq"}), "invalidPath"),
        (json!({"op": "remove", "path": "members[value co \"7\"]"}), "invalidPath"),
        (json!({"op": "add", "path": "members"}), "invalidValue"),
        (json!({"op": "move", "path": "members"}), "invalidSyntax"),
    ] {
        let error = patch(&json!([operation])).expect_err("a refusal");
        assert_eq!((error.status, error.scim_type), (400, Some(scim_type)), "{operation} {error}");
    }
    let many: Vec<String> = (1..=1001).map(|id| id.to_string()).collect();
    let error = patch(&json!([{"op": "add", "path": "members", "value": many}])).expect_err("a refusal");
    assert_eq!(error.status, 413);
}

#[test]
fn bodies_set_what_they_have_and_ignore_other_schemas() {
    let body = json!({
        "schemas": [
            "urn:ietf:params:scim:schemas:core:2.0:Group",
            "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group",
        ],
        "displayName": " Design ",
        "externalId": "",
        "meta": {"resourceType": "Group"},
        "description": "x",
    });
    let intent = GroupIntent::from_body(body.to_string().as_bytes()).expect("valid");
    assert_eq!((&intent.name, &intent.external_id), (&Field::Value("Design".to_owned()), &Field::Null));
    assert!(intent.members == MemberChange::default() && intent.ignored.contains("description"));
    let created = intent.creation().expect("a creation");
    assert_eq!((created.kind, created.fields.to_json()), (WriteKind::RoleCreate, json!({"name": "Design"})));
    let nameless = GroupIntent::from_body(br#"{"schemas": ["x"], "members": []}"#).expect("valid");
    assert!(nameless.creation().is_err());
    assert_eq!(nameless.members.apply(&[7].into()), [].into());
}

#[test]
fn what_the_role_has_already_is_not_written() {
    let row = GroupRow {
        id: 3,
        name: "Design".to_owned(),
        user_ids: [7, 8].into(),
        external_id: Some("g".to_owned()),
        ..GroupRow::default()
    };
    let intent = patch(&json!([
        {"op": "add", "path": "members", "value": [{"value": "7"}]},
        {"op": "remove", "path": "members[value eq \"9\"]"},
        {"op": "replace", "path": "displayName", "value": "Design"},
        {"op": "replace", "path": "externalId", "value": "g"},
    ]));
    let intent = intent.expect("valid");
    assert_eq!((intent.change(&row), intent.link_change(&row)), (Ok(None), LinkChange::default()));
    let intent =
        patch(&json!([{"op": "remove", "path": "members", "value": [{"value": "7"}, {"value": "9"}]}]));
    let write = intent.expect("valid").change(&row).expect("valid").expect("a write");
    assert_eq!((write.role, write.fields.to_json()), (Some(3), json!({"remove_user_ids": [7, 9]})));
}

proptest! {
    #[test]
    fn paths_and_forms_of_the_same_operation_are_equal(
        steps in prop::collection::vec((0_usize..3, 1_i64..6), 0..6), known in prop::collection::btree_set(1_i64..6, 0..4)
    ) {
        let operation = |form: bool, step: usize, id: i64| {
            let value = if form { json!([{"value": id.to_string()}]) } else { json!(id.to_string()) };
            match (step, form) {
                (0, true) => json!({"op": "add", "path": "members", "value": value}),
                (0, false) => json!({"op": "ADD", "value": {"Members": value}}),
                (1, true) => json!({"op": "remove", "path": "members", "value": value}),
                (1, false) => json!({"op": "Remove", "path": format!("members[value eq \"{id}\"]")}),
                (_, true) => json!({"op": "replace", "path": "members", "value": value}),
                (_, false) => json!({
                    "op": "replace", "path": "urn:ietf:params:scim:schemas:core:2.0:Group:members", "value": value
                }),
            }
        };
        let of = |form: bool| {
            let operations: Vec<Json> = steps.iter().map(|(step, id)| operation(form, *step, *id)).collect();
            patch(&Json::Array(operations)).expect("valid").members
        };
        let (long, short) = (of(true), of(false));
        prop_assert_eq!(&long, &short);
        let mut expected = known.clone();
        for (step, id) in steps {
            match step {
                0 => drop(expected.insert(id)),
                1 => drop(expected.remove(&id)),
                _ => expected = [id].into(),
            }
        }
        prop_assert_eq!(long.apply(&known), expected);
    }
}
