//! The writes that lead from the users of the mirror to a list of desired users, such as an export of a directory.
//!
//! The e-mail address in lower case identifies a user. What the list does not say stays as it is, so that a second run
//! plans nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde_json::{Map, json};

use super::field::Field;
use super::model::User;
use super::write::{Write, WriteFields, WriteKind};

/// A line of the list. A field that is `None` stays as it is at Harvest.
#[derive(Clone, Default, PartialEq)]
pub struct Desired {
    /// The number of the line, from 1.
    pub line: u64,
    pub email: String,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub active: Option<bool>,
    pub telephone: Option<String>,
}

/// The line only: the values are personal data.
impl fmt::Debug for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desired").field("line", &self.line).finish_non_exhaustive()
    }
}

/// What is wrong with a line. Holds no values of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineError {
    /// The number of the line, from 1.
    pub line: u64,
    /// A sentence without its subject, the line.
    pub problem: String,
}

impl LineError {
    pub fn new(line: u64, problem: impl Into<String>) -> Self {
        Self { line, problem: problem.into() }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

struct Line {
    number: u64,
    /// With the e-mail address.
    fields: WriteFields,
    active: Option<bool>,
}

/// A list whose lines are valid and name each user once. The keys are e-mail addresses in lower case.
pub struct DesiredUsers(BTreeMap<String, Line>);

impl DesiredUsers {
    /// Checks all lines.
    ///
    /// # Errors
    /// The errors of all lines.
    pub fn new(lines: &[Desired]) -> Result<Self, Vec<LineError>> {
        let (mut valid, mut errors) = (BTreeMap::<String, Line>::new(), Vec::new());
        for desired in lines {
            let mut fields = Map::from_iter([("email".to_owned(), json!(desired.email))]);
            let optional = [
                ("first_name", &desired.first_name),
                ("last_name", &desired.last_name),
                ("telephone", &desired.telephone),
            ];
            for (name, value) in optional {
                fields.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
            }
            let fields = match WriteFields::parse(WriteKind::UserUpdate, fields.into()) {
                Ok(fields) => fields,
                Err(problem) => {
                    errors.push(LineError::new(desired.line, problem));
                    continue;
                }
            };
            let key = fields.text("email").unwrap_or_default().to_lowercase();
            if let Some(first) = valid.get(&key) {
                let problem = format!("has the e-mail address of line {}", first.number);
                errors.push(LineError::new(desired.line, problem));
                continue;
            }
            valid.insert(key, Line { number: desired.line, fields, active: desired.active });
        }
        if errors.is_empty() { Ok(Self(valid)) } else { Err(errors) }
    }
}

/// What the plan may touch.
#[derive(Clone, Copy)]
pub struct ReconcileRules<'a> {
    /// Domains of e-mail addresses, in lower case.
    pub scope_domains: &'a BTreeSet<String>,
    /// Whether active users within the scope who are not in the list are deactivated.
    pub deactivate_missing: bool,
    pub owner: Option<i64>,
    /// E-mail addresses in lower case, and ids, of users whom no write touches.
    pub protected: &'a BTreeSet<String>,
}

/// The writes of one user, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct UserPlan {
    /// The line of the list; `None` for a user who is not in the list.
    pub line: Option<u64>,
    /// The user; `None` for a user to create.
    pub user: Option<i64>,
    /// At least one.
    pub writes: Vec<Write>,
}

/// A user whom the plan does not touch although the list differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The line of the list; `None` for a user who is not in the list.
    pub line: Option<u64>,
    /// The user; `None` for a user to create.
    pub user: Option<i64>,
    pub reason: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReconcilePlan {
    /// Deactivations, updates, reactivations, creations: seats are free before they are needed.
    pub users: Vec<UserPlan>,
    pub skipped: Vec<Skipped>,
    /// Lines without a difference.
    pub unchanged: usize,
    /// Active users who are not in the list and stay active.
    pub only_in_harvest: Vec<i64>,
}

