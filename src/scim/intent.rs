//! What a request wants of a user: the values that it names, and nothing else.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::body::{self, Object};
use super::error::ScimError;
use super::path::{Target, invalid_path};
use super::value::{self, Choice};
use crate::roster::Field;
use crate::roster::write::is_address;

/// A request can have any number of unknown attributes.
const MAX_IGNORED: usize = 50;

/// What a request wants of a user. [`Field::Absent`] leaves a value as it is, [`Field::Null`] clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserIntent {
    /// `name.givenName`. Never null.
    pub given_name: Field<String>,
    /// `name.familyName`. Never null.
    pub family_name: Field<String>,
    /// The e-mail address of `emails`. Never null.
    pub email: Field<String>,
    /// The telephone number at work of `phoneNumbers`.
    pub telephone: Field<String>,
    pub external_id: Field<String>,
    /// `userName`. Never null.
    pub user_name: Field<String>,
    pub display_name: Field<String>,
    /// `active`. Never null.
    pub active: Field<bool>,
    /// Names of attributes, in lower case, that the request has and rosterd ignores.
    pub ignored: BTreeSet<String>,
}

impl UserIntent {
    pub fn from_post(body: &[u8]) -> Result<Self, ScimError> {
        let mut builder = IntentBuilder::default();
        builder.set_all(&body::parse(body)?, Verb::Put);
        // Nothing is created by halves, even if the user is to be inactive.
        builder.problem.map_or(Ok(builder.intent), Err)
    }

    /// The body of `PUT /Users/{id}`. What it does not have stays as it is.
    pub fn from_put(body: &[u8]) -> Result<Self, ScimError> {
        let mut builder = IntentBuilder::default();
        builder.set_all(&body::parse(body)?, Verb::Put);
        builder.finish()
    }
}

