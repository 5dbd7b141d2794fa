//! The record of what an authority signed: one line for each certificate and each revocation, only ever appended to.
//!
//! It must never lose a certificate that was handed out: what is not recorded could not be revoked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::Path;

use super::dir::DirError;

/// One line of the record.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Event {
    Issued { serial: String, id: String, not_after_ms: u64, at_ms: u64 },
    Revoked { serial: String, at_ms: u64 },
}

/// A certificate that was issued here.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IssuedEntry {
    /// Its serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// Whom it is for; for an authority, its scope.
    pub id: String,
    /// When it runs out, Unix time in milliseconds.
    pub not_after_ms: u64,
    /// When it was revoked, Unix time in milliseconds.
    pub revoked_at_ms: Option<u64>,
}

/// Adds a line; it is on disk when this returns.
pub(super) fn append(path: &Path, event: &Event) -> Result<(), DirError> {
    let append = || {
        // A line end on both sides keeps a torn line before it apart.
        let line = format!("\n{}\n", serde_json::to_string(event).map_err(io::Error::other)?);
        let mut file = fs::OpenOptions::new().append(true).open(path)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()
    };
    append().map_err(|source| DirError::File { path: path.to_owned(), source })
}

/// Everything in the record, by serial number.
pub(super) fn read(path: &Path) -> Result<Vec<IssuedEntry>, DirError> {
    let file = fs::File::open(path).map_err(|source| DirError::File { path: path.to_owned(), source })?;
    let mut entries = BTreeMap::new();
    for (index, line) in io::BufReader::new(file).lines().enumerate() {
        let unreadable = || DirError::Record { path: path.to_owned(), line: index + 1 };
        let line = line.map_err(|_| unreadable())?;
        if !line.ends_with('}') {
            // Torn by a crash, so the certificate was never handed out.
            continue;
        }
        match serde_json::from_str(&line).map_err(|_| unreadable())? {
            Event::Issued { serial, id, not_after_ms, .. } => {
                let entry = IssuedEntry { serial: serial.clone(), id, not_after_ms, revoked_at_ms: None };
                entries.insert(serial, entry);
            }
            Event::Revoked { serial, at_ms } => {
                let entry: &mut IssuedEntry = entries.get_mut(&serial).ok_or_else(unreadable)?;
                entry.revoked_at_ms.get_or_insert(at_ms);
            }
        }
    }
    Ok(entries.into_values().collect())
}