impl ReconcilePlan {
    /// Plans the writes. `users` are all users of the mirror without deleted ones.
    ///
    /// # Errors
    /// The lines that cannot be carried out.
    pub fn new(
        desired: &DesiredUsers,
        users: &[User],
        rules: &ReconcileRules<'_>,
    ) -> Result<Self, Vec<LineError>> {
        let mut known = HashMap::<String, Vec<&User>>::new();
        for user in users {
            known.entry(key(user)).or_default().push(user);
        }
        let (mut plan, mut errors) = (Self::default(), Vec::new());
        for (email, line) in &desired.0 {
            let planned = find(known.get(email).map_or(&[][..], Vec::as_slice), line)
                .and_then(|found| writes(found, line).map(|writes| (found, writes)));
            match planned {
                Ok((found, writes)) => {
                    plan.add(rules, email, Some(line.number), found.map(|user| user.id), writes);
                }
                Err(problem) => errors.push(LineError::new(line.number, problem)),
            }
        }
        if !errors.is_empty() {
            errors.sort();
            return Err(errors);
        }
        let is_absent = |user: &&User| !is_archived(user) && !desired.0.contains_key(&key(user));
        for user in users.iter().filter(is_absent) {
            let email = key(user);
            let domain = email.rsplit_once('@').map(|(_, domain)| domain);
            let is_in_scope = domain.is_some_and(|domain| rules.scope_domains.contains(domain));
            if rules.deactivate_missing && is_in_scope {
                let write = of_user(WriteKind::UserDeactivate, user, WriteFields::default());
                plan.add(rules, &email, None, Some(user.id), vec![write]);
            } else {
                plan.only_in_harvest.push(user.id);
            }
        }
        plan.only_in_harvest.sort_unstable();
        plan.skipped.sort_by_key(|skipped| (skipped.line, skipped.user));
        plan.users.sort_by_key(|it| (it.writes.first().map(|write| rank(write.kind)), it.line, it.user));
        Ok(plan)
    }

    pub fn count(&self, kind: WriteKind) -> usize {
        self.users.iter().flat_map(|user| &user.writes).filter(|write| write.kind == kind).count()
    }

    fn add(
        &mut self,
        rules: &ReconcileRules<'_>,
        email: &str,
        line: Option<u64>,
        user: Option<i64>,
        writes: Vec<Write>,
    ) {
        let is_named = |name: &str| rules.protected.contains(name);
        if writes.is_empty() {
            self.unchanged += 1;
        } else if user.is_some() && user == rules.owner {
            self.skipped.push(Skipped { line, user, reason: "owns rosterd's token" });
        } else if is_named(email) || user.is_some_and(|id| is_named(&id.to_string())) {
            self.skipped.push(Skipped { line, user, reason: "is named in write.protected" });
        } else {
            self.users.push(UserPlan { line, user, writes });
        }
    }
}

/// The place of a kind in the plan. A reactivation stays before the update of the same user.
fn rank(kind: WriteKind) -> u8 {
    match kind {
        WriteKind::UserDeactivate => 0,
        WriteKind::UserUpdate => 1,
        WriteKind::UserReactivate => 2,
        _ => 3,
    }
}

fn key(user: &User) -> String {
    user.email.value().map(|email| email.trim().to_lowercase()).unwrap_or_default()
}

fn is_archived(user: &User) -> bool {
    user.is_active == Field::Value(false)
}

fn of_user(kind: WriteKind, user: &User, fields: WriteFields) -> Write {
    Write::of_user(kind, Some(user.id), fields)
}

/// The user of the line. An archived user may have the address of an active one.
fn find<'a>(candidates: &[&'a User], line: &Line) -> Result<Option<&'a User>, String> {
    let active: Vec<_> = candidates.iter().copied().filter(|user| !is_archived(user)).collect();
    let wants_active = line.active == Some(true);
    match (candidates, active.as_slice()) {
        ([], _) => Ok(None),
        ([user], _) | (_, [user]) => Ok(Some(user)),
        // All are archived and stay so.
        ([user, ..], []) if !wants_active => Ok(Some(user)),
        (several, _) => {
            let mut ids: Vec<_> = several.iter().map(|user| user.id).collect();
            ids.sort_unstable();
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            Err(format!("users {} have this e-mail address", ids.join(", ")))
        }
    }
}

/// What makes the user as the line says.
fn writes(user: Option<&User>, line: &Line) -> Result<Vec<Write>, String> {
    let Some(user) = user else {
        if line.active == Some(false) {
            return Ok(Vec::new());
        }
        let fields = WriteFields::parse(WriteKind::UserCreate, line.fields.to_json());
        let fields = fields.map_err(|problem| format!("Harvest has no such user, and {problem}"))?;
        return Ok(vec![Write::of_user(WriteKind::UserCreate, None, fields)]);
    };
    let update = || {
        let differing = line.fields.differing(WriteKind::UserUpdate, user);
        let fields = line.fields.only(&differing);
        let is_needed = !fields.names().is_empty();
        is_needed.then(|| of_user(WriteKind::UserUpdate, user, fields))
    };
    let alone = |kind| of_user(kind, user, WriteFields::default());
    Ok(match (is_archived(user), line.active) {
        // Harvest locks the names of archived users.
        (false, Some(false)) => vec![alone(WriteKind::UserDeactivate)],
        (false, _) => update().into_iter().collect(),
        (true, Some(true)) => [alone(WriteKind::UserReactivate)].into_iter().chain(update()).collect(),
        (true, _) => Vec::new(),
    })
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
