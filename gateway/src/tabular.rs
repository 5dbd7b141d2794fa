//! Tables for other programs: typed columns, written as CSV or Parquet, a row at a time, to anything that takes bytes.
//!
//! It knows nothing of records or figures. What is buffered is bounded: a Parquet file is written in row groups.

use std::io::Write;

use crate::calendar::civil;

mod parquet;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

/// What a column holds. Every column may have empty cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Whole numbers, 64 bits.
    Int,
    /// Numbers, 64 bits.
    Float,
    /// Yes or no.
    Bool,
    /// A calendar day.
    Date,
    /// A moment, to the millisecond, UTC.
    Time,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// English name, for programs.
    pub name: String,
    /// Chinese label, for people.
    pub label: String,
    /// What it holds.
    pub kind: Kind,
}

impl Column {
    /// A column.
    pub fn new(name: &str, label: &str, kind: Kind) -> Column {
        Column { name: name.into(), label: label.into(), kind }
    }
}

/// What stands in a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    Empty,
    /// UTF-8 text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Days since 1970-01-01.
    Date(i32),
    /// Unix milliseconds.
    Time(i64),
}

impl Cell {
    /// What `value` says, or nothing.
    pub fn maybe<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Cell {
        value.map_or(Cell::Empty, cell)
    }

    /// Whether it may stand in a column.
    fn fits(&self, kind: Kind) -> bool {
        let own = match self {
            Cell::Empty => return true,
            Cell::Text(_) => Kind::Text,
            Cell::Int(_) => Kind::Int,
            Cell::Float(_) => Kind::Float,
            Cell::Bool(_) => Kind::Bool,
            Cell::Date(_) => Kind::Date,
            Cell::Time(_) => Kind::Time,
        };
        own == kind
    }
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// UTF-8 with a byte order mark, so that spreadsheet programs read the Chinese; one line of headers, each the
    /// English name and the Chinese label.
    Csv,
    /// Compressed with zstd; columns have the English names, and the labels stand in the file's metadata.
    Parquet,
}

/// Why a table was not written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The row does not have the columns of the table: a fault of the program.
    #[error("a row of the table does not fit its columns ({0})")]
    Row(String),
    /// What takes the bytes failed.
    #[error("the table cannot be written: {0}")]
    Io(#[from] std::io::Error),
    /// The format's library failed.
    #[error("the table cannot be written: {0}")]
    Format(String),
}

/// A table that is being written.
pub struct Table<W: Write + Send> {
    columns: Vec<Column>,
    writer: Writer<W>,
}

enum Writer<W: Write + Send> {
    Csv(Box<csv::Writer<W>>),
    Parquet(Box<parquet::Parquet<W>>),
}

impl<W: Write + Send> Table<W> {
    /// Begins a table and writes what stands before its rows.
    pub fn begin(format: Format, columns: Vec<Column>, mut out: W) -> Result<Table<W>, TableError> {
        let writer = match format {
            Format::Csv => {
                out.write_all("\u{feff}".as_bytes())?;
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(columns.iter().map(header)).map_err(csv_error)?;
                Writer::Csv(Box::new(writer))
            }
            Format::Parquet => Writer::Parquet(Box::new(parquet::Parquet::begin(&columns, out)?)),
        };
        Ok(Table { columns, writer })
    }

    /// Adds a row: a cell for each column.
    pub fn push(&mut self, row: &[Cell]) -> Result<(), TableError> {
        if row.len() != self.columns.len() {
            return Err(TableError::Row(format!("{} cells for {} columns", row.len(), self.columns.len())));
        }
        if let Some((_, column)) =
            row.iter().zip(&self.columns).find(|(cell, column)| !cell.fits(column.kind))
        {
            return Err(TableError::Row(column.name.clone()));
        }
        match &mut self.writer {
            Writer::Csv(writer) => writer.write_record(row.iter().map(text)).map_err(csv_error),
            Writer::Parquet(writer) => writer.push(row),
        }
    }

    /// Writes what is buffered and what stands after the rows, and gives back what took the bytes.
    pub fn finish(self) -> Result<W, TableError> {
        match self.writer {
            Writer::Csv(writer) => writer.into_inner().map_err(|e| TableError::Io(e.into_error())),
            Writer::Parquet(writer) => writer.finish(),
        }
    }
}

fn header(column: &Column) -> String {
    if column.label.is_empty() { column.name.clone() } else { format!("{} {}", column.name, column.label) }
}

fn csv_error(error: csv::Error) -> TableError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => TableError::Io(error),
        other => TableError::Format(format!("{other:?}")),
    }
}

/// A cell as CSV has it: days and moments as ISO 8601.
fn text(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Text(text) => text.clone(),
        Cell::Int(number) => number.to_string(),
        Cell::Float(number) => number.to_string(),
        Cell::Bool(flag) => flag.to_string(),
        Cell::Date(days) => {
            let (year, month, day) = civil(i64::from(*days));
            format!("{year:04}-{month:02}-{day:02}")
        }
        Cell::Time(ms) => {
            let (year, month, day) = civil(ms.div_euclid(86_400_000));
            let of_day = ms.rem_euclid(86_400_000);
            let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
            let (second, ms) = (of_day / 1_000 % 60, of_day % 1_000);
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
        }
    }
}
