//! Pagination: computes the rows of a page and the positions of its links, newest row first.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::options::Paging;
use crate::state::Keyed;

/// The position of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The page with this number, starting at 1.
    Number(usize),
    /// The rows after this id, which are older.
    After(i64),
    /// The rows before this id, which are newer.
    Before(i64),
}

impl Position {
    /// Decodes a cursor; `None` if it is invalid.
    pub fn of_cursor(cursor: &str) -> Option<Self> {
        let json: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let id = |side: &str| json[side]["id"].as_i64();
        id("after").map(Self::After).or_else(|| id("before").map(Self::Before))
    }

    /// Name and value of the query parameter for this position.
    pub fn parameter(self) -> (&'static str, String) {
        let cursor = |json: Value| ("cursor", BASE64_URL_SAFE_NO_PAD.encode(json.to_string()));
        match self {
            Self::Number(number) => ("page", number.to_string()),
            Self::After(id) => cursor(json!({ "after": { "id": id } })),
            Self::Before(id) => cursor(json!({ "before": { "id": id } })),
        }
    }
}

/// The rows of a list after filtering, oldest first.
pub(super) enum Rows<'a, R> {
    /// All rows, not copied.
    All(&'a [R]),
    /// The rows that pass the filters.
    Some(Vec<&'a R>),
}

impl<'a, R: Keyed> Rows<'a, R> {
    fn len(&self) -> usize {
        match self {
            Self::All(rows) => rows.len(),
            Self::Some(rows) => rows.len(),
        }
    }

    fn count(&self, counted: impl Fn(&R) -> bool) -> usize {
        match self {
            Self::All(rows) => rows.iter().filter(|row| counted(row)).count(),
            Self::Some(rows) => rows.iter().filter(|row| counted(row)).count(),
        }
    }

    /// The number of rows, counted from the newest, whose key is not `older`.
    fn count_newest(&self, older: impl Fn(i64) -> bool) -> usize {
        self.len()
            - match self {
                Self::All(rows) => rows.partition_point(|row| older(row.key())),
                Self::Some(rows) => rows.partition_point(|row| older(row.key())),
            }
    }

    /// The rows with the positions `start..end` in the order newest first.
    fn newest_first(&self, start: usize, end: usize) -> Vec<&'a R> {
        let range = self.len() - end..self.len() - start;
        match self {
            Self::All(rows) => rows[range].iter().rev().collect(),
            Self::Some(rows) => rows[range].iter().rev().copied().collect(),
        }
    }
}

/// One page: the rows, the page numbers and the positions of the links.
#[derive(Debug)]
pub(super) struct Page<'a, R> {
    pub rows: Vec<&'a R>,
    pub total_pages: usize,
    pub total_entries: usize,
    pub number: Option<usize>,
    pub next_number: Option<usize>,
    pub previous_number: Option<usize>,
    pub next: Option<Position>,
    pub previous: Option<Position>,
}

impl<'a, R: Keyed> Page<'a, R> {
    pub fn of(rows: &Rows<'a, R>, per_page: usize, position: Position, paging: Paging) -> Self {
        let total_entries = rows.len();
        // An empty list has one page.
        let total_pages = total_entries.div_ceil(per_page).max(1);
        let (start, end) = match position {
            Position::Number(number) => {
                let start = (number - 1).saturating_mul(per_page).min(total_entries);
                (start, start.saturating_add(per_page).min(total_entries))
            }
            Position::After(id) => {
                let start = rows.count_newest(|key| key < id);
                (start, start.saturating_add(per_page).min(total_entries))
            }
            Position::Before(id) => {
                let end = rows.count_newest(|key| key <= id);
                (end.saturating_sub(per_page), end)
            }
        };
        let rows_here = rows.newest_first(start, end);
        let (first, last) = (start == 0, end == total_entries);
        let after = rows_here.last().filter(|_| !last).map(|row| Position::After(row.key()));
        let before = rows_here.first().filter(|_| !first).map(|row| Position::Before(row.key()));

        let number = match position {
            Position::Number(number) => Some(number),
            // With cursors, only the first and the last page have a page number.
            _ if first => Some(1),
            _ if last => Some(total_pages),
            _ => None,
        };
        let next_number = number.filter(|&number| number < total_pages).map(|number| number + 1);
        let previous_number = number.filter(|&number| number > 1).map(|number| (number - 1).min(total_pages));
        // The links of the first page use cursors although the page has a number. The links of a page that was
        // requested by a higher number use page numbers.
        let by_number =
            matches!(position, Position::Number(number) if number > 1) || paging == Paging::Number;
        let (next, previous) = if by_number {
            (next_number.map(Position::Number), previous_number.map(Position::Number))
        } else {
            (after, before)
        };
        Self {
            rows: rows_here,
            total_pages,
            total_entries,
            number,
            next_number,
            previous_number,
            next,
            previous,
        }
    }

