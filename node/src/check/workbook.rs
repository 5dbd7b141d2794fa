//! The first sheet of an .xlsx workbook, cell by cell as it would have been typed. A workbook is a zip of XML, so a small
//! one may unpack to anything and claim to hold any number of things. It must never take a file's word for a size, and
//! never hold more than the limits below.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufReader, Cursor, Read as _};

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::attributes::Attribute;
use quick_xml::events::{BytesStart, Event};
use time::Date;
use zip::ZipArchive;
use zip::result::ZipError;

use super::form::{COLUMNS_MAX, FormError, Line, ROWS_MAX};

/// What all parts that are read may unpack to, in bytes. 20,000 lines of nine columns are about 11 MiB.
const UNPACKED_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Tags, texts and ends of tags in them.
const EVENTS_MAX: u32 = 2_000_000;
/// What is kept of them as text, in bytes.
const KEPT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// What is kept of one cell, in bytes: no division, measure or number is longer.
const CELL_MAX_BYTES: usize = 1_024;
/// What is kept of parts that name others, in bytes, and of sheets.
const NAMES_MAX_BYTES: usize = 1024 * 1024;
const SHEETS_MAX: usize = 1_024;
/// Attributes of a tag that are looked at.
const ATTRIBUTES_MAX: usize = 64;
/// Decimals to which a spreadsheet's binary number is taken, where it has not more than 15 digits with them.
const DECIMALS: i32 = 12;
const DIGITS: i32 = 15;
/// Julian days before the first of a workbook's own days, by its two ways to count.
const DAY_ZERO: (i32, i32) = (2_415_019, 2_416_481);

/// Reads the cells of the first sheet that has cells, by lines.
///
/// # Errors
/// It is no workbook, or larger than any form.
pub(super) fn first_sheet(bytes: Vec<u8>) -> Result<Vec<Line>, FormError> {
    let mut book = Book::open(bytes)?;
    let main = book.targets("")?.into_iter().find(|target| target.is("officeDocument"));
    let main = main.map_or_else(|| "xl/workbook.xml".to_owned(), |target| target.part);
    let (sheets, from_1904) = book.sheets(&main)?;
    let targets = book.targets(&main)?;
    let named = |id: &String| targets.iter().find(|target| target.id == *id && target.is("worksheet"));
    let sheet = sheets.iter().find_map(named).ok_or(FormError::NoHeaders)?;
    let folder = folder(&main);
    let strings = book.strings(&format!("{folder}sharedStrings.xml"))?;
    let dates = book.dates(&format!("{folder}styles.xml"))?;
    book.lines(&sheet.part, &Meanings { strings, dates, from_1904 })
}

/// Another part that a part names.
struct Target {
    id: String,
    kind: String,
    part: String,
}

impl Target {
    fn is(&self, kind: &str) -> bool {
        self.kind.rsplit('/').next() == Some(kind)
    }
}

/// What the cells of a sheet refer to.
struct Meanings {
    strings: Vec<String>,
    /// Whether a number in this style is a day.
    dates: Vec<bool>,
    /// Days are counted from 1904.
    from_1904: bool,
}

/// A workbook, and how much may still be read of it.
struct Book {
    archive: ZipArchive<Cursor<Vec<u8>>>,
    bytes_left: u64,
    events_left: u32,
    kept_left: usize,
}

fn wrong(why: impl ToString) -> FormError {
    FormError::Workbook(why.to_string())
}

fn folder(part: &str) -> &str {
    part.rfind('/').map_or("", |at| &part[..=at])
}

fn attributes<'t>(tag: &'t BytesStart<'_>) -> impl Iterator<Item = Attribute<'t>> {
    // Looking for names that come twice would take the square of their number.
    let mut all = tag.attributes();
    all.with_checks(false);
    all.take(ATTRIBUTES_MAX).flatten()
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = attributes(tag).find(|attribute| attribute.key.as_ref() == name)?;
    Some(found.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned())
}

