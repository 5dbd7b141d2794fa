//! The lobby: a way into the network port for those who have no certificate yet, or one that has run out.
//!
//! A client asks for it by the protocol name [`ALPN`]. What comes in by it is a [`Guest`], never a peer, and the only
//! service behind it gives certificates. It must never weaken the check of what a guest does show: only that it has run
//! out is passed over, within a grace. A new node knows its parent by the fingerprint in its code, and by nothing else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::Certificate;
use super::crowd::Place;
use super::peer::Peer;
use super::provider;
use super::spiffe::Subject;
use super::tls::Identity;
use super::trust::Trust;
use super::verifier::{ClientVerifier, signatures_of_handshakes};

/// The protocol name of the lobby.
pub const ALPN: &[u8] = b"guantong-lobby/1";
/// Guests at once, and those of one address; the others are refused and try again.
pub const GUESTS_MAX: usize = 64;
/// See [`GUESTS_MAX`].
pub const GUESTS_PER_ADDRESS: usize = 16;
/// How long a guest may stay.
const STAY: Duration = Duration::from_secs(60);

/// What becomes of a certificate that has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// It is of no use.
    Refused,
    /// It is good for one thing: to have it renewed. Others still refuse it.
    Kept,
}

/// The first 128 bits of the SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 16] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut first = [0; 16];
    first.copy_from_slice(&digest.as_ref()[..16]);
    first
}

/// The authority that the last certificate of a chain was signed by.
pub(super) fn anchor_of(
    chain: &[CertificateDer<'static>],
    authorities: &[CertificateDer<'static>],
) -> Option<CertificateDer<'static>> {
    let (_, last) = X509Certificate::from_der(chain.last()?).ok()?;
    let signed = |authority: &&CertificateDer<'static>| {
        X509Certificate::from_der(authority).is_ok_and(|(_, authority)| {
            authority.subject().as_raw() == last.issuer().as_raw()
                && last.verify_signature(Some(authority.public_key())).is_ok()
        })
    };
    authorities.iter().find(signed).cloned()
}

/// What guests are shown: the chain with its root, by which a code knows it.
pub(super) fn shown(
    chain: &[CertificateDer<'static>],
    anchor: Option<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<dyn ResolvesServerCert>, rustls::Error> {
    let with_root = chain.iter().cloned().chain(anchor).collect();
    let certified = CertifiedKey::from_der(with_root, key.clone_key(), &provider())?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

impl Identity {
    /// For accepting guests. Nodes whose certificate ran out no longer ago than `grace` may show it.
    ///
    /// # Errors
    /// As rustls says.
    pub fn lobby_config(&self, grace: Duration) -> Result<Arc<ServerConfig>, rustls::Error> {
        let peers = Arc::new(ClientVerifier(self.chain.clone()));
        Ok(Arc::new(server_config(self.shown_in_lobby.clone(), peers, grace)?))
    }

    /// For dialling the parent's lobby with this certificate.
    pub fn returning_config(&self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.client);
        config.alpn_protocols = vec![ALPN.to_vec()];
        Arc::new(config)
    }

    /// The certificate of the trusted authority that the own chain ends in.
    pub fn anchor(&self) -> Option<&CertificateDer<'static>> {
        self.anchor.as_ref()
    }

    /// Whom it trusts, as it was read.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Whether every root that it knows has ended: nobody can prove anything to it any more.
    pub fn trusts_nobody(&self, now_ms: u64) -> bool {
        self.chain.has_ended(now_ms)
    }

    /// Whether the own certificate has run out.
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.certificate().not_after_ms < now_ms
    }
}

/// For accepting guests: TLS 1.3, no resumption.
fn server_config(
    shows: Arc<dyn ResolvesServerCert>,
    peers: Arc<dyn ClientCertVerifier>,
    grace: Duration,
) -> Result<ServerConfig, rustls::Error> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(GuestVerifier { peers, grace_ms }))
        .with_cert_resolver(shows);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// For a new node that has a code and nothing else.
///
/// # Errors
/// As rustls says.
pub fn newcomer_config(fingerprint: [u8; 16]) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByFingerprint { fingerprint }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Lets in whoever shows nothing, and nodes whose certificate is sound but for having run out within the grace.
#[derive(Debug)]
struct GuestVerifier {
    peers: Arc<dyn ClientCertVerifier>,
    grace_ms: u64,
}

impl ClientCertVerifier for GuestVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.peers.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let certificate = Certificate::read(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let until_ms = certificate.not_after_ms.saturating_add(self.grace_ms);
        let now_ms = now.as_secs().saturating_mul(1000);
        let valid_ms = certificate.not_after_ms.min(now_ms);
        // Beyond the grace the usual check says that it has run out.
        let at = if now_ms <= until_ms {
            UnixTime::since_unix_epoch(Duration::from_millis(valid_ms))
        } else {
            now
        };
        let verified = self.peers.verify_client_cert(end_entity, intermediates, at)?;
        match certificate.identity().map(|id| id.subject) {
            Ok(Subject::Node(_)) => Ok(verified),
            _ => Err(CertificateError::InvalidPurpose.into()),
        }
    }

    signatures_of_handshakes!();
}

/// Trusts the one authority with this fingerprint, which the server must show with its chain.
#[derive(Debug)]
struct ByFingerprint {
    fingerprint: [u8; 16],
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let meant = intermediates.iter().find(|shown| fingerprint(shown) == self.fingerprint);
        let meant = meant.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(meant.clone().into_owned())?;
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Who is in the lobby.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Where it came from.
    pub address: SocketAddr,
    /// Who it is, if it has shown a certificate; that may have run out.
    pub peer: Option<Peer>,
}

/// A place in the lobby, of all and of its address.
pub(super) type GuestPlace = (Place<()>, Place<IpAddr>);

/// A guest's connection. It ends by itself after a minute.
pub struct LobbyIo {
    stream: TlsStream<TcpStream>,
    guest: Guest,
    leave: Pin<Box<Sleep>>,
    _place: GuestPlace,
}

impl LobbyIo {
    pub(super) fn new(stream: TlsStream<TcpStream>, guest: Guest, place: GuestPlace) -> LobbyIo {
        LobbyIo { stream, guest, leave: Box::pin(tokio::time::sleep(STAY)), _place: place }
    }

    fn check_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.leave.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, "the visit has ended")),
        }
    }
}

impl AsyncRead for LobbyIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_time(cx)?;
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for LobbyIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_time(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Connected for LobbyIo {
    type ConnectInfo = Guest;

    fn connect_info(&self) -> Guest {
        self.guest.clone()
    }
}

/// Guests, as they come.
pub struct Lobby {
    pub(super) guests: mpsc::Receiver<LobbyIo>,
}

impl Stream for Lobby {
    type Item = io::Result<LobbyIo>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<LobbyIo>>> {
        self.get_mut().guests.poll_recv(cx).map(|guest| guest.map(Ok))
    }
}
