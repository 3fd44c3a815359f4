//! Job roles: labels by which Harvest's reports group users. They give no access.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::write::{WriteFields, WriteKind};
use super::write_kind::{ADD, NAME, REMOVE, REPLACE};

/// The message of a role write that Harvest answers with 404 although it has the role.
pub const UNKNOWN_MEMBER: &str = "Harvest does not have one of the users";

/// A job role. Harvest's JSON has the same fields.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Role {
    pub id: i64,
    pub name: String,
    pub user_ids: BTreeSet<i64>,
    pub created_at: Option<DateTime<Utc>>,
    /// Harvest's time of the last change; a change of users does not change it.
    pub updated_at: Option<DateTime<Utc>>,
}

impl Role {
    /// The users whose lists of roles, which are names, differ between two states of a role.
    pub fn affected(before: Option<&Self>, after: Option<&Self>) -> BTreeSet<i64> {
        let users = |role: Option<&Self>| role.map(|it| it.user_ids.clone()).unwrap_or_default();
        let is_renamed = before.map(|it| &it.name) != after.map(|it| &it.name);
        let (before, after) = (users(before), users(after));
        if is_renamed { &before | &after } else { &before ^ &after }
    }
}

/// A change of the users of a role: first the whole list, then single users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChange {
    replace: Option<BTreeSet<i64>>,
    add: BTreeSet<i64>,
    remove: BTreeSet<i64>,
}

impl MemberChange {
    pub fn of(fields: &WriteFields) -> Self {
        let ids = |name| fields.ids(name).unwrap_or_default();
        Self { replace: fields.ids(REPLACE), add: ids(ADD), remove: ids(REMOVE) }
    }

    pub fn add(&mut self, ids: &BTreeSet<i64>) {
        self.remove.retain(|id| !ids.contains(id));
        match &mut self.replace {
            Some(all) => all.extend(ids),
            None => self.add.extend(ids),
        }
    }

    pub fn remove(&mut self, ids: &BTreeSet<i64>) {
        self.add.retain(|id| !ids.contains(id));
        match &mut self.replace {
            Some(all) => all.retain(|id| !ids.contains(id)),
            None => self.remove.extend(ids),
        }
    }

    pub fn replace(&mut self, ids: BTreeSet<i64>) {
        *self = Self { replace: Some(ids), ..Self::default() };
    }

    /// The users whom the change names and does not remove.
    pub fn wanted(&self) -> BTreeSet<i64> {
        self.replace.iter().flatten().chain(&self.add).copied().collect()
    }

    pub fn apply(&self, members: &BTreeSet<i64>) -> BTreeSet<i64> {
        let mut changed = self.replace.clone().unwrap_or_else(|| members.clone());
        changed.retain(|id| !self.remove.contains(id));
        changed.extend(&self.add);
        changed
    }

    pub fn to_fields(&self, fields: &mut Map<String, Json>) {
        if let Some(all) = &self.replace {
            fields.insert(REPLACE.to_owned(), json!(all));
        }
        for (name, ids) in [(ADD, &self.add), (REMOVE, &self.remove)] {
            if !ids.is_empty() {
                fields.insert(name.to_owned(), json!(ids));
            }
        }
    }
}

/// The body of a role write: Harvest replaces the whole list of users. `None` if it has none, or if the role is as wanted.
pub fn body(kind: WriteKind, fields: &WriteFields, known: Option<&Role>) -> Option<Json> {
    let (mut body, change) = (Map::new(), MemberChange::of(fields));
    if let Some(name) = fields.text(NAME).filter(|name| known.is_none_or(|role| role.name != **name)) {
        body.insert(NAME.to_owned(), json!(name));
    }
    let members = known.map(|role| role.user_ids.clone()).unwrap_or_default();
    let changed = change.apply(&members);
    if changed != members {
        body.insert(REPLACE.to_owned(), json!(changed));
    }
    (kind != WriteKind::RoleDelete && !body.is_empty()).then_some(Json::Object(body))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn ids() -> impl Strategy<Value = BTreeSet<i64>> {
        btree_set(1_i64..6, 0..4)
    }

    fn changed(steps: &[(u8, BTreeSet<i64>)]) -> MemberChange {
        let mut change = MemberChange::default();
        for (step, ids) in steps {
            match step {
                0 => change.add(ids),
                1 => change.remove(ids),
                _ => change.replace(ids.clone()),
            }
        }
        change
    }

    proptest! {
        #[test]
        fn change_equals_its_steps_one_after_the_other_and_survives_the_journal(
            members in ids(), steps in vec((0_u8..3, ids()), 0..6)
        ) {
            let mut expected = members.clone();
            for (step, ids) in &steps {
                match step {
                    0 => expected.extend(ids),
                    1 => expected.retain(|id| !ids.contains(id)),
                    _ => expected.clone_from(ids),
                }
            }
            let change = changed(&steps);
            prop_assert_eq!(&change.apply(&members), &expected);
            prop_assert_eq!(change.apply(&expected), expected, "twice is once");
            let mut fields = Map::new();
            change.to_fields(&mut fields);
            if !fields.is_empty() {
                let fields = WriteFields::parse(WriteKind::RoleUpdate, Json::Object(fields));
                prop_assert_eq!(MemberChange::of(&fields.expect("valid fields")), change);
            }
        }
    }

    #[test]
    fn body_has_the_whole_list_of_users_and_only_what_differs() {
        let role = Role {
            id: 7,
            name: "Design".to_owned(),
            user_ids: [1, 2].into(),
            created_at: None,
            updated_at: None,
        };
        let update = |fields: Json| {
            let fields = WriteFields::parse(WriteKind::RoleUpdate, fields).expect("valid fields");
            body(WriteKind::RoleUpdate, &fields, Some(&role))
        };
        assert_eq!(update(json!({"add_user_ids": [3]})), Some(json!({"user_ids": [1, 2, 3]})));
        assert_eq!(update(json!({"remove_user_ids": [1, 2]})), Some(json!({"user_ids": []})));
        assert_eq!(update(json!({"add_user_ids": [2], "remove_user_ids": [3], "name": "Design"})), None);
        assert_eq!(update(json!({"name": "Art", "user_ids": [2, 1]})), Some(json!({"name": "Art"})));
    }
}
