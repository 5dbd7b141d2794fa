//! The texts of statements. A statement is written once, in what both databases understand, with `?` for its values;
//! here it becomes PostgreSQL's, once, and is kept. Texts are fixed: nothing from outside ever gets into one.
//!
//! What is put in PostgreSQL's words: placeholders; `SELECT value FROM json_each(?)`, the values of a list;
//! `group_concat(column)`, all of a column in one text; `OR FAIL`, which only spares SQLite an undo log; and `CROSS JOIN … ON`, which tells SQLite alone in which order to
//! join, so that every such join must have its `ON`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::args::Args;

/// How many rows a statement of SQLite has: many rows are cut greedily into these, so that few statements need
/// preparing. Each statement is a round trip to the driver's own thread: a row a statement costs five times a row of a
/// statement with hundreds.
const SIZES: [usize; 5] = [250, 50, 10, 3, 1];
/// How many rows go to PostgreSQL at once.
const ARRAY_ROWS_MAX: usize = 2_000;

static TRANSLATED: RwLock<Option<HashMap<&'static str, Arc<str>>>> = RwLock::new(None);

/// The statement for PostgreSQL.
pub(super) fn for_postgres(text: &'static str) -> Arc<str> {
    if let Some(known) = TRANSLATED.read().unwrap_or_else(PoisonError::into_inner).as_ref()
        && let Some(translated) = known.get(text)
    {
        return translated.clone();
    }
    let translated: Arc<str> = translate(text).into();
    let mut known = TRANSLATED.write().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().entry(text).or_insert(translated).clone()
}

fn translate(text: &str) -> String {
    let text = in_its_words(text);
    let mut out = String::with_capacity(text.len() + 16);
    let (mut number, mut quoted) = (0, false);
    for c in text.chars() {
        quoted ^= c == '\'';
        if c == '?' && !quoted {
            number += 1;
            let _ = write!(out, "${number}");
        } else {
            out.push(c);
        }
    }
    out
}

fn in_its_words(text: &str) -> Cow<'_, str> {
    const WORDS: [(&str, &str); 3] = [
        ("SELECT value FROM json_each(?)", "SELECT unnest(?::bigint[])"),
        (" OR FAIL ", " "),
        ("CROSS JOIN", "JOIN"),
    ];
    let mut text = Cow::Borrowed(text);
    for (portable, postgres) in WORDS {
        if text.contains(portable) {
            text = Cow::Owned(text.replace(portable, postgres));
        }
    }
    while let Some((before, rest)) = text.split_once("group_concat(")
        && let Some((column, after)) = rest.split_once(')')
    {
        text = Cow::Owned(format!("{before}string_agg(CAST({column} AS TEXT), ','){after}"));
    }
    text
}

/// A statement that takes rows of values.
pub(in crate::store) struct Rows {
    head: &'static str,
    row: &'static str,
    tail: &'static str,
    sqlite: [OnceLock<String>; SIZES.len()],
    postgres: OnceLock<Arc<str>>,
}

impl Rows {
    /// `head`, which ends with `VALUES`; then `row` for each row, a parenthesis with `?` or a constant for each column;
    /// then `tail`. On PostgreSQL all rows go as one array for each column.
    pub(in crate::store) const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Rows {
        Rows { head, row, tail, sqlite: [const { OnceLock::new() }; SIZES.len()], postgres: OnceLock::new() }
    }

    /// How many values a row has.
    pub(super) fn width(&self) -> usize {
        self.row.matches('?').count()
    }

