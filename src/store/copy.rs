//! Adds rows: many with COPY in the binary format, for which PostgreSQL needs half the time of an INSERT from JSON and stores
//! rows while the next ones are encoded, and few with that INSERT. The end of a COPY is a small message after another one, and
//! sqlx does not set `TCP_NODELAY`: the kernel delays it by 40 ms.
//!
//! COPY has no ON CONFLICT. Callers hold a lock under which no other rosterd process adds the same rows.
//! If its connection is lost, see [`super::lost_loads`].

use std::io::Write as _;

use serde::Serialize;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArgumentBuffer;
use sqlx::{AssertSqlSafe, Encode, Postgres};

use super::error::{StoreError, ensure_rows};
use super::session::Session;
use crate::roster::Value;

/// Rows per message of a COPY, and the most rows of an INSERT.
const ROWS_PER_MESSAGE: usize = 100;

/// Signature, flags, and length of the header's extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of a row's number of columns.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Adds rows. `encode` appends the values of these columns.
pub(super) async fn load<T>(
    session: &mut Session,
    table: &'static str,
    columns: &[&str],
    rows: &[T],
    encode: impl Fn(&T, &mut Row<'_>) -> Result<(), BoxDynError>,
) -> Result<(), StoreError> {
    let names = columns.join(", ");
    if rows.len() <= ROWS_PER_MESSAGE {
        let sql = format!(
            "INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(NULL::{table}, $1::text::json)"
        );
        let json = to_json(columns, rows, encode)?;
        let added = sqlx::query(AssertSqlSafe(sql)).bind(json).execute(session).await?;
        return ensure_rows(table, rows.len(), added.rows_affected());
    }
    let sql = format!("COPY {table} ({names}) FROM STDIN (FORMAT binary)");
    let count = i16::try_from(columns.len()).unwrap_or(i16::MAX).to_be_bytes();
    let mut data = Row { bytes: PgArgumentBuffer::default(), json: None };
    data.bytes.extend(HEADER);
    let mut messages = rows.chunks(ROWS_PER_MESSAGE);
    let messages = std::iter::from_fn(|| {
        let rows = messages.next()?;
        let encoded = rows.iter().try_for_each(|row| {
            data.bytes.extend(count);
            encode(row, &mut data)
        });
        if messages.len() == 0 {
            data.bytes.extend(TRAILER);
        }
        Some(encoded.map(|()| std::mem::take(&mut *data.bytes)).map_err(sqlx::Error::Encode))
    });
    let loaded = session.copy_in(&sql, messages).await?;
    ensure_rows(table, rows.len(), loaded)
}

/// The rows as a JSON array of objects by column name, for `json_populate_recordset`. It takes lists, amounts with all
/// digits, and `raw` as received; bound arrays would flatten the lists.
pub(super) fn to_json<T>(
    columns: &[&str],
    rows: &[T],
    encode: impl Fn(&T, &mut Row<'_>) -> Result<(), BoxDynError>,
) -> Result<String, StoreError> {
    let mut json = Row { bytes: PgArgumentBuffer::default(), json: Some((columns, 0)) };
    rows.iter().try_for_each(|row| encode(row, &mut json)).map_err(sqlx::Error::Encode)?;
    Ok(format!("[{}]", String::from_utf8_lossy(&json.bytes)))
}

pub(super) struct Row<'c> {
    bytes: PgArgumentBuffer,
    /// For an INSERT, the columns and the index of the next one; `None` in COPY's format.
    json: Option<(&'c [&'c str], usize)>,
}

impl Row<'_> {
    /// Appends a value. Its type must be the column's.
    pub fn push<'v>(&mut self, value: impl Encode<'v, Postgres> + Serialize) -> Result<(), BoxDynError> {
        if self.json.is_some() {
            self.push_json(&serde_json::to_string(&value)?)
        } else {
            self.push_binary(value)
        }
    }

    fn push_binary<'v>(&mut self, value: impl Encode<'v, Postgres>) -> Result<(), BoxDynError> {
        let start = self.bytes.len();
        self.bytes.extend([0; size_of::<i32>()]);
        let length = match value.encode_by_ref(&mut self.bytes)? {
            IsNull::Yes => -1,
            IsNull::No => i32::try_from(self.bytes.len() - start - size_of::<i32>())?,
        };
        self.bytes.iter_mut().skip(start).zip(length.to_be_bytes()).for_each(|(to, byte)| *to = byte);
        Ok(())
    }

    /// Appends a JSON document as `jsonb`.
    pub fn push_json(&mut self, json: &str) -> Result<(), BoxDynError> {
        const VERSION: u8 = 1;
        let Some((columns, at)) = &mut self.json else {
            self.bytes.extend(i32::try_from(json.len() + 1)?.to_be_bytes());
            self.bytes.push(VERSION);
            self.bytes.extend(json.as_bytes());
            return Ok(());
        };
        let start = match (*at, self.bytes.len()) {
            (0, 0) => "{",
            (0, _) => ",{",
            _ => ",",
        };
        write!(*self.bytes, "{start}\"{}\":{json}", columns[*at])?;
        *at = (*at + 1) % columns.len();
        if *at == 0 {
            self.bytes.push(b'}');
        }
        Ok(())
    }

    pub fn push_field(&mut self, value: Value<'_>) -> Result<(), BoxDynError> {
        match value {
            value if self.json.is_some() => self.push_json(&serde_json::to_string(&value)?),
            Value::Null => self.push_binary(None::<bool>),
            Value::Bool(flag) => self.push_binary(flag),
            Value::Int(number) => self.push_binary(number),
            Value::BigInt(number) => self.push_binary(number),
            Value::Money(amount) => self.push_binary(amount.normalize()),
            Value::Text(text) => self.push_binary(text),
            Value::Set(items) => self.push_binary(items),
            Value::Time(time) => self.push_binary(time),
            Value::Date(date) => self.push_binary(date),
        }
    }
}
