//! A root replaced by a new one, while nodes that know only the old one go on.
//!
//! The new root signs from now on. Its key is also signed by the old root (a cross certificate, sent along with every
//! chain), so that whoever trusts the old one only accepts what the new one signs. Both roots go to everyone until the
//! old one ends. The old root keeps its record and its revocation list in `previous/`: it must never be lost before it
//! has expired, or what it signed could not be revoked. If this is interrupted, the files of `previous/` are whole: copy
//! them back and start again.

use std::fs;

use super::super::authority::Authority;
use super::super::files::{Lock, make_dir, read, write};
use super::super::record::{self, Event};
use super::super::{PkiError, Validity};
use super::{AUTHORITIES, AUTHORITY, AUTHORITY_KEY, AuthorityDir, DirError, ISSUED, REVOCATIONS};
use crate::identity::certificate::{Certificate, CertificateProblem};
use crate::identity::now_ms;

const PREVIOUS: &str = "previous";

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
        old.keep_as_previous()?;
        let trusted = format!("{}{}", new.certificate_pem(), old.authority.trusted_pem());
        let certificate = format!("{}{cross}", new.certificate_pem());
        // The key and the certificate first: with them the record and the list are those of the new root.
        write(&self.dir.join(AUTHORITY_KEY), new.key_pem().as_bytes(), 0o600)?;
        write(&self.dir.join(AUTHORITY), certificate.as_bytes(), 0o644)?;
        write(&self.dir.join(AUTHORITIES), trusted.as_bytes(), 0o644)?;
        write(&self.dir.join(ISSUED), b"", 0o600)?;
        let made = AuthorityDir::open(&self.dir)?;
        made.write_list(&[])?;
        Ok(made)
    }

    fn keep_as_previous(&self) -> Result<(), DirError> {
        let previous = self.dir.join(PREVIOUS);
        if previous.exists() {
            // It has expired; its record is kept for whoever wants to look something up.
            let serial = AuthorityDir::open(&previous)?.authority.certificate().serial.clone();
            let aside = self.dir.join(format!("expired-{serial}"));
            fs::rename(&previous, &aside).map_err(|source| DirError::File { path: aside, source })?;
        }
        make_dir(&previous)?;
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
