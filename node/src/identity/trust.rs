//! Whom a node trusts, as it travels: roots and revocation lists in PEM, handed from parent to child.
//!
//! What is offered is taken only as far as it proves itself: a list by the signature of an authority that is trusted, a
//! root by a certificate that a root trusted already has signed for it. It must never take away an authority or a
//! list, and never put an older list in the place of a newer one.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::certificate::Certificate;
use super::pem;
use super::revocation::{self, RevocationList};

/// More than this is not looked at: no tree has so many authorities.
const BLOCKS_MAX: usize = 4_096;

/// Roots and revocation lists, as they stand in files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Certificates of the roots in PEM.
    pub authorities: String,
    /// Revocation lists in PEM, with the certificates of those authorities that are no roots, and those by which one root
    /// vouches for another.
    pub revocations: String,
}

/// An offered list or root that is not taken; holds which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Nobody who is trusted signed it.
    #[error(
        "the revocation list of «{0}» is not signed by an authority that this node trusts (吊销列表签名无效)"
    )]
    List(String),
    /// No root that is trusted vouches for it, or its list is missing.
    #[error(
        "the root «{0}» is not vouched for by a root that this node trusts already, or came without its revocation \
         list (新根证书未经现有根证书认可)"
    )]
    Root(String),
}

impl Trust {
    /// What was read from files.
    pub fn new(authorities: &[u8], revocations: Option<&[u8]>) -> Trust {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Trust { authorities: text(authorities), revocations: revocations.map(text).unwrap_or_default() }
    }

    /// This with what is new in an offer, and what was not taken of it.
    pub fn with(&self, offered: &Trust, now_ms: u64) -> (Trust, Vec<NotTaken>) {
        let mut not_taken = Vec::new();
        let mut known = certificates(&self.authorities);
        let mut offers = Vec::new();
        for offer in certificates(&offered.authorities).into_iter().chain(certificates(&offered.revocations))
        {
            if !known.contains(&offer) && !offers.contains(&offer) {
                offers.push(offer);
            }
        }
        let between = self.between(&known, &offers);
        let lists = self.lists(&known, &between, &offers, offered, now_ms, &mut not_taken);
        let mut authorities = self.authorities.clone();
        let vouchers: Vec<&Offer<'_>> = offers.iter().filter(|offer| !offer.is_root()).collect();
        for root in offers.iter().filter(|offer| offer.is_root()) {
            let voucher = vouchers.iter().find(|voucher| {
                voucher.vouches_for(root)
                    && known.iter().any(|known| known.is_root() && known.has_signed(voucher))
            });
            let has_list = lists.iter().any(|(list, _)| root.has_signed_list(list));
            match voucher {
                Some(voucher) if has_list && root.is_valid(now_ms) && voucher.is_valid(now_ms) => {
                    authorities = joined([authorities.as_str(), root.text]);
                }
                _ => not_taken.push(NotTaken::Root(root.name())),
            }
        }
        known.extend(certificates(&authorities));
        let texts =
            lists.iter().filter(|(list, _)| known.iter().chain(&between).any(|by| by.has_signed_list(list)));
        let between: Vec<&str> = between.iter().map(|offer| offer.text).collect();
        let all = [self.revocations.as_str()].into_iter().chain(texts.map(|(_, text)| *text)).chain(between);
        let revocations = revocation::merge(all);
        let unchanged = revocation::merge([self.revocations.as_str()]) == revocations;
        let revocations = if unchanged { self.revocations.clone() } else { revocations };
        (Trust { authorities, revocations }, not_taken)
    }

