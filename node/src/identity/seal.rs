//! Signing with the node's TLS key, for what must be provable later: checkpoints of the audit log.
//!
//! A signature is two bytes, the TLS signature scheme, and the signature itself. What is signed always begins with words
//! of its own, so that no signature of TLS is ever one of these. The key never leaves this module and the library.

use std::sync::Arc;
use std::time::Duration;

use guantong_gateway::audit::Signed;
use guantong_gateway::division::Division;
use guantong_gateway::service::Seal;
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::SigningKey;
use webpki::EndEntityCert;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::Certificate;
use super::chain::Usage;
use super::spiffe::Subject;
use super::tls::Identity;
use super::{IdentityStore, provider};

/// Certificates of one chain, at most.
const CHAIN_MAX: usize = 8;

/// The key that signs, and the chain that it is checked with.
pub(super) struct Signing {
    key: Arc<dyn SigningKey>,
    chain: Vec<u8>,
}

impl Signing {
    pub(super) fn new(
        chain: &[CertificateDer<'_>],
        key: &PrivateKeyDer<'static>,
    ) -> Result<Signing, rustls::Error> {
        let key = provider().key_provider.load_private_key(key.clone_key())?;
        Ok(Signing { key, chain: chain.iter().flat_map(|der| der.iter().copied()).collect() })
    }

    fn sign(&self, statement: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let schemes: Vec<SignatureScheme> =
            provider().signature_verification_algorithms.mapping.iter().map(|(scheme, _)| *scheme).collect();
        let signer = self.key.choose_scheme(&schemes).ok_or("the key cannot sign")?;
        let mut signature = u16::from(signer.scheme()).to_be_bytes().to_vec();
        signature.extend(signer.sign(statement).map_err(|error| error.to_string())?);
        Ok((signature, self.chain.clone()))
    }
}

/// Certificates that stand one after the other, DER.
fn certificates(mut bytes: &[u8]) -> Result<Vec<CertificateDer<'_>>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (rest, _) = X509Certificate::from_der(bytes).map_err(|_| "its certificates cannot be read")?;
        if found.len() == CHAIN_MAX {
            return Err("it has too many certificates".to_owned());
        }
        found.push(CertificateDer::from(&bytes[..bytes.len() - rest.len()]));
        bytes = rest;
    }
    Ok(found)
}

/// Whether the key of the first certificate signed a statement, and the certificate is that of the division's node. Who
/// issued it is not asked.
///
/// # Errors
/// Why not, in plain words.
pub fn check_signature(division: Division, statement: &[u8], signed: &Signed) -> Result<(), String> {
    check_signer(&chain_of(division, &signed.certificates)?, statement, &signed.signature)
}

/// The certificates of a division's node, its own first.
fn chain_of(division: Division, certificates: &[u8]) -> Result<Vec<CertificateDer<'_>>, String> {
    let chain = self::certificates(certificates)?;
    let own = chain.first().ok_or("it comes without a certificate")?;
    let id = Certificate::read(own).and_then(|read| read.identity()).map_err(|error| error.to_string())?;
    if id.subject != Subject::Node(division) {
        return Err(format!("its certificate is not that of the node {division}"));
    }
    Ok(chain)
}

fn check_signer(chain: &[CertificateDer<'_>], statement: &[u8], signature: &[u8]) -> Result<(), String> {
    let own = chain.first().ok_or("it comes without a certificate")?;
    let (scheme, signature) = signature.split_at_checked(2).ok_or("it has no signature")?;
    let scheme = SignatureScheme::from(u16::from_be_bytes([scheme[0], scheme[1]]));
    let algorithms = provider().signature_verification_algorithms;
    let known = algorithms.mapping.iter().find(|(known, _)| *known == scheme);
    let algorithms = known.map(|(_, algorithms)| *algorithms).unwrap_or_default();
    let parsed = EndEntityCert::try_from(own).map_err(|_| "its certificate cannot be read")?;
    let fits = algorithms.iter().any(|a| parsed.verify_signature(*a, statement, signature).is_ok());
    if fits { Ok(()) } else { Err("its signature does not fit".to_owned()) }
}

impl Identity {
    /// Whether a chain was trusted at that time.
    fn check_chain(&self, chain: &[CertificateDer<'_>], time_ms: u64) -> Result<(), String> {
        let (own, others) = chain.split_first().ok_or("it comes without a certificate")?;
        let then = UnixTime::since_unix_epoch(Duration::from_millis(time_ms));
        match self.chain.check(own, others, then, Usage::Dials) {
            Ok(Ok(id)) if id.trust_domain == *self.chain.trust_domain() => Ok(()),
            Ok(_) => Err("its certificate is of another trust domain".to_owned()),
            Err(error) => Err(super::Trouble::of_tls(&error).to_string()),
        }
    }
}

/// The identity of each moment, as what signs.
pub struct NodeSeal(pub Arc<IdentityStore>);

impl Seal for NodeSeal {
    fn sign(&self, statement: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        self.0.current().signing.sign(statement)
    }

    fn verify(
        &self,
        division: Division,
        time_ms: u64,
        statement: &[u8],
        signature: &[u8],
        certificates: &[u8],
    ) -> Result<(), String> {
        let chain = chain_of(division, certificates)?;
        check_signer(&chain, statement, signature)?;
        self.0.current().check_chain(&chain, time_ms)
    }

    fn trusts(&self, division: Division, time_ms: u64, certificates: &[u8]) -> Result<(), String> {
        self.0.current().check_chain(&chain_of(division, certificates)?, time_ms)
    }
}
