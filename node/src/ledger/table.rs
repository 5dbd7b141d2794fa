//! A CSV file as a header and rows with their true line numbers. It must never stop at a row that has too many or too
//! few cells: that is for whoever reads the row to say.

use std::io::{BufRead, BufReader, Chain, Cursor, Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use csv::StringRecord;

use super::encoding::{ROW_MAX_BYTES, Text, detect};
use super::error::LedgerError;

/// The text, with the first line that was read ahead put back.
type Rewound<R> = Chain<Cursor<Vec<u8>>, BufReader<Text<R>>>;

/// An open CSV file.
pub(super) struct Table<R> {
    reader: csv::Reader<Rewound<R>>,
    spent: Arc<AtomicU64>,
    drained: Arc<AtomicBool>,
    pub(super) headers: Vec<String>,
}

impl<R: Read + Seek> Table<R> {
    /// Finds encoding and separator, and reads the first line that is not blank.
    pub(super) fn open(mut input: R) -> Result<Table<R>, LedgerError> {
        let encoding = detect(&mut input)?;
        let text = Text::new(input, encoding);
        let (spent, drained) = (text.spent(), text.drained());
        let mut text = BufReader::new(text);
        let mut first = Vec::new();
        while first.trim_ascii().is_empty() {
            // A first line without end stops at the limit of a row, in `Text`.
            if text.read_until(b'\n', &mut first).map_err(|error| endless(error, 1, &spent))? == 0 {
                return Err(LedgerError::Empty);
            }
        }
        let reader = csv::ReaderBuilder::new()
            .delimiter(separator(&first))
            .has_headers(false)
            .flexible(true)
            // With the default, a line ending in CR LF would leave its LF to the next row and shift the lines.
            .terminator(csv::Terminator::Any(b'\n'))
            .from_reader(Cursor::new(first).chain(text));
        let mut table = Table { reader, spent, drained, headers: Vec::new() };
        let mut header = StringRecord::new();
        table.next_row(&mut header)?.ok_or(LedgerError::Empty)?;
        table.headers = header.iter().map(|cell| cell.trim().to_owned()).collect();
        Ok(table)
    }

    /// The next row that has any content, and the line where it begins.
    pub(super) fn next_row(&mut self, row: &mut StringRecord) -> Result<Option<u64>, LedgerError> {
        loop {
            self.spent.store(0, Ordering::Relaxed);
            let line = self.reader.position().line();
            match self.reader.read_record(row) {
                Ok(false) => return Ok(None),
                // The text ends with a line break, so only inside quotation marks can a row last beyond it; the rows
                // that it has swallowed must not pass for a long text.
                Ok(true) if self.drained.load(Ordering::Relaxed) => {
                    return Err(LedgerError::OpenQuote { line });
                }
                Ok(true) if row.iter().all(|cell| cell.trim().is_empty()) => {}
                Ok(true) => {
                    let inside = row.iter().flat_map(str::bytes).filter(|b| *b == b'\n').count() as u64;
                    return Ok(Some(self.reader.position().line().saturating_sub(1 + inside)));
                }
                Err(_) if self.spent.load(Ordering::Relaxed) > ROW_MAX_BYTES => {
                    return Err(LedgerError::EndlessRow { line, limit_bytes: ROW_MAX_BYTES });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn endless(error: std::io::Error, line: u64, spent: &AtomicU64) -> LedgerError {
    if spent.load(Ordering::Relaxed) > ROW_MAX_BYTES {
        return LedgerError::EndlessRow { line, limit_bytes: ROW_MAX_BYTES };
    }
    LedgerError::Io(error)
}

/// Comma, tab or semicolon: the one that the first line has most of.
fn separator(first_line: &[u8]) -> u8 {
    let count = |separator: u8| {
        let mut quoted = false;
        let outside = first_line.iter().filter(|byte| {
            quoted ^= **byte == b'"';
            !quoted && **byte == separator
        });
        outside.count()
    };
    // Of equals the last wins: the comma.
    [b';', b'\t', b','].into_iter().max_by_key(|separator| count(*separator)).unwrap_or(b',')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(u64, String)> {
        let mut table = Table::open(Cursor::new(text.as_bytes())).unwrap();
        let (mut row, mut rows) = (StringRecord::new(), Vec::new());
        while let Some(line) = table.next_row(&mut row).unwrap() {
            rows.push((line, row.iter().map(str::trim).collect::<Vec<_>>().join("|")));
        }
        rows
    }

    #[test]
    fn lines_are_counted_as_an_editor_shows_them() {
        let expected = [(4, "a|1\n2"), (6, "b|2"), (8, "c|3")].map(|(line, row)| (line, row.to_owned()));
        let text = "h,x\n\n,\na,\"1\n2\"\nb,2\n\nc,3";
        assert_eq!(rows(text), expected);
        assert_eq!(rows(&text.replace('\n', "\r\n")).iter().map(|r| r.0).collect::<Vec<_>>(), [4, 6, 8]);
        assert_eq!(rows(&format!("\u{feff}\n{text}"))[0].0, 5);
    }

    #[test]
    fn a_quotation_mark_that_is_never_closed_does_not_swallow_the_rest() {
        for end in ["", "\n"] {
            let text = format!("h,x\na,1\nb,\"2\nc,3\nd,4{end}");
            let mut table = Table::open(Cursor::new(text.as_bytes())).unwrap();
            let mut row = StringRecord::new();
            assert_eq!(table.next_row(&mut row).unwrap(), Some(2));
            assert!(matches!(table.next_row(&mut row), Err(LedgerError::OpenQuote { line: 3 })));
        }
        let header = Table::open(Cursor::new("\"h,x\na,1\n".as_bytes())).map(|t| t.headers);
        assert!(matches!(header, Err(LedgerError::OpenQuote { line: 1 })));
    }

    #[test]
    fn separators_are_found() {
        for separator in [",", ";", "\t"] {
            let text = ["h", "\"x;,\ty,,;;\"\na", "1\n"].join(separator);
            assert_eq!(rows(&text), [(2, "a|1".to_owned())], "{separator:?}");
        }
    }

    #[test]
    fn a_quotation_mark_that_is_never_closed_is_found_without_reading_everything() {
        let text = format!("h,x\na,1\nb,\"2\n{}", "c,3\n".repeat(3_000_000));
        let mut table = Table::open(Cursor::new(text.as_bytes())).unwrap();
        let mut row = StringRecord::new();
        assert_eq!(table.next_row(&mut row).unwrap(), Some(2));
        assert!(matches!(table.next_row(&mut row), Err(LedgerError::EndlessRow { line: 3, .. })));
        let header = format!("\"{}", "c,3\n".repeat(3_000_000));
        assert!(matches!(
            Table::open(Cursor::new(header.as_bytes())).map(|t| t.headers),
            Err(LedgerError::EndlessRow { line: 1, .. })
        ));
        assert!(matches!(Table::open(Cursor::new(b"\n\n")).map(|t| t.headers), Err(LedgerError::Empty)));
    }
}
