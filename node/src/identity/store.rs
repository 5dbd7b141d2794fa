//! The identity in use, and its replacement while the node runs.
//!
//! Who holds an `Arc<Identity>` keeps it; new connections take the current one. A replacement is checked as a whole
//! first: it must never be worse than what it replaces, and open links must never be dropped by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::keeping;
use super::lobby::Expired;
use super::now_ms;
use super::revocation::may_replace;
use super::tls::{Identity, IdentityError, IdentityFiles, IdentityPem};
use super::trust::{NotTaken, Trust};

/// What an operator may have to see to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matter {
    /// Files that were read again.
    Reload,
    /// The own certificate's renewal.
    Renewal,
    /// Roots and lists of the parent or of the own authority.
    Trust,
}

/// The identity in use and the files it came from. Share it as `Arc<IdentityStore>`.
#[derive(Debug)]
pub struct IdentityStore {
    files: IdentityFiles,
    expired: Expired,
    /// Held while files are replaced and read.
    changing: Mutex<()>,
    current: watch::Sender<Arc<Identity>>,
    notes: Mutex<BTreeMap<Matter, String>>,
}

impl IdentityStore {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn open(files: IdentityFiles) -> Result<IdentityStore, IdentityError> {
        IdentityStore::open_with(files, Expired::Refused)
    }

    /// The same, and a certificate that has run out may be kept, to be renewed.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn open_with(files: IdentityFiles, expired: Expired) -> Result<IdentityStore, IdentityError> {
        keeping::settle(&files)?;
        let identity = Arc::new(Identity::load_with(&files, expired)?);
        let current = watch::Sender::new(identity);
        Ok(IdentityStore { files, expired, changing: Mutex::default(), current, notes: Mutex::default() })
    }

    /// The identity in use now.
    pub fn current(&self) -> Arc<Identity> {
        self.current.borrow().clone()
    }

    /// The files it is loaded from.
    pub fn files(&self) -> &IdentityFiles {
        &self.files
    }

    /// Sees each replacement, from the next one on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Identity>> {
        self.current.subscribe()
    }

    /// Keeps in mind what went wrong, or that it is over.
    pub fn note(&self, matter: Matter, problem: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => drop(notes.insert(matter, problem)),
            None => drop(notes.remove(&matter)),
        }
    }

    /// What went wrong and is not over.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Loads the files again and puts them to use, if they are sound, name the same node, and bring no revocation
    /// list that is late or older than the one in use. Open connections stay.
    ///
    /// # Errors
    /// What is wrong with the new files; the old identity stays in use.
    pub fn reload(&self) -> Result<Arc<Identity>, IdentityError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.reload_now()
    }

    fn reload_now(&self) -> Result<Arc<Identity>, IdentityError> {
        keeping::settle(&self.files)?;
        let new = Arc::new(Identity::load_with(&self.files, self.expired)?);
        let old = self.current();
        if new.id() != old.id() {
            return Err(IdentityError::AnotherIdentity {
                expected: old.id().clone(),
                found: new.id().clone(),
            });
        }
        may_replace(new.revocation_lists(), old.revocation_lists(), now_ms())?;
        self.current.send_replace(new.clone());
        Ok(new)
    }

    /// Puts a new certificate and its key in the place of the old ones, in the files and in use. It waits for the disk.
    ///
    /// # Errors
    /// The new pair is not sound, or is somebody else's; or a failed file operation. The old one stays in use.
    pub fn renew(&self, certificate_pem: &str, key_pem: &str) -> Result<Arc<Identity>, IdentityError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current();
        let trust = old.trust();
        let revocations = self.files.revocations.as_ref().map(|_| trust.revocations.as_bytes());
        let new = Identity::from_pem(IdentityPem {
            certificate: certificate_pem.as_bytes(),
            key: key_pem.as_bytes(),
            authority: trust.authorities.as_bytes(),
            revocations,
            authority_scope: self.files.authority_scope,
        })?;
        if new.id() != old.id() {
            return Err(IdentityError::AnotherIdentity {
                expected: old.id().clone(),
                found: new.id().clone(),
            });
        }
        keeping::replace_pair(&self.files, certificate_pem, key_pem)?;
        self.reload_now()
    }

    /// Takes over what is new in an offer of roots and revocation lists, into the files and in use. It waits for the
    /// disk. Gives whether anything was new, and what was not taken.
    ///
    /// # Errors
    /// What is offered would make this node refuse everyone, or a failed file operation; all stays as it was.
    pub fn take_over(&self, offered: &Trust) -> Result<(bool, Vec<NotTaken>), IdentityError> {
        let Some(revocations) = &self.files.revocations else { return Ok((false, Vec::new())) };
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
        };
        let own = Trust::new(&read(&self.files.authority)?, Some(&read(revocations)?));
        let (new, not_taken) = own.with(offered, now_ms());
        if new == own {
            return Ok((false, not_taken));
        }
        // Looked at as a whole before a file is touched.
        Identity::from_pem_with(
            IdentityPem {
                certificate: &read(&self.files.certificate)?,
                key: &read(&self.files.key)?,
                authority: new.authorities.as_bytes(),
                revocations: Some(new.revocations.as_bytes()),
                authority_scope: self.files.authority_scope,
            },
            self.expired,
        )?;
        if new.authorities == own.authorities {
            keeping::replace(revocations, &new.revocations)?;
        } else {
            keeping::replace_trust(&self.files, &new.authorities, &new.revocations)?;
        }
        self.reload_now()?;
        Ok((true, not_taken))
    }
}
