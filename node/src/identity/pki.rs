//! An authority: makes the certificates of nodes, partners and operators, and lists the revoked ones.
//!
//! [`authority`] and [`request`] make texts; [`dir`] keeps them on disk. Times are arguments. An authority must never
//! issue for an identity outside its scope, a serial number twice, or a certificate that outlives its own.

pub mod authority;
pub mod dir;
pub(in crate::identity) mod files;
mod record;
pub mod request;

use std::net::IpAddr;

use guantong_gateway::division::Division;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

pub use authority::{Authority, Below, Renewed};
pub use request::{KeyRequest, PublicKey};

use super::certificate::CertificateProblem;
use super::revocation::RevocationList;
use super::spiffe::{SpiffeError, SpiffeId, Subject};

/// Certificates are valid from a little before now, so that a slow clock does not refuse a new one.
const BACKDATED: Duration = Duration::minutes(5);

/// Why an authority could not do it.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The certificate is not an authority of ours.
    #[error(
        "this is not the certificate of a Guantong authority: it must be an authority's and name its trust domain \
         (不是贯通签发机构的证书)"
    )]
    NotAnAuthority,
    /// Key and certificate of the authority do not belong together.
    #[error("the authority's key does not belong to its certificate (签发机构的私钥与证书不匹配)")]
    KeyMismatch,
    /// A certificate that cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateProblem),
    /// A name that is not one of an identity.
    #[error(transparent)]
    Name(#[from] SpiffeError),
    /// A host name that is neither a DNS name nor an address.
    #[error(
        "«{0}» is neither a host name nor an address; write it without port and scheme (不是主机名或 IP 地址)"
    )]
    Host(String),
    /// The authority itself has run out, or is not valid yet.
    #[error("the authority's own certificate is not valid now; make a new authority (签发机构证书当前无效)")]
    AuthorityOutOfDate,
    /// A division that the authority may not vouch for.
    #[error(
        "{division} does not lie inside {scope}, for which this authority is; use the authority of a division around \
         both (该区划不在本签发机构的范围内)"
    )]
    OutsideScope {
        /// What was asked for.
        division: Division,
        /// What the authority is for.
        scope: Division,
    },
    /// An authority below for the division of the authority itself.
    #[error(
        "this is already the authority of {0}; an authority below it is for a division inside \
         (本机构即为该区划的签发机构，下级机构应为其所辖区划)"
    )]
    SameScope(Division),
    /// An authority that may have none below it.
    #[error(
        "this authority may sign certificates only, no further authorities; if it is a root that an early version \
         made, replace it: guantong pki rotate (该机构只能签发证书，不能再设下级机构)"
    )]
    NoFurtherAuthority,
    /// Not a signing request.
    #[error(
        "this is not a signing request in PEM form; make one with: guantong pki request (不是 PEM 格式的证书签名请求)"
    )]
    Request,
    /// A request whose sender has not shown to have the key.
    #[error(
        "the signing request is not signed by the key it carries; make it anew \
         (签名请求未由其所含密钥签名，请重新生成)"
    )]
    RequestSignature,
    /// A key of a kind that is not accepted.
    #[error("the key must be P-256, P-384 or Ed25519 (密钥须为 P-256、P-384 或 Ed25519)")]
    WeakKey,
    /// A certificate of another authority.
    #[error("this certificate was not signed by this authority (该证书不是由本签发机构签发)")]
    NotOurs,
    /// Only a root is replaced by a new root of its trust domain.
    #[error(
        "only a root is replaced by a new key; for an authority below it: guantong pki issue authority (只有根机构可以轮换)"
    )]
    NotARoot,
    /// A serial number that is not hexadecimal.
    #[error("a serial number is written in hexadecimal digits (序列号应为十六进制数字)")]
    Serial,
    /// No random numbers to be had.
    #[error("the system gives no random numbers (系统无法提供随机数)")]
    Random,
    /// The certificate library refused.
    #[error("the certificate could not be made: {0} (无法生成证书)")]
    Library(#[from] rcgen::Error),
}

/// From when to when something is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: OffsetDateTime,
    /// The last moment.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From five minutes ago for this many days, at least one.
    pub fn days(days: u32) -> Validity {
        let now = OffsetDateTime::now_utc();
        let end = now.checked_add(Duration::days(i64::from(days.max(1))));
        Validity { not_before: now - BACKDATED, not_after: end.unwrap_or(now) }
    }
}

/// What a certificate is issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who.
    pub subject: Subject,
    /// DNS names by which a node is reached; others have none.
    pub dns_names: Vec<String>,
    /// Addresses by which a node is reached; others have none.
    pub addresses: Vec<IpAddr>,
    /// How long. It is cut to the authority's own validity.
    pub validity: Validity,
}

impl Request {
    /// For a node, partner or operator that is not dialled.
    pub fn new(subject: Subject, validity: Validity) -> Request {
        Request { subject, dns_names: Vec::new(), addresses: Vec::new(), validity }
    }

    /// Also reached by this host, a DNS name or an address.
    ///
    /// # Errors
    /// [`PkiError::Host`] if it is neither.
    pub fn host(mut self, host: &str) -> Result<Request, PkiError> {
        if let Ok(address) = host.parse() {
            self.addresses.push(address);
        } else if rustls::pki_types::DnsName::try_from(host).is_ok() {
            self.dns_names.push(host.to_ascii_lowercase());
        } else {
            return Err(PkiError::Host(host.to_owned()));
        }
        Ok(self)
    }
}

/// A certificate for a key that is kept elsewhere, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Whom it is for.
    pub id: SpiffeId,
    /// Its serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// When it runs out, Unix time in milliseconds.
    pub not_after_ms: u64,
    /// The certificate, followed by those of the authorities between it and the root.
    pub certificate_pem: String,
    /// The roots to trust.
    pub authority_pem: String,
}

/// An issued certificate with its key, all in PEM. The key exists nowhere else.
#[derive(Clone)]
pub struct Issued {
    /// Whom it is for.
    pub id: SpiffeId,
    /// Its serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// When it runs out, Unix time in milliseconds.
    pub not_after_ms: u64,
    /// The certificate, followed by those of the authorities between it and the root.
    pub certificate_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
    /// The roots to trust.
    pub authority_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("id", &self.id).field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// A revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// When it was revoked.
    pub at: OffsetDateTime,
}

/// The first list in a text in PEM form, its signature not looked at.
pub fn read_list_pem(pem: &[u8]) -> Option<RevocationList> {
    let der = rustls::pki_types::CertificateRevocationListDer::from_pem_slice(pem).ok()?;
    RevocationList::read(&der)
}
