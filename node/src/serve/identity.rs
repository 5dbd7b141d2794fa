//! The node's own certificate: checked against the configuration, read again when it changes.
//!
//! A certificate that is worse than the one in use never replaces it; what was wrong with it is shown until it is put
//! right.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::identity::words::beijing_time;
use crate::identity::{IdentityFiles, IdentityStore, Subject};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The identity in use, and what became of the last reload.
pub(super) struct NodeIdentity {
    pub(super) store: Arc<IdentityStore>,
    last_problem: Mutex<Option<String>>,
}

impl NodeIdentity {
    /// Loads what the configuration names. `None`: it names nothing, so the node talks to nobody outside its machine.
    pub(super) fn open(config: &Config) -> anyhow::Result<Option<Arc<NodeIdentity>>> {
        let Some(tls) = &config.tls else { return Ok(None) };
        let store = IdentityStore::open(tls.files()).context("`tls` (证书)")?;
        let identity = store.current();
        let id = identity.id();
        if id.subject != Subject::Node(config.division) || id.trust_domain != config.trust_domain {
            bail!(
                "`tls.certificate` is that of {id}, but `division` and `trust_domain` say spiffe://{}/node/{}; \
                 correct them, or issue another certificate (证书与本节点的区划或信任域不符)",
                config.trust_domain,
                config.division
            );
        }
        Ok(Some(Arc::new(NodeIdentity { store: Arc::new(store), last_problem: Mutex::default() })))
    }

    /// What an operator should see to.
    pub(super) fn warnings(&self) -> Vec<String> {
        let identity = self.store.current();
        let mut warnings: Vec<String> = identity.warnings().iter().map(ToString::to_string).collect();
        let problem = self.last_problem.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.extend(problem.iter().cloned());
        warnings
    }

    /// Reads the files again on SIGHUP and when they have changed, until `stop`.
    pub(super) async fn watch(self: Arc<Self>, mut hangup: Signal, stop: CancellationToken) {
        let mut seen = marks(self.store.files());
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
                () = stop.cancelled() => return,
            };
            let now = marks(self.store.files());
            if asked || now != seen {
                seen = now;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        let problem = match self.store.reload() {
            Ok(identity) => {
                let until = beijing_time(identity.certificate().not_after_ms);
                tracing::info!(
                    "certificate and revocation list were read again, valid to {until} (证书已重新加载)"
                );
                None
            }
            Err(error) => {
                let text = format!(
                    "the new certificate or list is not used, the old one stays: {error} (新证书未启用)"
                );
                tracing::error!("{text}");
                Some(text)
            }
        };
        *self.last_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// When and how long each file was written last; a change of any is a reason to read them all.
fn marks(files: &IdentityFiles) -> Vec<Option<(SystemTime, u64)>> {
    let paths =
        [Some(&files.certificate), Some(&files.key), Some(&files.authority), files.revocations.as_ref()];
    paths.into_iter().flatten().map(|path| mark(path)).collect()
}

fn mark(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
