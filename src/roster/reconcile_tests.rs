use proptest::prelude::*;

use super::*;

fn user(id: i64, email: &str, first_name: &str, is_active: bool) -> User {
    User {
        id,
        email: Field::Value(email.to_owned()),
        first_name: Field::Value(first_name.to_owned()),
        last_name: Field::Value("Last".to_owned()),
        telephone: Field::Null,
        is_active: Field::Value(is_active),
        ..User::default()
    }
}

fn row(line: u64, email: &str, first_name: &str, active: Option<bool>) -> Desired {
    let first_name = Some(first_name.to_owned()).filter(|name| !name.is_empty());
    Desired { line, email: email.to_owned(), first_name, active, ..Desired::default() }
}

fn plan_with(
    lines: &[Desired],
    users: &[User],
    scope: &[&str],
    protected: &[&str],
) -> Result<ReconcilePlan, Vec<LineError>> {
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<String>>();
    let (scope_domains, protected) = (&set(scope), &set(protected));
    let deactivate_missing = !scope.is_empty();
    let rules = ReconcileRules { scope_domains, deactivate_missing, owner: Some(1), protected };
    ReconcilePlan::new(&DesiredUsers::new(lines)?, users, &rules)
}

fn plan(lines: &[Desired], users: &[User]) -> ReconcilePlan {
    plan_with(lines, users, &[], &[]).expect("a plan")
}

/// The writes as kind, id and field names.
fn deeds(plan: &ReconcilePlan) -> Vec<String> {
    let writes = plan.users.iter().flat_map(|user| &user.writes);
    let deed = |write: &Write| {
        let id = write.user.map(|id| format!(" {id}")).unwrap_or_default();
        format!("{}{id} {}", write.kind.name(), write.fields.names().join(",")).trim_end().to_owned()
    };
    writes.map(deed).collect()
}

#[test]
fn plan_has_deactivations_updates_reactivations_and_creations_in_this_order() {
    let users = [
        user(2, "Leaver@example.com", "Lea", true),
        user(3, "renamed@example.com", "Old", true),
        user(4, "back@example.com", "Old", false),
        user(5, "same@example.com", "Same", true),
        user(6, "other@example.com", "Other", true),
        user(7, "gone@example.com", "Gone", false),
    ];
    let joiner = Desired { last_name: Some("New".to_owned()), ..row(2, "Joiner@example.com", "Jo", None) };
    let lines = [
        joiner,
        row(3, "BACK@example.com", "New", Some(true)),
        row(4, "renamed@example.com", "New", Some(true)),
        row(5, "same@example.com", "Same", None),
        row(6, "leaver@example.com", "Other", Some(false)),
        row(7, "unknown@example.com", "No", Some(false)),
    ];
    let plan = plan(&lines, &users);
    let expected = [
        "user_deactivate 2",
        "user_update 3 first_name",
        "user_reactivate 4",
        "user_update 4 first_name",
        "user_create email,first_name,last_name",
    ];
    assert_eq!(deeds(&plan), expected);
    assert_eq!((plan.unchanged, plan.only_in_harvest), (2, vec![6]));
}

#[test]
fn archived_user_changes_only_if_the_list_says_active() {
    let users = [user(2, "a@example.com", "Old", false)];
    for active in [None, Some(false)] {
        assert!(plan(&[row(1, "a@example.com", "New", active)], &users).users.is_empty());
    }
}

#[test]
fn new_user_without_a_name_is_an_error_of_the_line_without_its_values() {
    let lines = [row(2, "a@example.com", "A", Some(true)), row(3, "b@example.com", "", Some(true))];
    let errors = plan_with(&lines, &[], &[], &[]).expect_err("names are absent");
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "line 2: Harvest has no such user, and last_name is missing or empty",
            "line 3: Harvest has no such user, and first_name is missing or empty",
        ]
    );
}

#[test]
fn list_with_a_repeated_or_invalid_value_is_refused_without_its_values() {
    let lines = [
        row(2, "a@example.com", "A", None),
        row(3, " A@Example.com", "B", None),
        row(4, "nobody", "C", None),
        row(5, "b@example.com", "B\nC", None),
    ];
    let errors = DesiredUsers::new(&lines).err().expect("errors");
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "line 3: has the e-mail address of line 2",
            "line 4: email is not an e-mail address",
            "line 5: first_name holds control characters",
        ]
    );
}

#[test]
fn address_of_several_users_means_the_active_one_and_is_otherwise_an_error() {
    let users = [user(2, "a@example.com", "A", false), user(3, "A@example.com", "A", true)];
    let leaves = [row(1, "a@example.com", "", Some(false))];
    assert_eq!(deeds(&plan(&leaves, &users)), ["user_deactivate 3"]);
    let archived = users.clone().map(|user| User { is_active: Field::Value(false), ..user });
    assert!(plan(&leaves, &archived).users.is_empty());
    let returns = [row(1, "a@example.com", "", Some(true))];
    let errors = plan_with(&returns, &archived, &[], &[]).expect_err("not clear");
    assert_eq!(errors, [LineError::new(1, "users 2, 3 have this e-mail address")]);
}

