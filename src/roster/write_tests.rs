use super::*;
use crate::roster::User;

fn fields(kind: WriteKind, json: Json) -> Result<WriteFields, String> {
    WriteFields::parse(kind, json)
}

#[test]
fn fields_that_a_kind_does_not_take_are_refused_by_name() {
    for (kind, json, error) in [
        (WriteKind::UserCreate, json!({"email": "a@b"}), "first_name is missing or empty"),
        (WriteKind::UserUpdate, json!({}), "there is no field to change"),
        (WriteKind::UserUpdate, json!({"last_name": " "}), "last_name is missing or empty"),
        (
            WriteKind::UserUpdate,
            json!({"is_admin": true}),
            "user_update does not take the field \"is_admin\"",
        ),
        (WriteKind::UserUpdate, json!({"email": "nobody"}), "email is not an e-mail address"),
        (WriteKind::UserUpdate, json!({"telephone": 7}), "telephone must be text"),
        (WriteKind::UserUpdate, json!({"telephone": "1\u{0}"}), "telephone holds control characters"),
        (
            WriteKind::UserDeactivate,
            json!({"first_name": "A"}),
            "user_deactivate does not take the field \"first_name\"",
        ),
        (WriteKind::AssignmentUpdate, json!({"budget": -1}), "budget is not an amount"),
        (WriteKind::AssignmentUpdate, json!([]), "the fields must be a JSON object"),
    ] {
        assert_eq!(fields(kind, json), Err(error.to_owned()));
    }
}

#[test]
fn equal_values_do_not_differ_whatever_their_representation() -> Result<(), String> {
    let user = User {
        email: Field::Value("ann@example.com".to_owned()),
        telephone: Field::Null,
        access_roles: Field::Value(vec!["member".to_owned(), "manager".to_owned()]),
        is_active: Field::Value(true),
        ..User::default()
    };
    let wanted = json!({
        "email": "Ann@Example.com", "telephone": "", "access_roles": ["manager", "member"], "first_name": "Ann",
    });
    let wanted = fields(WriteKind::UserUpdate, wanted)?;
    assert_eq!(wanted.differing(WriteKind::UserUpdate, &user), ["first_name"]);
    let none = WriteFields::default();
    assert_eq!(none.differing(WriteKind::UserDeactivate, &user), ["is_active"]);
    assert!(none.differing(WriteKind::UserReactivate, &user).is_empty());
    Ok(())
}

#[test]
fn deactivation_is_sent_alone_and_an_assignment_always_says_who_manages() -> Result<(), String> {
    let write = Write::of_user(WriteKind::UserDeactivate, Some(7), WriteFields::default());
    assert_eq!((write.path(), write.body()), (Some("users/7".to_owned()), Some(json!({"is_active": false}))));
    let fields = fields(WriteKind::AssignmentAdd, json!({"hourly_rate": 12.5}))?;
    let write = Write {
        kind: WriteKind::AssignmentAdd,
        user: Some(7),
        project: Some(9),
        assignment: None,
        role: None,
        fields,
    };
    assert_eq!(write.body(), Some(json!({"user_id": 7, "hourly_rate": 12.5, "is_project_manager": false})));
    assert_eq!(write.path().as_deref(), Some("projects/9/user_assignments"));
    Ok(())
}
