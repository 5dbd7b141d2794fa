//! Which clients a handshake lets in.
//!
//! It must never weaken the library's own check; it only adds to it.

use std::sync::Arc;

use rustls::client::VerifierBuilderError;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
};

use super::certificate::Certificate;
use super::provider;
use super::spiffe::TrustDomain;

/// The library's check of a client's chain and revocation, and after it that the certificate has one identity of this
/// trust domain: so the handshake itself fails for others, and they get an alert that says why.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    trust_domain: TrustDomain,
    chain: Arc<dyn ClientCertVerifier>,
}

impl PeerVerifier {
    /// For peers of this trust domain whose chains end in one of these authorities.
    pub(super) fn new(
        trust_domain: TrustDomain,
        roots: &Arc<RootCertStore>,
        lists: &[CertificateRevocationListDer<'static>],
    ) -> Result<PeerVerifier, VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .with_crls(lists.iter().cloned())
            .only_check_end_entity_revocation()
            // The names of the authorities are nobody's business who has no certificate yet.
            .clear_root_hint_subjects()
            .build()?;
        Ok(PeerVerifier { trust_domain, chain })
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let id = Certificate::read(end_entity)
            .and_then(|certificate| certificate.identity())
            .map_err(|problem| CertificateError::Other(OtherError(Arc::new(problem))))?;
        if id.trust_domain != self.trust_domain {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
