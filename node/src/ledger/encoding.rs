//! Which encoding a file is in, decided over the whole file before anything of it is used; then its text as a stream.
//! It must never replace a broken character by another, or read a broken UTF-8 file as something else.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use encoding_rs::{Decoder, DecoderResult, Encoding, GB18030, UTF_8};

use super::error::LedgerError;

/// Bytes read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// The most bytes one row may take: far more than all its fields at their limit.
pub(super) const ROW_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What one pass over a file in one encoding found.
#[derive(Default)]
struct Scan {
    /// Line from 1 and offset from 0 of the first broken character.
    first_broken: Option<(u64, u64)>,
    broken: u64,
    /// Characters such as Chinese ones, which are hardly ever right by accident.
    wide: u64,
    has_nul: bool,
}

/// Decides between UTF-8 (a byte order mark may come first) and GB18030; leaves the input at its start.
pub(super) fn detect(input: &mut (impl Read + Seek)) -> Result<&'static Encoding, LedgerError> {
    let mut start = [0; 4];
    input.seek(SeekFrom::Start(0))?;
    let length = read_full(input, &mut start)?;
    let foreign = match start.get(..length).unwrap_or_default() {
        [0x50, 0x4b, 3, 4] => Some("an Excel workbook (.xlsx)"),
        [0xd0, 0xcf, 0x11, 0xe0] => Some("an Excel workbook (.xls)"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16 text"),
        _ => None,
    };
    if let Some(foreign) = foreign {
        return Err(LedgerError::NotText(foreign));
    }
    let utf8 = scan(input, UTF_8)?;
    if utf8.has_nul {
        return Err(LedgerError::NotText("not text (it has zero bytes)"));
    }
    let found = match utf8.first_broken {
        None => UTF_8,
        // Mostly right: UTF-8 with a broken character. GB18030 would read it too, as nonsense.
        Some((line, byte)) if start.starts_with(b"\xef\xbb\xbf") || utf8.wide > utf8.broken => {
            return Err(LedgerError::Encoding { line, byte, tried: "UTF-8" });
        }
        Some(_) => match scan(input, GB18030)?.first_broken {
            None => GB18030,
            Some((line, byte)) => {
                return Err(LedgerError::Encoding { line, byte, tried: "UTF-8 or GB18030" });
            }
        },
    };
    input.seek(SeekFrom::Start(0))?;
    Ok(found)
}

/// A small file's text, by the same decision.
pub(crate) fn decoded(bytes: &[u8]) -> Result<String, LedgerError> {
    let encoding = detect(&mut io::Cursor::new(bytes))?;
    let (text, _) = encoding.decode_with_bom_removal(bytes);
    Ok(text.into_owned())
}

fn scan(input: &mut (impl Read + Seek), encoding: &'static Encoding) -> io::Result<Scan> {
    input.seek(SeekFrom::Start(0))?;
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut found = Scan::default();
    let (mut line, mut consumed) = (1, 0);
    let (mut chunk, mut text) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES * 3]);
    loop {
        let length = read_full(input, &mut chunk)?;
        let last = length < chunk.len();
        let mut rest = chunk.get(..length).unwrap_or_default();
        loop {
            let (result, read, written) = decoder.decode_to_utf8_without_replacement(rest, &mut text, last);
            for byte in text.get(..written).unwrap_or_default() {
                match byte {
                    b'\n' => line += 1,
                    0 => found.has_nul = true,
                    0xe0.. => found.wide += 1,
                    _ => {}
                }
            }
            consumed += read as u64;
            rest = rest.get(read..).unwrap_or_default();
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(bad, after) => {
                    let byte = consumed - u64::from(bad) - u64::from(after);
                    found.first_broken.get_or_insert((line, byte));
                    found.broken += 1;
                }
            }
        }
        if last {
            return Ok(found);
        }
    }
}

fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
        match input.read(free) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The text of an input in UTF-8, ending with a line break. It ends early, with an error, once more than
/// [`ROW_MAX_BYTES`] were read while nobody reset [`Text::spent`].
pub(super) struct Text<R> {
    input: R,
    decoder: Decoder,
    chunk: Vec<u8>,
    text: Vec<u8>,
    given: usize,
    last_byte: u8,
    ended: bool,
    spent: Arc<AtomicU64>,
    drained: Arc<AtomicBool>,
}

