//! Whether the log that SQLite keeps beside its file is whole. SQLite reads a log up to the first frame that is not as it
//! was written, and takes the rest for what was never confirmed. That is true after a power cut, but not where a disk changed
//! what it had confirmed: the store would then be put back in silence. Damage of the last two transactions looks like a power
//! cut, and only peers that have them notice it.
//!
//! The form is <https://www.sqlite.org/fileformat2.html#walformat>. It must never call damaged what a power cut can leave,
//! and never change anything.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use super::replace;

const HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;
/// The first number of a log; the lowest bit says that its checksums are made of big-endian numbers.
const MAGIC: u32 = 0x377f_0682;
/// Of our stores' pages, where the head does not say it.
const PAGE_BYTES: usize = 4096;
/// Read at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// What makes the generations of a log different.
type Salts = [u8; 8];

/// The checksum of everything up to a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Checksum(u32, u32);

impl Checksum {
    /// That of what follows, too; `bytes` has a multiple of 8.
    fn then(self, bytes: &[u8], is_big: bool) -> Checksum {
        let number = |four: &[u8]| {
            let four = four.try_into().unwrap_or_default();
            if is_big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
        };
        bytes.chunks_exact(8).fold(self, |Checksum(one, other), eight| {
            let one = one.wrapping_add(number(&eight[..4])).wrapping_add(other);
            Checksum(one, other.wrapping_add(number(&eight[4..])).wrapping_add(one))
        })
    }
}

/// A page that was written.
struct Frame {
    salts: Salts,
    /// It has a place in the database: not zeros that a file system left.
    is_page: bool,
    /// The last one of a transaction.
    commits: bool,
    /// What it says.
    stated: Checksum,
    /// What follows for it from what the one before says.
    follows: bool,
}

