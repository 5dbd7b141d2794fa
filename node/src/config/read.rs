//! From text to values. A division may be written with or without quotation marks: environment variables know none.

use std::fmt;
use std::path::PathBuf;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use guantong_gateway::division::Division;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::{Config, DATA_DIR, Problem};
use crate::identity::TrustDomain;

/// What the names of our environment variables begin with.
pub(super) const PREFIX: &str = "GUANTONG_";
/// Variables of the command line and of tests, which are not keys of the file.
const NOT_KEYS: [&str; 7] = ["code", "config", "node", "identity", "demo_store", "program", "postgres_bin"];

pub(super) fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    let environment = Env::prefixed(PREFIX).ignore(&NOT_KEYS).split("__");
    let figment = Figment::new().merge(Toml::string(text)).merge(environment);
    figment.extract().map_err(|errors| errors.into_iter().map(Problem::from).collect())
}

pub(super) fn data_dir() -> PathBuf {
    DATA_DIR.into()
}

pub(super) fn drift_ms() -> u64 {
    300_000
}

pub(super) fn compare_ms() -> u64 {
    300_000
}

pub(super) fn level() -> String {
    "info".to_owned()
}

pub(super) fn default_trust_domain() -> TrustDomain {
    TrustDomain::default()
}

pub(super) fn trust_domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TrustDomain, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    TrustDomain::parse(&text).map_err(D::Error::custom)
}

pub(super) fn division<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Division, D::Error> {
    deserializer.deserialize_any(DivisionVisitor)
}

struct DivisionVisitor;

impl Visitor<'_> for DivisionVisitor {
    type Value = Division;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a division code of 2, 4, 6, 9 or 12 digits")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Division, E> {
        Division::parse(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, code: u64) -> Result<Division, E> {
        self.visit_str(&code.to_string())
    }

    fn visit_i64<E: Error>(self, code: i64) -> Result<Division, E> {
        self.visit_str(&code.to_string())
    }
}

pub(super) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(OneOrMany)
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("host:port, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

/// How long after its certificate ran out a node may have it renewed, in days.
pub(super) fn renewal_grace_days() -> u32 {
    90
}

/// How long new certificates are good for, in days.
pub(super) fn certificate_days() -> u32 {
    180
}