    /// Cuts `items` into statements of SQLite.
    pub(super) fn cut<'i, T>(
        &'static self,
        mut items: &'i [T],
    ) -> impl Iterator<Item = (&'static str, &'i [T])> {
        std::iter::from_fn(move || {
            let size = SIZES.iter().position(|size| *size <= items.len())?;
            let (now, rest) = items.split_at(SIZES[size]);
            items = rest;
            let text = self.sqlite[size].get_or_init(|| {
                let rows = vec![self.row; SIZES[size]].join(",");
                format!("{} {rows} {}", self.head, self.tail)
            });
            Some((text.as_str(), now))
        })
    }

    /// Cuts `items` into statements of PostgreSQL.
    pub(super) fn arrays<'i, T>(&self, items: &'i [T]) -> impl Iterator<Item = &'i [T]> {
        items.chunks(ARRAY_ROWS_MAX)
    }

    /// The text for PostgreSQL, with the types that `args` has, which are the same each time.
    pub(super) fn for_postgres(&'static self, args: &Args) -> Arc<str> {
        let text = || {
            let types = args.array_types(self.width());
            let arrays: Vec<String> = types.iter().zip(1..).map(|(t, n)| format!("${n}::{t}")).collect();
            let names: Vec<String> = (1..=types.len()).map(|n| format!("c{n}")).collect();
            let mut name = names.iter();
            let columns: Vec<&str> = self
                .row
                .trim_matches(['(', ')'])
                .split(',')
                .map(|column| match column.trim() {
                    "?" => name.next().map_or("NULL", String::as_str),
                    constant => constant,
                })
                .collect();
            let head = self.head.trim_end().strip_suffix("VALUES").unwrap_or(self.head);
            let text = format!(
                "{head} SELECT {} FROM unnest({}) AS given ({}) {}",
                columns.join(", "),
                arrays.join(", "),
                names.join(", "),
                self.tail
            );
            in_its_words(&text).into()
        };
        self.postgres.get_or_init(text).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_in_exactly_one_statement() {
        static ROWS: Rows = Rows::new("VALUES", "(?)", "");
        let items: Vec<u32> = (0..5_388).collect();
        let cut: Vec<_> = ROWS.cut(&items).collect();
        assert_eq!(cut.iter().flat_map(|c| c.1).copied().collect::<Vec<_>>(), items);
        assert!(cut.iter().all(|(text, items)| text.matches('?').count() == items.len()));
        assert!(cut.len() < 40);
        assert_eq!(ROWS.arrays(&items).flatten().copied().collect::<Vec<_>>(), items);
    }

    #[test]
    fn a_statement_is_put_in_the_words_of_postgres() {
        for (portable, postgres) in [
            ("SELECT a FROM t WHERE b = ? AND c > ?", "SELECT a FROM t WHERE b = $1 AND c > $2"),
            ("SELECT '?' WHERE a = ?", "SELECT '?' WHERE a = $1"),
            (
                "DELETE FROM t WHERE a = ? AND k IN (SELECT value FROM json_each(?))",
                "DELETE FROM t WHERE a = $1 AND k IN (SELECT unnest($2::bigint[]))",
            ),
            ("UPDATE OR FAIL t SET a = ?", "UPDATE t SET a = $1"),
            (
                "SELECT group_concat(t.k) FROM t WHERE a > (?)",
                "SELECT string_agg(CAST(t.k AS TEXT), ',') FROM t WHERE a > ($1)",
            ),
        ] {
            assert_eq!(&*for_postgres(portable), postgres);
            assert_eq!(&*for_postgres(portable), postgres, "the second time");
        }
    }

    #[test]
    fn rows_go_to_postgres_as_one_array_a_column() {
        static ROWS: Rows = Rows::new(
            "WITH new (a, b, c) AS (VALUES",
            "(?,0,?)",
            ") UPDATE OR FAIL t SET a = new.a FROM new WHERE t.b = new.b",
        );
        let args = Args::new().int(1).text("x");
        assert_eq!(
            &*ROWS.for_postgres(&args),
            "WITH new (a, b, c) AS ( SELECT c1, 0, c2 FROM unnest($1::bigint[], $2::text[]) AS given (c1, c2) \
             ) UPDATE t SET a = new.a FROM new WHERE t.b = new.b"
        );
    }
}
