//! Reading the form: a table with named columns, whoever wrote it and with whatever program. Cells stay as they were
//! written, since their digits matter.

use std::path::Path;

use serde_json::Value;

use super::workbook::first_sheet;
use crate::ledger::{self, LedgerError, header_key};

/// Bytes of a file; a report of figures is much smaller.
const FILE_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Lines of a form.
pub(super) const ROWS_MAX: usize = 20_000;
/// Columns of a sheet that are looked at.
pub(super) const COLUMNS_MAX: u32 = 64;
/// Commas in JSON: 32 for each line.
const COMMAS_MAX: usize = 32 * ROWS_MAX;
/// The first lines of a sheet, among which its headers are.
const HEADERS_WITHIN: usize = 20;

/// Why a form cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// The file.
    #[error("cannot read {0}: {1} (无法读取文件)")]
    File(String, std::io::Error),
    /// It is too large.
    #[error("the file has more than 8 MiB or 20,000 lines; part it (文件过大)")]
    TooLarge,
    /// It is a workbook that unpacks to too much.
    #[error(
        "the workbook unpacks to more than 16 MiB, or has too many cells or texts; save the sheet with the figures as CSV \
         (工作簿解压后过大，请将该工作表另存为 CSV)"
    )]
    Unpacked,
    /// It is not text.
    #[error(transparent)]
    Text(#[from] LedgerError),
    /// It is no table.
    #[error("line {0} is not a line of a CSV table (CSV 格式有误)")]
    Csv(u64),
    /// It is no workbook.
    #[error("the workbook cannot be read: {0} (无法读取工作簿)")]
    Workbook(String),
    /// It is no list.
    #[error("the file is not a JSON list of objects: {0} (JSON 格式有误)")]
    Json(String),
    /// There are no headers.
    #[error(
        "there is no line with the headers measure (指标) and value (数值); see `guantong report check --help` (缺少表头)"
    )]
    NoHeaders,
}

/// One line of a form, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// From 1, headers included; in a JSON list the position.
    pub line: usize,
    /// Code of the division; empty: that of the command line.
    pub division: String,
    /// The period, such as 2026-10; empty: that of the command line.
    pub period: String,
    /// English name or Chinese label.
    pub measure: String,
    /// A class of one of its dimensions; empty: the whole.
    pub class: String,
    /// `eq`, `ge`, `approx` or their signs; empty: `eq`.
    pub op: String,
    /// The figure.
    pub value: String,
    /// `percent`, where a rate is written without its sign.
    pub unit: String,
    /// Of a rate.
    pub numerator: String,
    /// Of a rate.
    pub denominator: String,
}

/// The headers of a column, the one that says most first.
const HEADERS: [(&str, &[&str]); 9] = [
    ("division", &["division", "区划代码", "区划"]),
    ("period", &["period", "报告期", "期间", "统计周期"]),
    ("measure", &["measure", "指标代码", "指标", "指标名称"]),
    ("class", &["class", "类别", "分类"]),
    ("op", &["op", "关系"]),
    ("value", &["value", "数值", "值"]),
    ("unit", &["unit", "单位"]),
    ("numerator", &["numerator", "分子"]),
    ("denominator", &["denominator", "分母"]),
];

impl Row {
    fn cell(&mut self, column: &str) -> Option<&mut String> {
        Some(match column {
            "division" => &mut self.division,
            "period" => &mut self.period,
            "measure" => &mut self.measure,
            "class" => &mut self.class,
            "op" => &mut self.op,
            "value" => &mut self.value,
            "unit" => &mut self.unit,
            "numerator" => &mut self.numerator,
            "denominator" => &mut self.denominator,
            _ => return None,
        })
    }
}

/// Reads a form: by its ending a workbook or JSON, else CSV.
///
/// # Errors
/// What is wrong with the file as a whole.
pub fn read(file: &Path) -> Result<Vec<Row>, FormError> {
    let unreadable = |error| FormError::File(file.display().to_string(), error);
    if std::fs::metadata(file).map_err(unreadable)?.len() > FILE_MAX_BYTES {
        return Err(FormError::TooLarge);
    }
    of_bytes(std::fs::read(file).map_err(unreadable)?)
}

