//! An authority: makes the certificates of nodes, partners and operators, and lists the revoked ones.
//!
//! This file makes texts; [`dir`] keeps them on disk. Times are arguments. An authority must never issue for an
//! identity outside its trust domain, a serial number twice, or a certificate that outlives its own.

pub mod dir;

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{Certificate, CertificateProblem};
use super::revocation::RevocationList;
use super::spiffe::{SpiffeError, SpiffeId, Subject, TrustDomain};

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

/// An issued certificate with its key, all in PEM. The key exists nowhere else.
#[derive(Clone)]
pub struct Issued {
    /// Whom it is for.
    pub id: SpiffeId,
    /// Its serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// When it runs out, Unix time in milliseconds.
    pub not_after_ms: u64,
    /// The certificate.
    pub certificate_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
    /// The authority that signed it.
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

/// An authority with its key, in memory.
pub struct Authority {
    trust_domain: TrustDomain,
    certificate: Certificate,
    certificate_pem: String,
    validity: Validity,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority with a key of its own. The common name gets a random part, because two authorities of one
    /// name confuse every check of a chain.
    ///
    /// # Errors
    /// [`PkiError::Random`] or [`PkiError::Library`].
    pub fn create(
        trust_domain: TrustDomain,
        common_name: &str,
        validity: Validity,
    ) -> Result<Authority, PkiError> {
        let mut unique = [0; 4];
        getrandom::fill(&mut unique).map_err(|_| PkiError::Random)?;
        let mut params = CertificateParams::default();
        params.not_before = validity.not_before;
        params.not_after = validity.not_after;
        params.serial_number = Some(random_serial()?);
        params.distinguished_name =
            common_name_of(&format!("{common_name} {:08x}", u32::from_be_bytes(unique)));
        params.subject_alt_names = vec![SanType::URI(trust_domain.uri().try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        let key_pem = key.serialize_pem();
        Authority::from_pem(&certificate.pem(), &key_pem)
    }

    /// Reads an authority from PEM.
    ///
    /// # Errors
    /// Says what is wrong with it; see [`PkiError`].
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Authority, PkiError> {
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| CertificateProblem::NotPem)?;
        let certificate = Certificate::read(&der)?;
        let key = KeyPair::from_pem(key_pem)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateProblem::Unreadable)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::KeyMismatch);
        }
        let trust_domain = match certificate.uris.as_slice() {
            [uri] if certificate.is_authority => {
                uri.strip_prefix("spiffe://").ok_or(PkiError::NotAnAuthority)?
            }
            _ => return Err(PkiError::NotAnAuthority),
        };
        Ok(Authority {
            trust_domain: TrustDomain::parse(trust_domain)?,
            validity: Validity {
                not_before: parsed.validity().not_before.to_datetime(),
                not_after: parsed.validity().not_after.to_datetime(),
            },
            certificate_pem: certificate_pem.to_owned(),
            issuer: Issuer::from_ca_cert_der(&der, key)?,
            certificate,
        })
    }

    /// The trust domain it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its own certificate's names and dates.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its own certificate in PEM: what every node of the trust domain is given.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its key in PEM (PKCS #8). Whoever has it can be any node.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// A name that is not allowed, an authority out of date, or a failure of the library; see [`PkiError`].
    pub fn issue(&self, request: &Request) -> Result<Issued, PkiError> {
        let id = SpiffeId { trust_domain: self.trust_domain.clone(), subject: request.subject.clone() };
        // Subjects can be put together by hand; only what reads back as itself is signed.
        if SpiffeId::parse(&id.to_string())? != id {
            return Err(SpiffeError::Name.into());
        }
        let not_after = request.validity.not_after.min(self.validity.not_after);
        let not_before = request.validity.not_before.max(self.validity.not_before);
        if not_after <= not_before {
            return Err(PkiError::AuthorityOutOfDate);
        }
        let mut params = CertificateParams::default();
        params.not_before = not_before;
        params.not_after = not_after;
        params.serial_number = Some(random_serial()?);
        params.distinguished_name = common_name_of(&id.subject.to_string().replace('/', " "));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        if matches!(id.subject, Subject::Node(_)) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            for name in &request.dns_names {
                params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
            }
            params.subject_alt_names.extend(request.addresses.iter().copied().map(SanType::IpAddress));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let signed = params.signed_by(&key, &self.issuer)?;
        let certificate = Certificate::read(signed.der())?;
        Ok(Issued {
            id,
            serial: certificate.serial,
            not_after_ms: certificate.not_after_ms,
            certificate_pem: signed.pem(),
            key_pem: key.serialize_pem(),
            authority_pem: self.certificate_pem.clone(),
        })
    }

    /// Makes a revocation list in PEM. Its number must be greater than that of every list before it.
    ///
    /// # Errors
    /// [`PkiError::Serial`] for a serial number that is not hexadecimal, or a failure of the library.
    pub fn revocation_list(
        &self,
        revoked: &[Revoked],
        number: u64,
        validity: Validity,
    ) -> Result<String, PkiError> {
        let entries: Result<Vec<_>, _> = revoked
            .iter()
            .map(|entry| {
                Ok::<_, PkiError>(RevokedCertParams {
                    serial_number: SerialNumber::from(serial_bytes(&entry.serial)?),
                    revocation_time: entry.at,
                    reason_code: None,
                    invalidity_date: None,
                })
            })
            .collect();
        let list = CertificateRevocationListParams {
            this_update: validity.not_before,
            next_update: validity.not_after,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: entries?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// The list in a text in PEM form, its signature not looked at.
pub fn read_list_pem(pem: &[u8]) -> Option<RevocationList> {
    let der = rustls::pki_types::CertificateRevocationListDer::from_pem_slice(pem).ok()?;
    RevocationList::read(&der)
}

fn common_name_of(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// 126 random bits after a leading 1: positive, and of one length, so that its text is too.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn serial_bytes(text: &str) -> Result<Vec<u8>, PkiError> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 40 {
        return Err(PkiError::Serial);
    }
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'));
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(PkiError::Serial)
        })
        .collect()
}
