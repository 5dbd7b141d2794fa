//! The log in a file: JSON lines that anybody can check. First the checkpoints, then for each chain a line that says
//! whose it is, and its entries:
//!
//! ```text
//! {"checkpoint":{"kept_by":"parent","division":"220822101000","slot":0,"epoch":"…","number":40,"hash":"…","time_ms":1,"signature":"…","certificates":"…"}}
//! {"chain":{"division":"220822101000","slot":0,"entries":41}}
//! {"hash":"…","line":"{\"number\":1,\"time_ms\":1,\"event\":\"started\", …}"}
//! ```
//!
//! Bytes are hexadecimal. hash(0) = SHA-256("guantong audit log 1\n" division "\n" slot "\n"), and each hash is
//! SHA-256(hash before, 32 bytes || SHA-256(the string `line`)). What a checkpoint's signature is over is said at
//! `guantong_gateway::audit::Checkpoint::statement`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use guantong_gateway::audit::{Hash, Row};
use guantong_proto::v1;
use serde::{Deserialize, Serialize};

use super::super::Outcome;
use super::super::progress::{Watched, bar};
use super::super::report::Report;
use super::judge::{Judge, Keeper};

/// The longest line, in bytes. Those of a program are a hundred times shorter.
const LINE_MAX_BYTES: u64 = 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Checkpoint { checkpoint: Checkpoint },
    Chain { chain: Chain },
    Entry { hash: String, line: String },
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    kept_by: String,
    division: String,
    slot: i32,
    epoch: String,
    number: i64,
    hash: String,
    time_ms: i64,
    signature: String,
    certificates: String,
}

#[derive(Serialize, Deserialize)]
struct Chain {
    division: String,
    slot: i32,
    entries: u64,
}

/// What stands in every entry's line.
#[derive(Deserialize)]
struct Common {
    number: u64,
    time_ms: u64,
    event: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

/// A file that is written.
pub(super) struct Export {
    out: BufWriter<File>,
    entries: u64,
}

impl Export {
    /// A new file; one that is there is not written over.
    pub(super) fn create(path: &Path) -> anyhow::Result<Export> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.with_context(|| format!("cannot write {} (无法写入)", path.display()))?;
        Ok(Export { out: BufWriter::new(file), entries: 0 })
    }

    fn write(&mut self, line: &Line) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        Ok(self.out.write_all(b"\n")?)
    }

    pub(super) fn checkpoint(&mut self, keeper: Keeper, sent: &v1::AuditCheckpoint) -> anyhow::Result<()> {
        let time = sent.time.unwrap_or_default();
        let checkpoint = Checkpoint {
            kept_by: keeper.word().to_owned(),
            division: sent.division.clone(),
            slot: sent.slot,
            epoch: format!("{:016x}", sent.epoch),
            number: sent.number,
            hash: hex(&sent.hash),
            time_ms: time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000),
            signature: hex(&sent.signature),
            certificates: hex(&sent.certificates),
        };
        self.write(&Line::Checkpoint { checkpoint })
    }

    pub(super) fn chain(&mut self, chain: &v1::AuditChain) -> anyhow::Result<()> {
        let (division, slot) = (chain.division.clone(), chain.slot);
        self.write(&Line::Chain {
            chain: Chain { division, slot, entries: chain.entry_count.unsigned_abs() },
        })
    }

    pub(super) fn entry(&mut self, entry: &v1::AuditEntry) -> anyhow::Result<()> {
        self.entries += 1;
        self.write(&Line::Entry { hash: hex(&entry.hash), line: entry.line.clone() })
    }

    /// Puts it on disk and gives the number of entries.
    pub(super) fn finish(mut self) -> anyhow::Result<u64> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        Ok(self.entries)
    }
}

