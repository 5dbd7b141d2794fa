//! The values of a statement: gathered once, handed to either driver. Values are only ever bound.

use sqlx::Arguments;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;

use crate::division::Division;

/// One value. What is absent keeps its type, which PostgreSQL wants to know.
enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
    List(Vec<i64>),
}

/// The values of one statement, in order.
#[derive(Default)]
pub(in crate::store) struct Args(Vec<Value>);

impl Args {
    /// None.
    pub(in crate::store) fn new() -> Args {
        Args::default()
    }

    /// None, with room for some.
    pub(super) fn with_capacity(count: usize) -> Args {
        Args(Vec::with_capacity(count))
    }

    /// Starting with some integers.
    pub(in crate::store) fn ints(values: &[i64]) -> Args {
        values.iter().fold(Args::new(), |args, value| args.int(*value))
    }

    /// One more.
    pub(in crate::store) fn int(mut self, value: i64) -> Args {
        self.push_int(value);
        self
    }

    /// One more.
    pub(in crate::store) fn text(mut self, value: &str) -> Args {
        self.push_text(value);
        self
    }

    /// One more.
    pub(in crate::store) fn blob(mut self, value: &[u8]) -> Args {
        self.push_blob(value);
        self
    }

    /// Many integers as one value, for `IN (SELECT value FROM json_each(?))`.
    pub(in crate::store) fn list(mut self, values: impl IntoIterator<Item = i64>) -> Args {
        self.0.push(Value::List(values.into_iter().collect()));
        self
    }

    pub(in crate::store) fn push_int(&mut self, value: i64) {
        self.0.push(Value::Int(Some(value)));
    }

    pub(in crate::store) fn push_maybe(&mut self, value: Option<i64>) {
        self.0.push(Value::Int(value));
    }

    pub(in crate::store) fn push_text(&mut self, value: &str) {
        self.0.push(Value::Text(Some(value.into())));
    }

    pub(in crate::store) fn push_maybe_text(&mut self, value: Option<&str>) {
        self.0.push(Value::Text(value.map(str::to_owned)));
    }

    pub(in crate::store) fn push_blob(&mut self, value: &[u8]) {
        self.0.push(Value::Blob(Some(value.into())));
    }

    pub(in crate::store) fn push_no_blob(&mut self) {
        self.0.push(Value::Blob(None));
    }

    pub(in crate::store) fn push_division(&mut self, value: Division) {
        self.push_int(code(value));
    }

    // Adding a value of these types cannot fail: the encoders of both drivers only copy.

    /// For SQLite, which takes a list as JSON.
    pub(super) fn into_sqlite(self) -> SqliteArguments {
        let mut args = SqliteArguments::default();
        args.reserve(self.0.len(), 0);
        for value in self.0 {
            let _ = match value {
                Value::Int(value) => args.add(value),
                Value::Text(value) => args.add(value),
                Value::Blob(value) => args.add(value),
                Value::List(values) => args.add(json(&values)),
            };
        }
        args
    }

    /// For PostgreSQL, value by value.
    pub(super) fn into_postgres(self) -> PgArguments {
        let mut args = PgArguments::default();
        for value in self.0 {
            let _ = match value {
                Value::Int(value) => args.add(value),
                Value::Text(value) => args.add(value.map(without_nul)),
                Value::Blob(value) => args.add(value),
                Value::List(values) => args.add(values),
            };
        }
        args
    }

    /// For PostgreSQL, as one array for each of `width` columns. Rows must have the same types.
    pub(super) fn into_columns(self, width: usize) -> PgArguments {
        let rows = self.0.len() / width.max(1);
        let mut columns: Vec<Column> = self.0.iter().take(width).map(|v| Column::like(v, rows)).collect();
        for (i, value) in self.0.into_iter().enumerate() {
            if let Some(column) = columns.get_mut(i % width) {
                column.push(value);
            }
        }
        let mut args = PgArguments::default();
        for column in columns {
            let _ = match column {
                Column::Ints(values) => args.add(values),
                Column::Texts(values) => args.add(values),
                Column::Blobs(values) => args.add(values),
            };
        }
        args
    }

    /// PostgreSQL's array types for a row of `width` values.
    pub(super) fn array_types(&self, width: usize) -> Vec<&'static str> {
        let array = |value: &Value| match value {
            Value::Int(_) | Value::List(_) => "bigint[]",
            Value::Text(_) => "text[]",
            Value::Blob(_) => "bytea[]",
        };
        self.0.iter().take(width).map(array).collect()
    }
}

/// The values of one column.
enum Column {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Blobs(Vec<Option<Vec<u8>>>),
}

impl Column {
    fn like(value: &Value, rows: usize) -> Column {
        match value {
            Value::Int(_) | Value::List(_) => Column::Ints(Vec::with_capacity(rows)),
            Value::Text(_) => Column::Texts(Vec::with_capacity(rows)),
            Value::Blob(_) => Column::Blobs(Vec::with_capacity(rows)),
        }
    }

    /// A value of another type leaves its place empty; the columns are NOT NULL where that would be wrong.
    fn push(&mut self, value: Value) {
        match (self, value) {
            (Column::Ints(column), Value::Int(value)) => column.push(value),
            (Column::Texts(column), Value::Text(value)) => column.push(value.map(without_nul)),
            (Column::Blobs(column), Value::Blob(value)) => column.push(value),
            (Column::Ints(column), _) => column.push(None),
            (Column::Texts(column), _) => column.push(None),
            (Column::Blobs(column), _) => column.push(None),
        }
    }
}

/// PostgreSQL's text cannot hold U+0000. Nothing that means anything does: it comes from broken ledgers only, and is
/// stored as the character for what cannot be shown.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// A division as it is stored.
pub(in crate::store) fn code(division: Division) -> i64 {
    division.code() as i64
}

/// Integers as one argument for `json_each`.
fn json(values: &[i64]) -> String {
    let mut text = String::with_capacity(values.len() * 8 + 2);
    text.push('[');
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(itoa(*value, &mut [0; 20]));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_formatter_writes_them() {
        for value in [0, 7, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(itoa(value, &mut [0; 20]), value.to_string());
        }
        assert_eq!(json(&[3, -4]), "[3,-4]");
        assert_eq!(json(&[]), "[]");
    }

    #[test]
    fn a_text_without_nul_stays_as_it_is() {
        assert_eq!(without_nul("争议".into()), "争议");
        assert_eq!(without_nul("a\0b".into()), "a\u{fffd}b");
    }
}
