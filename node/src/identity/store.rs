//! The identity in use, and its replacement while the node runs.
//!
//! Who holds an `Arc<Identity>` keeps it; new connections take the current one. A replacement is checked as a whole
//! first: it must never be worse than what it replaces, and open links must never be dropped by it.

use std::sync::Arc;

use tokio::sync::watch;

use super::now_ms;
use super::revocation::may_replace;
use super::tls::{Identity, IdentityError, IdentityFiles};

/// The identity in use and the files it came from. Share it as `Arc<IdentityStore>`.
#[derive(Debug)]
pub struct IdentityStore {
    files: IdentityFiles,
    current: watch::Sender<Arc<Identity>>,
}

impl IdentityStore {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn open(files: IdentityFiles) -> Result<IdentityStore, IdentityError> {
        let identity = Arc::new(Identity::load(&files)?);
        Ok(IdentityStore { files, current: watch::Sender::new(identity) })
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

    /// Loads the files again and puts them to use, if they are sound, name the same node, and bring no revocation
    /// list that is late or older than the one in use. Open connections stay.
    ///
    /// # Errors
    /// What is wrong with the new files; the old identity stays in use.
    pub fn reload(&self) -> Result<Arc<Identity>, IdentityError> {
        let new = Arc::new(Identity::load(&self.files)?);
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
}
