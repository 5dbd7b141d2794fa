//! Revocation lists, looked at before they are put to use.
//!
//! A peer whose issuer has no list is refused once any list is configured, and the first list that bears the issuer's
//! name counts. So a file whose lists are unsigned or doubled, or that lacks a root's, would lock everyone out; such a
//! file must never get past this one.

use std::collections::HashSet;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{CertificateRevocationList, FromDer, ParsedExtension, X509Certificate};

use super::certificate::{hexadecimal, milliseconds};
use super::pem;

/// Why a set of revocation lists is not put to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// The file has no list in it.
    #[error("the revocation file holds no list in PEM form (吊销列表文件中没有 PEM 格式的列表)")]
    Empty,
    /// Not readable as a list.
    #[error("revocation list {0} in the file is not readable (文件中第 {0} 个吊销列表无法读取)")]
    Unreadable(usize),
    /// Two lists of one authority.
    #[error(
        "there are two revocation lists of «{0}»; keep the newest only (同一签发机构有两个吊销列表，只保留最新的一个)"
    )]
    Doubled(String),
    /// An authority without a list.
    #[error(
        "there is no revocation list of the authority «{0}»: everyone it signed would be refused; \
         add its list (缺少该签发机构的吊销列表，其签发的证书都会被拒绝；请补充)"
    )]
    Missing(String),
    /// Older than the one in use: would let revoked peers back in.
    #[error(
        "the revocation list of «{0}» is older than the one in use, which stays \
         (新的吊销列表比正在使用的还旧，继续使用原列表)"
    )]
    Older(String),
    /// No longer there, while its authority is in force.
    #[error(
        "the revocation list of «{0}» is missing in the new file; the lists in use stay \
         (新文件中缺少该签发机构的吊销列表，继续使用原列表)"
    )]
    Gone(String),
    /// Due for replacement already.
    #[error(
        "the revocation list of «{0}» is out of date; the one in use stays until a current one is there \
         (吊销列表已过期，在有新列表之前继续使用原列表)"
    )]
    Late(String),
}

/// One authority's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// The authority's distinguished name, for people.
    pub issuer: String,
    /// The same as encoded, for comparing.
    issuer_der: Vec<u8>,
    /// Which key signed it, as the list says: two authorities of one name are told apart by it.
    key_id: Vec<u8>,
    /// The number of the list, big-endian without leading zeros; greater is newer.
    number: Vec<u8>,
    /// When it was made, Unix time in milliseconds.
    pub this_update_ms: u64,
    /// When the next one is due, Unix time in milliseconds.
    pub next_update_ms: Option<u64>,
    /// The serial numbers of the revoked certificates, in lower-case hexadecimal digits.
    pub serials: Vec<String>,
    /// What made its authority one, if that is not a root.
    below: Option<Below>,
}

/// The certificate of an authority below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Below {
    issuer_der: Vec<u8>,
    serial: String,
    not_after_ms: u64,
}

impl Below {
    fn of(certificate: &X509Certificate<'_>) -> Below {
        Below {
            issuer_der: certificate.issuer().as_raw().to_vec(),
            serial: hexadecimal(certificate.raw_serial()),
            not_after_ms: milliseconds(certificate.validity().not_after.timestamp()),
        }
    }
}

impl RevocationList {
    /// Reads a list in DER form; its signature is not looked at. `None` if it is not one.
    pub fn read(der: &[u8]) -> Option<RevocationList> {
        let (rest, parsed) = CertificateRevocationList::from_der(der).ok()?;
        rest.is_empty().then(|| RevocationList::of(&parsed))
    }

