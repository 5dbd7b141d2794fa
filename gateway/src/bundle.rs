//! Bundles: what a link would carry, in a file, for networks with no line between them (`bundle.proto` has the format).
//!
//! Not a [`Session`](crate::session::Session) over a file: its windows, timeouts and greetings belong to an exchange in
//! which each side answers within seconds. Here the answer comes days later or never, out of order or twice, and no
//! number of batches may be limited by what has no receipt yet. So a bundle takes from the session what holds just as
//! well without a line (batches, their compression, records in parts), and has a greeting of its own
//! ([`standing`]): by numbered, random marks, which both sides remember.
//!
//! Nothing here waits, reads a clock or draws random numbers. It must never give out any of a bundle's content before
//! its seal was verified by the caller, hold more than one frame of it in memory, or trust a length that it read.

mod card;
mod contents;
mod error;
mod file;
pub mod keeping;
mod keys;
pub mod standing;

pub use card::{Card, CardError};
pub use contents::{Contents, Greeting, Item};
pub use error::BundleError;
pub use file::{FRAME_BYTES_MAX, Frames, Head, Inspected, Writing, inspect};
pub use keys::{KeyId, PublicKey, SecretKey};

/// The format that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Bundles that were made longer ago are refused, in milliseconds: so long at most can a key that was stolen after its
/// certificate had run out, and was not revoked, be used to date one back.
pub const AGE_MAX_MS: u64 = 90 * 24 * 3_600 * 1_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
