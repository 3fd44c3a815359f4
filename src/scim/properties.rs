//! Laws of intents and filters.

use std::collections::BTreeSet;
use std::str::FromStr;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::roster::Field;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";

#[derive(Clone, Debug)]
struct Operation {
    op: &'static str,
    path: &'static str,
    value: Json,
}

const PATHS: [&str; 9] = [
    "userName",
    "externalId",
    "displayName",
    "name.givenName",
    "name.familyName",
    "emails[type eq \"work\"].value",
    "phoneNumbers.value",
    "title",
    "active",
];
const OPTIONAL: [&str; 4] = ["externalId", "displayName", "phoneNumbers.value", "title"];

fn value(path: &str) -> BoxedStrategy<Json> {
    match path {
        "active" => prop_oneof![
            any::<bool>().prop_map(Json::from),
            prop::sample::select(vec!["True", "false"]).prop_map(Json::from)
        ]
        .boxed(),
        path if path.starts_with("emails") => "[a-c]@[x-z]".prop_map(Json::from).boxed(),
        _ => "[a-zA-Z ]{0,3}[a-zé]".prop_map(Json::from).boxed(),
    }
}

fn set() -> impl Strategy<Value = Operation> {
    prop::sample::select(&PATHS[..])
        .prop_flat_map(|path| value(path).prop_map(move |value| Operation { op: "replace", path, value }))
}

fn operation() -> impl Strategy<Value = Operation> {
    let remove = prop::sample::select(&OPTIONAL[..]);
    prop_oneof![
        4 => set(),
        1 => remove.prop_map(|path| Operation { op: "remove", path, value: Json::Null }),
    ]
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation(), 0..8)
}

fn patch_of(operations: &[Json]) -> UserIntent {
    let body = json!({"schemas": ["x"], "Operations": operations}).to_string();
    UserIntent::from_patch(body.as_bytes()).expect("a valid PATCH")
}

fn json_of(Operation { op, path, value }: &Operation) -> Json {
    json!({"op": op, "path": path, "value": value})
}

fn patch(operations: &[Operation]) -> UserIntent {
    patch_of(&operations.iter().map(json_of).collect::<Vec<_>>())
}

/// `first`, and then `second`.
fn then(first: &UserIntent, second: UserIntent) -> UserIntent {
    let mut ignored = first.ignored.clone();
    ignored.extend(second.ignored);
    UserIntent {
        given_name: second.given_name.or_known(&first.given_name),
        family_name: second.family_name.or_known(&first.family_name),
        email: second.email.or_known(&first.email),
        telephone: second.telephone.or_known(&first.telephone),
        external_id: second.external_id.or_known(&first.external_id),
        user_name: second.user_name.or_known(&first.user_name),
        display_name: second.display_name.or_known(&first.display_name),
        active: second.active.or_known(&first.active),
        ignored,
    }
}

fn row() -> impl Strategy<Value = UserRow> {
    let texts = prop::collection::vec("[a-c]", 3);
    let links = prop::collection::vec(prop::option::of("[a-c]|[a-c]@[x-z]"), 4);
    (1i64..4, texts, "[a-c]@[x-z]", links, any::<bool>()).prop_map(|(id, texts, email, links, is_active)| {
        UserRow {
            id,
            first_name: texts[0].clone(),
            last_name: texts[1].clone(),
            email,
            telephone: links[0].clone(),
            external_id: links[1].clone(),
            user_name: links[2].clone(),
            display_name: links[3].clone(),
            is_active,
            ..UserRow::default()
        }
    })
}

/// The row after the writes and the change of the link.
fn applied(row: &UserRow, changes: &Changes) -> UserRow {
    let mut row = row.clone();
    for write in &changes.writes {
        match write.kind.name() {
            "user_deactivate" => row.is_active = false,
            "user_reactivate" => row.is_active = true,
            _ => {
                let text = |name: &str| write.fields.text(name).map(ToOwned::to_owned);
                row.first_name = text("first_name").unwrap_or(row.first_name);
                row.last_name = text("last_name").unwrap_or(row.last_name);
                row.email = text("email").unwrap_or(row.email);
                row.telephone = text("telephone").or(row.telephone);
            }
        }
    }
    for (known, change) in [
        (&mut row.external_id, &changes.link.external_id),
        (&mut row.user_name, &changes.link.user_name),
        (&mut row.display_name, &changes.link.display_name),
    ] {
        match change {
            Field::Absent => {}
            change => *known = change.value().cloned(),
        }
    }
    row
}

