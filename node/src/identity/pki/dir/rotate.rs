//! A root replaced by a new one, while nodes that know only the old one go on.
//!
//! The new root signs from now on. Its key is also signed by the old root (a cross certificate, sent along with every
//! chain), so that whoever trusts the old one only accepts what the new one signs. Both roots go to everyone until the
//! old one ends. The old root keeps its record and its revocation list in `previous/`: it must never be lost before it
//! has expired, or what it signed could not be revoked.
//!
//! All files of the new root are made in a directory beside, `rotation.new`; it becomes `rotation` in one step, and then its
//! files go to their places. What is interrupted before that step is made again; after it, [`settle`] goes on.

use std::fs;
use std::path::Path;

use super::super::authority::Authority;
use super::super::files::{Lock, make_dir, read, write};
use super::super::record::{self, Event};
use super::super::{PkiError, Validity};
use super::{AUTHORITIES, AUTHORITY, AUTHORITY_KEY, AuthorityDir, DirError, ISSUED, REVOCATIONS};
use crate::identity::certificate::{Certificate, CertificateProblem};
use crate::identity::now_ms;

const PREVIOUS: &str = "previous";
/// The files of a new root while they are made, and when they are complete.
const UNFINISHED: &str = "rotation.new";
const ROTATION: &str = "rotation";

impl AuthorityDir {
    /// The root that this one replaces, as long as it has not expired.
    ///
    /// # Errors
    /// What is wrong with its files.
    pub fn previous(&self) -> Result<Option<AuthorityDir>, DirError> {
        let dir = self.dir.join(PREVIOUS);
        if !dir.exists() {
            return Ok(None);
        }
        let previous = AuthorityDir::open(&dir)?;
        Ok(Some(previous).filter(|previous| previous.authority.certificate().not_after_ms >= now_ms()))
    }

    /// Replaces a root by a new one with a key of its own. Returns the new one, in the same directory.
    ///
    /// # Errors
    /// [`PkiError::NotARoot`], [`DirError::Rotating`] while the replacement before this one has not come to its end, or a
    /// failed file operation.
    pub fn rotate(&self, validity: Validity) -> Result<AuthorityDir, DirError> {
        let _lock = Lock::take(&self.dir)?;
        settle(&self.dir)?;
        let old = AuthorityDir::open(&self.dir)?;
        if let Some(previous) = old.previous()? {
            return Err(DirError::Rotating(previous.authority.certificate().not_after_ms));
        }
        if !old.authority.is_root() {
            return Err(PkiError::NotARoot.into());
        }
        let new = Authority::create(old.authority.trust_domain().clone(), "Guantong authority", validity)?;
        let cross = old.authority.sign_root(&new)?;
        let signed = Certificate::read_pem(cross.as_bytes())
            .map_err(|problem: CertificateProblem| PkiError::from(problem))?;
        old.record_issued(&signed.serial, &new.scope().to_string(), signed.not_after_ms)?;
        let trusted = format!("{}{}", new.certificate_pem(), old.authority.trusted_pem());
        let certificate = format!("{}{cross}", new.certificate_pem());
        let made = self.dir.join(UNFINISHED);
        let failed = |source| DirError::File { path: made.clone(), source };
        if made.exists() {
            fs::remove_dir_all(&made).map_err(failed)?;
        }
        make_dir(&made)?;
        old.keep_as_previous(&made.join(PREVIOUS))?;
        write(&made.join(AUTHORITY_KEY), new.key_pem().as_bytes(), 0o600)?;
        write(&made.join(AUTHORITY), certificate.as_bytes(), 0o644)?;
        write(&made.join(AUTHORITIES), trusted.as_bytes(), 0o644)?;
        write(&made.join(ISSUED), b"", 0o600)?;
        write(&made.join(REVOCATIONS), read(&self.dir.join(REVOCATIONS))?.as_bytes(), 0o644)?;
        AuthorityDir::open(&made)?.write_list(&[])?;
        fs::rename(&made, self.dir.join(ROTATION)).map_err(failed)?;
        sync(&self.dir)?;
        settle(&self.dir)?;
        AuthorityDir::open(&self.dir)
    }

    fn keep_as_previous(&self, previous: &Path) -> Result<(), DirError> {
        make_dir(previous)?;
        for (name, mode) in
            [(ISSUED, 0o600), (AUTHORITY_KEY, 0o600), (AUTHORITY, 0o644), (REVOCATIONS, 0o644)]
        {
            write(&previous.join(name), read(&self.dir.join(name))?.as_bytes(), mode)?;
        }
        write(&previous.join(AUTHORITIES), self.authority.trusted_pem().as_bytes(), 0o644)
    }

    /// Adds a certificate to the record.
    pub(super) fn record_issued(&self, serial: &str, id: &str, not_after_ms: u64) -> Result<(), DirError> {
        let event =
            Event::Issued { serial: serial.to_owned(), id: id.to_owned(), not_after_ms, at_ms: now_ms() };
        record::append(&self.dir.join(ISSUED), &event)
    }
}

/// Whether a replacement was interrupted when it was decided already.
pub(super) fn is_unsettled(dir: &Path) -> bool {
    dir.join(ROTATION).exists()
}

/// Puts the files of a new root in their places, as far as that was not done. For whoever holds the lock.
pub(super) fn settle(dir: &Path) -> Result<(), DirError> {
    let rotation = dir.join(ROTATION);
    if !is_unsettled(dir) {
        return Ok(());
    }
    let moved = |from: &Path, to: &Path| {
        fs::rename(from, to).map_err(|source| DirError::File { path: to.to_owned(), source })
    };
    let previous = dir.join(PREVIOUS);
    if rotation.join(PREVIOUS).exists() {
        if previous.exists() {
            // It has expired; its record is kept for whoever wants to look something up.
            let serial = AuthorityDir::open(&previous)?.authority.certificate().serial.clone();
            moved(&previous, &dir.join(format!("expired-{serial}")))?;
        }
        moved(&rotation.join(PREVIOUS), &previous)?;
    }
    for name in [AUTHORITY_KEY, AUTHORITY, AUTHORITIES, ISSUED, REVOCATIONS] {
        if rotation.join(name).exists() {
            moved(&rotation.join(name), &dir.join(name))?;
        }
    }
    fs::remove_dir_all(&rotation).map_err(|source| DirError::File { path: rotation, source })?;
    sync(dir)
}

/// New names must survive a power loss, too.
fn sync(dir: &Path) -> Result<(), DirError> {
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| DirError::File { path: dir.to_owned(), source })
}
