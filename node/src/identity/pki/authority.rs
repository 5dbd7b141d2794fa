//! An authority with its key, in memory: signs certificates, authorities below it, and revocation lists.
//!
//! It must never sign a name outside its scope, a certificate that outlives its own, or an authority that may vouch
//! for more than itself.

use guantong_gateway::division::{Division, Tier};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::request::PublicKey;
use super::{Issued, PkiError, Request, Revoked, Signed, Validity};
use crate::identity::certificate::{Certificate, CertificateProblem};
use crate::identity::pem;
use crate::identity::scope::Scope;
use crate::identity::spiffe::{SpiffeError, SpiffeId, Subject, TrustDomain};

/// How many authorities may stand between a root and a certificate: one for each of province, prefecture and county,
/// and the cross certificate of a new root that is signed by the old one.
const ROOT_DEPTH: u8 = 4;

/// A certificate signed again; its key and names are those of the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The serial number of the old one.
    pub old_serial: String,
    /// The new one.
    pub signed: Below,
}

/// What an authority signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Below {
    /// The certificate of a node, partner or operator.
    Holder(Signed),
    /// That of an authority, in PEM, followed by those of the authorities above it.
    Authority(String),
}

/// An authority with its key, in memory.
pub struct Authority {
    scope: Scope,
    certificate: Certificate,
    certificate_pem: String,
    /// What stands in a certificate file after the holder's own: the authorities up to the root, not the root itself.
    chain_pem: String,
    trusted_pem: String,
    validity: Validity,
    depth: u8,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new root with a key of its own. The common name gets a random part, because two authorities of one
    /// name confuse every check of a chain.
    ///
    /// # Errors
    /// [`PkiError::Random`] or [`PkiError::Library`].
    pub fn create(
        trust_domain: TrustDomain,
        common_name: &str,
        validity: Validity,
    ) -> Result<Authority, PkiError> {
        let scope = Scope::all(trust_domain);
        let params = authority_params(&scope, &unique(common_name)?, ROOT_DEPTH, validity)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        Authority::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Reads an authority from PEM: its certificate, after it those of the authorities above it. A root needs no more;
    /// one below a root is told by [`trusting`](Self::trusting) what its chain ends in.
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
        let scope = match certificate.uris.as_slice() {
            [uri] if certificate.is_authority => Scope::parse(uri).map_err(|_| PkiError::NotAnAuthority)?,
            _ => return Err(PkiError::NotAnAuthority),
        };
        let constraints = parsed.basic_constraints().map_err(|_| PkiError::NotAnAuthority)?;
        let depth = constraints.and_then(|constraints| constraints.value.path_len_constraint);
        let own = pem::blocks_of(certificate_pem, pem::CERTIFICATE).first().copied().unwrap_or_default();
        Ok(Authority {
            scope,
            validity: Validity {
                not_before: parsed.validity().not_before.to_datetime(),
                not_after: parsed.validity().not_after.to_datetime(),
            },
            depth: depth.map_or(u8::MAX, |depth| u8::try_from(depth).unwrap_or(u8::MAX)),
            chain_pem: chain_of(certificate_pem)?,
            trusted_pem: format!("{own}\n"),
            certificate_pem: certificate_pem.to_owned(),
            issuer: Issuer::from_ca_cert_der(&der, key)?,
            certificate,
        })
    }

    /// With the roots that whoever gets a certificate is told to trust, in PEM.
    pub fn trusting(mut self, roots_pem: &str) -> Authority {
        roots_pem.clone_into(&mut self.trusted_pem);
        self
    }