impl Book {
    fn open(bytes: Vec<u8>) -> Result<Book, FormError> {
        let archive = ZipArchive::new(Cursor::new(bytes)).map_err(wrong)?;
        let (bytes_left, events_left) = (UNPACKED_MAX_BYTES, EVENTS_MAX);
        Ok(Book { archive, bytes_left, events_left, kept_left: KEPT_MAX_BYTES })
    }

    /// Gives what a part consists of; a part that is missing is empty.
    fn read(
        &mut self,
        part: &str,
        mut take: impl FnMut(&Event<'_>) -> Result<(), FormError>,
    ) -> Result<(), FormError> {
        let file = match self.archive.by_name(part) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Ok(()),
            Err(error) => return Err(wrong(error)),
        };
        let mut xml = Reader::from_reader(BufReader::new(file.take(self.bytes_left)));
        let config = xml.config_mut();
        config.expand_empty_elements = true;
        config.check_end_names = false;
        let mut buffer = Vec::new();
        let read = loop {
            buffer.clear();
            self.events_left = self.events_left.checked_sub(1).ok_or(FormError::Unpacked)?;
            match xml.read_event_into(&mut buffer) {
                Ok(Event::Eof) => break Ok(()),
                Ok(event) => take(&event)?,
                Err(error) => break Err(wrong(error)),
            }
        };
        self.bytes_left = xml.get_ref().get_ref().limit();
        // What was cut off may be wrong for that reason alone.
        if self.bytes_left == 0 { Err(FormError::Unpacked) } else { read }
    }

    /// What a part, or the workbook as a whole, names.
    fn targets(&mut self, part: &str) -> Result<Vec<Target>, FormError> {
        let folder = folder(part).to_owned();
        let mut targets = Vec::new();
        let mut kept = 0;
        self.read(&format!("{folder}_rels/{}.rels", &part[folder.len()..]), |event| {
            let Event::Start(tag) = event else { return Ok(()) };
            if tag.local_name().as_ref() != "Relationship" {
                return Ok(());
            }
            let text = |name| attribute(tag, name).unwrap_or_default();
            let target = text("Target");
            let part = target.strip_prefix('/').map_or_else(|| format!("{folder}{target}"), str::to_owned);
            let target = Target { id: text("Id"), kind: text("Type"), part };
            kept += size_of::<Target>() + target.id.len() + target.kind.len() + target.part.len();
            targets.push(target);
            if kept > NAMES_MAX_BYTES { Err(FormError::Unpacked) } else { Ok(()) }
        })?;
        Ok(targets)
    }