impl Checkpoint {
    fn read(&self) -> Option<(Keeper, v1::AuditCheckpoint)> {
        let keeper = match self.kept_by.as_str() {
            "own" => Keeper::Own,
            "parent" => Keeper::Parent,
            _ => return None,
        };
        let nanos = i32::try_from(self.time_ms.rem_euclid(1_000)).ok()? * 1_000_000;
        let sent = v1::AuditCheckpoint {
            division: self.division.clone(),
            slot: self.slot,
            epoch: u64::from_str_radix(&self.epoch, 16).ok()?,
            number: self.number,
            hash: unhex(&self.hash)?.into(),
            time: Some(prost_types::Timestamp { seconds: self.time_ms.div_euclid(1_000), nanos }),
            signature: unhex(&self.signature)?.into(),
            certificates: unhex(&self.certificates)?.into(),
        };
        Some((keeper, sent))
    }
}

/// Checks a file.
pub(super) fn verify(path: &Path) -> anyhow::Result<Report> {
    let file = File::open(path).with_context(|| format!("cannot read {} (无法读取)", path.display()))?;
    let bar = bar(file.metadata().map_or(0, |metadata| metadata.len()));
    let lines = BufReader::new(Watched::new(file, bar.clone()));
    let judge = judge(lines).with_context(|| format!("{} (无法校验)", path.display()))?;
    bar.finish_and_clear();
    Ok(judge.report())
}

/// Whether an export is as it was written; nobody is asked.
///
/// # Errors
/// What is no export, and which line.
pub fn is_intact(export: impl BufRead) -> anyhow::Result<bool> {
    Ok(judge(export)?.report().outcome == Outcome::Done)
}

fn judge(mut export: impl BufRead) -> anyhow::Result<Judge> {
    let mut judge = Judge::default();
    let mut slot = 0;
    let mut next = 1;
    let mut text = Vec::new();
    for at in 1.. {
        text.clear();
        let wrong = || format!("line {at} is not one of an export (不是导出的内容)");
        // One byte more than a line may have.
        export.by_ref().take(LINE_MAX_BYTES + 1).read_until(b'\n', &mut text).with_context(wrong)?;
        if text.is_empty() {
            break;
        }
        anyhow::ensure!(text.len() as u64 <= LINE_MAX_BYTES, "{}: it is longer than 1 MiB", wrong());
        match serde_json::from_slice(&text).with_context(wrong)? {
            Line::Checkpoint { checkpoint } => {
                let (keeper, sent) = checkpoint.read().with_context(wrong)?;
                judge.take(keeper, vec![sent])?;
            }
            Line::Chain { chain } => {
                slot = i64::from(chain.slot);
                next = 1;
                judge.begin(&chain.division, slot, chain.entries)?;
            }
            Line::Entry { hash, line } => {
                let hash = Hash::parse(&hash).with_context(wrong)?;
                // A line that says nothing of itself does not fit its hash either, or never did.
                let said = serde_json::from_str(&line);
                let Common { number, time_ms, event } =
                    said.unwrap_or(Common { number: next, time_ms: 0, event: String::new() });
                next = number.saturating_add(1);
                judge.entry(slot, &Row { number, time_ms, event, line, hash });
            }
        }
    }
    Ok(judge)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::judge::row;
    use super::*;

    #[test]
    fn a_line_that_has_no_end_is_not_read_to_its_end() {
        let error = is_intact(BufReader::new(std::io::repeat(b' '))).unwrap_err();
        assert!(error.to_string().contains("longer than 1 MiB"), "{error}");
        let error =
            is_intact(&b"{\"chain\":{\"division\":\"22\",\"slot\":0,\"entries\":0}}\nx\n"[..]).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn times_that_no_clock_shows_are_not_reckoned_with() {
        let time = Some(prost_types::Timestamp { seconds: i64::MIN, nanos: i32::MIN });
        let entry = v1::AuditEntry { number: 1, time, hash: vec![0; 32].into(), ..v1::AuditEntry::default() };
        assert_eq!(row(&entry).unwrap().time_ms, u64::MAX);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut export = Export::create(&path).unwrap();
        export.checkpoint(Keeper::Own, &v1::AuditCheckpoint { time, ..Default::default() }).unwrap();
        export.finish().unwrap();
        assert!(std::fs::read_to_string(path).unwrap().contains("-9223372036854775808"));
    }
}
