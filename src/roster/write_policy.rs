//! Which writes are allowed, refused, or held for a person. The process that sends decides, so a leaked database role can
//! do no more than the settings allow.

use std::collections::BTreeSet;

use super::missing::DeletionGuard;
use super::model::{ADMINISTRATOR, Resource, User};
use super::write::{Write, WriteKind};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// No write is sent or planned.
    #[default]
    Off,
    /// Writes are planned and journalled, and not sent.
    Dry,
    On,
}

/// What SCIM does when a directory deletes a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// Archives the user, whom SCIM does not show from then on.
    Deactivate,
    /// Deletes the user at Harvest, or archives a user with time entries.
    Delete,
    /// Answers 403.
    Refuse,
}

/// What `write.allow` can name.
pub const PERMISSIONS: [&str; 10] = [
    "create",
    "update",
    "deactivate",
    "reactivate",
    "assign",
    "unassign",
    "delete",
    "access_roles",
    "rates",
    "roles",
];

/// The access role of a user who was created without one.
pub const MEMBER: &str = "member";

#[derive(Clone)]
pub struct WriteRules {
    pub mode: WriteMode,
    /// Names from [`PERMISSIONS`].
    pub allow: BTreeSet<String>,
    /// E-mail addresses in lower case, and ids, of users whom no write touches.
    pub protected: BTreeSet<String>,
    /// How many people may lose access within the guard's time.
    pub guard: DeletionGuard,
    /// Whether pay data may enter the database.
    pub with_pay_data: bool,
}

/// What the decision rests on.
#[derive(Clone, Copy)]
pub struct WriteFacts<'a> {
    /// The user as the mirror has them; `None` if it does not know them.
    pub user: Option<&'a User>,
    /// The owner of the token, by Harvest and by the mirror.
    pub owners: [Option<i64>; 2],
    pub active_users: u64,
    /// Users who lost access by writes within the guard's time.
    pub recent_losses: u64,
    /// Whether a person asked for this write by name, or has accepted it.
    pub is_deliberate: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// It is not sent; why.
    Refuse(String),
    /// A person must accept it first.
    Hold,
}

impl WriteRules {
    pub fn decide(&self, write: &Write, facts: &WriteFacts<'_>) -> Verdict {
        let refuse = |reason: &str| Verdict::Refuse(reason.to_owned());
        if self.mode == WriteMode::Off {
            return refuse("write.mode is \"off\"");
        }
        let needed = needed(write);
        if let Some(missing) = needed.iter().find(|needed| !self.allow.contains(**needed)) {
            return Verdict::Refuse(format!("write.allow does not have \"{missing}\""));
        }
        if needed.contains(&"rates") && !self.with_pay_data {
            return refuse("rates and budgets are not written while rates.mirror is false");
        }
        if write.user.is_some() && facts.owners.contains(&write.user) {
            return refuse("this user owns rosterd's token, and no write touches the owner");
        }
        if self.is_protected(write, facts.user) {
            return refuse("write.protected names this user");
        }
        let is_administrator = facts.user.is_some_and(|user| {
            user.access_roles.value().is_some_and(|roles| roles.iter().any(|role| role == ADMINISTRATOR))
        });
        // A new address and a password reset would take over the administrator's account.
        if is_administrator && write.fields.contains("email") && !facts.is_deliberate {
            return refuse("only a person may change the e-mail address of an administrator");
        }
        let losses = usize::try_from(facts.recent_losses).unwrap_or(usize::MAX).saturating_add(1);
        if write.kind.is_loss() && !facts.is_deliberate && self.guard.holds(losses, facts.active_users) {
            return Verdict::Hold;
        }
        Verdict::Allow
    }

    fn is_protected(&self, write: &Write, user: Option<&User>) -> bool {
        let id = write.user.map(|id| id.to_string());
        let known = user.and_then(|user| user.email.value()).map(|email| email.to_lowercase());
        let wanted = write.fields.text("email").map(str::to_lowercase);
        [id, known, wanted].into_iter().flatten().any(|name| self.protected.contains(&name))
    }
}

