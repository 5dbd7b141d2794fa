//! Whom a handshake lets in, on the accepting side and on the dialling side.
//!
//! Both ask [`super::chain`]; what is here is the library's form of it. It must never weaken that check.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, OtherError};

use super::chain::{ChainCheck, Usage};

/// The part of a verifier that is the same for all: whoever signed the handshake has the certificate's key.
macro_rules! signatures_of_handshakes {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                cert,
                dss,
                &$crate::identity::provider().signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                cert,
                dss,
                &$crate::identity::provider().signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::identity::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}
pub(super) use signatures_of_handshakes;

/// Lets in whoever has a sound chain and one identity of the own trust domain: so the handshake itself fails for
/// others, and they get an alert.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub(super) Arc<ChainCheck>);

/// Accepts servers with a sound chain that are reached by the name they were dialled by. Who the server is, is for
/// the dialler to compare.
#[derive(Debug)]
pub(super) struct ServerVerifier(pub(super) Arc<ChainCheck>);

impl ClientCertVerifier for ClientVerifier {
    /// None: the names of the authorities are nobody's business who has no certificate yet.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let holder = self.0.check(end_entity, intermediates, now, Usage::Dials)?;
        let id = holder.map_err(|problem| CertificateError::Other(OtherError(Arc::new(problem))))?;
        if id.trust_domain != *self.0.trust_domain() {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    signatures_of_handshakes!();
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let holder = self.0.check(end_entity, intermediates, now, Usage::Serves)?;
        ChainCheck::check_name(end_entity, server_name)?;
        holder.map_err(|problem| CertificateError::Other(OtherError(Arc::new(problem))))?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_handshakes!();
}