/// What is wrong with the log of the database at `path`. `None`: nothing; or what a power cut may have left.
///
/// # Errors
/// It cannot be read.
pub(super) fn damage(path: &Path) -> io::Result<Option<String>> {
    match File::open(replace::beside(path, "-wal")) {
        Ok(file) => judge(BufReader::with_capacity(BUFFER_BYTES, file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What was confirmed was on disk before anything was written behind it. So it is damage where a frame is not as it was
/// written and, behind it, a transaction ends and another begins.
fn judge(mut log: impl Read) -> io::Result<Option<String>> {
    let mut head = [0; HEAD_BYTES];
    if !filled(&mut log, &mut head)? {
        return Ok(None);
    }
    let magic = u32_at(&head, 0);
    let (is_big, page_bytes) = (magic & 1 == 1, u32_at(&head, 8) as usize);
    let stated = Checksum(u32_at(&head, 24), u32_at(&head, 28));
    let is_whole = magic & !1 == MAGIC
        && stated == Checksum::default().then(&head[..24], is_big)
        && (512..=65_536).contains(&page_bytes);
    if !is_whole {
        let is_big = cfg!(target_endian = "big");
        return Ok(has_frames(log, is_big)?.then(|| "the beginning of its log".to_owned()));
    }
    let own = salts_at(&head, 16);
    let (mut before, mut bad, mut ended) = (stated, None, false);
    for number in 1_u64.. {
        let Some(frame) = next(&mut log, before, is_big, page_bytes)? else { break };
        let of_now = frame.salts == own && frame.is_page;
        match bad {
            None if of_now && frame.follows => {}
            None => bad = Some(number),
            Some(bad) if ended && of_now && frame.follows => {
                return Ok(Some(format!("page {bad} of its log")));
            }
            Some(_) => {}
        }
        ended = bad.is_some() && of_now && frame.commits;
        before = frame.stated;
    }
    Ok(None)
}

/// Whether frames of one generation follow each other: then a head was there when they were written.
fn has_frames(mut log: impl Read, is_big: bool) -> io::Result<bool> {
    let Some(mut last) = next(&mut log, Checksum::default(), is_big, PAGE_BYTES)? else { return Ok(false) };
    while let Some(frame) = next(&mut log, last.stated, is_big, PAGE_BYTES)? {
        if frame.follows && frame.is_page && frame.salts == last.salts {
            return Ok(true);
        }
        last = frame;
    }
    Ok(false)
}

/// The next frame; `None`: there is none, or not all of it.
fn next(log: &mut impl Read, before: Checksum, is_big: bool, page_bytes: usize) -> io::Result<Option<Frame>> {
    let mut bytes = vec![0; FRAME_HEAD_BYTES + page_bytes];
    if !filled(log, &mut bytes)? {
        return Ok(None);
    }
    let stated = Checksum(u32_at(&bytes, 16), u32_at(&bytes, 20));
    let computed = before.then(&bytes[..8], is_big).then(&bytes[FRAME_HEAD_BYTES..], is_big);
    Ok(Some(Frame {
        salts: salts_at(&bytes, 8),
        is_page: u32_at(&bytes, 0) != 0,
        commits: u32_at(&bytes, 4) != 0,
        stated,
        follows: stated == computed,
    }))
}

/// Fills the buffer. False: the file ends before.
fn filled(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn salts_at(bytes: &[u8], at: usize) -> Salts {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
    use sqlx::{ConnectOptions, Connection};

    const FRAME_BYTES: usize = FRAME_HEAD_BYTES + PAGE_BYTES;

    /// A log of so many transactions, as SQLite wrote it.
    async fn written(transactions: u32) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let mut conn: SqliteConnection = options.connect().await.unwrap();
        sqlx::raw_sql("CREATE TABLE t (a)").execute(&mut conn).await.unwrap();
        for number in 1..transactions {
            let write = sqlx::query("INSERT INTO t VALUES (?), (zeroblob(9000))").bind(number);
            write.execute(&mut conn).await.unwrap();
        }
        let log = std::fs::read(replace::beside(&path, "-wal")).unwrap();
        conn.close().await.unwrap();
        log
    }

    fn found(log: &[u8]) -> Option<String> {
        judge(log).unwrap()
    }

    fn frames(log: &[u8]) -> usize {
        (log.len() - HEAD_BYTES) / FRAME_BYTES
    }

    /// The last frame of a transaction, counted from the last one.
    fn end_of(log: &[u8], back: usize) -> usize {
        let commits = |frame: &usize| u32_at(log, HEAD_BYTES + frame * FRAME_BYTES + 4) != 0;
        (0..frames(log)).rev().filter(commits).nth(back).unwrap()
    }

    #[tokio::test]
    async fn whatever_is_changed_in_what_was_confirmed_is_found() {
        let log = written(6).await;
        assert_eq!(found(&log), None);
        let confirmed = end_of(&log, 2);
        assert!(confirmed > 5);
        for frame in 0..=confirmed {
            for at in [0, 9, 17, FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + 77, FRAME_BYTES - 1] {
                let mut changed = log.clone();
                changed[HEAD_BYTES + frame * FRAME_BYTES + at] ^= 0x40;
                let expected = format!("page {} of its log", frame + 1);
                assert_eq!(found(&changed), Some(expected), "at {at}");
            }
        }
        for at in 0..HEAD_BYTES {
            let mut changed = log.clone();
            changed[at] ^= 0x40;
            // Nothing is made of the numbers in between but the checksum, which covers them.
            assert_eq!(found(&changed).as_deref(), Some("the beginning of its log"), "at {at}");
        }
    }

    #[tokio::test]
    async fn what_a_power_cut_leaves_is_no_damage() {
        let log = written(6).await;
        // Cut off anywhere.
        for bytes in (0..log.len()).step_by(397) {
            assert_eq!(found(&log[..bytes]), None, "{bytes} bytes");
        }
        // Of the last transaction any page may be missing, or half there: it was never confirmed.
        let confirmed = end_of(&log, 1);
        for frame in confirmed + 1..frames(&log) {
            let mut torn = log.clone();
            let at = HEAD_BYTES + frame * FRAME_BYTES;
            torn[at + 512..at + FRAME_BYTES].fill(0);
            assert_eq!(found(&torn), None, "{frame}");
            torn[at..at + 512].fill(0);
            assert_eq!(found(&torn), None, "{frame}");
        }
        // Nothing of it but room on the disk.
        let mut empty = log.clone();
        empty[HEAD_BYTES + (confirmed + 1) * FRAME_BYTES..].fill(0);
        assert_eq!(found(&empty), None);
        assert_eq!(found(&vec![0; log.len()]), None);
        // What an earlier generation left behind the present one.
        let other = written(9).await;
        let mut older = log.clone();
        older.extend_from_slice(&other[log.len()..]);
        assert_eq!(found(&older), None);
    }
}
