//! The chain of hashes. Each gateway of a node has a chain of its own, so that none waits for another; its number is the
//! gateway's slot.
//!
//! hash(0) = SHA-256("guantong audit log 1\n" DIVISION "\n" SLOT "\n"), both as decimal digits;
//! hash(n) = SHA-256(hash(n-1) || SHA-256(line n)), where line n is the entry's bytes without a line break.
//!
//! The inner hash lets somebody check that a later entry follows an earlier one without seeing what the entries say: a
//! parent does so with what its children sign.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::division::Division;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// From 32 bytes.
    pub fn of_bytes(bytes: &[u8]) -> Option<Hash> {
        bytes.try_into().ok().map(Hash)
    }

    /// From 64 hexadecimal digits.
    pub fn parse(digits: &str) -> Option<Hash> {
        let mut bytes = [0; 32];
        let pairs = digits.as_bytes().chunks_exact(2);
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Hash(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a chain begins from.
pub fn origin(own: Division, slot: i64) -> Hash {
    digest(&format!("guantong audit log 1\n{own}\n{slot}\n"))
}

/// The hash over a line by itself.
pub fn digest(line: &str) -> Hash {
    Hash(Sha256::digest(line.as_bytes()).into())
}

/// The hash of an entry: over that of the one before, and over its own line.
pub fn extend(before: Hash, digest: Hash) -> Hash {
    Hash(Sha256::new().chain_update(before.0).chain_update(digest.0).finalize().into())
}

/// How far a chain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry's number; 0: none yet.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
}

/// An entry as it is stored or exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number, from 1 without gaps.
    pub number: u64,
    /// Unix milliseconds, as the line says it.
    pub time_ms: u64,
    /// The event's name, as the line says it.
    pub event: String,
    /// What is hashed.
    pub line: String,
    /// The entry's hash.
    pub hash: Hash,
}

/// Why a chain is broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing.
    #[error("entry {expected} is missing; after it comes {found} (缺少第 {expected} 条)")]
    Missing {
        /// The number that should be there.
        expected: u64,
        /// The next that is.
        found: u64,
    },
    /// The line, or one before it, is not what was hashed.
    #[error("entry {number} is not what was written: its hash does not fit (第 {number} 条被改动)")]
    Changed {
        /// The entry's number.
        number: u64,
    },
    /// The line says something else than what is stored beside it.
    #[error(
        "entry {number} is kept under another number, time or event than its own (第 {number} 条的索引被改动)"
    )]
    Misfiled {
        /// The entry's number.
        number: u64,
    },
}

/// The part of a line that every entry has.
#[derive(Deserialize)]
struct Common {
    number: u64,
    time_ms: u64,
    event: String,
}

/// A chain that is made, or checked, entry by entry.
#[derive(Clone, Copy, Debug)]
pub struct Chain(Head);

impl Chain {
    /// A chain that goes on after `head`.
    pub fn after(head: Head) -> Chain {
        Chain(head)
    }

    /// A chain from its beginning.
    pub fn new(own: Division, slot: i64) -> Chain {
        Chain(Head { number: 0, hash: origin(own, slot) })
    }

    /// How far it has come.
    pub fn head(&self) -> Head {
        self.0
    }

    /// Adds an entry.
    pub fn add(&mut self, now_ms: u64, note: &super::Note) -> Row {
        let number = self.0.number + 1;
        let line = super::line(number, now_ms, note);
        let hash = extend(self.0.hash, digest(&line));
        self.0 = Head { number, hash };
        let event = common(&line).map(|common| common.event).unwrap_or_default();
        Row { number, time_ms: note.repeated.map_or(now_ms, |r| r.last_ms), event, line, hash }
    }

    /// Checks the next entry.
    pub fn check(&mut self, row: &Row) -> Result<(), Broken> {
        let expected = self.0.number + 1;
        if row.number != expected {
            return Err(Broken::Missing { expected, found: row.number });
        }
        let hash = extend(self.0.hash, digest(&row.line));
        if hash != row.hash {
            return Err(Broken::Changed { number: row.number });
        }
        let said = common(&row.line);
        let fits = |c: &Common| (c.number, c.time_ms, &c.event) == (row.number, row.time_ms, &row.event);
        if !said.as_ref().is_some_and(fits) {
            return Err(Broken::Misfiled { number: row.number });
        }
        self.0 = Head { number: row.number, hash };
        Ok(())
    }
}

fn common(line: &str) -> Option<Common> {
    serde_json::from_str(line).ok()
}