fn condition() -> impl Strategy<Value = String> {
    let attributes = vec![
        "id",
        "externalId",
        "userName",
        "emails",
        "emails.value",
        "phoneNumbers.value",
        "displayName",
        "name.givenName",
        "name.familyName",
        "active",
    ];
    prop::sample::select(attributes).prop_flat_map(|attribute| {
        let value = match attribute {
            "id" => "[1-4]|null|\"[1-4a]\"",
            "active" => "true|False|\"true\"",
            _ => "\"[a-cA-C](@[x-z])?\"|[a-c](@[x-z])?|null|\"a\\\\\"\\\\\\\\\"",
        };
        value.prop_map(move |value| format!("{attribute} eq {value}"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn patch_of_joined_operations_is_one_patch_after_the_other(first in operations(), second in operations()) {
        let joined = [first.clone(), second.clone()].concat();
        prop_assert_eq!(patch(&joined), then(&patch(&first), patch(&second)));
    }

    #[test]
    fn patch_twice_is_patch_once(operations in operations()) {
        let twice = [operations.clone(), operations.clone()].concat();
        prop_assert_eq!(patch(&twice), patch(&operations));
    }

    #[test]
    fn forms_of_an_operation_are_equal(Operation { path, value, .. } in set(), upper in any::<bool>()) {
        let case = |text: &str| if upper { text.to_uppercase() } else { text.to_owned() };
        let expected = patch_of(&[json!({"op": "replace", "path": path, "value": value})]);
        let prefixed = case(&format!("{USER}:{path}"));
        for op in ["add", "Replace", "ADD"] {
            prop_assert_eq!(&patch_of(&[json!({"op": op, "path": case(path), "value": value})]), &expected);
            prop_assert_eq!(&patch_of(&[json!({"op": op, "value": {case(path): value}})]), &expected);
            if path != "title" {
                prop_assert_eq!(&patch_of(&[json!({"op": op, "path": prefixed, "value": value})]), &expected);
                prop_assert_eq!(&patch_of(&[json!({"op": op, "value": {(&prefixed): value}})]), &expected);
            }
        }
        let put = json!({"schemas": ["x"], path: value}).to_string();
        prop_assert_eq!(&UserIntent::from_put(put.as_bytes()).expect("a valid PUT"), &expected);
    }

    #[test]
    fn intent_contains_only_what_the_body_names(operations in operations()) {
        let intent = patch(&operations);
        let fields = [
            ("userName", intent.user_name != Field::Absent),
            ("externalId", intent.external_id != Field::Absent),
            ("displayName", intent.display_name != Field::Absent),
            ("name.givenName", intent.given_name != Field::Absent),
            ("name.familyName", intent.family_name != Field::Absent),
            ("emails[type eq \"work\"].value", intent.email != Field::Absent),
            ("phoneNumbers.value", intent.telephone != Field::Absent),
            ("active", intent.active != Field::Absent),
            ("title", !intent.ignored.is_empty()),
        ];
        for (path, is_set) in fields {
            prop_assert_eq!(is_set, operations.iter().any(|operation| operation.path == path), "{}", path);
        }
    }

    #[test]
    fn order_of_operations_on_different_attributes_does_not_matter(operations in operations(), turn in 0usize..8) {
        let mut seen = BTreeSet::new();
        let different: Vec<_> = operations.into_iter().filter(|operation| seen.insert(operation.path)).collect();
        let mut turned = different.clone();
        turned.rotate_left(turn.min(different.len()));
        prop_assert_eq!(patch(&turned), patch(&different));
    }

    #[test]
    fn intent_is_met_after_its_changes(operations in operations(), row in row()) {
        let intent = patch(&operations);
        let Ok(changes) = intent.changes(&row) else {
            // Names and addresses of archived users.
            prop_assert!(!row.is_active && intent.active == Field::Absent);
            return Ok(());
        };
        let after = applied(&row, &changes);
        let again = intent.changes(&after).expect("changes");
        if intent.active == Field::Value(false) {
            prop_assert!(!after.is_active);
            prop_assert_eq!(&again.writes, &changes.writes);
            prop_assert_eq!(again.link, LinkChange::default());
        } else {
            prop_assert!(again.writes.is_empty() && again.link == LinkChange::default(), "{:?}", again);
            let is_named = |path: &str| operations.iter().any(|operation| operation.path == path);
            prop_assert!(is_named("userName") || after.user_name() == row.user_name());
            prop_assert!(is_named("active") || after.is_active == row.is_active);
        }
    }

    #[test]
    fn parsing_any_text_does_not_panic(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = UserQuery::from_str(&text);
        let _ = ListQuery::<UserQuery>::from_query_string(&text);
        let _ = text.parse::<GroupQuery>();
        let _ = GroupIntent::from_patch(json!({"schemas": [text], "Operations": [{"op": "add", "path": text, "value": text}]}).to_string().as_bytes());
        let operation = json!([{"op": "add", "path": text, "value": text}]);
        let _ = UserIntent::from_patch(json!({"schemas": [text], "Operations": operation}).to_string().as_bytes());
        let _ = UserIntent::from_patch(&bytes);
    }

    #[test]
    fn filter_matches_what_each_of_its_conditions_matches(
        conditions in prop::collection::vec(condition(), 1..4),
        rows in prop::collection::vec(row(), 1..8),
    ) {
        let whole = UserQuery::from_str(&format!("({})", conditions.join(" AND "))).expect("a valid filter");
        let parts: Vec<_> = conditions.iter().map(|part| UserQuery::from_str(part).expect("a valid filter")).collect();
        for row in &rows {
            prop_assert_eq!(whole.matches(row), parts.iter().all(|part| part.matches(row)));
        }
    }
}