#[test]
fn absent_users_are_deactivated_only_within_the_scope_and_owner_and_protected_users_never() {
    let users = [
        user(1, "owner@example.com", "O", true),
        user(2, "Boss@Example.com", "B", true),
        user(3, "three@example.com", "T", true),
        user(4, "gone@example.com", "G", true),
        user(5, "guest@sub.example.com", "G", true),
        user(6, "archived@example.com", "A", false),
        User { email: Field::Null, ..user(7, "", "N", true) },
    ];
    let lines = [row(2, "new@elsewhere.com", "", Some(false)), row(3, "three@example.com", "X", None)];
    let plan = plan_with(&lines, &users, &["example.com"], &["boss@example.com", "3"]).expect("a plan");
    assert_eq!(deeds(&plan), ["user_deactivate 4"]);
    assert_eq!(plan.only_in_harvest, [5, 7]);
    let skipped: Vec<_> = plan.skipped.iter().map(|it| (it.line, it.user, it.reason)).collect();
    let (owner, protected) = ("owns rosterd's token", "is named in write.protected");
    assert_eq!(skipped, [(None, Some(1), owner), (None, Some(2), protected), (Some(3), Some(3), protected)]);
}

/// Users and lines with few values, so that addresses meet often.
fn users() -> impl Strategy<Value = Vec<User>> {
    let one = (0..6_usize, prop::sample::select(vec!["A", "B"]), any::<bool>());
    prop::collection::vec(one, 0..8).prop_map(|many| {
        let user = |(id, (email, name, active))| user(id, EMAILS[email], name, active);
        let mut users: Vec<_> = (1..).zip(many).map(user).collect();
        // As Harvest: an address belongs to one user.
        let mut seen = BTreeSet::new();
        users.retain(|user| seen.insert(key(user)));
        users
    })
}

const EMAILS: [&str; 6] = ["a@x.com", "B@x.com", "c@x.com", "d@y.com", "E@y.com", "f@y.com"];

fn lines() -> impl Strategy<Value = Vec<Desired>> {
    let text = |values| {
        prop::option::of(prop::sample::select(values)).prop_map(|it: Option<&str>| it.map(str::to_owned))
    };
    let one = (0..6_usize, text(vec!["A", "B"]), prop::option::of(any::<bool>()), text(vec!["1", "2"]));
    prop::collection::vec(one, 0..8).prop_map(|many| {
        let mut seen = BTreeSet::new();
        let line = |(line, (email, first_name, active, telephone)): (u64, (usize, _, _, _))| Desired {
            line,
            email: EMAILS[email].to_owned(),
            first_name,
            last_name: Some("Last".to_owned()),
            active,
            telephone,
        };
        let mut lines: Vec<_> = (1..).zip(many).map(line).collect();
        lines.retain(|line| seen.insert(line.email.clone()));
        lines
    })
}

/// Carries out a write as Harvest does.
fn apply(users: &mut Vec<User>, write: &Write) {
    let text = |name: &str| write.fields.text(name).map(|text| Field::Value(text.to_owned()));
    if write.kind == WriteKind::UserCreate {
        let id = 100 + i64::try_from(users.len()).expect("few users");
        let created = User { id, email: text("email").expect("an address"), ..user(id, "", "", true) };
        let name = text("first_name").expect("a first name");
        users.push(User { first_name: name, telephone: text("telephone").unwrap_or(Field::Null), ..created });
        return;
    }
    let user = users.iter_mut().find(|user| Some(user.id) == write.user).expect("the user");
    match write.kind {
        WriteKind::UserDeactivate => user.is_active = Field::Value(false),
        WriteKind::UserReactivate => user.is_active = Field::Value(true),
        _ => {
            assert!(!is_archived(user), "Harvest locks the names of archived users");
            user.first_name = text("first_name").unwrap_or_else(|| user.first_name.clone());
            user.telephone = text("telephone").unwrap_or_else(|| user.telephone.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn second_run_plans_nothing_and_users_are_as_the_list_says(
        before in users(), lines in lines(), with_scope in any::<bool>(),
    ) {
        let scope: &[&str] = if with_scope { &["x.com"] } else { &[] };
        let Ok(plan) = plan_with(&lines, &before, scope, &["c@x.com"]) else {
            prop_assert!(lines.iter().any(|line| line.first_name.is_none()), "only a name can be absent");
            return Ok(());
        };
        let mut after = before.clone();
        let mut ranks = Vec::new();
        for user in &plan.users {
            ranks.extend(user.writes.first().map(|write| rank(write.kind)));
            user.writes.iter().for_each(|write| apply(&mut after, write));
        }
        prop_assert!(ranks.is_sorted());
        let again = plan_with(&lines, &after, scope, &["c@x.com"]).expect("a plan");
        prop_assert_eq!(&again.users, &[]);
        prop_assert_eq!(&again.skipped, &plan.skipped);
        let touched: BTreeSet<_> = plan.users.iter().filter_map(|it| it.user).collect();
        for user in &before {
            let is_listed = lines.iter().any(|line| line.email.to_lowercase() == key(user));
            let is_missing = with_scope && key(user).ends_with("@x.com");
            prop_assert!(!touched.contains(&user.id) || (user.id != 1 && key(user) != "c@x.com"));
            prop_assert!(!touched.contains(&user.id) || is_listed || is_missing);
        }
        for line in &lines {
            let skipped = plan.skipped.iter().any(|it| it.line == Some(line.line));
            let Some(user) = after.iter().find(|user| key(user) == line.email.to_lowercase()) else {
                prop_assert!(skipped || line.active == Some(false));
                continue;
            };
            prop_assert!(skipped || line.active.is_none_or(|active| user.is_active == Field::Value(active)));
            let has = |wanted: &Option<String>, field: &Field<String>| {
                wanted.is_none() || wanted.as_ref() == field.value()
            };
            let has_fields = has(&line.first_name, &user.first_name) && has(&line.telephone, &user.telephone);
            prop_assert!(skipped || is_archived(user) || has_fields);
        }
    }
}