    /// The names by which the sheets are found, and whether days are counted from 1904.
    fn sheets(&mut self, main: &str) -> Result<(Vec<String>, bool), FormError> {
        let (mut sheets, mut from_1904) = (Vec::new(), false);
        self.read(main, |event| {
            let Event::Start(tag) = event else { return Ok(()) };
            match tag.local_name().as_ref() {
                "sheet" if sheets.len() < SHEETS_MAX => {
                    let id = attributes(tag).find(|a| a.key.local_name().as_ref() == "id");
                    sheets.extend(id.map(|id| id.value.to_string()));
                }
                "workbookPr" => {
                    from_1904 |= attribute(tag, "date1904").is_some_and(|set| set == "1" || set == "true");
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok((sheets, from_1904))
    }

    /// The texts that cells share.
    fn strings(&mut self, part: &str) -> Result<Vec<String>, FormError> {
        let (mut strings, mut text, mut left) = (Vec::new(), Text::default(), self.kept_left);
        self.read(part, |event| {
            text.take(event);
            if matches!(event, Event::End(tag) if tag.local_name().as_ref() == "si") {
                let found = text.end();
                left = left.checked_sub(found.len() + size_of::<String>()).ok_or(FormError::Unpacked)?;
                strings.push(found);
            }
            Ok(())
        })?;
        self.kept_left = left;
        Ok(strings)
    }

    /// For each style of a cell, whether its numbers are days.
    fn dates(&mut self, part: &str) -> Result<Vec<bool>, FormError> {
        let (mut own, mut dates, mut of_cells) = (HashSet::new(), Vec::new(), false);
        self.read(part, |event| {
            match event {
                Event::Start(tag) => match tag.local_name().as_ref() {
                    "numFmt" if shows_days(&attribute(tag, "formatCode").unwrap_or_default()) => {
                        own.extend(number(tag, "numFmtId"));
                    }
                    "cellXfs" => of_cells = true,
                    "xf" if of_cells => {
                        let format = number(tag, "numFmtId").unwrap_or(0);
                        dates.push(own.contains(&format) || is_of_days(format));
                    }
                    _ => {}
                },
                Event::End(tag) if tag.local_name().as_ref() == "cellXfs" => of_cells = false,
                _ => {}
            }
            Ok(())
        })?;
        Ok(dates)
    }

    /// The cells of a sheet. They are taken one after another, since a sheet may claim to be of any size.
    fn lines(&mut self, part: &str, meanings: &Meanings) -> Result<Vec<Line>, FormError> {
        let mut sheet = Sheet { meanings, left: self.kept_left, ..Sheet::of(meanings) };
        self.read(part, |event| sheet.take(event))?;
        Ok(sheet.lines.into_iter().map(|(row, line)| (row as usize, line)).collect())
    }
}

/// A sheet while it is read.
struct Sheet<'m> {
    meanings: &'m Meanings,
    lines: BTreeMap<u32, Vec<String>>,
    left: usize,
    /// From 1.
    row: u32,
    /// From 0: that of the cell that is read, or comes next.
    column: u32,
    kind: String,
    style: usize,
    text: Text,
}

impl<'m> Sheet<'m> {
    fn of(meanings: &'m Meanings) -> Sheet<'m> {
        let (lines, kind, text) = Default::default();
        Sheet { meanings, lines, left: 0, row: 0, column: 0, kind, style: 0, text }
    }

    fn take(&mut self, event: &Event<'_>) -> Result<(), FormError> {
        self.text.take(event);
        match event {
            Event::Start(tag) => match tag.local_name().as_ref() {
                "row" => {
                    self.row = number(tag, "r").unwrap_or_else(|| self.row.saturating_add(1));
                    self.column = 0;
                }
                "c" => {
                    if let Some(place) = attribute(tag, "r") {
                        (self.row, self.column) =
                            place_of(&place).ok_or_else(|| wrong("a cell has no place"))?;
                    }
                    self.kind = attribute(tag, "t").unwrap_or_default();
                    self.style = number(tag, "s").map_or(0, |style| style as usize);
                    self.text.end();
                }
                _ => {}
            },
            Event::End(tag) if tag.local_name().as_ref() == "c" => {
                let text = self.typed();
                self.put(text)?;
                self.column = self.column.saturating_add(1);
            }
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, text: String) -> Result<(), FormError> {
        if text.is_empty() || self.column >= COLUMNS_MAX {
            return Ok(());
        }
        let column = self.column as usize;
        let line = self.lines.entry(self.row).or_default();
        let new = (column + 1).saturating_sub(line.len()) * size_of::<String>();
        self.left = self.left.checked_sub(new + text.len()).ok_or(FormError::Unpacked)?;
        line.resize(line.len().max(column + 1), String::new());
        line[column] = text;
        if self.lines.len() > ROWS_MAX { Err(FormError::TooLarge) } else { Ok(()) }
    }

    /// The cell as it would have been typed.
    fn typed(&mut self) -> String {
        let text = self.text.end();
        match self.kind.as_str() {
            "s" => {
                let shared = text.trim().parse().ok().and_then(|at: usize| self.meanings.strings.get(at));
                shared.map(|shared| shared.trim().to_owned()).unwrap_or_default()
            }
            "" | "n" => match text.trim().parse::<f64>() {
                Ok(number) if number.is_finite() => {
                    let is_date = self.meanings.dates.get(self.style) == Some(&true);
                    let day = is_date.then(|| day(number, self.meanings.from_1904)).flatten();
                    day.unwrap_or_else(|| plain(number))
                }
                _ => text.trim().to_owned(),
            },
            // What is right, wrong or an error is no figure.
            "b" | "e" => String::new(),
            _ => text.trim().to_owned(),
        }
    }
}

/// The text of a cell or a shared string, as far as it is kept: what stands in `v` and `t`, but not how it is spoken.
#[derive(Default)]
struct Text {
    text: String,
    open: bool,
    spoken: bool,
}

impl Text {
    fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Start(tag) => match tag.local_name().as_ref() {
                "v" | "t" => self.open = true,
                "rPh" => self.spoken = true,
                _ => {}
            },
            Event::End(tag) => match tag.local_name().as_ref() {
                "v" | "t" => self.open = false,
                "rPh" => self.spoken = false,
                _ => {}
            },
            Event::Text(text) => self.add(&text.xml10_content()),
            Event::CData(text) => self.add(&text.xml10_content()),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(character)) => self.add(character.encode_utf8(&mut [0; 4])),
                _ => self.add(resolve_predefined_entity(name).unwrap_or_default()),
            },
            _ => {}
        }
    }

    fn add(&mut self, more: &str) {
        if self.open && !self.spoken {
            let room = CELL_MAX_BYTES.saturating_sub(self.text.len());
            self.text.push_str(&more[..more.floor_char_boundary(room)]);
        }
    }

    /// What there is, and begins anew.
    fn end(&mut self) -> String {
        std::mem::take(self).text
    }
}

fn number(tag: &BytesStart<'_>, name: &str) -> Option<u32> {
    attribute(tag, name)?.trim().parse().ok()
}

/// Row (from 1) and column (from 0) of a place such as B12.
fn place_of(place: &str) -> Option<(u32, u32)> {
    let digits = place.find(|c: char| c.is_ascii_digit())?;
    let (letters, row) = place.split_at(digits);
    if !(1..=3).contains(&letters.len()) || !letters.bytes().all(|b| b.is_ascii_alphabetic()) {
        return None;
    }
    let column = letters.bytes().fold(0, |sum, b| sum * 26 + u32::from(b.to_ascii_uppercase() - b'A') + 1);
    Some((row.parse().ok()?, column - 1))
}

/// The formats of days that need not be described, those of Chinese workbooks included.
fn is_of_days(format: u32) -> bool {
    matches!(format, 14..=22 | 27..=36 | 45..=47 | 50..=58)
}

/// Whether a format that is described shows days or times: one of their letters outside of quoted text.
fn shows_days(format: &str) -> bool {
    let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
    format.chars().any(|c| {
        let plain = !(quoted || bracketed || escaped);
        escaped = plain && matches!(c, '\\' | '_' | '*');
        match c {
            '"' if plain || quoted => quoted = !quoted,
            '[' if plain => bracketed = true,
            ']' => bracketed = false,
            _ => {}
        }
        plain && matches!(c.to_ascii_lowercase(), 'y' | 'm' | 'd' | 'h' | 's')
    })
}

/// A day by its number; a month that was typed as 2026-10 has become its first day. `None`: it is no day.
fn day(number: f64, from_1904: bool) -> Option<String> {
    let whole = number.floor();
    if !(1.0..3_000_000.0).contains(&whole) {
        return None;
    }
    let zero = if from_1904 { DAY_ZERO.1 } else { DAY_ZERO.0 };
    // Spreadsheets believe in a 29 February 1900.
    let early = i32::from(!from_1904 && whole < 60.0);
    let date = Date::from_julian_day(zero + whole as i32 + early).ok()?;
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    Some(if day == 1 { format!("{year:04}-{month:02}") } else { format!("{year:04}-{month:02}-{day:02}") })
}

/// A binary number in digits, without the noise at its end.
fn plain(number: f64) -> String {
    let whole_digits = number.abs().max(1.0).log10() as i32 + 1;
    let decimals = DECIMALS.min(DIGITS - whole_digits).max(0) as usize;
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
