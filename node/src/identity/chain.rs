//! The check of a whole chain, on both sides of a connection and again whenever the rules change.
//!
//! The library builds the path and checks signatures, dates, usages and revocation. Here, for the very path that it
//! found, is added what X.509 cannot say: every authority lies inside the one above it, a node inside its issuer's
//! scope, and an operator's or partner's certificate is used at a node inside its issuer's scope. It must never accept
//! what the library refuses, and never tell a peer more than the alert.

use std::cell::Cell;
use std::collections::HashSet;

use guantong_gateway::division::Division;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertificateError, OtherError};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::certificate::{Certificate, CertificateProblem};
use super::provider;
use super::scope::Scope;
use super::spiffe::{SpiffeId, Subject, TrustDomain};
use super::words::Fault;

/// What limits the authorities of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorityScope {
    /// The scope in each one's certificate; one without is refused. So it is with authorities of `guantong pki`.
    #[default]
    Certificate,
    /// Nothing but the identity in the certificates they sign, where theirs name no scope: an existing PKI, or SPIRE.
    Unlimited,
}

/// What a peer does with its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// It opened the connection.
    Dials,
    /// It accepted the connection.
    Serves,
}

/// A trusted authority, next to what the library keeps of it.
#[derive(Debug)]
struct Anchor {
    /// `None`: whatever it signs, in the unlimited mode.
    scope: Option<Scope>,
    not_after_ms: u64,
}

/// The rules for the chains of peers. Made once for an identity.
#[derive(Debug)]
pub(super) struct ChainCheck {
    limit: AuthorityScope,
    trust_domain: TrustDomain,
    /// Where certificates of operators and partners are used; `None` where no node is.
    here: Option<Division>,
    anchors: Vec<TrustAnchor<'static>>,
    known: Vec<Anchor>,
    lists: Vec<CertRevocationList<'static>>,
    /// The keys of the issuers whose certificates can be checked for revocation, or need not be.
    covered: HashSet<Vec<u8>>,
}

/// Why a chain is refused here, carried through the library to where refusals are put into words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the chain is refused: {}", .0.code())]
pub(super) struct ChainRefused(pub(super) Fault);

/// What is trusted, and who asks.
pub(super) struct Trust<'t> {
    pub(super) id: &'t SpiffeId,
    pub(super) limit: AuthorityScope,
    pub(super) authorities: &'t [CertificateDer<'static>],
    pub(super) lists: Vec<CertRevocationList<'static>>,
    /// The keys of the issuers that the lists are of, and of those that are excused from having one.
    pub(super) covered: HashSet<Vec<u8>>,
}

impl ChainCheck {
    /// # Errors
    /// Which authority cannot be used, and why.
    pub(super) fn new(trust: Trust<'_>) -> Result<ChainCheck, AnchorError> {
        let trust_domain = trust.id.trust_domain.clone();
        let mut anchors = Vec::with_capacity(trust.authorities.len());
        let mut known = Vec::with_capacity(trust.authorities.len());
        for der in trust.authorities {
            let certificate = Certificate::read(der)?;
            let scope = scope_of(&certificate).filter(|scope| scope.trust_domain == trust_domain);
            if scope.is_none() && trust.limit == AuthorityScope::Certificate {
                return Err(AnchorError::NoScope(certificate.subject));
            }
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(AnchorError::Unusable)?;
            known.push(Anchor { scope, not_after_ms: certificate.not_after_ms });
            anchors.push(anchor.to_owned());
        }
        Ok(ChainCheck {
            limit: trust.limit,
            trust_domain,
            here: trust.id.subject.division(),
            anchors,
            known,
            lists: trust.lists,
            covered: trust.covered,
        })
    }

