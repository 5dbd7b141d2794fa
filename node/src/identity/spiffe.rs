//! SPIFFE identities: `spiffe://{trust-domain}/node/{division}`, `/partner/{name}` and `/operator/{name}`.
//!
//! Reading is strict: one identity has one spelling, so that two texts are equal exactly if the identities are. It
//! must never trim, fold case or accept an identity it does not know the meaning of.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use guantong_gateway::division::{Division, DivisionError, Tier};

/// The longest text that is read at all, in bytes; the limit of the SPIFFE standard.
const ID_LEN_MAX: usize = 2048;
/// The longest name of a partner or operator, in bytes.
const NAME_LEN_MAX: usize = 63;
/// The longest name of a trust domain, in bytes.
const TRUST_DOMAIN_LEN_MAX: usize = 255;

/// Why a text is not an identity. None of these repeats the text, which may be anything at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Does not begin with `spiffe://`, or is over-long.
    #[error(
        "an identity is written spiffe://TRUST-DOMAIN/node/DIVISION (身份应写作 spiffe://信任域/node/区划代码)"
    )]
    NotSpiffe,
    /// The trust domain is empty, too long, or has a character that is not allowed.
    #[error(
        "a trust domain has 1 to 255 of the characters a-z 0-9 . - _ \
         (信任域由 1 至 255 个小写字母、数字、点、短横、下划线组成)"
    )]
    TrustDomain,
    /// The path is not `/node/…`, `/partner/…` or `/operator/…`.
    #[error(
        "the path of an identity is /node/DIVISION, /partner/NAME or /operator/NAME \
         (身份的路径应为 /node/区划代码、/partner/名称 或 /operator/名称)"
    )]
    Path,
    /// A node's division is not 12 digits, or not a division.
    #[error("a node's identity ends in a division of 12 digits (节点身份须以 12 位区划代码结尾)")]
    Division(#[source] Option<DivisionError>),
    /// A village is not a node.
    #[error("a village has no node of its own; its township has one (村级不设节点，由所属乡镇的节点负责)")]
    Village,
    /// An authority for a division that has no nodes below it.
    #[error(
        "an authority is for a province, prefecture or county; nodes of townships get theirs from one of these \
         (签发机构只设于省、市、县级)"
    )]
    AuthorityTier,
    /// A partner's or operator's name has another form.
    #[error(
        "a name has 1 to 63 of the characters a-z 0-9 . - _ and begins with a letter or digit \
         (名称由 1 至 63 个小写字母、数字、点、短横、下划线组成，并以字母或数字开头)"
    )]
    Name,
}

/// A trust domain: the name that all identities of one authority share. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain where none is configured.
    pub const DEFAULT: &str = "guantong.local";

    /// Reads a trust domain, without `spiffe://`.
    ///
    /// # Errors
    /// [`SpiffeError::TrustDomain`] if it is empty, longer than 255 bytes or has other characters than `a-z 0-9 . - _`.
    pub fn parse(text: &str) -> Result<TrustDomain, SpiffeError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if text.is_empty() || text.len() > TRUST_DOMAIN_LEN_MAX || !text.bytes().all(allowed) {
            return Err(SpiffeError::TrustDomain);
        }
        Ok(TrustDomain(text.into()))
    }

    /// The name, without `spiffe://`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identity of the trust domain itself, which its authority's certificate carries.
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl Default for TrustDomain {
    fn default() -> TrustDomain {
        TrustDomain(TrustDomain::DEFAULT.into())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<TrustDomain, SpiffeError> {
        TrustDomain::parse(text)
    }
}

/// What an identity stands for. A partner or operator that comes from outside is made with [`Subject::partner`] or
/// [`Subject::operator`], which check the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The node of a division; never of a village.
    Node(Division),
    /// A partner system, by name.
    Partner(String),
    /// A person or program that operates nodes, by name.
    Operator(String),
}

impl Subject {
    /// The node of a division.
    ///
    /// # Errors
    /// [`SpiffeError::Village`] if the division is a village.
    pub fn node(division: Division) -> Result<Subject, SpiffeError> {
        if division.tier() == Tier::Village { Err(SpiffeError::Village) } else { Ok(Subject::Node(division)) }
    }

    /// A partner, by name.
    ///
    /// # Errors
    /// [`SpiffeError::Name`] if the name does not have the form of one.
    pub fn partner(name: &str) -> Result<Subject, SpiffeError> {
        checked_name(name).map(Subject::Partner)
    }

    /// An operator, by name.
    ///
    /// # Errors
    /// [`SpiffeError::Name`] if the name does not have the form of one.
    pub fn operator(name: &str) -> Result<Subject, SpiffeError> {
        checked_name(name).map(Subject::Operator)
    }

    /// The division, if this is a node.
    pub fn division(&self) -> Option<Division> {
        match self {
            Subject::Node(division) => Some(*division),
            Subject::Partner(_) | Subject::Operator(_) => None,
        }
    }
}

