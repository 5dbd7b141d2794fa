//! A node's card: the key that bundles for it are sealed with, signed by the node, in a file of its own.

use bytes::Bytes;
use guantong_proto::v1;
use prost::Message;

use super::keys::PublicKey;
use crate::division::Division;

const MAGIC: &[u8; 8] = b"GTCARD1\n";
/// A key, a signature and a chain of certificates.
const CARD_BYTES_MAX: usize = 64 * 1024;

/// A card whose signature is still to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Whose.
    pub division: Division,
    /// What to seal with.
    pub key: PublicKey,
    /// When it was signed, Unix milliseconds.
    pub time_ms: u64,
    /// See `Seal`.
    pub signature: Bytes,
    /// See `Seal`.
    pub certificates: Bytes,
}

/// A file that is no card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this file is not a card of `guantong bundle card`, or was damaged (该文件不是有效的数据包名片)")]
pub struct CardError;

impl Card {
    /// Without signature yet.
    pub fn new(division: Division, key: PublicKey, time_ms: u64) -> Card {
        Card { division, key, time_ms, signature: Bytes::new(), certificates: Bytes::new() }
    }

    /// What its node signs. Begins with words of its own.
    pub fn statement(&self) -> String {
        let key: String = self.key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("guantong bundle card 1\n{}\n{key}\n{}\n", self.division, self.time_ms)
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let card = v1::BundleCard {
            division: self.division.to_string(),
            public_key: Bytes::copy_from_slice(&self.key.0),
            time_ms: i64::try_from(self.time_ms).unwrap_or(i64::MAX),
            signature: self.signature.clone(),
            certificates: self.certificates.clone(),
        };
        let mut out = MAGIC.to_vec();
        out.extend(card.encode_to_vec());
        out
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is no card.
    pub fn decode(file: &[u8]) -> Result<Card, CardError> {
        let card = file.strip_prefix(MAGIC).filter(|card| card.len() <= CARD_BYTES_MAX).ok_or(CardError)?;
        let card = v1::BundleCard::decode(card).map_err(|_| CardError)?;
        let whole = card.division.len() == 12;
        Ok(Card {
            division: Division::parse(&card.division).ok().filter(|_| whole).ok_or(CardError)?,
            key: PublicKey::from_bytes(&card.public_key).ok_or(CardError)?,
            time_ms: u64::try_from(card.time_ms).map_err(|_| CardError)?,
            signature: card.signature,
            certificates: card.certificates,
        })
    }
}
