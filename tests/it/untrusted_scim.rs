//! Properties of the functions that parse requests of directories. The fuzz targets in `fuzz/` use the same functions.

use std::fmt::Write;

use rosterd::roster::Field;
use rosterd::scim::{
    GroupIntent, GroupQuery, GroupRow, ListQuery, ScimError, UserIntent, UserQuery, UserRow,
};
use serde_json::{Value as Json, json};

#[track_caller]
fn expect_refusal(error: &ScimError) {
    assert!([400, 413].contains(&error.status), "{error}");
    assert_eq!(error.to_json()["status"], error.status.to_string());
    // Names of attributes, and no values.
    assert!(error.detail.len() < 250 && error.detail.is_ascii(), "{error}");
}

/// A filter, also as a query string.
pub fn filter(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    match ListQuery::<UserQuery>::from_query_string(&text) {
        Ok(list) => {
            assert!(list.count <= 200 && list.start_index >= 1 && i64::try_from(list.start_index).is_ok());
        }
        Err(error) => expect_refusal(&error),
    }
    match text.parse::<GroupQuery>() {
        Ok(query) => {
            assert!(query != GroupQuery::default(), "the filter matches every group");
            assert!(!query.is_impossible || !query.matches(&GroupRow::default()));
        }
        Err(error) => expect_refusal(&error),
    }
    let query = match text.parse::<UserQuery>() {
        Ok(query) => query,
        Err(error) => {
            assert_eq!(error.scim_type, Some("invalidFilter"));
            return expect_refusal(&error);
        }
    };
    assert!(query != UserQuery::default(), "the filter matches everyone");
    let shown = to_filter(&query);
    if shown.chars().count() <= 2000 {
        assert!(shown.parse::<UserQuery>().is_ok_and(|again| again == query), "{shown}");
    }
    assert!(!query.is_impossible || !query.matches(&UserRow::default()));
}

/// The same query as a filter.
fn to_filter(query: &UserQuery) -> String {
    let mut filter = String::from(if query.is_impossible { "id eq null" } else { "" });
    let texts = [
        ("externalId", &query.external_id),
        ("userName", &query.user_name),
        ("emails.value", &query.email),
        ("phoneNumbers.value", &query.telephone),
        ("displayName", &query.display_name),
        ("name.givenName", &query.given_name),
        ("name.familyName", &query.family_name),
    ];
    let texts = texts.map(|(name, value)| (name, value.as_ref().map(|value| json!(value))));
    let others = [
        ("id", query.id.map(|id| json!(id))),
        ("groups.value", query.group.map(|id| json!(id))),
        ("active", query.active.map(|active| json!(active))),
    ];
    for (name, value) in texts.into_iter().chain(others) {
        if let Some(value) = value {
            let and = if filter.is_empty() { "" } else { " and " };
            // Writing to a String cannot fail.
            let _ = write!(filter, "{and}{name} eq {value}");
        }
    }
    filter
}

/// The path of an operation. It means the same as the key of a value without path.
pub fn path(path: &[u8]) {
    let path = String::from_utf8_lossy(path);
    if path.trim().is_empty() {
        // As if there were none.
        return;
    }
    for value in [json!("a@x.test"), json!("true"), json!({"givenName": "A"}), Json::Null] {
        let intent_of = |operation: Json| {
            let body = json!({"schemas": ["x"], "Operations": [operation]}).to_string();
            UserIntent::from_patch(body.as_bytes())
        };
        match intent_of(json!({"op": "add", "path": path, "value": value})) {
            Ok(intent) => {
                expect_valid(&intent);
                assert!(intent_of(json!({"op": "add", "value": {&*path: value}})) == Ok(intent), "{path}");
            }
            Err(error) => expect_refusal(&error),
        }
        if let Err(error) = intent_of(json!({"op": "remove", "path": path})) {
            expect_refusal(&error);
        }
    }
}

/// A body of PATCH, PUT and POST.
pub fn patch(body: &[u8]) {
    for intent in [UserIntent::from_patch(body), UserIntent::from_put(body), UserIntent::from_post(body)] {
        match intent {
            Ok(intent) => expect_valid(&intent),
            Err(error) => expect_refusal(&error),
        }
    }
    group_patch(body);
}

/// The same bodies for a group.
fn group_patch(body: &[u8]) {
    for intent in [GroupIntent::from_patch(body), GroupIntent::from_body(body)] {
        let change = intent.and_then(|intent| {
            assert!(intent.ignored.len() <= 50 && intent.members.wanted().len() <= 1000);
            let row = GroupRow { id: 7, ..GroupRow::default() };
            intent.change(&row).map(|write| (write, intent.creation()))
        });
        match change {
            Ok((write, creation)) => {
                assert!(write.is_none_or(|write| write.role == Some(7)));
                creation.err().iter().for_each(expect_refusal);
            }
            Err(error) => expect_refusal(&error),
        }
    }
}

/// The intent can be expressed as PUT and compared with a user.
fn expect_valid(intent: &UserIntent) {
    assert!(intent.ignored.len() <= 50);
    for name in &intent.ignored {
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_$.:".contains(c));
        assert!(name == "(not a path)" || is_name && name.len() <= 100, "{name}");
    }
    let texts = [
        ("userName", &intent.user_name),
        ("externalId", &intent.external_id),
        ("displayName", &intent.display_name),
        ("name.givenName", &intent.given_name),
        ("name.familyName", &intent.family_name),
        ("emails.value", &intent.email),
        ("phoneNumbers.value", &intent.telephone),
    ];
    let mut put = json!({"schemas": ["x"]});
    for (name, field) in texts {
        match field {
            Field::Absent => {}
            Field::Null => put[name] = Json::Null,
            Field::Value(text) => {
                let is_storable = text.chars().count() <= 255 && !text.contains(char::is_control);
                assert!(is_storable && !text.is_empty(), "{name}");
                put[name] = json!(text);
            }
        }
    }
    if let Field::Value(active) = intent.active {
        put["active"] = json!(active);
    }
    let again = UserIntent::from_put(put.to_string().as_bytes()).expect("the intent is valid");
    assert_eq!(UserIntent { ignored: intent.ignored.clone(), ..again }, *intent);
    for error in [intent.creation().err(), intent.rehire(&UserRow::default()).err()].into_iter().flatten() {
        expect_refusal(&error);
    }
    for is_active in [true, false] {
        let row = UserRow { id: 7, is_active, ..UserRow::default() };
        match intent.changes(&row) {
            Ok(changes) => {
                assert!(changes.writes.len() <= 2 && changes.writes.iter().all(|it| it.user == Some(7)));
            }
            Err(error) => {
                assert!(!is_active && intent.active == Field::Absent, "{error}");
                expect_refusal(&error);
            }
        }
    }
}
