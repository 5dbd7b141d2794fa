//! Who this node is and who its peers are: SPIFFE identities, certificates, mutual TLS 1.3, and a small authority.
//!
//! Everything that opens or accepts a connection to another machine goes through [`dial`] and [`accept`]. Nothing
//! here may let a byte of HTTP/2 through before the peer's identity is known, resume an earlier TLS session, put a
//! process-wide crypto provider in place, or write a key or a certificate's contents to a log.

pub mod accept;
pub mod bundle_key;
pub mod certificate;
mod chain;
mod crowd;
pub mod dial;
pub mod keeping;
pub mod lobby;
pub mod peer;
pub mod pem;
pub mod pki;
pub mod revocation;
pub mod scope;
pub mod seal;
pub mod spiffe;
pub mod store;
pub mod tls;
pub mod trust;
mod verifier;
pub mod words;

pub use accept::{Acceptor, Refusal};
pub use chain::AuthorityScope;
pub use dial::{DialError, Dialed, ExpectedPeer, connect, connect_to_lobby};
pub use peer::{Peer, TlsIo};
pub use scope::Scope;
pub use spiffe::{SpiffeId, Subject, TrustDomain};
pub use store::IdentityStore;
pub use tls::{Identity, IdentityError, IdentityFiles};
pub use words::{Trouble, Words};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

/// Now, as Unix time in milliseconds. A clock before 1970 reads as 0, so that every certificate is not yet valid.
fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The crypto provider of every TLS configuration and check in this program.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<std::sync::Arc<rustls::crypto::CryptoProvider>> =
        std::sync::LazyLock::new(|| std::sync::Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}
