//! Reading a certificate: its names, its dates, and the one identity it vouches for.
//!
//! It reads; whether a certificate is signed, revoked or out of date is decided in [`super::tls`]. It must never take
//! an identity from anything but the URI names, and never from a certificate that has two.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::spiffe::{SpiffeError, SpiffeId};

/// RSA keys below this are refused.
const RSA_BITS_MIN: usize = 2048;

/// What is wrong with a certificate as a carrier of an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// Not a certificate in PEM.
    #[error("this is not a certificate in PEM form (不是 PEM 格式的证书)")]
    NotPem,
    /// Not an X.509 certificate.
    #[error("this is not a readable X.509 certificate (不是可读的 X.509 证书)")]
    Unreadable,
    /// The certificate of an authority, which is nobody's identity.
    #[error(
        "this is the certificate of an authority, not of a node, partner or operator \
         (这是签发机构的证书，不是节点、合作方或操作员的证书)"
    )]
    Authority,
    /// No URI name.
    #[error(
        "the certificate carries no identity: it needs one name of the form spiffe://… \
         (证书中没有身份：需要一个 spiffe:// 形式的名称)"
    )]
    NoIdentity,
    /// More than one URI name; holds how many.
    #[error(
        "the certificate carries {0} URI names; exactly one is allowed (证书含有 {0} 个 URI 名称，只允许一个)"
    )]
    ManyIdentities(usize),
    /// A URI name that is not one of our identities.
    #[error("the identity in the certificate is not valid: {0}")]
    Identity(#[from] SpiffeError),
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA with a modulus of so many bits.
    Rsa(usize),
    /// Anything else.
    Other,
}

impl KeyKind {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> KeyKind {
        let curve = || key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        match &key.algorithm.algorithm {
            oid if *oid == OID_KEY_TYPE_EC_PUBLIC_KEY && curve() == Some(OID_EC_P256) => KeyKind::P256,
            oid if *oid == OID_KEY_TYPE_EC_PUBLIC_KEY && curve() == Some(OID_NIST_EC_P384) => KeyKind::P384,
            oid if *oid == OID_SIG_ED25519 => KeyKind::Ed25519,
            _ => match key.parsed() {
                Ok(PublicKey::RSA(key)) => KeyKind::Rsa(key.key_size()),
                _ => KeyKind::Other,
            },
        }
    }

    /// Whether no certificate with such a key is accepted.
    pub fn is_weak(self) -> bool {
        match self {
            KeyKind::P256 | KeyKind::P384 | KeyKind::Ed25519 => false,
            KeyKind::Rsa(bits) => bits < RSA_BITS_MIN,
            KeyKind::Other => true,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyKind::P256 => f.write_str("P-256"),
            KeyKind::P384 => f.write_str("P-384"),
            KeyKind::Ed25519 => f.write_str("Ed25519"),
            KeyKind::Rsa(bits) => write!(f, "RSA {bits}"),
            KeyKind::Other => f.write_str("of a kind that is not accepted"),
        }
    }
}

impl serde::Serialize for KeyKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a certificate says about itself. Times are Unix time in milliseconds; a time before 1970 reads as 0.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Certificate {
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The serial number, in lower-case hexadecimal digits without separators.
    pub serial: String,
    /// Valid from.
    pub not_before_ms: u64,
    /// Valid to.
    pub not_after_ms: u64,
    /// URI names, as they stand.
    pub uris: Vec<String>,
    /// DNS names by which a server is reached.
    pub dns_names: Vec<String>,
    /// Addresses by which a server is reached.
    pub addresses: Vec<IpAddr>,
    /// The kind of its key.
    pub key: KeyKind,
    /// Whether it is an authority's certificate.
    pub is_authority: bool,
    /// Whether it may accept connections.
    pub may_serve: bool,
    /// Whether it may open connections.
    pub may_dial: bool,
}

impl Certificate {
    /// Reads a certificate in DER form.
    ///
    /// # Errors
    /// [`CertificateProblem::Unreadable`].
    pub fn read(der: &[u8]) -> Result<Certificate, CertificateProblem> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateProblem::Unreadable)?;
        if !rest.is_empty() {
            return Err(CertificateProblem::Unreadable);
        }
        let usage = parsed.extended_key_usage().map_err(|_| CertificateProblem::Unreadable)?;
        let usage = usage.map(|extension| extension.value);
        let mut certificate = Certificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: hexadecimal(parsed.raw_serial()),
            not_before_ms: milliseconds(parsed.validity().not_before.timestamp()),
            not_after_ms: milliseconds(parsed.validity().not_after.timestamp()),
            uris: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            key: KeyKind::of(parsed.public_key()),
            is_authority: parsed.is_ca(),
            may_serve: usage.is_none_or(|usage| usage.server_auth || usage.any),
            may_dial: usage.is_none_or(|usage| usage.client_auth || usage.any),
        };
        // A duplicated extension is an error here, not an invitation to pick one of the two.
        let names = parsed.subject_alternative_name().map_err(|_| CertificateProblem::Unreadable)?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::URI(uri) => certificate.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => certificate.dns_names.push((*dns).to_owned()),
                GeneralName::IPAddress(bytes) => certificate.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// Reads the first certificate of a text in PEM form, which in a file is the holder's own.
    ///
    /// # Errors
    /// [`CertificateProblem::NotPem`] or [`CertificateProblem::Unreadable`].
    pub fn read_pem(pem: &[u8]) -> Result<Certificate, CertificateProblem> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| CertificateProblem::NotPem)?;
        Certificate::read(&der)
    }

    /// The one identity that the certificate vouches for.
    ///
    /// # Errors
    /// Says why there is none; see [`CertificateProblem`].
    pub fn identity(&self) -> Result<SpiffeId, CertificateProblem> {
        if self.is_authority {
            return Err(CertificateProblem::Authority);
        }
        match self.uris.as_slice() {
            [] => Err(CertificateProblem::NoIdentity),
            [uri] => Ok(SpiffeId::parse(uri)?),
            several => Err(CertificateProblem::ManyIdentities(several.len())),
        }
    }
}

/// Bytes as lower-case hexadecimal digits; a leading zero byte, which DER adds to keep a number positive, is left out.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since 1970 as milliseconds; earlier is 0.
pub(super) fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
