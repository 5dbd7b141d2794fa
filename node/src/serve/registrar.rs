//! What the node lends to enrolment: the authority of its configuration, and what it trusts.
//!
//! The authority's directory is opened for each certificate: the command line may have changed it meanwhile. A
//! certificate that was revoked must never be renewed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use guantong_gateway::division::Division;
use guantong_gateway::invitation::FINGERPRINT_BYTES;
use guantong_gateway::service::{Registrar, RegistrarError, Shown};
use guantong_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::identity::NodeIdentity;
use super::now_ms;
use crate::config;
use crate::identity::lobby::fingerprint;
use crate::identity::pki::dir::{AuthorityDir, DirError};
use crate::identity::pki::{KeyRequest, PkiError, PublicKey, Request, Validity};
use crate::identity::revocation::revokes;
use crate::identity::store::Matter;
use crate::identity::{IdentityStore, Subject};
use crate::links::renewal::due_ms;

/// How often the top of a tree looks whether its own certificate is due.
const OWN_INTERVAL: Duration = Duration::from_secs(60);

/// The registrar of a node.
pub(super) struct NodeRegistrar {
    identity: Option<Arc<IdentityStore>>,
    authority: Option<config::Authority>,
    trust: watch::Sender<Arc<v1::Trust>>,
}

impl NodeRegistrar {
    pub(super) fn new(
        identity: Option<&Arc<NodeIdentity>>,
        authority: Option<config::Authority>,
    ) -> Arc<NodeRegistrar> {
        let identity = identity.map(|identity| identity.store.clone());
        let trust = identity.as_deref().map(message).unwrap_or_default();
        Arc::new(NodeRegistrar { identity, authority, trust: watch::Sender::new(Arc::new(trust)) })
    }