/// Adds the name of an attribute that is ignored.
pub(super) fn ignore(ignored: &mut BTreeSet<String>, name: &str) {
    if ignored.len() < MAX_IGNORED {
        ignored.insert(name.to_ascii_lowercase());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// POST and PUT: null is refused where a value is required.
    Put,
    Add,
    Replace,
    Remove,
}

#[derive(Default)]
pub(super) struct IntentBuilder {
    intent: UserIntent,
    problem: Option<ScimError>,
    /// Whether `active` itself has a problem.
    is_active_unclear: bool,
}

impl IntentBuilder {
    /// The intent. A request that deactivates a user is not refused for its other attributes: the directory would repeat
    /// it, and the user would stay active.
    pub fn finish(self) -> Result<UserIntent, ScimError> {
        let is_deactivation = self.intent.active == Field::Value(false) && !self.is_active_unclear;
        self.problem.filter(|_| !is_deactivation).map_or(Ok(self.intent), Err)
    }

    pub fn note(&mut self, problem: ScimError) {
        self.problem.get_or_insert(problem);
    }

    /// Sets attributes by their paths.
    pub fn set_all(&mut self, object: &Object, verb: Verb) {
        let concerns_active =
            |path: &&String| Target::parse(path).is_ok_and(|target| target.concerns_active());
        if object.keys().filter(concerns_active).count() > 1 {
            self.refuse(&Target::Active, ScimError::invalid_value("active is given twice"));
        }
        for (path, value) in object {
            self.set_path(path, value, verb);
        }
    }

    fn set_path(&mut self, path: &str, value: &Json, verb: Verb) {
        match Target::parse(path) {
            Ok(target) => self.set(&target, value, verb),
            Err(_) => self.ignore("(not a path)"),
        }
    }

    pub fn set(&mut self, target: &Target, value: &Json, verb: Verb) {
        if let Err(problem) = self.try_set(target, value, verb) {
            self.refuse(target, problem);
        }
    }

    pub fn remove(&mut self, target: &Target) {
        if let Err(problem) = self.clear(target, Verb::Remove) {
            self.refuse(target, problem);
        }
    }

    fn refuse(&mut self, target: &Target, problem: ScimError) {
        self.is_active_unclear |= target.concerns_active();
        self.ignore(target.path());
        self.note(problem);
    }

    /// Records the name of an attribute that is ignored.
    pub fn ignore(&mut self, name: &str) {
        ignore(&mut self.intent.ignored, name);
    }

    fn try_set(&mut self, target: &Target, value: &Json, verb: Verb) -> Result<(), ScimError> {
        match (target, value) {
            (Target::ReadOnly, _) => {}
            (Target::Unknown(_), _) if target.concerns_active() => return Err(active_has_no_parts()),
            (Target::Unknown(name), _) => self.ignore(name),
            (Target::User, Json::Object(members)) => self.set_all(members, verb),
            (Target::Name, Json::Object(members)) => {
                for (name, value) in members {
                    self.set_path(&format!("name.{name}"), value, verb);
                }
            }
            (Target::Name, Json::Null) => self.clear(target, verb)?,
            (Target::User | Target::Name, _) => {
                return Err(ScimError::invalid_value(format!("{} is not an object", target.path())));
            }
            (Target::Active, _) => match value::flag(target, value)? {
                Some(active) => self.intent.active = Field::Value(active),
                None => self.clear(target, verb)?,
            },
            (Target::Emails | Target::Phones, _) => match value::choose(target, value, verb == Verb::Add)? {
                Choice::Other => self.ignore(target.path()),
                Choice::Nothing => self.clear(target, verb)?,
                Choice::Text(text) => self.set_text(target, text)?,
            },
            _ => match value::text(target.path(), value)? {
                Some(text) => self.set_text(target, text)?,
                None => self.clear(target, verb)?,
            },
        }
        Ok(())
    }

    fn set_text(&mut self, target: &Target, text: String) -> Result<(), ScimError> {
        let invalid = |problem: &str| Err(ScimError::invalid_value(format!("{} {problem}", target.path())));
        let Some((field, is_required)) = self.text_field(target) else { return Ok(()) };
        if text.is_empty() && is_required {
            return invalid("is required and empty");
        }
        if matches!(target, Target::Emails | Target::Email) && !is_address(&text) {
            return invalid("is not an e-mail address");
        }
        *field = if text.is_empty() { Field::Null } else { Field::Value(text) };
        Ok(())
    }

    fn clear(&mut self, target: &Target, verb: Verb) -> Result<(), ScimError> {
        if let Target::Unknown(name) = target {
            if target.concerns_active() {
                return Err(active_has_no_parts());
            }
            self.ignore(name);
        }
        let is_required = match self.text_field(target) {
            Some((_, true)) => true,
            Some((field, false)) => {
                *field = Field::Null;
                false
            }
            // In PUT, null is as if it were missing.
            None => {
                matches!(target, Target::Name | Target::User)
                    || *target == Target::Active && verb != Verb::Put
            }
        };
        match (is_required, verb) {
            (false, _) => Ok(()),
            (true, Verb::Put) => {
                Err(ScimError::invalid_value(format!("{} is required and empty", target.path())))
            }
            (true, _) => Err(ScimError::mutability(format!("{} cannot be removed", target.path()))),
        }
    }

    /// The field of a target that is one text, and whether it is required.
    fn text_field(&mut self, target: &Target) -> Option<(&mut Field<String>, bool)> {
        let intent = &mut self.intent;
        Some(match target {
            Target::UserName => (&mut intent.user_name, true),
            Target::GivenName => (&mut intent.given_name, true),
            Target::FamilyName => (&mut intent.family_name, true),
            Target::Emails | Target::Email => (&mut intent.email, true),
            Target::ExternalId => (&mut intent.external_id, false),
            Target::DisplayName => (&mut intent.display_name, false),
            Target::Phones | Target::Phone => (&mut intent.telephone, false),
            Target::Active | Target::Name | Target::User | Target::ReadOnly | Target::Unknown(_) => {
                return None;
            }
        })
    }
}

fn active_has_no_parts() -> ScimError {
    invalid_path("active has no parts")
}

#[cfg(test)]
#[path = "intent_tests.rs"]
mod tests;