/// Written as in the path of an identity, without the first slash: `node/220822101000`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(division) => write!(f, "node/{:012}", division.code()),
            Subject::Partner(name) => write!(f, "partner/{name}"),
            Subject::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}

/// An identity: who, in which trust domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// Whose authority vouches for it.
    pub trust_domain: TrustDomain,
    /// Who it is.
    pub subject: Subject,
}

impl SpiffeId {
    /// Reads an identity in its one spelling.
    ///
    /// # Errors
    /// Says which part is wrong; see [`SpiffeError`].
    pub fn parse(text: &str) -> Result<SpiffeId, SpiffeError> {
        if text.len() > ID_LEN_MAX {
            return Err(SpiffeError::NotSpiffe);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeError::NotSpiffe)?;
        let (trust_domain, path) = rest.split_once('/').ok_or(SpiffeError::Path)?;
        let trust_domain = TrustDomain::parse(trust_domain)?;
        let (kind, name) = path.split_once('/').ok_or(SpiffeError::Path)?;
        let subject = match kind {
            "node" => Subject::node(twelve_digits(name)?)?,
            "partner" => Subject::partner(name)?,
            "operator" => Subject::operator(name)?,
            _ => return Err(SpiffeError::Path),
        };
        Ok(SpiffeId { trust_domain, subject })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, self.subject)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<SpiffeId, SpiffeError> {
        SpiffeId::parse(text)
    }
}

/// A division in full; the short forms that people may type are not identities.
pub(super) fn twelve_digits(text: &str) -> Result<Division, SpiffeError> {
    if text.len() != 12 {
        return Err(SpiffeError::Division(None));
    }
    Division::parse(text).map_err(|wrong| SpiffeError::Division(Some(wrong)))
}

fn checked_name(name: &str) -> Result<String, SpiffeError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = name.bytes();
    let begins_well = bytes.next().is_some_and(plain);
    if begins_well && name.len() <= NAME_LEN_MAX && bytes.all(|byte| plain(byte) || b".-_".contains(&byte)) {
        Ok(name.to_owned())
    } else {
        Err(SpiffeError::Name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_printed_as_it_was_read() {
        for text in [
            "spiffe://guantong.local/node/220822101000",
            "spiffe://guantong.local/node/220000000000",
            "spiffe://example.gov.cn/partner/data-centre_1",
            "spiffe://a/operator/li.wei",
        ] {
            assert_eq!(SpiffeId::parse(text).unwrap().to_string(), text);
        }
        let id = SpiffeId::parse("spiffe://guantong.local/node/220822101000").unwrap();
        assert_eq!(id.subject.division().map(Division::code), Some(220_822_101_000));
    }

    #[test]
    fn another_spelling_is_refused() {
        let long = format!("spiffe://a/partner/{}", "x".repeat(64));
        for (text, wrong) in [
            ("https://guantong.local/node/220822101000", SpiffeError::NotSpiffe),
            ("SPIFFE://guantong.local/node/220822101000", SpiffeError::NotSpiffe),
            (" spiffe://guantong.local/node/220822101000", SpiffeError::NotSpiffe),
            ("spiffe:///node/220822101000", SpiffeError::TrustDomain),
            ("spiffe://Guantong.local/node/220822101000", SpiffeError::TrustDomain),
            ("spiffe://user@guantong.local/node/220822101000", SpiffeError::TrustDomain),
            ("spiffe://guantong.local:7443/node/220822101000", SpiffeError::TrustDomain),
            ("spiffe://guantong.local", SpiffeError::Path),
            ("spiffe://guantong.local/node", SpiffeError::Path),
            ("spiffe://guantong.local/Node/220822101000", SpiffeError::Path),
            ("spiffe://guantong.local//node/220822101000", SpiffeError::Path),
            ("spiffe://guantong.local/node/", SpiffeError::Division(None)),
            ("spiffe://guantong.local/node/220822", SpiffeError::Division(None)),
            ("spiffe://guantong.local/node/220822101000/", SpiffeError::Division(None)),
            (
                "spiffe://guantong.local/node/22082210100x",
                SpiffeError::Division(Some(DivisionError::NotDigits)),
            ),
            ("spiffe://guantong.local/node/220822101001", SpiffeError::Village),
            ("spiffe://guantong.local/partner/", SpiffeError::Name),
            ("spiffe://guantong.local/partner/-a", SpiffeError::Name),
            ("spiffe://guantong.local/partner/A", SpiffeError::Name),
            ("spiffe://guantong.local/partner/a/b", SpiffeError::Name),
            ("spiffe://guantong.local/partner/a?b", SpiffeError::Name),
            ("spiffe://guantong.local/operator/张三", SpiffeError::Name),
            (&long, SpiffeError::Name),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(wrong), "{text}");
        }
    }
}