impl<R: Read> Text<R> {
    pub(super) fn new(input: R, encoding: &'static Encoding) -> Text<R> {
        Text {
            input,
            decoder: encoding.new_decoder_with_bom_removal(),
            chunk: vec![0; CHUNK_BYTES],
            text: Vec::new(),
            given: 0,
            last_byte: b'\n',
            ended: false,
            spent: Arc::default(),
            drained: Arc::default(),
        }
    }

    /// Bytes given since this was last set to 0.
    pub(super) fn spent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.spent)
    }

    /// Set once somebody has asked for more than there is.
    pub(super) fn drained(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.drained)
    }

    fn refill(&mut self) -> io::Result<()> {
        let length = read_full(&mut self.input, &mut self.chunk)?;
        self.ended = length < self.chunk.len();
        self.text.resize(CHUNK_BYTES * 3 + 16, 0);
        self.given = 0;
        let input = self.chunk.get(..length).unwrap_or_default();
        let (result, _, written) =
            self.decoder.decode_to_utf8_without_replacement(input, &mut self.text, self.ended);
        self.text.truncate(written);
        if result != DecoderResult::InputEmpty {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file changed while it was read"));
        }
        self.last_byte = self.text.last().copied().unwrap_or(self.last_byte);
        if self.ended && self.last_byte != b'\n' {
            self.text.push(b'\n');
        }
        Ok(())
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.spent.load(Ordering::Relaxed) > ROW_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a row without end"));
        }
        while self.given == self.text.len() && !self.ended {
            self.refill()?;
        }
        let rest = self.text.get(self.given..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.given += count;
        if count == 0 && !buffer.is_empty() {
            self.drained.store(true, Ordering::Relaxed);
        }
        self.spent.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn read(bytes: &[u8]) -> Result<String, LedgerError> {
        let mut input = Cursor::new(bytes);
        let encoding = detect(&mut input)?;
        let mut text = String::new();
        Text::new(input, encoding).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn both_encodings_read_the_same() {
        let text = "网格编码,名称\r\n220822101001001,联通\r\n".repeat(3_000);
        let (gb, _, lossy) = GB18030.encode(&text);
        assert!(!lossy);
        assert_eq!(read(&gb).unwrap(), text);
        assert_eq!(read(text.as_bytes()).unwrap(), text);
        assert_eq!(read(format!("\u{feff}{text}").as_bytes()).unwrap(), text);
        assert_eq!(read("一".as_bytes()).unwrap(), "一\n");
        assert_eq!(read(b"").unwrap(), "");
    }

    #[test]
    fn a_broken_character_is_named() {
        let mut bytes = "编码,名称\n1,甲\n2,乙\n".as_bytes().to_vec();
        let at = bytes.len() - 2;
        bytes[at] = b'\n';
        for bom in [&b""[..], b"\xef\xbb\xbf"] {
            let bytes = [bom, &bytes].concat();
            let error = read(&bytes).unwrap_err();
            let LedgerError::Encoding { line: 3, byte, tried: "UTF-8" } = error else {
                unreachable!("{error}")
            };
            assert_eq!(byte as usize, bom.len() + at - 2);
        }
        let (gb, _, _) = GB18030.encode("编码,名称\n1,甲\n");
        let error = read(&[&gb, &b"2,\xff\n"[..]].concat()).unwrap_err();
        assert!(matches!(error, LedgerError::Encoding { line: 3, byte: 17, .. }), "{error}");
    }

    #[test]
    fn other_files_are_known_by_their_start() {
        for bytes in [&b"PK\x03\x04...."[..], b"\xff\xfea\0", b"\xd0\xcf\x11\xe0", b"a,b\n\0\0"] {
            assert!(matches!(read(bytes), Err(LedgerError::NotText(_))));
        }
    }

    #[test]
    fn characters_across_chunks_are_whole() {
        for lead in 0..4 {
            let text = format!("{}{}\n", "x".repeat(CHUNK_BYTES - lead), "镇𠮷".repeat(9_000));
            assert_eq!(read(text.as_bytes()).unwrap(), text);
            let (gb, _, _) = GB18030.encode(&text);
            assert_eq!(read(&gb).unwrap(), text);
        }
    }
}
