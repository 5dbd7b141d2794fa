//! Reading the form: a table with named columns, whoever wrote it and with whatever program. Cells stay as they were
//! written, since their digits matter.

use std::io::{BufReader, Cursor};
use std::path::Path;

use calamine::{Data, DataRef, Reader as _, Xlsx};
use serde_json::Value;

use crate::ledger::{self, LedgerError, header_key};

/// Bytes of a file; a report of figures is much smaller.
const FILE_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Lines of a form.
const ROWS_MAX: usize = 20_000;
/// Columns of a sheet that are looked at.
const COLUMNS_MAX: u32 = 64;
/// The first lines of a sheet, among which its headers are.
const HEADERS_WITHIN: usize = 20;
/// Decimals to which a spreadsheet's binary number is taken.
const DECIMALS: usize = 12;

/// Why a form cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormError {
    /// The file.
    #[error("cannot read {0}: {1} (无法读取文件)")]
    File(String, std::io::Error),
    /// It is too large.
    #[error("the file has more than 8 MiB or 20,000 lines; part it (文件过大)")]
    TooLarge,
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
pub(crate) struct Row {
    /// From 1, headers included; in a JSON list the position.
    pub(crate) line: usize,
    pub(crate) division: String,
    pub(crate) period: String,
    pub(crate) measure: String,
    pub(crate) class: String,
    pub(crate) op: String,
    pub(crate) value: String,
    pub(crate) unit: String,
    pub(crate) numerator: String,
    pub(crate) denominator: String,
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
pub(crate) fn read(file: &Path) -> Result<Vec<Row>, FormError> {
    let unreadable = |error| FormError::File(file.display().to_string(), error);
    if std::fs::metadata(file).map_err(unreadable)?.len() > FILE_MAX_BYTES {
        return Err(FormError::TooLarge);
    }
    let bytes = std::fs::read(file).map_err(unreadable)?;
    if bytes.starts_with(b"PK\x03\x04") {
        return of_table(sheet(bytes)?);
    }
    let text = ledger::decoded(&bytes)?;
    if text.trim_start().starts_with(['[', '{']) { of_json(&text) } else { of_table(csv_lines(&text)?) }
}

type Line = (usize, Vec<String>);

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
        lines.push((line, record.iter().map(|cell| cell.trim().to_owned()).collect()));
    }
    Ok(lines)
}

/// The cells of a workbook's first sheet. They are read one after another, since a sheet may claim to be of any size.
fn sheet(bytes: Vec<u8>) -> Result<Vec<Line>, FormError> {
    let wrong = |error: calamine::XlsxError| FormError::Workbook(error.to_string());
    let mut workbook = Xlsx::new(BufReader::new(Cursor::new(bytes))).map_err(wrong)?;
    let name = workbook.sheet_names().first().cloned().ok_or(FormError::NoHeaders)?;
    let mut cells = workbook.worksheet_cells_reader(&name).map_err(wrong)?;
    let mut lines: std::collections::BTreeMap<u32, Vec<String>> = std::collections::BTreeMap::new();
    while let Some(cell) = cells.next_cell().map_err(wrong)? {
        let (row, column) = cell.get_position();
        let text = text_of(cell.get_value());
        if column >= COLUMNS_MAX || text.is_empty() {
            continue;
        }
        let line = lines.entry(row).or_default();
        line.resize(line.len().max(column as usize + 1), String::new());
        if let Some(place) = line.get_mut(column as usize) {
            *place = text;
        }
        if lines.len() > ROWS_MAX {
            return Err(FormError::TooLarge);
        }
    }
    Ok(lines.into_iter().map(|(row, line)| (row as usize + 1, line)).collect())
}

/// A cell as it would have been typed.
fn text_of(cell: &DataRef<'_>) -> String {
    match Data::from(cell.clone()) {
        Data::Int(number) => number.to_string(),
        Data::Float(number) => plain(number),
        Data::String(text) | Data::DateTimeIso(text) | Data::DurationIso(text) => text.trim().to_owned(),
        // A month that was typed as 2026-10 has become its first day.
        Data::DateTime(moment) => match moment.to_ymd_hms_milli() {
            (year, month, 1, ..) => format!("{year:04}-{month:02}"),
            (year, month, day, ..) => format!("{year:04}-{month:02}-{day:02}"),
        },
        Data::Bool(_) | Data::Error(_) | Data::Empty => String::new(),
    }
}

/// A binary number in digits, without the noise at its end.
fn plain(number: f64) -> String {
    let text = format!("{number:.DECIMALS$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
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
