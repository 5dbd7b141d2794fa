//! Callers that no well-behaved program would be: TLS without a certificate, with an old one, in an old version; frames
//! in the wrong order. It must never be gentle.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use guantong::identity::{DialError, Dialed, ExpectedPeer, Identity, IdentityFiles, connect};
use guantong_proto::v1;
use guantong_proto::v1::exchange_service_client::ExchangeServiceClient;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// For one call to go wrong.
const CALL_TIME: Duration = Duration::from_secs(30);

/// What HTTP/2 begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Speaks TLS with a node, with the certificate of a folder or without one, and reads until the node ends it. Gives
/// what the client's own library says.
pub async fn speak_tls(
    address: &str,
    authority: &Path,
    certificate: Option<&Path>,
    versions: &[&'static SupportedProtocolVersion],
) -> String {
    speak(address, authority, certificate, versions, &["h2"]).await
}

/// The same, asking for these protocols (ALPN) instead of HTTP/2.
pub async fn speak(
    address: &str,
    authority: &Path,
    certificate: Option<&Path>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> String {
    let spoken = async {
        let mut stream = shake_hands(address, authority, certificate, versions, protocols).await?;
        stream.write_all(PREFACE).await?;
        stream.flush().await?;
        stream.read_to_end(&mut Vec::new()).await
    };
    match tokio::time::timeout(CALL_TIME, spoken).await.unwrap() {
        Ok(bytes) => format!("{bytes} bytes and no error"),
        Err(error) => error.to_string(),
    }
}

/// Connects by TLS, with whatever certificate lies in the folder: whether its key fits is not looked at.
pub(super) async fn shake_hands(
    address: &str,
    authority: &Path,
    certificate: Option<&Path>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(dir) => {
            let chain = CertificateDer::pem_file_iter(dir.join("certificate.pem")).unwrap();
            let chain = chain.map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
            let key = provider.key_provider.load_private_key(key).unwrap();
            builder.with_client_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key)))))
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// Shows one certificate to whoever asks.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Sends bytes that are no TLS, and reads until the node ends it.
pub async fn send_garbage(address: &str, bytes: &[u8]) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let _ = tcp.write_all(bytes).await;
    let _ = tokio::time::timeout(CALL_TIME, tcp.read_to_end(&mut Vec::new())).await.unwrap();
}

/// Connects with the identity of a folder.
///
/// # Errors
/// As any program of ours would get it.
pub async fn dial(address: &str, dir: &Path) -> Result<Dialed, DialError> {
    let identity = Identity::load(&IdentityFiles::in_dir(dir)).unwrap();
    connect(address, &identity, ExpectedPeer::AnyNode, CALL_TIME).await
}

/// Plays a child: sends these frames, and gives what the parent answers until it ends the link.
///
/// # Errors
/// The status of the call or of its end.
pub async fn play(dialed: &Dialed, frames: Vec<v1::frame::Kind>) -> Result<Vec<v1::Frame>, tonic::Status> {
    let (out, requests) = tokio::sync::mpsc::channel(frames.len().max(1));
    for kind in frames {
        let frame = Some(v1::Frame { kind: Some(kind) });
        out.send(v1::LinkRequest { frame }).await.unwrap();
    }
    let mut client = ExchangeServiceClient::new(dialed.channel.clone());
    let played = async {
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let mut answers = client.link(requests).await?.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await? {
            let frame = answer.frame.unwrap_or_default();
            let last = matches!(frame.kind, Some(v1::frame::Kind::Goodbye(_)));
            all.push(frame);
            if last {
                break;
            }
        }
        Ok(all)
    };
    let played = tokio::time::timeout(CALL_TIME, played).await.unwrap();
    drop(out);
    played
}

/// The Goodbye among answers.
pub fn goodbye(frames: &[v1::Frame]) -> Option<&v1::Goodbye> {
    frames.iter().find_map(|frame| match &frame.kind {
        Some(v1::frame::Kind::Goodbye(goodbye)) => Some(goodbye),
        _ => None,
    })
}
