//! List responses: reads the parameters, filters the rows and writes the page with its envelope.

use std::collections::HashSet;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::page::{Page, Position, Rows};
use super::query::Query;
use super::response::Response;
use crate::options::{Options, Paging};
use crate::state::{Keyed, Row};

/// Returns whether the caller sees a row.
pub(super) type RowFilter<'f, R> = dyn Fn(&R) -> bool + 'f;

/// A list endpoint and the parameters of a request.
pub(super) struct List<'a> {
    /// The key of the records in the envelope.
    pub resource: &'static str,
    pub url: String,
    pub paging: Paging,
    pub query: &'a Query,
    pub options: &'a Options,
    /// The ids of records that a fault hides.
    pub hidden: &'a HashSet<i64>,
}

impl List<'_> {
    /// The requested page. Without `keep`, the caller sees all rows.
    pub fn response<'a, R: Row, V: Serialize>(
        &self,
        rows: &'a [R],
        keep: Option<&RowFilter<'_, R>>,
        view: impl Fn(&'a R) -> V,
    ) -> Result<Response, Response> {
        self.unfiltered(&self.filter(rows, keep)?, view)
    }

    /// The requested page of a list that has no filters.
    pub fn unfiltered<'a, R: Keyed, V: Serialize>(
        &self,
        rows: &Rows<'a, R>,
        view: impl Fn(&'a R) -> V,
    ) -> Result<Response, Response> {
        let per_page = self.per_page()?;
        let position = self.position()?;
        let mut page = Page::of(rows, per_page, position, self.paging);
        if !self.hidden.is_empty() {
            page.leave_out(rows, |key| self.hidden.contains(&key));
        }
        Ok(Response::ok(&Envelope { list: self, per_page, page: &page, view: &view }))
    }

    fn per_page(&self) -> Result<usize, Response> {
        let most = self.options.max_per_page;
        let Some(text) = self.query.get("per_page") else { return Ok(most) };
        let asked = text.parse().ok().filter(|asked| (1..=most).contains(asked));
        asked.ok_or_else(|| Response::unprocessable("Invalid per_page parameter"))
    }

    /// If a request has a page and a cursor, the cursor applies.
    fn position(&self) -> Result<Position, Response> {
        if let Some(cursor) = self.query.get("cursor").filter(|_| self.paging == Paging::Cursor) {
            return Position::of_cursor(cursor)
                .ok_or_else(|| Response::unprocessable("Invalid cursor parameter"));
        }
        let Some(text) = self.query.get("page") else { return Ok(Position::Number(1)) };
        let number = text.parse().ok().filter(|&number| number > 0);
        number.map(Position::Number).ok_or_else(|| Response::unprocessable("Invalid page parameter"))
    }

    fn filter<'a, R: Row>(
        &self,
        rows: &'a [R],
        keep: Option<&RowFilter<'_, R>>,
    ) -> Result<Rows<'a, R>, Response> {
        let active = self.query.boolean("is_active");
        let since = self.query.time("updated_since")?;
        if keep.is_none() && active.is_none() && since.is_none() {
            return Ok(Rows::All(rows));
        }
        let inclusive = self.options.updated_since_inclusive;
        let passes = |row: &&R| {
            let updated = || row.updated_at().datetime();
            active.is_none_or(|active| row.is_active() == active)
                && since.is_none_or(|since| updated() > since || inclusive && updated() == since)
                && keep.is_none_or(|keep| keep(row))
        };
        Ok(Rows::Some(rows.iter().filter(passes).collect()))
    }

    fn link(&self, per_page: usize, position: Position, reference: &str) -> String {
        let (name, value) = position.parameter();
        let per_page = per_page.to_string();
        let query = self.query.link(&[(name, &value), ("per_page", &per_page), ("ref", reference)]);
        format!("{}?{query}", self.url)
    }
}

/// The envelope, with the keys in the recorded order.
struct Envelope<'e, 'a, R, F> {
    list: &'e List<'e>,
    per_page: usize,
    page: &'e Page<'a, R>,
    view: &'e F,
}

impl<'a, R, V: Serialize, F: Fn(&'a R) -> V> Serialize for Envelope<'_, 'a, R, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { list, per_page, page, view } = self;
        let mut envelope = serializer.serialize_map(None)?;
        envelope.serialize_entry(list.resource, &Records(&page.rows, *view))?;
        envelope.serialize_entry("per_page", per_page)?;
        envelope.serialize_entry("total_pages", &page.total_pages)?;
        envelope.serialize_entry("total_entries", &page.total_entries)?;
        envelope.serialize_entry("next_page", &page.next_number)?;
        envelope.serialize_entry("previous_page", &page.previous_number)?;
        envelope.serialize_entry("page", &page.number)?;
        let link = |position, reference| list.link(*per_page, position, reference);
        envelope.serialize_entry(
            "links",
            &Links {
                first: link(Position::Number(1), "first"),
                next: page.next.map(|next| link(next, reference(next, "next", "next_cursor"))),
                previous: page
                    .previous
                    .map(|previous| link(previous, reference(previous, "previous", "previous_cursor"))),
                last: link(Position::Number(page.total_pages), "last"),
            },
        )?;
        envelope.end()
    }
}

/// The value of the `ref` parameter.
fn reference(position: Position, by_number: &'static str, by_cursor: &'static str) -> &'static str {
    if matches!(position, Position::Number(_)) { by_number } else { by_cursor }
}

#[derive(Serialize)]
struct Links {
    first: String,
    next: Option<String>,
    previous: Option<String>,
    last: String,
}

/// Renders the rows of the page one by one, so that only one rendered record is in memory.
struct Records<'e, 'a, R, F>(&'e [&'a R], &'e F);

impl<'a, R, V: Serialize, F: Fn(&'a R) -> V> Serialize for Records<'_, 'a, R, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|&row| (self.1)(row)))
    }
}
