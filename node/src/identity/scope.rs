//! What an authority may vouch for: everything of its trust domain, or a division and what it contains.
//!
//! An authority's certificate says it in its one URI name: `spiffe://{trust-domain}` for a root,
//! `spiffe://{trust-domain}/authority/{division}` for one below. X.509 name constraints cannot express it, so every chain
//! is checked by it here. It must never read a scope from anything else, nor widen one.

use std::fmt;

use guantong_gateway::division::{Division, Tier};

use super::spiffe::{SpiffeError, TrustDomain, twelve_digits};

/// What an authority may vouch for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The trust domain of all that it vouches for.
    pub trust_domain: TrustDomain,
    /// The division that holds all its nodes; `None`: any.
    pub division: Option<Division>,
}

impl Scope {
    /// Everything of a trust domain.
    pub fn all(trust_domain: TrustDomain) -> Scope {
        Scope { trust_domain, division: None }
    }

    /// A division and what it contains.
    ///
    /// # Errors
    /// [`SpiffeError::AuthorityTier`] unless it is a province, prefecture or county: nobody stands below a township.
    pub fn of(trust_domain: TrustDomain, division: Division) -> Result<Scope, SpiffeError> {
        match division.tier() {
            Tier::Province | Tier::Prefecture | Tier::County => {
                Ok(Scope { trust_domain, division: Some(division) })
            }
            Tier::Township | Tier::Village => Err(SpiffeError::AuthorityTier),
        }
    }

    /// Reads a scope in its one spelling.
    ///
    /// # Errors
    /// Says which part is wrong; see [`SpiffeError`].
    pub fn parse(uri: &str) -> Result<Scope, SpiffeError> {
        let rest = uri.strip_prefix("spiffe://").ok_or(SpiffeError::NotSpiffe)?;
        match rest.split_once('/') {
            None => Ok(Scope::all(TrustDomain::parse(rest)?)),
            Some((trust_domain, path)) => {
                let division = path.strip_prefix("authority/").ok_or(SpiffeError::Path)?;
                Scope::of(TrustDomain::parse(trust_domain)?, twelve_digits(division)?)
            }
        }
    }

    /// Whether a division lies inside.
    pub fn covers(&self, division: Division) -> bool {
        self.division.is_none_or(|own| own.contains(division))
    }

    /// Whether all that the other may vouch for, this one may, too.
    pub fn contains(&self, other: &Scope) -> bool {
        let inside = match (self.division, other.division) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.contains(other),
        };
        inside && self.trust_domain == other.trust_domain
    }
}

/// As it stands in a certificate.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trust_domain.uri())?;
        match self.division {
            Some(division) => write!(f, "/authority/{:012}", division.code()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn scopes_nest_as_divisions_do() {
        let scope = |text: &str| {
            let scope = Scope::parse(text).unwrap();
            assert_eq!(scope.to_string(), text);
            scope
        };
        let root = scope("spiffe://a");
        let prefecture = scope("spiffe://a/authority/220800000000");
        let county = scope("spiffe://a/authority/220822000000");
        let other = scope("spiffe://a/authority/220100000000");
        assert!(root.contains(&prefecture) && prefecture.contains(&county) && county.contains(&county));
        assert!(!county.contains(&prefecture) && !other.contains(&county) && !county.contains(&root));
        assert!(!root.contains(&scope("spiffe://b/authority/220800000000")));
        let township = Division::parse("220822101").unwrap();
        assert!(county.covers(township) && root.covers(township) && !other.covers(township));
    }

    #[test]
    fn another_spelling_is_refused() {
        for (text, wrong) in [
            ("spiffe://a/", SpiffeError::Path),
            ("spiffe://a/node/220800000000", SpiffeError::Path),
            ("spiffe://a/authority/2208", SpiffeError::Division(None)),
            ("spiffe://a/authority/220822101000", SpiffeError::AuthorityTier),
            ("https://a", SpiffeError::NotSpiffe),
            ("spiffe://A", SpiffeError::TrustDomain),
        ] {
            assert_eq!(Scope::parse(text), Err(wrong), "{text}");
        }
    }
}
