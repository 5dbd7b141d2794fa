//! What can be wrong with a ledger as a whole, and with one cell. Words are for the person who keeps the ledger, in
//! both languages. They must never repeat a cell: columns may have slipped, and then it is anybody's data.

use std::io;

/// Why a ledger cannot be read or written at all.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be read or written.
    #[error("the file cannot be read or written: {0} (文件无法读写)")]
    Io(#[from] io::Error),
    /// No such kind, or one that is not kept in ledgers.
    #[error("there is no ledger of kind `{kind}`; the kinds are {known} (没有这一类台账)")]
    UnknownKind {
        /// As asked for.
        kind: String,
        /// Those there are.
        known: String,
    },
    /// The source's name becomes part of record ids.
    #[error(
        "a source is named with 1 to 48 bytes without blanks, control characters, `/` or `:` (来源名称不能含空格、斜杠或冒号)"
    )]
    Source,
    /// Another sort of file.
    #[error(
        "this is {0}, not a CSV table; save it as CSV UTF-8 (文件不是 CSV 表格，请另存为 CSV UTF-8 后再导入)"
    )]
    NotText(&'static str),
    /// Bytes that are no text.
    #[error(
        "line {line}, byte {byte} of the file: not valid {tried}; save the table anew as CSV UTF-8 (第 {line} 行编码损坏，请重新另存为 CSV UTF-8)"
    )]
    Encoding {
        /// Line of the first broken character, from 1.
        line: u64,
        /// Its offset in the file, from 0.
        byte: u64,
        /// The encodings tried.
        tried: &'static str,
    },
    /// There is no first line.
    #[error("the file is empty; its first line must name the columns (文件为空，首行应为列名)")]
    Empty,
    /// The column that rows are known by.
    #[error(
        "line 1: the column `{english}` is missing; the columns found are: {found} (第 1 行缺少必需的列“{chinese}”)"
    )]
    MissingColumn {
        /// English header.
        english: String,
        /// Chinese header.
        chinese: String,
        /// The headers that are there.
        found: String,
    },
    /// Two columns for one field.
    #[error(
        "line 1: the columns `{first}` and `{second}` both mean {meaning}; remove one (第 1 行有两列含义相同，请删去一列)"
    )]
    DuplicateColumn {
        /// Header of the first.
        first: String,
        /// Header of the second.
        second: String,
        /// The field.
        meaning: String,
    },
    /// Coordinates without their reference system.
    #[error(
        "the ledger has coordinates ({columns}): say in which system with --crs cgcs2000, wgs84, gcj02 or bd09; it is never guessed (台账含坐标，请用 --crs 指明坐标系)"
    )]
    CrsMissing {
        /// Headers of the columns.
        columns: String,
    },
    /// A quotation mark that swallows the file.
    #[error(
        "line {line}: the row that begins here is longer than {limit_bytes} bytes; a quotation mark is probably not closed (第 {line} 行的引号可能没有配对)"
    )]
    EndlessRow {
        /// Where the row begins.
        line: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// The same in a file that ends first.
    #[error(
        "line {line}: a quotation mark in the row that begins here is not closed before the file ends (第 {line} 行的引号没有配对)"
    )]
    OpenQuote {
        /// Where the row begins.
        line: u64,
    },
    /// A line of the CSV cannot be read or written.
    #[error("the table cannot be read or written: {0} (表格无法读写)")]
    Csv(csv::Error),
    /// Bytes that are not the message of their kind.
    #[error("the record's fields do not have the form of their kind: {0} (记录内容无法解读)")]
    Fields(#[from] prost::DecodeError),
    /// JSON that is not the record of its kind.
    #[error("this is not the JSON of the kind: {0} (JSON 内容与该类记录不符)")]
    Json(#[from] serde_json::Error),
}

impl From<csv::Error> for LedgerError {
    fn from(error: csv::Error) -> LedgerError {
        if !error.is_io_error() {
            return LedgerError::Csv(error);
        }
        match error.into_kind() {
            csv::ErrorKind::Io(error) => LedgerError::Io(error),
            other => LedgerError::Io(io::Error::other(format!("{other:?}"))),
        }
    }
}

/// Why a cell, or a field made of several, cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CellError {
    #[error("not a whole number (应为整数)")]
    NotInteger,
    #[error("not a number (应为数字)")]
    NotNumber,
    #[error("must not be negative (不能为负数)")]
    Negative,
    #[error("the number is too large (数字过大)")]
    TooLarge,
    #[error("write yes or no (请填“是”或“否”)")]
    NotBool,
    #[error("not one of the values known: {0} (不在可选值之内)")]
    NotEnum(String),
    #[error("not in the code list: {0} (不在代码表之内)")]
    NotCode(String),
    #[error("not a date; write year, month, day, such as 2026-11-21 (日期应写为 2026-11-21)")]
    NotDate,
    #[error("not a time; write such as 2026-11-21 14:03 (时间应写为 2026-11-21 14:03)")]
    NotTime,
    #[error("{0}")]
    Division(#[from] guantong_gateway::division::DivisionError),
    #[error("{0} digits are needed (应为 {0} 位数字)")]
    Digits(usize),
    #[error("digits 11 to 13 must be 131 or 132, the types of a camera (第 11 至 13 位应为 131 或 132)")]
    DeviceType,
    #[error(
        "the spreadsheet shortened this long number (such as 2.2E+11); set the column to text and fill it in again (编码被表格软件改成了科学计数法，请将该列设为文本后重填)"
    )]
    Scientific,
    #[error("a value has at most {limit_bytes} bytes, this one {bytes} (内容超过 {limit_bytes} 字节)")]
    TooLong { bytes: usize, limit_bytes: usize },
    #[error("not a GeoJSON Polygon: {0} (应为 GeoJSON 多边形)")]
    Boundary(&'static str),
    #[error("longitude and latitude go together (经度、纬度应同时填写)")]
    HalfPoint,
    #[error(
        "outside 73 to 136 degrees east, 3 to 54 degrees north{}",
        if *.swapped { "; longitude and latitude seem to be swapped (坐标越界，经纬度可能填反)" } else { " (坐标越界)" }
    )]
    OutsideBounds { swapped: bool },
    #[error(
        "the columns of this field list different numbers of entries: write as many in each (各列条目数不一致)"
    )]
    Uneven,
    #[error("an observation needs the time when it was made (应同时填写观测时间)")]
    Unobserved,
    #[error("must not be empty: rows are known by it (不能为空)")]
    NoKey,
    #[error(
        "cannot be part of a record's name: 1 to {0} bytes without blanks, control characters or `/` (编号不能含空格或斜杠，且不超过 {0} 字节)"
    )]
    BadKey(usize),
    #[error("the same as in line {0}; a ledger has one row for each (与第 {0} 行重复)")]
    Duplicate(u64),
    #[error(
        "{found} cells where the first line has {expected}; is there a separator inside a text without quotation marks? (单元格数与首行不符)"
    )]
    Cells { found: usize, expected: usize },
    #[error("a retired one needs the date from which it no longer counts (停用的应填写停用日期)")]
    RetiredWithoutDate,
    #[error("earlier than the first day on which it counts (早于启用日期)")]
    EndsBeforeStart,
    #[error("whose record it is follows from its division: fill it in (缺少所属区划，无法确定记录归属)")]
    NoHome,
    #[error(
        "public cameras are the county's, social ones the township's: fill it in (缺少权属类型，无法确定记录归属)"
    )]
    NoOwnership,
    #[error("a province has no division above it that could keep it (省级区划不能导入)")]
    Province,
    #[error("write 1 or 0: whether the row is secret must be clear (涉密与否应填写清楚)")]
    Secrecy,
}
