//! Statements: their arguments, their rows, and one statement for many rows. SQL text is always fixed; values are only
//! ever bound.
//!
//! Each statement is a round trip to the driver's own thread, so that a row a statement costs five times a row of a
//! statement with hundreds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, Row};

use super::StoreError;
use crate::division::Division;
use crate::record::RecordName;
use crate::schema::KindId;

/// How many rows a statement has: many rows are cut greedily into these, so that few statements need preparing.
const SIZES: [usize; 5] = [250, 50, 10, 3, 1];

/// The values of one statement, in order.
#[derive(Default)]
pub(super) struct Args(SqliteArguments);

impl Args {
    /// None.
    pub(super) fn new() -> Args {
        Args::default()
    }

    /// Starting with some integers.
    pub(super) fn ints(values: &[i64]) -> Args {
        values.iter().fold(Args::new(), |args, value| args.int(*value))
    }

    /// One more.
    pub(super) fn int(mut self, value: i64) -> Args {
        self.push_int(value);
        self
    }

    /// One more.
    pub(super) fn text(mut self, value: &str) -> Args {
        self.push_text(value);
        self
    }

    // Adding one of these types to the arguments of SQLite cannot fail.

    pub(super) fn push_int(&mut self, value: i64) {
        let _ = self.0.add(value);
    }

    pub(super) fn push_maybe(&mut self, value: Option<i64>) {
        let _ = self.0.add(value);
    }

    pub(super) fn push_text(&mut self, value: &str) {
        let _ = self.0.add(value);
    }

    pub(super) fn push_maybe_text(&mut self, value: Option<&str>) {
        let _ = self.0.add(value);
    }

    pub(super) fn push_blob(&mut self, value: &[u8]) {
        let _ = self.0.add(value);
    }

    pub(super) fn push_division(&mut self, value: Division) {
        self.push_int(code(value));
    }
}

/// A division as it is stored.
pub(super) fn code(division: Division) -> i64 {
    division.code() as i64
}

/// Integers as one argument for `json_each`.
pub(super) fn json(values: impl IntoIterator<Item = i64>) -> String {
    let mut text = String::from("[");
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(itoa(value, &mut [0; 20]));
    }
    text.push(']');
    text
}

/// A number in decimal, without the cost of a formatter.
fn itoa(value: i64, buffer: &mut [u8; 20]) -> &str {
    let mut rest = value.unsigned_abs();
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        start -= 1;
        buffer[start] = b'-';
    }
    std::str::from_utf8(&buffer[start..]).unwrap_or("null")
}

/// A statement that takes rows of values.
pub(super) struct Rows {
    head: &'static str,
    row: &'static str,
    tail: &'static str,
    built: [OnceLock<String>; SIZES.len()],
}

impl Rows {
    /// `head`, then `row` for each row, separated by commas, then `tail`.
    pub(super) const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Rows {
        Rows { head, row, tail, built: [const { OnceLock::new() }; SIZES.len()] }
    }

    fn text(&'static self, size: usize) -> &'static str {
        self.built[size].get_or_init(|| {
            let rows = vec![self.row; SIZES[size]].join(",");
            format!("{} {rows} {}", self.head, self.tail)
        })
    }

    /// Cuts `items` into statements.
    fn cut<'i, T>(&'static self, mut items: &'i [T]) -> impl Iterator<Item = (&'static str, &'i [T])> {
        std::iter::from_fn(move || {
            let size = SIZES.iter().position(|size| *size <= items.len())?;
            let (now, rest) = items.split_at(SIZES[size]);
            items = rest;
            Some((self.text(size), now))
        })
    }
}

/// A connection, with the seam for tests.
pub(super) struct Sql<'c> {
    pub(super) conn: &'c mut SqliteConnection,
    /// Counts down at each statement; the one that brings it to 0 fails.
    pub(super) faults: Option<&'c AtomicI64>,
}