    /// Checks a chain, the holder's certificate first. The inner error: the chain is sound, but its holder has no
    /// identity.
    pub(super) fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<Result<SpiffeId, CertificateProblem>, rustls::Error> {
        let parsed = EndEntityCert::try_from(end_entity).map_err(of_library)?;
        let certificate = Certificate::read(end_entity);
        let holder = certificate.as_ref().map_err(Clone::clone).and_then(Certificate::identity);
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        // An issuer without a list is for `check_path` to judge: the library knows no exceptions.
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
        let refused = Cell::new(None);
        let judge = |path: &VerifiedPath<'_>| {
            let judged = self.check_path(path, certificate.as_ref().ok(), holder.as_ref().ok(), now);
            let judged = judged.and_then(|()| self.check_covered(path, usage));
            judged.map_err(|fault| {
                refused.set(Some(fault));
                // The library then looks for another path; ours is the reason if there is none.
                webpki::Error::UnknownIssuer
            })
        };
        let purpose = match usage {
            Usage::Dials => KeyUsage::client_auth(),
            Usage::Serves => KeyUsage::server_auth(),
        };
        let algorithms = provider().signature_verification_algorithms.all;
        let verified = parsed.verify_for_usage(
            algorithms,
            &self.anchors,
            intermediates,
            now,
            purpose,
            revocation,
            Some(&judge),
        );
        match (verified.map(|_| ()), refused.take()) {
            (Ok(()), _) => Ok(holder),
            (Err(webpki::Error::UnknownIssuer), Some(Fault::RevocationUnknown)) => {
                Err(CertificateError::UnknownRevocationStatus.into())
            }
            (Err(webpki::Error::UnknownIssuer), Some(fault)) => {
                Err(CertificateError::Other(OtherError(std::sync::Arc::new(ChainRefused(fault)))).into())
            }
            (Err(error), _) => Err(of_library(error)),
        }
    }

    /// Whether the holder of a server's certificate is reached by this name.
    pub(super) fn check_name(
        end_entity: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> Result<(), rustls::Error> {
        let parsed = EndEntityCert::try_from(end_entity).map_err(of_library)?;
        parsed.verify_is_valid_for_subject_name(name).map_err(of_library)
    }

    /// The trust domain that identities are of.
    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whether all roots have ended.
    pub(super) fn has_ended(&self, now_ms: u64) -> bool {
        self.known.iter().all(|anchor| anchor.not_after_ms < now_ms)
    }

    /// Ours, on a path that is sound otherwise.
    fn check_path(
        &self,
        path: &VerifiedPath<'_>,
        holder: Option<&Certificate>,
        id: Option<&SpiffeId>,
        now: UnixTime,
    ) -> Result<(), Fault> {
        let anchor = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
        let Some(anchor) = anchor.and_then(|at| self.known.get(at)) else {
            return Err(Fault::UnknownAuthority);
        };
        if anchor.not_after_ms / 1000 < now.as_secs() {
            return Err(Fault::AuthorityOutOfDate);
        }
        if holder.is_some_and(|holder| holder.key.is_weak()) {
            return Err(Fault::WeakKey);
        }
        let mut scope = anchor.scope.clone();
        // From the root down to the holder's issuer.
        for authority in path.intermediate_certificates().rev() {
            let certificate = Certificate::read(&authority.der()).map_err(|_| Fault::Unacceptable)?;
            if certificate.key.is_weak() {
                return Err(Fault::WeakKey);
            }
            scope = self.narrowed(scope, scope_of(&certificate))?;
        }
        let Some(division) = scope.and_then(|scope| scope.division) else { return Ok(()) };
        let used_at = match id.map(|id| &id.subject) {
            Some(Subject::Node(node)) => Some(*node),
            Some(Subject::Partner(_) | Subject::Operator(_)) => self.here,
            None => None,
        };
        match used_at {
            Some(used_at) if !division.contains(used_at) => Err(Fault::OutsideScope(division)),
            _ => Ok(()),
        }
    }

    /// The scope below an authority that names this one, inside that of the one above it.
    fn narrowed(&self, above: Option<Scope>, named: Option<Scope>) -> Result<Option<Scope>, Fault> {
        match (above, named) {
            (Some(above), Some(named)) if above.contains(&named) => Ok(Some(named)),
            (Some(_), Some(_)) => Err(Fault::AuthorityScope),
            (above, None) if self.limit == AuthorityScope::Unlimited => Ok(above),
            (None, named) if self.limit == AuthorityScope::Unlimited => Ok(named),
            _ => Err(Fault::AuthorityScope),
        }
    }

    /// Once there are lists, every issuer of a peer that is let in needs one. A server that is dialled is excused: it
    /// is the parent, from which lists and new authorities come, and a node that was away while an authority was added
    /// or replaced must find back. That server's chain is checked against the lists at hand all the same.
    fn check_covered(&self, path: &VerifiedPath<'_>, usage: Usage) -> Result<(), Fault> {
        if self.lists.is_empty() || usage == Usage::Serves {
            return Ok(());
        }
        // A root without a list does not get past the loading of the lists, unless it has expired.
        let mut issuers = path.intermediate_certificates().map(webpki::Cert::subject_public_key_info);
        match issuers.all(|key| self.covered.contains(key.as_ref())) {
            true => Ok(()),
            false => Err(Fault::RevocationUnknown),
        }
    }
}

/// Why a trusted authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnchorError {
    #[error(transparent)]
    Certificate(#[from] CertificateProblem),
    /// Holds its subject.
    #[error("no scope of this trust domain: {0}")]
    NoScope(String),
    #[error("{0}")]
    Unusable(webpki::Error),
}

/// What an authority's certificate says that it may vouch for.
pub(super) fn scope_of(certificate: &Certificate) -> Option<Scope> {
    match certificate.uris.as_slice() {
        [uri] => Scope::parse(uri).ok(),
        _ => None,
    }
}

/// The library's errors, as far as they differ in words or alert, in the terms of TLS.
fn of_library(error: webpki::Error) -> rustls::Error {
    use webpki::Error;
    let error = match error {
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => CertificateError::BadEncoding,
        Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Error::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        Error::InvalidCertValidity => CertificateError::Expired,
        Error::UnknownIssuer => CertificateError::UnknownIssuer,
        Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Error::CertRevoked => CertificateError::Revoked,
        Error::UnknownRevocationStatus
        | Error::IssuerNotCrlSigner
        | Error::InvalidCrlSignatureForPublicKey
        | Error::CrlExpired { .. } => CertificateError::UnknownRevocationStatus,
        Error::CertNotValidForName(context) => CertificateError::NotValidForNameContext {
            expected: context.expected,
            presented: context.presented,
        },
        Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(std::sync::Arc::new(other))),
    };
    error.into()
}