fn needed(write: &Write) -> Vec<&'static str> {
    let mut needed = vec![match write.kind {
        WriteKind::UserCreate => "create",
        WriteKind::UserUpdate => "update",
        WriteKind::UserDeactivate => "deactivate",
        WriteKind::UserReactivate => "reactivate",
        WriteKind::AssignmentAdd | WriteKind::AssignmentUpdate => "assign",
        WriteKind::AssignmentArchive | WriteKind::AssignmentRemove => "unassign",
        WriteKind::UserDelete => "delete",
        WriteKind::RoleCreate | WriteKind::RoleUpdate | WriteKind::RoleDelete => "roles",
    }];
    if write.kind == WriteKind::RoleDelete {
        needed.push("delete");
    }
    // The roles of an existing user are a privilege that is lost or gained; those of a new member are the default.
    let is_new_member = |roles: Vec<&str>| write.kind == WriteKind::UserCreate && roles == [MEMBER];
    if write.fields.texts("access_roles").is_some_and(|roles| !is_new_member(roles)) {
        needed.push("access_roles");
    }
    if Resource::Assignments.pay_fields().iter().any(|field| write.fields.contains(field)) {
        needed.push("rates");
    }
    needed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::roster::field::Field;
    use crate::roster::write::WriteFields;

    fn rules(allow: &[&str]) -> WriteRules {
        WriteRules {
            mode: WriteMode::On,
            allow: allow.iter().map(ToString::to_string).collect(),
            protected: ["boss@example.com", "9"].map(ToOwned::to_owned).into(),
            guard: DeletionGuard { fraction: 0.1, at_least: 5 },
            with_pay_data: true,
        }
    }

    fn facts(user: Option<&User>, recent_losses: u64) -> WriteFacts<'_> {
        WriteFacts { user, owners: [Some(1), None], active_users: 40, recent_losses, is_deliberate: false }
    }

    fn write(kind: WriteKind, user: i64, fields: serde_json::Value) -> Write {
        Write::of_user(kind, Some(user), WriteFields::parse(kind, fields).expect("valid fields"))
    }

    fn refused(verdict: &Verdict, words: &str) -> bool {
        matches!(verdict, Verdict::Refuse(reason) if reason.contains(words))
    }

    #[test]
    fn only_allowed_kinds_pass_and_access_roles_need_their_own_permission() {
        let rules = rules(&["update", "deactivate"]);
        let update = |fields| rules.decide(&write(WriteKind::UserUpdate, 5, fields), &facts(None, 0));
        assert_eq!(update(json!({"first_name": "A"})), Verdict::Allow);
        assert!(refused(&update(json!({"access_roles": ["member"]})), "\"access_roles\""));
        assert!(refused(&update(json!({"access_roles": ["administrator"]})), "\"access_roles\""));
        let delete = write(WriteKind::UserDelete, 5, json!({}));
        assert!(refused(&rules.decide(&delete, &facts(None, 0)), "\"delete\""));
        let role = |kind, allow: &[&str]| {
            let write = Write::of_role(kind, Some(7), WriteFields::default());
            super::tests::rules(allow).decide(&write, &facts(None, 50))
        };
        assert!(refused(&role(WriteKind::RoleUpdate, &["update", "delete"]), "\"roles\""));
        assert!(refused(&role(WriteKind::RoleDelete, &["roles"]), "\"delete\""));
        assert_eq!(
            role(WriteKind::RoleDelete, &["roles", "delete"]),
            Verdict::Allow,
            "the guard counts no roles"
        );
        let off = WriteRules { mode: WriteMode::Off, ..rules.clone() };
        assert!(refused(
            &off.decide(&write(WriteKind::UserDeactivate, 5, json!({})), &facts(None, 0)),
            "off"
        ));
    }

    #[test]
    fn the_owner_protected_users_and_addresses_of_administrators_are_not_touched() {
        let rules = rules(&["update", "deactivate"]);
        let user = |email: &str, role: &str| User {
            email: Field::Value(email.to_owned()),
            access_roles: Field::Value(vec![role.to_owned()]),
            ..User::default()
        };
        let deactivate = |id, user: Option<&User>| {
            rules.decide(&write(WriteKind::UserDeactivate, id, json!({})), &facts(user, 0))
        };
        assert!(refused(&deactivate(1, None), "owns rosterd's token"));
        assert!(refused(&deactivate(9, None), "write.protected"));
        let boss = user("Boss@Example.com", MEMBER);
        assert!(refused(&deactivate(5, Some(&boss)), "write.protected"));
        let administrator = user("root@example.com", ADMINISTRATOR);
        assert_eq!(deactivate(5, Some(&administrator)), Verdict::Allow);
        let rename = write(WriteKind::UserUpdate, 5, json!({"email": "new@example.com"}));
        assert!(refused(&rules.decide(&rename, &facts(Some(&administrator), 0)), "administrator"));
        let deliberate = WriteFacts { is_deliberate: true, ..facts(Some(&administrator), 0) };
        assert_eq!(rules.decide(&rename, &deliberate), Verdict::Allow);
    }

    #[test]
    fn deactivations_beyond_both_bounds_are_held_unless_a_person_asked() {
        let rules = rules(&["deactivate"]);
        let deactivate = write(WriteKind::UserDeactivate, 5, json!({}));
        assert_eq!(rules.decide(&deactivate, &facts(None, 4)), Verdict::Allow);
        assert_eq!(rules.decide(&deactivate, &facts(None, 5)), Verdict::Hold);
        let large = WriteFacts { active_users: 1000, ..facts(None, 50) };
        assert_eq!(rules.decide(&deactivate, &large), Verdict::Allow);
        let deliberate = WriteFacts { is_deliberate: true, ..facts(None, 50) };
        assert_eq!(rules.decide(&deactivate, &deliberate), Verdict::Allow);
    }

    #[test]
    fn permissions_are_exactly_those_that_writes_need() {
        let mut writes: Vec<_> =
            WriteKind::ALL.map(|kind| Write::of_user(kind, None, WriteFields::default())).into();
        writes.push(write(WriteKind::UserUpdate, 5, json!({"access_roles": ["manager"]})));
        writes.push(write(WriteKind::AssignmentUpdate, 5, json!({"hourly_rate": 1})));
        let is_refused_without = |permission: &str| {
            let rules = rules(&PERMISSIONS.into_iter().filter(|it| *it != permission).collect::<Vec<_>>());
            writes.iter().any(|write| rules.decide(write, &facts(None, 0)) != Verdict::Allow)
        };
        assert!(!is_refused_without("nothing"));
        for permission in PERMISSIONS {
            assert!(is_refused_without(permission), "{permission}");
        }
    }
}
