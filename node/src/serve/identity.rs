//! The node's own certificate: checked against the configuration, read again when it changes.
//!
//! A certificate that is worse than the one in use never replaces it; what was wrong with it is shown until it is put
//! right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use guantong_gateway::audit::Event;
use guantong_gateway::engine::Engine;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::identity::lobby::Expired;
use crate::identity::pki::dir::AuthorityDir;
use crate::identity::store::Matter;
use crate::identity::trust::Trust;
use crate::identity::words::beijing_time;
use crate::identity::{IdentityFiles, IdentityStore, Subject};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How often the own authority's lists are looked at: what is revoked there must be known within seconds.
const AUTHORITY_INTERVAL: Duration = Duration::from_secs(1);

/// The identity in use, and what became of the last reload.
pub(super) struct NodeIdentity {
    pub(super) store: Arc<IdentityStore>,
    authority: Option<PathBuf>,
}

impl NodeIdentity {
    /// Loads what the configuration names. `None`: it names nothing, so the node talks to nobody outside its machine.
    pub(super) fn open(config: &Config) -> anyhow::Result<Option<Arc<NodeIdentity>>> {
        let Some(tls) = &config.tls else { return Ok(None) };
        // A certificate that has run out is renewed by the parent, if there is one. Where it is reached by files, the node
        // works on until somebody brings a new one.
        let expired = if config.parent.is_some() { Expired::Kept } else { Expired::Refused };
        let store = IdentityStore::open_with(tls.files(), expired).context("`tls` (证书)")?;
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
        let authority = config.authority.as_ref().map(|authority| authority.dir.clone());
        if let Some(dir) = &authority {
            AuthorityDir::open(dir).context("`authority.dir` (签发机构)")?;
        }
        Ok(Some(Arc::new(NodeIdentity { store: Arc::new(store), authority })))
    }

    /// What an operator should see to.
    pub(super) fn warnings(&self) -> Vec<String> {
        let identity = self.store.current();
        let mut warnings: Vec<String> = identity.warnings().iter().map(ToString::to_string).collect();
        warnings.extend(self.store.notes());
        warnings
    }

    /// Reads the files again on SIGHUP and when they have changed, until `stop`.
    pub(super) async fn watch(self: Arc<Self>, engine: Engine, mut hangup: Signal, stop: CancellationToken) {
        let mut seen = marks(self.store.files());
        let mut issued = Vec::new();
        let mut looked = Instant::now();
        loop {
            let now = self.authority_marks();
            if now != issued {
                issued = now;
                if self.take_over_own().await {
                    engine.audit(Event::TrustTakenOver { from: "authority" });
                }
            }
            let wait = self.authority.as_ref().map_or(LOOK_INTERVAL, |_| AUTHORITY_INTERVAL);
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(wait) => false,
                () = stop.cancelled() => return,
            };
            if !asked && looked.elapsed() < LOOK_INTERVAL {
                continue;
            }
            looked = Instant::now();
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
        self.store.note(Matter::Reload, problem);
    }

    /// When the lists and roots of the own authority were written last.
    fn authority_marks(&self) -> Vec<Option<(SystemTime, u64)>> {
        let names = ["revocations.pem", "authorities.pem"];
        self.authority.iter().flat_map(|dir| names.map(|name| mark(&dir.join(name)))).collect()
    }

    /// Takes over what the own authority revoked; from here it goes to the nodes below. Whether anything was new.
    async fn take_over_own(&self) -> bool {
        let Some(dir) = self.authority.clone() else { return false };
        let mut is_new = false;
        let store = self.store.clone();
        let taken = tokio::task::spawn_blocking(move || {
            let [authorities, revocations] = AuthorityDir::open(&dir)?.public_files();
            let offered = Trust::new(&std::fs::read(authorities)?, Some(&std::fs::read(revocations)?));
            anyhow::Ok(store.take_over(&offered)?)
        });
        let problem = match taken.await {
            Ok(Ok((changed, not_taken))) => {
                is_new = changed;
                if changed {
                    tracing::info!(
                        "the authority's revocation list was taken over (已启用签发机构的吊销列表)"
                    );
                }
                not_taken.first().map(ToString::to_string)
            }
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => None,
        };
        let note =
            |problem| format!("the authority's revocation list is not used: {problem} (吊销列表未启用)");
        self.store.note(Matter::Trust, problem.map(note));
        is_new
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