/// As [`read`], of what stands in a file.
///
/// # Errors
/// What is wrong with the file as a whole.
pub fn of_bytes(bytes: Vec<u8>) -> Result<Vec<Row>, FormError> {
    if bytes.starts_with(b"PK\x03\x04") {
        return of_table(first_sheet(bytes)?);
    }
    let text = ledger::decoded(&bytes)?;
    if text.trim_start().starts_with(['[', '{']) { of_json(&text) } else { of_table(csv_lines(&text)?) }
}

/// A line by its number from 1, and its cells.
pub(super) type Line = (usize, Vec<String>);

fn csv_lines(text: &str) -> Result<Vec<Line>, FormError> {
    let mut reader =
        ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut lines = Vec::new();
    for record in reader.records() {
        let place = |position: Option<&::csv::Position>| position.map_or(0, ::csv::Position::line);
        let record = record.map_err(|error| FormError::Csv(place(error.position())))?;
        if lines.len() == ROWS_MAX {
            return Err(FormError::TooLarge);
        }
        let line = usize::try_from(place(record.position())).unwrap_or_default();
        lines.push((
            line,
            record.iter().take(COLUMNS_MAX as usize).map(|cell| cell.trim().to_owned()).collect(),
        ));
    }
    Ok(lines)
}

fn of_table(lines: Vec<Line>) -> Result<Vec<Row>, FormError> {
    let headed = lines.iter().take(HEADERS_WITHIN).position(|(_, cells)| {
        let has = |column| place(cells, column).is_some();
        has("measure") && has("value")
    });
    let at = headed.ok_or(FormError::NoHeaders)?;
    let (_, headers) = &lines[at];
    let places: Vec<(&str, usize)> =
        HEADERS.iter().filter_map(|(column, _)| Some((*column, place(headers, column)?))).collect();
    let mut rows = Vec::new();
    for (line, cells) in &lines[at + 1..] {
        let mut row = Row { line: *line, ..Row::default() };
        for (column, at) in &places {
            if let (Some(cell), Some(text)) = (row.cell(column), cells.get(*at)) {
                cell.clone_from(text);
            }
        }
        if !row.measure.is_empty() || !row.value.is_empty() {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Where the column stands among the headers.
fn place(headers: &[String], column: &str) -> Option<usize> {
    let (_, known) = HEADERS.iter().find(|(name, _)| *name == column)?;
    known.iter().find_map(|known| headers.iter().position(|header| header_key(header) == header_key(known)))
}

fn of_json(text: &str) -> Result<Vec<Row>, FormError> {
    // A value takes up many times the bytes that it is written with.
    if text.bytes().filter(|byte| *byte == b',').count() > COMMAS_MAX {
        return Err(FormError::TooLarge);
    }
    let value: Value = serde_json::from_str(text).map_err(|error| FormError::Json(error.to_string()))?;
    let list = match &value {
        Value::Object(object) => object.get("figures").and_then(Value::as_array),
        other => other.as_array(),
    };
    let list = list.ok_or_else(|| FormError::Json("write [{…}, {…}] or {\"figures\": […]}".to_owned()))?;
    if list.len() > ROWS_MAX {
        return Err(FormError::TooLarge);
    }
    let row = |(at, entry): (usize, &Value)| {
        let mut row = Row { line: at + 1, ..Row::default() };
        for (key, value) in entry.as_object()? {
            let known =
                HEADERS.iter().find(|(_, known)| known.iter().any(|k| header_key(k) == header_key(key)));
            let text = match value {
                Value::String(text) => text.trim().to_owned(),
                // As it was written: JSON keeps the digits of a number here.
                Value::Number(number) => number.to_string(),
                _ => continue,
            };
            if let Some(cell) = known.and_then(|(column, _)| row.cell(column)) {
                *cell = text;
            }
        }
        Some(row)
    };
    let rows: Option<Vec<Row>> = list.iter().enumerate().map(row).collect();
    rows.ok_or_else(|| FormError::Json("an entry is not an object".to_owned()))
}
