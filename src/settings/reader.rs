//! Reads merged values as the types they have to be. A value that will not do becomes a sentence, and reading
//! goes on with a stand-in, so that one start shows every fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::RangeInclusive,
    time::Duration,
};

use config::{Value, ValueKind};

/// Longer than anybody means, short enough that no sum of times overflows.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

pub(super) struct Reader<'a> {
    values: &'a BTreeMap<String, Value>,
    faults: Vec<String>,
    unsound: BTreeSet<&'static str>,
    asked: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub fn new(values: &'a BTreeMap<String, Value>, faults: Vec<String>) -> Self {
        Self { values, faults, unsound: BTreeSet::new(), asked: BTreeSet::new() }
    }

    pub fn into_faults(self) -> Vec<String> {
        self.faults
    }

    /// Every key that was read: the tests compare them with `config/default.toml`.
    #[cfg(test)]
    pub fn asked(&self) -> &BTreeSet<&'static str> {
        &self.asked
    }

    pub fn flag(&mut self, key: &'static str) -> bool {
        self.read(key, |kind| match kind {
            ValueKind::Boolean(flag) => Ok(*flag),
            _ => Err("give true or false".to_owned()),
        })
        .unwrap_or_default()
    }

    pub fn whole(&mut self, key: &'static str, allowed: RangeInclusive<u32>) -> u32 {
        let (least, most) = (*allowed.start(), *allowed.end());
        self.read(key, |kind| {
            match kind {
                ValueKind::I64(n) => u32::try_from(*n).ok().filter(|n| allowed.contains(n)).ok_or(()),
                _ => Err(()),
            }
            .map_err(|()| format!("give a whole number from {least} to {most}"))
        })
        .unwrap_or(least)
    }

    /// A share of something, from 0 to 1.
    pub fn fraction(&mut self, key: &'static str) -> f64 {
        self.read(key, |kind| {
            let fraction = match kind {
                ValueKind::Float(fraction) => *fraction,
                ValueKind::I64(0) => 0.0,
                ValueKind::I64(1) => 1.0,
                _ => f64::NAN,
            };
            (0.0..=1.0)
                .contains(&fraction)
                .then_some(fraction)
                .ok_or_else(|| "give a number from 0 to 1".to_owned())
        })
        .unwrap_or_default()
    }

    pub fn duration(&mut self, key: &'static str, at_least: Duration) -> Duration {
        self.text(key, |text| duration(text, at_least)).unwrap_or(at_least)
    }

    /// `None` where it is this word.
    pub fn duration_or(&mut self, key: &'static str, word: &str, at_least: Duration) -> Option<Duration> {
        self.text(key, |text| {
            if text == word {
                return Ok(None);
            }
            duration(text, at_least).map(Some).map_err(|advice| format!("{advice}, or \"{word}\""))
        })
        .flatten()
    }

    /// Text that `parse` understands; its error says what to give instead.
    pub fn text<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.read(key, |kind| match kind {
            ValueKind::String(text) => parse(text),
            ValueKind::Table(_) | ValueKind::Array(_) => Err("give text in quotes".to_owned()),
            // Shows `parse` what was written, for the advice it gives.
            other => Err(match parse(&other.to_string()) {
                Ok(_) => format!("put it in quotes: \"{other}\""),
                Err(advice) => advice,
            }),
        })
    }

    /// Text that no sentence may repeat.
    pub fn secret(&mut self, key: &'static str) -> Option<&'a str> {
        self.asked.insert(key);
        let value = self.values.get(key)?;
        if let ValueKind::String(text) = &value.kind {
            return Some(text).filter(|text| !text.is_empty()).map(String::as_str);
        }
        self.refuse(key, "must be text in quotes");
        None
    }

    /// A sentence that was made elsewhere.
    pub fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// `key (from there) what`, without the value.
    pub fn refuse(&mut self, key: &'static str, what: impl Display) {
        self.unsound.insert(key);
        self.faults.push(format!("{key} (from {}) {what}", self.source(key)));
    }

    /// `key is this (from there); advice`. For rules that span keys.
    pub fn refuse_value(&mut self, key: &'static str, advice: impl Display) {
        self.unsound.insert(key);
        let value = self.values.get(key).map(|value| shown(&value.kind)).unwrap_or_default();
        self.faults.push(format!("{key} is {value} (from {}); {advice}", self.source(key)));
    }

    /// False where one of `keys` was refused: no use in comparing stand-ins.
    pub fn sound(&self, keys: &[&str]) -> bool {
        keys.iter().all(|key| !self.unsound.contains(key))
    }

    /// Where the value of `key` came from, for sentences.
    pub fn source(&self, key: &str) -> &'a str {
        self.values.get(key).and_then(Value::origin).unwrap_or("the built-in defaults")
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&ValueKind) -> Result<T, String>,
    ) -> Option<T> {
        self.asked.insert(key);
        let Some(value) = self.values.get(key) else {
            self.refuse(key, "is missing");
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

/// A value as a sentence may repeat it. With an @ it may hold somebody's address or password.
fn shown(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) if text.contains('@') => "unusable text".to_owned(),
        ValueKind::String(text) if text.chars().count() > 80 => "a long text".to_owned(),
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}
