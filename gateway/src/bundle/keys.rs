//! The keys that bundles are sealed with: X25519, in HPKE's base mode (RFC 9180). Who made a bundle is proven by its
//! seal, not by these. A secret key is never shown or formatted.

use std::convert::Infallible;

use hpke::aead::{AeadCtxR, AeadCtxS, ChaCha20Poly1305};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};

use super::error::BundleError;

/// Marks chunks, so that the last one cannot be left out or moved.
const AAD: [&[u8]; 2] = [&[0], &[1]];

type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Secret = <X25519HkdfSha256 as Kem>::PrivateKey;

/// The first 8 bytes of the BLAKE3 hash of a public key: for finding the key, and for comparing by telephone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub [u8; 8]);

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What bundles for a node are sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// A key as it was sent. `None`: it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<PublicKey> {
        bytes.try_into().ok().map(PublicKey)
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..8]);
        KeyId(id)
    }

    /// Begins to seal for the holder; gives what it is opened with beside the secret. `seed` is drawn anew for each.
    pub(super) fn seal(&self, info: &[u8], seed: [u8; 32]) -> Result<(Vec<u8>, Sealing), BundleError> {
        let public = Public::from_bytes(&self.0).map_err(|_| BundleError::Key)?;
        let begun = hpke::setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            info,
            &mut Seeded::new(seed),
        );
        let (encapsulated, context) = begun.map_err(|_| BundleError::Key)?;
        Ok((encapsulated.to_bytes().to_vec(), Sealing(context)))
    }
}

/// What a node opens its bundles with.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// A key as it is kept, or 32 random bytes: each is a key.
    pub fn new(bytes: [u8; 32]) -> SecretKey {
        SecretKey(bytes)
    }

    /// To be kept where only the node can read it.
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// The other half.
    pub fn public(&self) -> Option<PublicKey> {
        let secret = Secret::from_bytes(&self.0).ok()?;
        PublicKey::from_bytes(&X25519HkdfSha256::sk_to_pk(&secret).to_bytes())
    }

    /// Begins to open what was sealed for this key.
    pub(super) fn open(&self, encapsulated: &[u8], info: &[u8]) -> Result<Opening, BundleError> {
        let secret = Secret::from_bytes(&self.0).map_err(|_| BundleError::Key)?;
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated);
        let encapsulated = encapsulated.map_err(|_| BundleError::Damaged("its head"))?;
        let context = hpke::setup_receiver(&OpModeR::Base, &secret, &encapsulated, info);
        context.map(Opening).map_err(|_| BundleError::Damaged("its head"))
    }
}

/// Seals chunks, one after the other.
pub(super) struct Sealing(AeadCtxS<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>);

impl Sealing {
    pub(super) fn seal(&mut self, chunk: &[u8], last: bool) -> Result<Vec<u8>, BundleError> {
        self.0.seal(chunk, AAD[usize::from(last)]).map_err(|_| BundleError::Key)
    }
}

/// Opens chunks in the order in which they were sealed.
pub(super) struct Opening(AeadCtxR<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>);

impl Opening {
    pub(super) fn open(&mut self, chunk: &[u8], last: bool) -> Result<Vec<u8>, BundleError> {
        self.0.open(chunk, AAD[usize::from(last)]).map_err(|_| BundleError::Unopened)
    }
}

/// A random source that begins from a seed: the library wants one, and here randomness comes in as an argument.
struct Seeded(blake3::OutputReader);

impl Seeded {
    fn new(seed: [u8; 32]) -> Seeded {
        Seeded(blake3::Hasher::new_keyed(&seed).finalize_xof())
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.take()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.take()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}
