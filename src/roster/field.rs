//! One field of a record: its presence in a payload, how it is compared and printed.

use std::fmt;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A field of a payload.
///
/// Harvest omits keys that the token may not see (a Member sees no rates) and sends `null` for empty values. An absent key
/// never overwrites the mirror's value; `null` does.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// The payload has no such key; in the mirror: never known.
    #[default]
    Absent,
    Null,
    Value(T),
}

impl<T> Field<T> {
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// This field, or the known one if this is absent.
    #[must_use]
    pub fn or_known(self, known: &Self) -> Self
    where
        T: Clone,
    {
        match self {
            Self::Absent => known.clone(),
            present => present,
        }
    }
}

/// Fields hold names, addresses and pay data: `Debug` shows only whether there is a value.
impl<T> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Null => "Null",
            Self::Value(_) => "Value(…)",
        })
    }
}

/// A column of the mirror: NULL equals a JSON `null`.
impl<T> From<Option<T>> for Field<T> {
    fn from(column: Option<T>) -> Self {
        column.map_or(Self::Null, Self::Value)
    }
}

/// A field's value as it is compared, printed and emitted.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Nothing, or never known.
    Null,
    Bool(bool),
    /// A number of seconds: an `int` column.
    Int(i32),
    /// An id: a `bigint` column.
    BigInt(i64),
    /// Money: exact digits, never a float.
    Money(Decimal),
    Text(&'a str),
    /// A list without a significant order.
    Set(&'a [String]),
    Time(DateTime<Utc>),
    Date(NaiveDate),
}

/// Equality for consumers: sets regardless of order and repetition, money as numbers (`175.0` equals `175`), times as
/// instants.
impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::BigInt(a), Self::BigInt(b)) => a == b,
            (Self::Money(a), Self::Money(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Set(a), Self::Set(b)) => {
                a.iter().all(|x| b.contains(x)) && b.iter().all(|x| a.contains(x))
            }
            (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Date(a), Self::Date(b)) => a == b,
            _ => false,
        }
    }
}

/// As in events: money is a JSON number with its exact digits and no trailing zeros, times are
/// RFC 3339 in UTC with `Z`.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Int(number) => serializer.serialize_i32(*number),
            Self::BigInt(number) => serializer.serialize_i64(*number),
            Self::Money(amount) => RawValue::from_string(amount.normalize().to_string())
                .map_err(S::Error::custom)?
                .serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Set(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in *items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Time(time) => serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Self::Date(date) => serializer.collect_str(date),
        }
    }
}

/// As in `--dry-run --values`.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

macro_rules! from_field {
    ($($content:ty => |$value:ident| $variant:expr;)*) => {$(
        impl<'a> From<&'a Field<$content>> for Value<'a> {
            fn from(field: &'a Field<$content>) -> Self {
                match field {
                    Field::Value($value) => $variant,
                    Field::Absent | Field::Null => Self::Null,
                }
            }
        }
    )*};
}

from_field! {
    bool => |flag| Self::Bool(*flag);
    i32 => |number| Self::Int(*number);
    i64 => |number| Self::BigInt(*number);
    Decimal => |amount| Self::Money(*amount);
    String => |text| Self::Text(text);
    Vec<String> => |items| Self::Set(items);
    DateTime<Utc> => |time| Self::Time(*time);
    NaiveDate => |date| Self::Date(*date);
}

/// Fields by column name, in the order of the columns.
pub type Fields<'a> = Vec<(&'static str, Value<'a>)>;

/// A record as one JSON object: `before` and `after` of an event.
pub struct FieldValues<'a>(pub Fields<'a>);

impl Serialize for FieldValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            object.serialize_entry(name, value)?;
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_field_keeps_what_is_known_and_a_null_does_not() {
        assert_eq!(Field::Absent.or_known(&Field::Value(1)), Field::Value(1));
        assert_eq!(Field::Null.or_known(&Field::Value(1)), Field::Null);
        assert_eq!(Field::Value(2).or_known(&Field::Value(1)), Field::Value(2));
    }

    #[test]
    fn money_keeps_its_digits_and_loses_its_zeros() {
        let json = |text: &str| {
            serde_json::to_string(&Value::Money(text.parse().expect("a decimal"))).expect("a number")
        };
        assert_eq!(json("175.0"), "175");
        assert_eq!(json("0.10"), "0.1");
        assert_eq!(json("12345678901234567.123456789"), "12345678901234567.123456789");
    }

    #[test]
    fn sets_compare_without_order_and_money_without_zeros() {
        let (a, b) = (["x".to_owned(), "y".to_owned()], ["y".to_owned(), "x".to_owned(), "x".to_owned()]);
        assert!(Value::Set(&a) == Value::Set(&b));
        assert!(Value::Set(&a) != Value::Set(&b[..1]));
        assert!(Value::Money(Decimal::new(1750, 1)) == Value::Money(Decimal::new(175, 0)));
    }
}