    /// Removes hidden rows from this page and from the total. The positions of the links do not change. `rows` are
    /// all rows of the list.
    pub fn leave_out(&mut self, rows: &Rows<'a, R>, hidden: impl Fn(i64) -> bool) {
        self.rows.retain(|row| !hidden(row.id()));
        self.total_entries -= rows.count(|row| hidden(row.id()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Id(i64);

    impl Keyed for Id {
        fn key(&self) -> i64 {
            self.0
        }
    }

    fn ids(page: &Page<Id>) -> Vec<i64> {
        page.rows.iter().map(|row| row.0).collect()
    }

    #[test]
    fn cursor_has_the_documented_format() {
        let cursor = "eyJhZnRlciI6eyJpZCI6MzAwN319";
        assert_eq!(Position::of_cursor(cursor), Some(Position::After(3007)));
        assert_eq!(Position::After(3007).parameter(), ("cursor", cursor.to_owned()));
        assert_eq!(Position::of_cursor("eyJiZWZvcmUiOnsiaWQiOjYwMDZ9fQ"), Some(Position::Before(6006)));
        assert_eq!(Position::of_cursor("nonsense!"), None);
    }

    #[test]
    fn only_first_and_last_cursor_pages_have_page_numbers() {
        let all: Vec<Id> = (1..=7).map(Id).collect();
        let rows = Rows::All(&all);
        let first = Page::of(&rows, 3, Position::Number(1), Paging::Cursor);
        assert_eq!(ids(&first), [7, 6, 5]);
        assert_eq!(
            (first.number, first.next_number, first.next),
            (Some(1), Some(2), Some(Position::After(5)))
        );
        let middle = Page::of(&rows, 3, Position::After(5), Paging::Cursor);
        assert_eq!(ids(&middle), [4, 3, 2]);
        assert_eq!((middle.number, middle.next_number, middle.previous_number), (None, None, None));
        assert_eq!((middle.next, middle.previous), (Some(Position::After(2)), Some(Position::Before(4))));
        let last = Page::of(&rows, 3, Position::After(2), Paging::Cursor);
        assert_eq!(ids(&last), [1]);
        assert_eq!((last.number, last.next_number, last.next), (Some(3), None, None));
        let back = Page::of(&rows, 3, Position::Before(4), Paging::Cursor);
        assert_eq!((ids(&back), back.number), (vec![7, 6, 5], Some(1)));
    }

    #[test]
    fn cursor_position_is_stable_when_rows_are_added_or_deleted() {
        let all: Vec<Id> = [1, 2, 4, 6, 7, 8, 9].map(Id).into();
        let page = Page::of(&Rows::All(&all), 3, Position::After(5), Paging::Cursor);
        assert_eq!(ids(&page), [4, 2, 1]);
    }

    proptest! {
        #[test]
        fn cursor_pagination_returns_each_row_once_in_both_directions(
            keys in proptest::collection::btree_set(-50_i64..200, 0..60),
            per_page in 1_usize..70,
        ) {
            let all: Vec<Id> = keys.iter().copied().map(Id).collect();
            let rows = Rows::All(&all);
            let (mut seen, mut pages, mut last) = (Vec::new(), 0, Position::Number(1));
            let mut next = Some(last);
            while let Some(position) = next {
                let page = Page::of(&rows, per_page, position, Paging::Cursor);
                seen.extend(ids(&page));
                pages += 1;
                prop_assert_eq!(page.total_pages, all.len().div_ceil(per_page).max(1));
                (last, next) = (position, page.next);
            }
            prop_assert!(seen.iter().rev().eq(&keys));
            prop_assert_eq!(pages, all.len().div_ceil(per_page).max(1));
            let mut back = ids(&Page::of(&rows, per_page, last, Paging::Cursor));
            let mut previous = Page::of(&rows, per_page, last, Paging::Cursor).previous;
            while let Some(position) = previous {
                let page = Page::of(&rows, per_page, position, Paging::Cursor);
                back.splice(0..0, ids(&page));
                previous = page.previous;
            }
            prop_assert_eq!(back, seen);
        }
    }

    #[test]
    fn page_past_the_end_and_empty_list_have_no_rows() {
        let all: Vec<Id> = (1..=3).map(Id).collect();
        let past = Page::of(&Rows::All(&all), 2, Position::Number(usize::MAX), Paging::Number);
        assert_eq!((past.rows.len(), past.next, past.previous), (0, None, Some(Position::Number(2))));
        let empty = Page::of(&Rows::<Id>::Some(Vec::new()), 2, Position::Number(1), Paging::Cursor);
        assert_eq!((empty.total_pages, empty.total_entries, empty.number), (1, 0, Some(1)));
        assert_eq!((empty.next, empty.previous), (None, None));
    }
}
