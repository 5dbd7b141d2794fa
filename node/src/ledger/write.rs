//! Writing tables: records as a ledger that can be imported again, and the rows of a ledger that came back. Both are
//! made to be opened in a spreadsheet: UTF-8 with a byte order mark, and nothing in them runs as a formula. Columns
//! that are out of bounds must never be copied to a file of ours.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};

use csv::StringRecord;
use guantong_proto::rules::fields;
use guantong_proto::v1::RowProblem;
use prost_reflect::{DynamicMessage, Value};

use super::cell::show;
use super::error::LedgerError;
use super::header::is_out_of_bounds;
use super::schema::{Column, KindView, NAME_HEADERS, REJECT_HEADERS};
use super::table::Table;
use super::text::{guard, header_key, join_list};

/// The language of headers and of the words for values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// `网格编码`, `综合网格`, `是`.
    Chinese,
    /// `grid_code`, `comprehensive`, `true`.
    English,
}

/// Writes records of one kind, one a row. What only nodes write (`coarse_location`, `record_complete`) is there to be
/// read; notes, steps and marks of erasure are not: they do not fit a row.
pub struct CsvWriter<W: Write> {
    csv: csv::Writer<W>,
    view: &'static KindView,
    chinese: bool,
    source: Option<String>,
}

impl<W: Write> CsvWriter<W> {
    /// Writes the header. `source` picks among the numbers that other systems gave a record; without it the first one
    /// is written.
    ///
    /// # Errors
    /// An unknown kind, or the file cannot be written.
    pub fn new(
        kind: &str,
        labels: Labels,
        source: Option<&str>,
        writer: W,
    ) -> Result<CsvWriter<W>, LedgerError> {
        let view = KindView::by_name(kind)?;
        let chinese = labels == Labels::Chinese;
        let mut csv = open(writer)?;
        let name = if chinese { NAME_HEADERS[1] } else { NAME_HEADERS[0] };
        let headers = view.columns.iter().map(|c| if chinese { &c.chinese } else { &c.english });
        csv.write_record(std::iter::once(name).chain(headers.map(String::as_str)))?;
        Ok(CsvWriter { csv, view, chinese, source: source.map(str::to_owned) })
    }

    /// Writes one record: its resource name and its encoded fields.
    ///
    /// # Errors
    /// Bytes that are no message of the kind, or the file cannot be written.
    pub fn write(&mut self, name: &str, fields: &[u8]) -> Result<(), LedgerError> {
        let message = DynamicMessage::decode(self.view.message.clone(), fields)?;
        let mut row = vec![name.to_owned()];
        for column in &self.view.columns {
            let cell = self.cell(column, &message, name);
            row.push(guard(&cell).into_owned());
        }
        Ok(self.csv.write_record(&row)?)
    }

    /// Writes out what is still in memory and gives the writer back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<W, LedgerError> {
        self.csv.into_inner().map_err(|error| LedgerError::Io(error.into_error()))
    }

    fn cell(&self, column: &Column, message: &DynamicMessage, name: &str) -> String {
        let value = message.get_field(&column.descriptor);
        let part_of = |value: &Value| match (value.as_message(), &column.part) {
            (Some(nested), Some(part)) if nested.has_field(part) => {
                show(&column.form, &nested.get_field(part), self.chinese)
            }
            _ => String::new(),
        };
        match (&*value, &column.part) {
            (Value::List(entries), Some(_)) if column.field.number == fields::EXTERNAL_REFS => {
                let entry = entries.iter().find(|entry| self.is_of_source(entry));
                match entry.map(part_of) {
                    Some(number) => number,
                    // A case that no ledger brought is known by its id.
                    None if self.view.is_keyed_by_source() => {
                        name.rsplit('/').next().unwrap_or_default().to_owned()
                    }
                    None => String::new(),
                }
            }
            (Value::List(entries), Some(_)) => {
                let parts: Vec<String> = entries.iter().map(part_of).collect();
                if parts.iter().all(String::is_empty) {
                    return String::new();
                }
                join_list(parts.iter().map(String::as_str))
            }
            (value, Some(_)) => part_of(value),
            (value, None) if message.has_field(&column.descriptor) => show(&column.form, value, self.chinese),
            (_, None) => String::new(),
        }
    }

    fn is_of_source(&self, entry: &Value) -> bool {
        let Some(source) = &self.source else { return true };
        let system = entry.as_message().and_then(|entry| entry.get_field_by_name("system"));
        system.as_deref().and_then(Value::as_str) == Some(source)
    }
}

/// Writes records of one kind: resource names and encoded fields. See [`CsvWriter`] for records that come bit by bit.
///
/// # Errors
/// As [`CsvWriter`].
pub fn write_csv<W: Write, F: AsRef<[u8]>>(
    kind: &str,
    records: impl IntoIterator<Item = (String, F)>,
    writer: W,
    labels: Labels,
) -> Result<W, LedgerError> {
    let mut csv = CsvWriter::new(kind, labels, None, writer)?;
    for (name, fields) in records {
        csv.write(&name, fields.as_ref())?;
    }
    csv.finish()
}

/// Writes the rows that were not taken, by line, with the line and every reason in two more columns, so that they can
/// be put right and imported again. Reads the ledger once more. Columns out of bounds are left out. Returns how many
/// rows were written.
///
/// # Errors
/// The ledger cannot be read again, or the file cannot be written.
pub fn write_rejects<R: Read + Seek, W: Write>(
    input: R,
    problems: &BTreeMap<u64, Vec<RowProblem>>,
    writer: W,
) -> Result<u64, LedgerError> {
    let mut table = Table::open(input)?;
    let is_ours = |header: &str| REJECT_HEADERS.iter().any(|ours| header_key(ours) == header_key(header));
    let kept: Vec<bool> =
        table.headers.iter().map(|header| !is_out_of_bounds(header) && !is_ours(header)).collect();
    let keep = |cells: &[&str]| -> Vec<String> {
        let kept = kept.iter().enumerate().filter(|(_, kept)| **kept);
        kept.map(|(at, _)| guard(cells.get(at).unwrap_or(&"").trim()).into_owned()).collect()
    };
    let mut csv = open(writer)?;
    let headers: Vec<&str> = table.headers.iter().map(String::as_str).collect();
    csv.write_record(keep(&headers).iter().map(String::as_str).chain(REJECT_HEADERS))?;
    let (mut row, mut written) = (StringRecord::new(), 0);
    while let Some(line) = table.next_row(&mut row)? {
        let Some(problems) = problems.get(&line) else { continue };
        let reasons = problems.iter().map(|problem| match problem.field.as_str() {
            "" => problem.reason.clone(),
            field => format!("{field}: {}", problem.reason),
        });
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        let mut cells = keep(&row.iter().collect::<Vec<_>>());
        cells.extend([line.to_string(), guard(&reasons).into_owned()]);
        csv.write_record(&cells)?;
        written += 1;
    }
    csv.flush()?;
    Ok(written)
}

fn open<W: Write>(mut writer: W) -> Result<csv::Writer<W>, LedgerError> {
    writer.write_all("\u{feff}".as_bytes())?;
    Ok(csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(writer))
}