impl<'c> Sql<'c> {
    /// Without faults.
    pub(super) fn plain(conn: &'c mut SqliteConnection) -> Sql<'c> {
        Sql { conn, faults: None }
    }

    fn fault(&self) -> Result<(), StoreError> {
        match self.faults {
            Some(left) if left.fetch_sub(1, Ordering::Relaxed) == 1 => Err(StoreError::Injected),
            _ => Ok(()),
        }
    }

    /// Runs a statement; gives how many rows it wrote.
    pub(super) async fn run(&mut self, sql: &'static str, args: Args) -> Result<u64, StoreError> {
        self.fault()?;
        Ok(sqlx::query_with(sql, args.0).execute(&mut *self.conn).await?.rows_affected())
    }

    /// Runs a statement and gives its rows.
    pub(super) async fn rows(&mut self, sql: &'static str, args: Args) -> Result<Vec<SqliteRow>, StoreError> {
        self.fault()?;
        Ok(sqlx::query_with(sql, args.0).fetch_all(&mut *self.conn).await?)
    }

    /// Runs a statement and gives its row, where there is one.
    pub(super) async fn row(
        &mut self,
        sql: &'static str,
        args: Args,
    ) -> Result<Option<SqliteRow>, StoreError> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Runs a statement whose one value is a number; 0 where it is none.
    pub(super) async fn number(&mut self, sql: &'static str, args: Args) -> Result<i64, StoreError> {
        let row = self.row(sql, args).await?;
        row.map_or(Ok(0), |row| Ok(maybe(&row, 0)?.unwrap_or(0)))
    }

    /// Runs a statement over all items; gives how many rows were written.
    pub(super) async fn many<T>(
        &mut self,
        sql: &'static Rows,
        items: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<u64, StoreError> {
        let mut written = 0;
        for (text, items) in sql.cut(items) {
            written += self.run(text, bound(items, 0, |args, _, item| bind(args, item))).await?;
        }
        Ok(written)
    }

    /// Runs a query over all items; `bind` is also given the item's position.
    pub(super) async fn many_rows<T>(
        &mut self,
        sql: &'static Rows,
        items: &[T],
        bind: impl Fn(&mut Args, i64, &T),
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let mut rows = Vec::with_capacity(items.len());
        let mut first = 0;
        for (text, items) in sql.cut(items) {
            rows.extend(self.rows(text, bound(items, first, &bind)).await?);
            first += items.len();
        }
        Ok(rows)
    }
}

fn bound<T>(items: &[T], first: usize, bind: impl Fn(&mut Args, i64, &T)) -> Args {
    let mut args = Args::new();
    args.0.reserve(items.len() * 8, 0);
    for (i, item) in items.iter().enumerate() {
        bind(&mut args, (first + i) as i64, item);
    }
    args
}

/// A column that is a number.
pub(super) fn int(row: &SqliteRow, column: usize) -> Result<i64, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column that may be empty.
pub(super) fn maybe(row: &SqliteRow, column: usize) -> Result<Option<i64>, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column that is text.
pub(super) fn text(row: &SqliteRow, column: usize) -> Result<String, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column that is text or empty.
pub(super) fn maybe_text(row: &SqliteRow, column: usize) -> Result<Option<String>, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column of bytes.
pub(super) fn blob(row: &SqliteRow, column: usize) -> Result<Bytes, StoreError> {
    Ok(Bytes::from(row.try_get::<Vec<u8>, _>(column)?))
}

/// A column that is a division.
pub(super) fn division(row: &SqliteRow, column: usize) -> Result<Division, StoreError> {
    let code = int(row, column)?;
    Division::from_code(code as u64).ok_or_else(|| StoreError::unreadable("a division"))
}

/// Kind, home and id from three columns.
pub(super) fn name(row: &SqliteRow, first: usize) -> Result<RecordName, StoreError> {
    let kind = u32::try_from(int(row, first)?).map_err(|_| StoreError::unreadable("a kind"))?;
    let id: &str = row.try_get(first + 2)?;
    Ok(RecordName { kind: KindId(kind), home: division(row, first + 1)?, id: id.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_formatter_writes_them() {
        for value in [0, 7, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(itoa(value, &mut [0; 20]), value.to_string());
        }
        assert_eq!(json([3, -4]), "[3,-4]");
        assert_eq!(json([]), "[]");
    }

    #[test]
    fn every_item_is_in_exactly_one_statement() {
        static ROWS: Rows = Rows::new("VALUES", "(?)", "");
        let items: Vec<u32> = (0..1_388).collect();
        let cut: Vec<_> = ROWS.cut(&items).collect();
        assert_eq!(cut.iter().flat_map(|c| c.1).copied().collect::<Vec<_>>(), items);
        assert!(cut.iter().all(|(text, items)| text.matches('?').count() == items.len()));
        assert!(cut.len() < 20);
    }
}