    /// Passes on each change of what the node trusts, until `stop`.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let Some(identity) = self.identity.clone() else { return stop.cancelled().await };
        let mut replaced = identity.subscribe();
        loop {
            let now = Arc::new(message(&identity));
            self.trust.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
            tokio::select! {
                Ok(()) = replaced.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Renews the node's own certificate from its own authority whenever it is due, until `stop`: for the top of a tree,
    /// where no parent does.
    pub(super) async fn renew_own(self: Arc<Self>, stop: CancellationToken) {
        let Some(identity) = self.identity.clone().filter(|_| self.authority.is_some()) else {
            return stop.cancelled().await;
        };
        loop {
            if due_ms(identity.current().certificate()) <= now_ms() {
                let (registrar, store) = (self.clone(), identity.clone());
                let renewed = tokio::task::spawn_blocking(move || registrar.renew_store(&store)).await;
                let problem = renewed.unwrap_or_else(|_| Err(anyhow!("it ended"))).err();
                let note =
                    |problem| format!("the certificate could not be renewed: {problem:#} (证书续期失败)");
                identity.note(Matter::Renewal, problem.map(note));
            }
            tokio::select! {
                () = tokio::time::sleep(OWN_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn renew_store(&self, store: &IdentityStore) -> anyhow::Result<()> {
        let current = store.current();
        let own = current.certificate();
        let division = current.id().subject.division().context("this is no node's certificate")?;
        let addresses = own.addresses.iter().map(ToString::to_string);
        let hosts: Vec<String> = own.dns_names.iter().cloned().chain(addresses).collect();
        let new = KeyRequest::new()?;
        let certificate = self.certify(&new.request_pem, division, &hosts)?;
        store.renew(&certificate, &new.key_pem)?;
        tracing::info!(
            "the certificate was renewed by the node's own authority (证书已由本节点签发机构续期)"
        );
        Ok(())
    }

    fn open(&self) -> Result<(AuthorityDir, &config::Authority), RegistrarError> {
        let authority = self.authority.as_ref().ok_or(RegistrarError::NoAuthority)?;
        Ok((AuthorityDir::open(&authority.dir).map_err(failed)?, authority))
    }

    fn certify(
        &self,
        signing_request: &str,
        division: Division,
        hosts: &[String],
    ) -> Result<String, RegistrarError> {
        let (dir, settings) = self.open()?;
        let request = request_of(division, hosts, settings.certificate_days)?;
        let signed = dir.sign_request(signing_request, &request).map_err(failed)?;
        Ok(signed.certificate_pem)
    }
}

fn message(identity: &IdentityStore) -> v1::Trust {
    let current = identity.current();
    let trust = current.trust();
    v1::Trust { authorities: trust.authorities.clone(), revocation_lists: trust.revocations.clone() }
}

fn request_of(division: Division, hosts: &[String], days: u32) -> Result<Request, RegistrarError> {
    let unacceptable = |error: &dyn std::error::Error| RegistrarError::Unacceptable(error.to_string());
    let subject = Subject::node(division).map_err(|error| unacceptable(&error))?;
    let mut request = Request::new(subject, Validity::days(days));
    for host in hosts {
        request = request.host(host).map_err(|error| unacceptable(&error))?;
    }
    Ok(request)
}

/// What is wrong with a request is for the caller to put right, all else for this node's operator.
fn failed(error: DirError) -> RegistrarError {
    match &error {
        DirError::Pki(
            PkiError::Request
            | PkiError::RequestSignature
            | PkiError::WeakKey
            | PkiError::Host(_)
            | PkiError::Name(_)
            | PkiError::OutsideScope { .. },
        ) => RegistrarError::Unacceptable(error.to_string()),
        _ => {
            tracing::error!("the authority cannot be used: {error} (签发机构不可用)");
            RegistrarError::Failed("its operator finds the reason in the log (原因见上级日志)".to_owned())
        }
    }
}

impl Registrar for NodeRegistrar {
    fn may_invite(
        &self,
        division: Division,
        hosts: &[String],
    ) -> Result<[u8; FINGERPRINT_BYTES], RegistrarError> {
        let (dir, settings) = self.open()?;
        request_of(division, hosts, settings.certificate_days)?;
        let scope = dir.authority().scope();
        if !scope.covers(division) {
            let text =
                format!("{division} lies outside {scope}, for which this node's authority is (超出签发范围)");
            return Err(RegistrarError::Unacceptable(text));
        }
        let current = self.identity.as_ref().map(|identity| identity.current());
        let anchor = current.as_ref().and_then(|current| current.anchor());
        anchor.map(fingerprint).ok_or_else(|| {
            RegistrarError::Failed("the node's own certificate does not end in a root it trusts".to_owned())
        })
    }

    fn key_hash(&self, signing_request: &str) -> Result<[u8; 32], RegistrarError> {
        let key = PublicKey::of_request(signing_request);
        let key = key.map_err(|error| RegistrarError::Unacceptable(error.to_string()))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &key.spki_der());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Ok(hash)
    }

    fn sign(
        &self,
        signing_request: &str,
        division: Division,
        hosts: &[String],
    ) -> Result<String, RegistrarError> {
        self.certify(signing_request, division, hosts)
    }

    fn renew(&self, signing_request: &str, shown: &Shown) -> Result<String, RegistrarError> {
        let (dir, _) = self.open()?;
        // What was revoked a moment ago has not cut the connection yet.
        let lists = dir.revocations().map_err(failed)?;
        let known = self.identity.as_ref().map(|identity| identity.current());
        let known = known.as_ref().map_or("", |known| known.trust().revocations.as_str());
        if [lists.as_str(), known].into_iter().any(|lists| revokes(lists, &shown.serial)) {
            return Err(RegistrarError::Revoked);
        }
        self.certify(signing_request, shown.division, &shown.hosts)
    }

    fn trust(&self) -> watch::Receiver<Arc<v1::Trust>> {
        self.trust.subscribe()
    }
}