    /// Authorities between root and node that a root which is known, or one of them, has signed.
    fn between<'t>(&'t self, known: &[Offer<'t>], offers: &[Offer<'t>]) -> Vec<Offer<'t>> {
        let mut between = certificates(&self.revocations);
        loop {
            let before = between.len();
            for offer in offers.iter().filter(|offer| !offer.is_root()) {
                let signed = known.iter().chain(&between).any(|by| by.has_signed(offer));
                if signed && !between.contains(offer) {
                    between.push(offer.clone());
                }
            }
            if between.len() == before {
                return between;
            }
        }
    }

    /// Offered lists that somebody who is known or offered has signed, and that are not out of date already.
    fn lists<'t>(
        &self,
        known: &[Offer<'t>],
        between: &[Offer<'t>],
        offers: &[Offer<'t>],
        offered: &'t Trust,
        now_ms: u64,
        not_taken: &mut Vec<NotTaken>,
    ) -> Vec<(CertificateRevocationListDer<'static>, &'t str)> {
        let roots = offers.iter().filter(|offer| offer.is_root());
        let signers: Vec<&Offer<'_>> = known.iter().chain(between).chain(roots).collect();
        let mut lists = Vec::new();
        for text in pem::blocks_of(&offered.revocations, pem::LIST).into_iter().take(BLOCKS_MAX) {
            let Ok(der) = CertificateRevocationListDer::from_pem_slice(text.as_bytes()) else { continue };
            let Some(list) = RevocationList::read(&der) else { continue };
            if list.is_late(now_ms) {
                continue;
            }
            if signers.iter().any(|signer| signer.has_signed_list(&der)) {
                lists.push((der, text));
            } else {
                not_taken.push(NotTaken::List(list.issuer));
            }
        }
        lists
    }
}

/// A certificate of an authority in an offer, and its text.
#[derive(Clone, Debug)]
struct Offer<'t> {
    der: CertificateDer<'static>,
    text: &'t str,
}

/// The same certificate is the same, however its text is broken into lines.
impl PartialEq for Offer<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

/// The authorities in a text; other certificates are passed over.
fn certificates(text: &str) -> Vec<Offer<'_>> {
    let blocks = pem::blocks_of(text, pem::CERTIFICATE).into_iter().take(BLOCKS_MAX);
    let read = blocks.filter_map(|text| {
        let der = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        let offer = Offer { der, text };
        offer.look(|certificate| certificate.is_ca()).filter(|is_authority| *is_authority)?;
        Some(offer)
    });
    read.collect()
}

impl Offer<'_> {
    fn look<T>(&self, at: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
        X509Certificate::from_der(&self.der).ok().map(|(_, certificate)| at(&certificate))
    }

    fn name(&self) -> String {
        self.look(|certificate| certificate.subject().to_string()).unwrap_or_default()
    }

    /// It vouches for itself.
    fn is_root(&self) -> bool {
        self.has_signed(self)
    }

    fn is_valid(&self, now_ms: u64) -> bool {
        let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        let valid = self.look(|certificate| {
            let validity = certificate.validity();
            validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
        });
        valid.unwrap_or(false)
    }

    fn has_signed(&self, other: &Offer<'_>) -> bool {
        let signed = self.look(|by| {
            other.look(|of| {
                of.issuer().as_raw() == by.subject().as_raw()
                    && of.verify_signature(Some(by.public_key())).is_ok()
            })
        });
        signed.flatten().unwrap_or(false)
    }

    fn has_signed_list(&self, list: &CertificateRevocationListDer<'_>) -> bool {
        let signed = self.look(|by| {
            CertificateRevocationList::from_der(list).is_ok_and(|(_, list)| {
                list.issuer().as_raw() == by.subject().as_raw()
                    && list.verify_signature(by.public_key()).is_ok()
            })
        });
        signed.unwrap_or(false)
    }

    /// It is for the name, the key and the scope of the other.
    fn vouches_for(&self, other: &Offer<'_>) -> bool {
        let names = |offer: &Offer<'_>| {
            let uris = Certificate::read(&offer.der).ok()?.uris;
            offer.look(|of| (of.subject().as_raw().to_vec(), of.public_key().raw.to_vec(), uris))
        };
        let (ours, theirs) = (names(self), names(other));
        ours.is_some() && ours == theirs
    }
}

fn joined<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut joined = String::new();
    for text in texts {
        joined.push_str(text.trim_end());
        joined.push('\n');
    }
    joined
}