    fn of(parsed: &CertificateRevocationList<'_>) -> RevocationList {
        RevocationList {
            issuer: parsed.issuer().to_string(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            key_id: key_id(parsed),
            number: parsed.crl_number().map(|number| number.to_bytes_be()).unwrap_or_default(),
            this_update_ms: milliseconds(parsed.last_update().timestamp()),
            next_update_ms: parsed.next_update().map(|time| milliseconds(time.timestamp())),
            serials: parsed
                .iter_revoked_certificates()
                .map(|entry| hexadecimal(entry.raw_serial()))
                .collect(),
            below: None,
        }
    }

    /// Whether the next list was due before now.
    pub fn is_late(&self, now_ms: u64) -> bool {
        self.next_update_ms.is_some_and(|due| due < now_ms)
    }

    /// The number of the list as a number, if it fits.
    pub fn number(&self) -> Option<u64> {
        if self.number.len() > 8 {
            return None;
        }
        Some(self.number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// Whether both say the same, whoever vouches for their authority.
    fn same_as(&self, other: &RevocationList) -> bool {
        RevocationList { below: None, ..self.clone() } == RevocationList { below: None, ..other.clone() }
    }

    fn is_older_than(&self, other: &RevocationList) -> bool {
        let rank = |list: &RevocationList| (list.number.len(), list.number.clone(), list.this_update_ms);
        rank(self) < rank(other)
    }
}

fn key_id(list: &CertificateRevocationList<'_>) -> Vec<u8> {
    let found = list.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(issuer) => issuer.key_identifier.as_ref(),
        _ => None,
    });
    found.map(|id| id.0.to_vec()).unwrap_or_default()
}

/// Whether a list in a text revokes a certificate, by its serial number. No signature is looked at.
pub fn revokes(text: &str, serial: &str) -> bool {
    let lists = pem::blocks_of(text, pem::LIST).into_iter();
    let mut lists =
        lists.filter_map(|block| CertificateRevocationListDer::from_pem_slice(block.as_bytes()).ok());
    lists.any(|der| {
        RevocationList::read(&der).is_some_and(|list| list.serials.iter().any(|one| one == serial))
    })
}

/// Puts the texts of revocation files together: the newest list of each key of an issuer, and each certificate once, in the
/// order of the texts. No signature is looked at; [`check`] does that before lists are used.
pub fn merge<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut lists: Vec<(RevocationList, &str)> = Vec::new();
    let mut certificates: Vec<&str> = Vec::new();
    for block in texts.into_iter().flat_map(pem::blocks) {
        if block.label == pem::CERTIFICATE && !certificates.contains(&block.text) {
            certificates.push(block.text);
        }
        let der = CertificateRevocationListDer::from_pem_slice(block.text.as_bytes());
        let Some(list) = der.ok().and_then(|der| RevocationList::read(&der)) else { continue };
        let same =
            |known: &RevocationList| known.issuer_der == list.issuer_der && known.key_id == list.key_id;
        match lists.iter_mut().find(|(known, _)| same(known)) {
            Some(known) if known.0.is_older_than(&list) => *known = (list, block.text),
            Some(_) => {}
            None => lists.push((list, block.text)),
        }
    }
    let blocks = lists.into_iter().map(|(_, text)| text).chain(certificates);
    blocks.flat_map(|text| [text, "\n"]).collect()
}

/// Revocation lists that were checked, and what they cover.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// The lists.
    pub lists: Vec<RevocationList>,
    /// The names of authorities in the own chain that have no list; see [`check`].
    pub missing: Vec<String>,
    /// The names of those whose lists are not used: no authority of theirs leads to a root.
    pub unused: Vec<String>,
    /// The keys (SubjectPublicKeyInfo in DER) of the authorities that have a list or are excused.
    pub(super) covered: HashSet<Vec<u8>>,
    ders: Vec<CertificateRevocationListDer<'static>>,
}

impl Revocations {
    /// The lists as the library takes them.
    pub(super) fn for_tls(&self) -> Result<Vec<CertRevocationList<'static>>, RevocationError> {
        let read = |(at, der): (usize, &CertificateRevocationListDer<'static>)| {
            let list = OwnedCertRevocationList::from_der(der);
            list.map(CertRevocationList::from).map_err(|_| RevocationError::Unreadable(at + 1))
        };
        self.ders.iter().enumerate().map(read).collect()
    }
}

/// Checks the text of a revocation file: lists, and the certificates of authorities below a root that signed some of
/// them. `own_chain` are the authorities of the own certificate's chain below the root.
///
/// A list counts if it is signed by a root, or by an authority whose certificate leads to one; others are not used.
/// Every root that has not expired needs a list: without it everyone would be refused, so such a file is not used at all.
/// An authority of the own chain that has none is excused, since its absence would shut out all that are certified like
/// this node; it is named in [`Revocations::missing`]. Whoever connects from below any other authority without a list is
/// refused, until that list is there.
///
/// # Errors
/// The first thing that would make the set dangerous to use; see [`RevocationError`].
pub fn check(
    text: &[u8],
    roots: &[CertificateDer<'static>],
    own_chain: &[CertificateDer<'static>],
    now_ms: u64,
) -> Result<Revocations, RevocationError> {
    let ders: Vec<CertificateRevocationListDer<'static>> =
        PemObject::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|_| RevocationError::Empty)?;
    if ders.is_empty() {
        return Err(RevocationError::Empty);
    }
    let beside: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(text).filter_map(Result::ok).collect();
    let signers = signers(roots, own_chain, &beside);
    let (mut covered, mut used, mut unused) = (HashSet::new(), Vec::new(), Vec::new());
    let mut lists: Vec<RevocationList> = Vec::with_capacity(ders.len());
    for (index, der) in ders.iter().enumerate() {
        let Ok((_, parsed)) = CertificateRevocationList::from_der(der) else {
            return Err(RevocationError::Unreadable(index + 1));
        };
        let mut list = RevocationList::of(&parsed);
        let signed = |signer: &&Signer<'_>| {
            signer.certificate.subject().as_raw() == list.issuer_der
                && parsed.verify_signature(signer.certificate.public_key()).is_ok()
        };
        let Some(signer) = signers.iter().find(signed) else {
            // That of a root that is gone, or a forged one: nobody here is judged by it, and it spoils nothing.
            unused.push(list.issuer);
            continue;
        };
        if lists.iter().any(|other| other.issuer_der == list.issuer_der) {
            return Err(RevocationError::Doubled(list.issuer));
        }
        covered.insert(signer.certificate.public_key().raw.to_vec());
        list.below = (!signer.is_root).then(|| Below::of(&signer.certificate));
        lists.push(list);
        used.push(der.clone());
    }
    let mut missing = Vec::new();
    for signer in signers.iter().filter(|signer| signer.is_root || signer.is_own) {
        let key = signer.certificate.public_key().raw;
        let name = signer.certificate.subject().to_string();
        let expired = milliseconds(signer.certificate.validity().not_after.timestamp()) < now_ms;
        if covered.contains(key) || expired {
            continue;
        }
        if signer.is_root {
            return Err(RevocationError::Missing(name));
        }
        missing.push(name);
        covered.insert(key.to_vec());
    }
    Ok(Revocations { lists, missing, unused, covered, ders: used })
}