    /// What it vouches for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The trust domain it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.scope.trust_domain
    }

    /// Whether its certificate is signed by itself.
    pub fn is_root(&self) -> bool {
        self.certificate.subject == self.certificate.issuer
    }

    /// Its own certificate's names and dates.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its own certificate in PEM, followed by those of the authorities above it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The roots of the trust domain in PEM: what every node is given. A root's own certificate, or that of the root
    /// above it.
    pub fn trusted_pem(&self) -> &str {
        &self.trusted_pem
    }

    /// The certificates between one that it signs and the root, in PEM; empty for a root.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// Its key in PEM (PKCS #8). Whoever has it can be any node of its scope.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// As [`sign`](Self::sign).
    pub fn issue(&self, request: &Request) -> Result<Issued, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let signed = self.sign_key(&key, request)?;
        Ok(Issued {
            id: signed.id,
            serial: signed.serial,
            not_after_ms: signed.not_after_ms,
            certificate_pem: signed.certificate_pem,
            key_pem: key.serialize_pem(),
            authority_pem: signed.authority_pem,
        })
    }

    /// Signs the key of a signing request. Only the key is taken from it, and its signature over itself is checked;
    /// every name comes from `request`.
    ///
    /// # Errors
    /// [`PkiError::Request`], [`PkiError::RequestSignature`], [`PkiError::WeakKey`], or as [`sign`](Self::sign).
    pub fn sign_request(&self, request_pem: &str, request: &Request) -> Result<Signed, PkiError> {
        self.sign(&PublicKey::of_request(request_pem)?, request)
    }

    /// Signs a public key.
    ///
    /// # Errors
    /// A name that is not allowed or lies outside the scope, an authority out of date, or a failure of the library;
    /// see [`PkiError`].
    pub fn sign(&self, key: &PublicKey, request: &Request) -> Result<Signed, PkiError> {
        self.sign_key(key.info(), request)
    }

    fn sign_key(&self, key: &impl PublicKeyData, request: &Request) -> Result<Signed, PkiError> {
        let id = SpiffeId { trust_domain: self.trust_domain().clone(), subject: request.subject.clone() };
        // Subjects can be put together by hand; only what reads back as itself is signed.
        if SpiffeId::parse(&id.to_string())? != id {
            return Err(SpiffeError::Name.into());
        }
        if let Some(division) = id.subject.division() {
            self.check_inside(division)?;
        }
        let validity = self.within_own(request.validity)?;
        let mut params = CertificateParams::default();
        params.not_before = validity.not_before;
        params.not_after = validity.not_after;
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
        let signed = params.signed_by(key, &self.issuer)?;
        let certificate = Certificate::read(signed.der())?;
        Ok(Signed {
            id,
            serial: certificate.serial,
            not_after_ms: certificate.not_after_ms,
            certificate_pem: signed.pem() + &self.chain_pem,
            authority_pem: self.trusted_pem.clone(),
        })
    }

    /// Makes an authority for a division inside its own, with a key of its own.
    ///
    /// # Errors
    /// As [`sign_authority`](Self::sign_authority).
    pub fn issue_authority(&self, division: Division, validity: Validity) -> Result<Authority, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = self.sign_authority_key(&key, division, validity)?;
        Ok(Authority::from_pem(&certificate, &key.serialize_pem())?.trusting(&self.trusted_pem))
    }

    /// Signs the key of an authority for a division inside its own. Returns its certificate in PEM, followed by those
    /// of the authorities above it.
    ///
    /// # Errors
    /// [`PkiError::OutsideScope`] for a division that is not inside, [`PkiError::NoFurtherAuthority`] if this one may
    /// have none below it, [`PkiError::AuthorityOutOfDate`], or a failure of the library.
    pub fn sign_authority(
        &self,
        key: &PublicKey,
        division: Division,
        validity: Validity,
    ) -> Result<String, PkiError> {
        self.sign_authority_key(key.info(), division, validity)
    }

    fn sign_authority_key(
        &self,
        key: &impl PublicKeyData,
        division: Division,
        validity: Validity,
    ) -> Result<String, PkiError> {
        let name = unique(&format!("Guantong authority {:012}", division.code()))?;
        self.sign_authority_named(key, division, &name, validity)
    }

    fn sign_authority_named(
        &self,
        key: &impl PublicKeyData,
        division: Division,
        name: &str,
        validity: Validity,
    ) -> Result<String, PkiError> {
        let scope = Scope::of(self.trust_domain().clone(), division)?;
        self.check_inside(division)?;
        if self.scope.division == Some(division) {
            return Err(PkiError::SameScope(division));
        }
        let depth = self.depth.checked_sub(1).ok_or(PkiError::NoFurtherAuthority)?;
        let depth = depth.min(depth_below(division.tier()));
        let mut params = authority_params(&scope, name, depth, self.within_own(validity)?)?;
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.pem() + &self.chain_pem)
    }

    /// Signs the key and names of a certificate again, for a new time. `signer` signed the old one: this authority, or
    /// the root that it replaces.
    ///
    /// # Errors
    /// [`PkiError::NotOurs`] for a certificate of another authority, or as for a new one.
    pub fn renew(
        &self,
        certificate_pem: &str,
        signer: &Authority,
        validity: Validity,
    ) -> Result<Renewed, PkiError> {
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| CertificateProblem::NotPem)?;
        let certificate = Certificate::read(&der)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| CertificateProblem::Unreadable)?;
        let its_key = signer.issuer.key().subject_public_key_info();
        let (_, its_key) =
            SubjectPublicKeyInfo::from_der(&its_key).map_err(|_| CertificateProblem::Unreadable)?;
        let named = certificate.issuer == signer.certificate.subject;
        if !named || parsed.verify_signature(Some(&its_key)).is_err() {
            return Err(PkiError::NotOurs);
        }
        let key = PublicKey::read(parsed.public_key().raw)?;
        if !certificate.is_authority {
            let id = certificate.identity()?;
            let request = Request {
                subject: id.subject,
                dns_names: certificate.dns_names,
                addresses: certificate.addresses,
                validity,
            };
            let signed = self.sign(&key, &request)?;
            return Ok(Renewed { old_serial: certificate.serial, signed: Below::Holder(signed) });
        }
        let uri = certificate.uris.first().map(String::as_str).unwrap_or_default();
        let division = Scope::parse(uri)?.division.ok_or(PkiError::NotOurs)?;
        let name = certificate.subject.trim_start_matches("CN=");
        let certificate_pem = self.sign_authority_named(key.info(), division, name, validity)?;
        Ok(Renewed { old_serial: certificate.serial, signed: Below::Authority(certificate_pem) })
    }

    /// A certificate of a new root's key that this root signs: whoever trusts this one only, accepts by it what the new
    /// one signs, until this one ends.
    ///
    /// # Errors
    /// [`PkiError::NotARoot`] unless both are roots of one trust domain; [`PkiError::AuthorityOutOfDate`].
    pub(super) fn sign_root(&self, new: &Authority) -> Result<String, PkiError> {
        if !self.is_root() || !new.is_root() || self.scope != new.scope {
            return Err(PkiError::NotARoot);
        }
        let name = new.certificate.subject.trim_start_matches("CN=");
        let mut params = authority_params(&new.scope, name, ROOT_DEPTH - 1, self.within_own(new.validity)?)?;
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(new.issuer.key(), &self.issuer)?.pem())
    }

    fn check_inside(&self, division: Division) -> Result<(), PkiError> {
        match self.scope.division {
            Some(scope) if !scope.contains(division) => Err(PkiError::OutsideScope { division, scope }),
            _ => Ok(()),
        }
    }

    /// A validity cut to the authority's own.
    fn within_own(&self, asked: Validity) -> Result<Validity, PkiError> {
        let not_after = asked.not_after.min(self.validity.not_after);
        let not_before = asked.not_before.max(self.validity.not_before);
        if not_after <= not_before {
            return Err(PkiError::AuthorityOutOfDate);
        }
        Ok(Validity { not_before, not_after })
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
        f.debug_struct("Authority").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// How many authorities may stand below that of a division: one for each tier between it and a township.
fn depth_below(tier: Tier) -> u8 {
    match tier {
        Tier::Province => 2,
        Tier::Prefecture => 1,
        Tier::County | Tier::Township | Tier::Village => 0,
    }
}

/// All blocks but the root's own.
fn chain_of(certificate_pem: &str) -> Result<String, PkiError> {
    let mut chain = String::new();
    for block in pem::blocks_of(certificate_pem, pem::CERTIFICATE) {
        let certificate = Certificate::read_pem(block.as_bytes())?;
        if certificate.subject != certificate.issuer {
            chain.push_str(block);
            chain.push('\n');
        }
    }
    Ok(chain)
}

/// A name that no other authority has.
fn unique(common_name: &str) -> Result<String, PkiError> {
    let mut unique = [0; 4];
    getrandom::fill(&mut unique).map_err(|_| PkiError::Random)?;
    Ok(format!("{common_name} {:08x}", u32::from_be_bytes(unique)))
}

fn authority_params(
    scope: &Scope,
    common_name: &str,
    depth: u8,
    validity: Validity,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = common_name_of(common_name);
    params.subject_alt_names = vec![SanType::URI(scope.to_string().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
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
