//! Revocation lists, looked at before they are put to use.
//!
//! TLS refuses every peer whose issuer has no list once any list is configured, and takes the first list that bears
//! the issuer's name. So a list that is unsigned, doubled or lacks an authority would lock everyone out; such a list
//! must never get past this file.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::certificate::{hexadecimal, milliseconds};

/// Why a set of revocation lists is not put to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// The file has no list in it.
    #[error("the revocation file holds no list in PEM form (吊销列表文件中没有 PEM 格式的列表)")]
    Empty,
    /// Not readable as a list.
    #[error("revocation list {0} in the file is not readable (文件中第 {0} 个吊销列表无法读取)")]
    Unreadable(usize),
    /// No authority of ours signed it.
    #[error(
        "the revocation list of «{0}» is not signed by an authority in the authority file \
         (吊销列表不是由签发机构文件中的机构签名)"
    )]
    Unsigned(String),
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
    /// The number of the list, big-endian without leading zeros; greater is newer.
    number: Vec<u8>,
    /// When it was made, Unix time in milliseconds.
    pub this_update_ms: u64,
    /// When the next one is due, Unix time in milliseconds.
    pub next_update_ms: Option<u64>,
    /// The serial numbers of the revoked certificates, in lower-case hexadecimal digits.
    pub serials: Vec<String>,
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
            number: parsed.crl_number().map(|number| number.to_bytes_be()).unwrap_or_default(),
            this_update_ms: milliseconds(parsed.last_update().timestamp()),
            next_update_ms: parsed.next_update().map(|time| milliseconds(time.timestamp())),
            serials: parsed
                .iter_revoked_certificates()
                .map(|entry| hexadecimal(entry.raw_serial()))
                .collect(),
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

    fn is_older_than(&self, other: &RevocationList) -> bool {
        let rank = |list: &RevocationList| (list.number.len(), list.number.clone(), list.this_update_ms);
        rank(self) < rank(other)
    }
}

/// Checks a set of lists against the authorities whose certificates they speak about, and against the intermediate
/// certificates that may have signed one.
///
/// # Errors
/// The first thing that would make the set dangerous to use; see [`RevocationError`].
pub fn check(
    lists: &[CertificateRevocationListDer<'static>],
    authorities: &[CertificateDer<'static>],
    intermediates: &[CertificateDer<'static>],
) -> Result<Vec<RevocationList>, RevocationError> {
    if lists.is_empty() {
        return Err(RevocationError::Empty);
    }
    let signers: Vec<X509Certificate<'_>> = authorities
        .iter()
        .chain(intermediates)
        .filter_map(|der| X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed))
        .collect();
    let mut checked: Vec<RevocationList> = Vec::with_capacity(lists.len());
    for (index, der) in lists.iter().enumerate() {
        let Ok((_, parsed)) = CertificateRevocationList::from_der(der) else {
            return Err(RevocationError::Unreadable(index + 1));
        };
        let list = RevocationList::of(&parsed);
        let signed = signers.iter().any(|signer| {
            signer.subject().as_raw() == list.issuer_der
                && parsed.verify_signature(signer.public_key()).is_ok()
        });
        if !signed {
            return Err(RevocationError::Unsigned(list.issuer));
        }
        if checked.iter().any(|other| other.issuer_der == list.issuer_der) {
            return Err(RevocationError::Doubled(list.issuer));
        }
        checked.push(list);
    }
    for authority in signers.iter().take(authorities.len()) {
        let name = authority.subject();
        if !checked.iter().any(|list| list.issuer_der == name.as_raw()) {
            return Err(RevocationError::Missing(name.to_string()));
        }
    }
    Ok(checked)
}

/// Whether a checked set may take the place of the one in use: it must not be older, and not late already.
///
/// # Errors
/// [`RevocationError::Older`] or [`RevocationError::Late`]; an unchanged list is neither.
pub fn may_replace(
    new: &[RevocationList],
    in_use: &[RevocationList],
    now_ms: u64,
) -> Result<(), RevocationError> {
    for list in new {
        match in_use.iter().find(|old| old.issuer_der == list.issuer_der) {
            Some(old) if old == list => {}
            Some(old) if list.is_older_than(old) => return Err(RevocationError::Older(list.issuer.clone())),
            _ if list.is_late(now_ms) => return Err(RevocationError::Late(list.issuer.clone())),
            _ => {}
        }
    }
    Ok(())
}
