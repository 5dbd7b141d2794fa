//! Signing requests: made where the key stays, read where the certificate is signed.
//!
//! A request carries a public key and a signature that shows its sender has the private one. It must never lend a
//! name: whom a certificate is for is decided by who signs, not by who asks.

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PublicKeyData as _, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::PkiError;

/// The longest request that is read, in bytes of PEM: several times that of a large RSA key.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A new key and a request for a certificate of it, both in PEM. The key exists nowhere else.
#[derive(Clone)]
pub struct KeyRequest {
    /// The private key, PKCS #8; it stays where it was made.
    pub key_pem: String,
    /// The request, for the authority.
    pub request_pem: String,
}

impl KeyRequest {
    /// Makes a key (P-256) and a request without names.
    ///
    /// # Errors
    /// [`PkiError::Library`], if the system gives no random numbers.
    pub fn new() -> Result<KeyRequest, PkiError> {
        KeyRequest::of(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
    }

    /// The request for a key that was made before.
    ///
    /// # Errors
    /// [`PkiError::Library`], if it is no key in PEM.
    pub fn of_key(key_pem: &str) -> Result<KeyRequest, PkiError> {
        KeyRequest::of(&KeyPair::from_pem(key_pem)?)
    }

    fn of(key: &KeyPair) -> Result<KeyRequest, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request_pem = params.serialize_request(key)?.pem()?;
        Ok(KeyRequest { key_pem: key.serialize_pem(), request_pem })
    }
}

impl std::fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

/// A public key that an authority may sign: P-256, P-384 or Ed25519.
#[derive(Clone, Debug)]
pub struct PublicKey(SubjectPublicKeyInfo);

impl PublicKey {
    /// The key of a request whose sender has shown to have the private one.
    ///
    /// # Errors
    /// [`PkiError::Request`], [`PkiError::RequestSignature`] or [`PkiError::WeakKey`].
    pub fn of_request(request_pem: &str) -> Result<PublicKey, PkiError> {
        if request_pem.len() > REQUEST_BYTES_MAX {
            return Err(PkiError::Request);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(request_pem.as_bytes())
            .map_err(|_| PkiError::Request)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| PkiError::Request)?;
        if !rest.is_empty() {
            return Err(PkiError::Request);
        }
        let key = PublicKey::read(request.certification_request_info.subject_pki.raw)?;
        request.verify_signature().map_err(|_| PkiError::RequestSignature)?;
        Ok(key)
    }

    /// The key in an encoded SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`PkiError::WeakKey`] for a key of another kind.
    pub fn read(spki_der: &[u8]) -> Result<PublicKey, PkiError> {
        let key = SubjectPublicKeyInfo::from_der(spki_der).map_err(|_| PkiError::WeakKey)?;
        let accepted = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
        if accepted.contains(&key.algorithm()) { Ok(PublicKey(key)) } else { Err(PkiError::WeakKey) }
    }

    pub(super) fn info(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }

    /// The encoded SubjectPublicKeyInfo: two keys are the same exactly if these are.
    pub fn spki_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }
}
