//! Reading a ledger: an iterator over its rows, each good or bad. What is wrong with the file as a whole is refused
//! before the first row. It must never hold more than a row, and the keys it has seen, in memory.

use std::collections::HashMap;
use std::io::{Read, Seek};

use csv::StringRecord;
use guantong_gateway::division::Division;
use guantong_gateway::record::ID_MAX_BYTES;
use guantong_proto::v1::{ImportRow, RowProblem};

use super::crs::Crs;
use super::error::{CellError, LedgerError};
use super::header::Layout;
use super::row::read_row;
use super::schema::KindView;
use super::table::Table;
use super::text::{content, half_width};

/// The longest name of a source, in bytes: it is a part of record ids.
const SOURCE_MAX_BYTES: usize = 48;

/// How to read a ledger.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ledger's name: a part of the ids of cases, and what the node compares imports by.
    pub source: String,
    /// The reference system of its coordinates; needed exactly where it has any.
    pub crs: Option<Crs>,
    /// The home of records whose row does not say it; never a village.
    pub home: Option<Division>,
    /// When the whole ledger was observed, Unix time in milliseconds, for observations without a time of their own.
    pub observed_ms: Option<i64>,
}

impl Options {
    /// A source, and nothing assumed about its ledger.
    pub fn new(source: &str) -> Options {
        Options { source: source.to_owned(), crs: None, home: None, observed_ms: None }
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It can go to the node.
    Row(ImportRow),
    /// Everything that is wrong with it; never empty. `field` is the header in the ledger's own words.
    Bad(Vec<RowProblem>),
}

/// How many rows were read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows with any content, without the first line.
    pub rows: u64,
    /// Rows that can go to the node.
    pub good: u64,
    /// Rows that come back.
    pub bad: u64,
    /// Lines of rows marked secret. They are not stored, and do not come back.
    pub secret_lines: Vec<u64>,
}

/// An open ledger. Iterate to read its rows; an error ends it.
pub struct Ledger<R> {
    view: &'static KindView,
    options: Options,
    layout: Layout,
    table: Table<R>,
    row: StringRecord,
    lines_by_key: HashMap<Box<str>, u64>,
    counts: Counts,
}

impl<R: Read + Seek> Ledger<R> {
    /// Opens a ledger of a kind (`grid`, `case`, `camera`, `division`): reads the file once to be sure of its
    /// encoding, and its first line for its columns.
    ///
    /// # Errors
    /// An unknown kind, a file that is no table or has a broken character, a missing or doubled column, coordinates
    /// without their reference system; see [`LedgerError`].
    pub fn open(kind: &str, input: R, options: Options) -> Result<Ledger<R>, LedgerError> {
        let view = KindView::for_ledger(kind)?;
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
        if !(1..=SOURCE_MAX_BYTES).contains(&options.source.len()) || options.source.contains(forbidden) {
            return Err(LedgerError::Source);
        }
        let table = Table::open(input)?;
        let layout = Layout::of(view, &table.headers, &options)?;
        Ok(Ledger {
            view,
            options,
            layout,
            table,
            row: StringRecord::new(),
            lines_by_key: HashMap::new(),
            counts: Counts::default(),
        })
    }

    /// What the columns hold, and which are left out and why.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What was read so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn outcome(&mut self, line: u64) -> Option<Outcome> {
        self.counts.rows += 1;
        match self.is_secret() {
            Some(true) => {
                self.counts.secret_lines.push(line);
                return None;
            }
            Some(false) => {}
            None => return Some(self.bad(line, &CellError::Secrecy, self.layout.secrecy)),
        }
        match read_row(self.view, &self.layout, &self.options, line, &self.row) {
            Ok(row) => match self.lines_by_key.get(row.key.as_str()) {
                Some(earlier) => Some(self.bad(line, &CellError::Duplicate(*earlier), Some(self.layout.key))),
                None => {
                    self.lines_by_key.insert(row.key.as_str().into(), line);
                    self.counts.good += 1;
                    Some(Outcome::Row(row))
                }
            },
            Err(problems) => {
                self.counts.bad += 1;
                Some(Outcome::Bad(problems))
            }
        }
    }

    fn bad(&mut self, line: u64, error: &CellError, column: Option<usize>) -> Outcome {
        self.counts.bad += 1;
        let field = column.map_or("", |at| self.layout.header(at)).to_owned();
        Outcome::Bad(vec![RowProblem { line, field, reason: error.to_string() }])
    }

    /// Whether the row is marked secret; `None`: it cannot be told.
    fn is_secret(&self) -> Option<bool> {
        let Some(at) = self.layout.secrecy else { return Some(false) };
        let cell = half_width(content(self.row.get(at)?));
        match cell.trim().to_lowercase().as_str() {
            "" | "0" | "否" | "无" | "不涉密" | "非涉密" | "未涉密" | "公开" | "no" | "false" => {
                Some(false)
            }
            "1" | "是" | "涉密" | "保密" | "秘密" | "机密" | "绝密" | "yes" | "true" | "secret" => {
                Some(true)
            }
            _ => None,
        }
    }
}

impl<R: Read + Seek> Iterator for Ledger<R> {
    type Item = Result<Outcome, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.table.next_row(&mut self.row) {
                Ok(None) => return None,
                Ok(Some(line)) => {
                    if let Some(outcome) = self.outcome(line) {
                        return Some(Ok(outcome));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A key from which no record id can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a record id has 1 to 128 bytes without blanks, control characters or `/`; here the key may have {limit_bytes}"
)]
pub struct RecordIdError {
    /// How many bytes the key may have.
    pub limit_bytes: usize,
}

/// The id of the record that a row stands for: its key, or `{source}-{number}` where rows are known by their source's
/// number, as cases are.
///
/// # Errors
/// The id could not stand in a resource name.
pub fn record_id(kind: &KindView, source: &str, key: &str) -> Result<String, RecordIdError> {
    let id = if kind.is_keyed_by_source() { format!("{source}-{key}") } else { key.to_owned() };
    let forbidden = |c: char| c == '/' || c.is_control() || c.is_whitespace();
    if key.is_empty() || id.len() > ID_MAX_BYTES || id.contains(forbidden) {
        return Err(RecordIdError { limit_bytes: ID_MAX_BYTES.saturating_sub(id.len() - key.len()) });
    }
    Ok(id)
}