/// Whether a chain of authorities leads to one of the roots, by name and signature.
pub(super) fn leads_to_root(roots: &[CertificateDer<'static>], chain: &[CertificateDer<'static>]) -> bool {
    !chain.is_empty() && signers(roots, chain, &[]).len() == roots.len() + chain.len()
}

/// An authority whose certificate is a root, or leads to one.
struct Signer<'c> {
    certificate: X509Certificate<'c>,
    is_root: bool,
    is_own: bool,
}

/// The roots, and those others that lead to one.
fn signers<'c>(
    roots: &'c [CertificateDer<'static>],
    own_chain: &'c [CertificateDer<'static>],
    beside: &'c [CertificateDer<'static>],
) -> Vec<Signer<'c>> {
    let read = |der: &'c CertificateDer<'static>| {
        X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed).filter(may_sign_lists)
    };
    let mut signers: Vec<Signer<'_>> = roots
        .iter()
        .filter_map(read)
        .map(|certificate| Signer { certificate, is_root: true, is_own: false })
        .collect();
    let own = own_chain.iter().filter_map(read).map(|certificate| (certificate, true));
    let mut rest: Vec<_> = own.chain(beside.iter().filter_map(read).map(|other| (other, false))).collect();
    // Each round adds those that lead to one known already, until there are none.
    loop {
        let leads = |(certificate, _): &(X509Certificate<'_>, bool)| {
            signers.iter().any(|above| {
                above.certificate.subject().as_raw() == certificate.issuer().as_raw()
                    && certificate.verify_signature(Some(above.certificate.public_key())).is_ok()
            })
        };
        let Some(at) = rest.iter().position(leads) else { return signers };
        let (certificate, is_own) = rest.remove(at);
        // An authority that takes the name of another must not have its list stand for the other's: lists go by name.
        let taken = |other: &Signer<'_>| {
            other.certificate.subject().as_raw() == certificate.subject().as_raw()
                && other.certificate.public_key().raw != certificate.public_key().raw
        };
        if signers.iter().any(taken) {
            continue;
        }
        signers.push(Signer { certificate, is_root: false, is_own });
    }
}

fn may_sign_lists(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.key_usage().ok().flatten();
    certificate.is_ca() && usage.is_none_or(|usage| usage.value.crl_sign())
}

/// Whether a checked set may take the place of the one in use: no list may be older, late already, or gone while its
/// authority is still in force.
///
/// # Errors
/// [`RevocationError::Older`], [`RevocationError::Late`] or [`RevocationError::Gone`]; an unchanged list is none of them.
pub fn may_replace(
    new: &[RevocationList],
    in_use: &[RevocationList],
    now_ms: u64,
) -> Result<(), RevocationError> {
    for list in new {
        match in_use.iter().find(|old| old.issuer_der == list.issuer_der) {
            Some(old) if old.same_as(list) => {}
            Some(old) if list.is_older_than(old) => return Err(RevocationError::Older(list.issuer.clone())),
            _ if list.is_late(now_ms) => return Err(RevocationError::Late(list.issuer.clone())),
            _ => {}
        }
    }
    // A root's list goes with the root; that of one below, when it has expired or was revoked.
    for old in in_use.iter().filter(|old| !new.iter().any(|list| list.issuer_der == old.issuer_der)) {
        let Some(below) = &old.below else { continue };
        let in_force = |list: &RevocationList| {
            list.issuer_der == below.issuer_der && !list.serials.contains(&below.serial)
        };
        if below.not_after_ms >= now_ms && new.iter().any(in_force) {
            return Err(RevocationError::Gone(old.issuer.clone()));
        }
    }
    Ok(())
}
