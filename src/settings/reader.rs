//! Reads merged values as the types that the settings need. A bad value becomes a fault, and the reader returns a
//! placeholder, so that one start reports every fault.

use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, time::Duration};

use config::{Value, ValueKind};
use secrecy::SecretString;

use super::findings::Findings;
use super::secrets;
use super::values::Values;

/// Short enough that no sum of durations overflows.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

pub(super) struct Reader<'a> {
    values: &'a Values,
    /// Precedes each key in sentences.
    prefix: String,
    /// For `~` at the start of paths.
    pub home: Option<&'a str>,
    pub findings: Findings,
    /// Each key that was read, and whether its value is valid.
    valid: BTreeMap<&'static str, bool>,
}

impl<'a> Reader<'a> {
    /// `prefix`: precedes each key in sentences.
    pub fn new(values: &'a Values, prefix: String, home: Option<&'a str>, findings: Findings) -> Self {
        Self { values, prefix, home, findings, valid: BTreeMap::new() }
    }

    pub fn into_findings(self) -> Findings {
        self.findings
    }

    /// Every key that was read, for the test that compares them with `config/default.toml`.
    #[cfg(test)]
    pub fn keys(&self) -> Vec<&'static str> {
        self.valid.keys().copied().collect()
    }

    pub fn boolean(&mut self, key: &'static str) -> bool {
        let read = self.read(key, |kind| match kind {
            ValueKind::Boolean(boolean) => Ok(*boolean),
            _ => Err("give true or false".to_owned()),
        });
        read.unwrap_or_default()
    }

    pub fn integer(&mut self, key: &'static str, allowed: RangeInclusive<u32>) -> u32 {
        let (least, most) = (*allowed.start(), *allowed.end());
        let read = self.read(key, |kind| {
            let number = if let ValueKind::I64(number) = kind { u32::try_from(*number).ok() } else { None };
            let number = number.filter(|number| allowed.contains(number));
            number.ok_or_else(|| format!("give a whole number from {least} to {most}"))
        });
        read.unwrap_or(least)
    }

    /// A number from 0 to 1.
    pub fn fraction(&mut self, key: &'static str) -> f64 {
        let read = self.read(key, |kind| match kind {
            ValueKind::Float(fraction) if (0.0..=1.0).contains(fraction) => Ok(*fraction),
            ValueKind::I64(0) => Ok(0.0),
            ValueKind::I64(1) => Ok(1.0),
            _ => Err("give a number from 0 to 1".to_owned()),
        });
        read.unwrap_or_default()
    }

    pub fn duration(&mut self, key: &'static str, at_least: Duration) -> Duration {
        self.text(key, |text| duration(text, at_least)).unwrap_or(at_least)
    }

    /// `None` if the value is `word`.
    pub fn duration_or(&mut self, key: &'static str, word: &str, at_least: Duration) -> Option<Duration> {
        let parse = |text: &str| match duration(text, at_least) {
            _ if text == word => Ok(None),
            Ok(duration) => Ok(Some(duration)),
            Err(advice) => Err(format!("{advice}, or \"{word}\"")),
        };
        self.text(key, parse).flatten()
    }

    /// Text that `parse` accepts. The error of `parse` says what to give instead.
    pub fn text<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.read(key, |kind| match kind {
            ValueKind::String(text) => parse(text),
            ValueKind::Table(_) | ValueKind::Array(_) => Err("give text in quotes".to_owned()),
            // If `parse` would accept the value as text, only the quotes are missing.
            other => Err(match parse(&other.to_string()) {
                Ok(_) => format!("put it in quotes: \"{other}\""),
                Err(advice) => advice,
            }),
        })
    }

    /// The same, or `None` for empty text.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.text(key, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }).flatten()
    }

    /// One of these words.
    pub fn choice<T: Copy, const N: usize>(&mut self, key: &'static str, choices: [(&str, T); N]) -> T {
        let chosen = self.text(key, |text| {
            let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
            chosen.ok_or_else(|| {
                format!("give {}", choices.map(|(name, _)| format!("\"{name}\"")).join(" or "))
            })
        });
        chosen.unwrap_or(choices[0].1)
    }

    /// A list of texts, none of which a sentence may contain.
    pub fn texts(&mut self, key: &'static str) -> Vec<String> {
        self.list(key, "give a list of texts in quotes", |kind| match kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub fn integers(&mut self, key: &'static str) -> Vec<i64> {
        self.list(key, "give a list of positive whole numbers", |kind| match kind {
            ValueKind::I64(number) if *number > 0 => Some(*number),
            _ => None,
        })
    }

    fn list<T>(&mut self, key: &'static str, advice: &str, item: impl Fn(&ValueKind) -> Option<T>) -> Vec<T> {
        let read = self.read(key, |kind| {
            match kind {
                ValueKind::Array(values) => values.iter().map(|value| item(&value.kind)).collect(),
                _ => None,
            }
            .ok_or_else(|| advice.to_owned())
        });
        read.unwrap_or_default()
    }

    /// Text that no sentence may contain. `None` if it is empty.
    pub fn secret(&mut self, key: &'static str) -> Option<&'a str> {
        self.valid.insert(key, true);
        let value = self.values.get(key)?;
        if let ValueKind::String(text) = &value.kind {
            return Some(text.as_str()).filter(|text| !text.is_empty());
        }
        let fault = format!("{} must be text in quotes", self.name(key));
        self.refuse(key, fault);
        None
    }

    /// What `parse` makes of the text in the file that `key` names, which no sentence may contain. `parse` also gets the
    /// name of `key` for sentences. `None` if no file is named.
    pub fn secret_file<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str, &SecretString) -> Result<T, String>,
    ) -> Option<T> {
        let path = self.secret(key)?;
        let name = self.name(key);
        let text = secrets::from_file(&name, path, self.home, &mut self.findings);
        self.findings.ok(text.and_then(|text| parse(&name, &text)))
    }

    /// Refuses the value of `key`, and shows it. For rules that involve several keys.
    pub fn refuse_value(&mut self, key: &'static str, advice: impl Display) {
        let value = self.values.get(key).map(|value| shown(&value.kind)).unwrap_or_default();
        self.refuse(key, format!("{}{key} is {value} (from {}); {advice}", self.prefix, self.source(key)));
    }

    /// Whether the values of all `keys` are valid. Comparing placeholders would report faults that do not exist.
    pub fn all_valid(&self, keys: &[&str]) -> bool {
        keys.iter().all(|key| self.valid.get(key) != Some(&false))
    }

    /// The source of the value of `key`, for sentences.
    pub fn source(&self, key: &str) -> &'a str {
        self.values.get(key).and_then(Value::origin).unwrap_or("no source")
    }

    /// `key` with its source, for sentences.
    pub fn name(&self, key: &str) -> String {
        format!("{}{key} (from {})", self.prefix, self.source(key))
    }

    fn refuse(&mut self, key: &'static str, fault: String) {
        self.valid.insert(key, false);
        self.findings.fault(fault);
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&ValueKind) -> Result<T, String>,
    ) -> Option<T> {
        self.valid.insert(key, true);
        let Some(value) = self.values.get(key) else {
            self.refuse(key, format!("{}{key} is missing in the built-in defaults", self.prefix));
            return None;
        };
        read(&value.kind).map_err(|advice| self.refuse_value(key, advice)).ok()
    }
}

fn duration(text: &str, at_least: Duration) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err("give a duration of less than ten years".to_owned()),
        Ok(duration) if duration >= at_least => Ok(duration),
        _ => {
            let least = humantime::format_duration(at_least);
            Err(format!("give a duration of at least {least}, such as \"60s\""))
        }
    }
}

/// A value as a sentence may show it. Text with an @ may contain an e-mail address or a password.
fn shown(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) if text.contains('@') => "text with an @ (not shown)".to_owned(),
        ValueKind::String(text) if text.chars().count() > 80 => "text of more than 80 characters".to_owned(),
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}
