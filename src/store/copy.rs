//! Loads rows with COPY in the binary format. PostgreSQL needs half the time of an INSERT from JSON, and stores rows while
//! the next ones are encoded.
//!
//! COPY has no ON CONFLICT. Callers hold a lock under which no other rosterd process adds the same rows.
//! If its connection is lost, see [`super::lost_loads`].

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArgumentBuffer;
use sqlx::{Encode, Postgres};

use super::error::{StoreError, ensure_rows};
use super::session::Session;
use crate::roster::Value;

/// Rows per message. The server stores them while the next ones are encoded.
const ROWS_PER_MESSAGE: usize = 100;

/// Signature, flags, and length of the header's extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of a row's number of columns.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Loads rows. `encode` appends the values of these columns.
pub(super) async fn load<T>(
    session: &mut Session,
    table: &'static str,
    columns: &[&str],
    rows: &[T],
    encode: impl Fn(&T, &mut Row) -> Result<(), BoxDynError>,
) -> Result<(), StoreError> {
    let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", "));
    let count = i16::try_from(columns.len()).unwrap_or(i16::MAX).to_be_bytes();
    let mut data = Row::default();
    data.0.extend(HEADER);
    let mut messages = rows.chunks(ROWS_PER_MESSAGE);
    let messages = std::iter::from_fn(|| {
        let rows = messages.next()?;
        let encoded = rows.iter().try_for_each(|row| {
            data.0.extend(count);
            encode(row, &mut data)
        });
        if messages.len() == 0 {
            data.0.extend(TRAILER);
        }
        Some(encoded.map(|()| std::mem::take(&mut *data.0)).map_err(sqlx::Error::Encode))
    });
    let loaded = session.copy_in(&sql, messages).await?;
    ensure_rows(table, rows.len(), loaded)
}

#[derive(Default)]
pub(super) struct Row(PgArgumentBuffer);

impl Row {
    /// Appends a value. Its type must be the column's.
    pub fn push<'v>(&mut self, value: impl Encode<'v, Postgres>) -> Result<(), BoxDynError> {
        let start = self.0.len();
        self.0.extend([0; size_of::<i32>()]);
        let length = match value.encode_by_ref(&mut self.0)? {
            IsNull::Yes => -1,
            IsNull::No => i32::try_from(self.0.len() - start - size_of::<i32>())?,
        };
        self.0.iter_mut().skip(start).zip(length.to_be_bytes()).for_each(|(to, byte)| *to = byte);
        Ok(())
    }

    /// Appends a JSON document as `jsonb`.
    pub fn push_json(&mut self, json: &str) -> Result<(), BoxDynError> {
        const VERSION: u8 = 1;
        self.0.extend(i32::try_from(json.len() + 1)?.to_be_bytes());
        self.0.push(VERSION);
        self.0.extend(json.as_bytes());
        Ok(())
    }

    pub fn push_field(&mut self, value: Value<'_>) -> Result<(), BoxDynError> {
        match value {
            Value::Null => self.push(None::<bool>),
            Value::Bool(flag) => self.push(flag),
            Value::Int(number) => self.push(number),
            Value::BigInt(number) => self.push(number),
            Value::Money(amount) => self.push(amount.normalize()),
            Value::Text(text) => self.push(text),
            Value::Set(items) => self.push(items),
            Value::Time(time) => self.push(time),
            Value::Date(date) => self.push(date),
        }
    }
}
