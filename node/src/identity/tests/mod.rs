//! Real handshakes on the loopback address, with certificates of authorities made for each test.

mod accepting;
mod authority;
mod chain;
mod dialling;
mod foreign;
mod keeping;
mod loading;
mod reloading;
mod rotation;
mod trusting;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;

use super::accept::{AcceptLimits, Acceptor};
use super::pki::dir::AuthorityDir;
use super::pki::{Authority, Issued, Request, Validity};
use super::{
    AuthorityScope, DialError, Dialed, ExpectedPeer, IdentityFiles, IdentityStore, Peer, Subject,
    TrustDomain, connect,
};
use guantong_gateway::division::Division;

const COUNTY: &str = "220822000000";
const TOWNSHIP: &str = "220822101000";
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with an authority and what it issued, removed at the end of the test.
struct World {
    dir: tempfile::TempDir,
    authority: AuthorityDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let authority =
            AuthorityDir::create(&dir.path().join("authority"), trust_domain(), Validity::days(10), false)
                .unwrap();
        World { dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node with a certificate for the loopback address, in a directory named after it.
    fn node(&self, code: &str) -> Arc<IdentityStore> {
        let request = Request::new(node(code), Validity::days(5)).host("127.0.0.1").unwrap();
        self.issue(&request, code)
    }

    fn issue(&self, request: &Request, name: &str) -> Arc<IdentityStore> {
        let out = self.path(name);
        self.authority.issue(request, &out, true).unwrap();
        Arc::new(IdentityStore::open(IdentityFiles::in_dir(&out)).unwrap())
    }

    /// The authority's current list, for a node that has its files in the directory of this name.
    fn hand_out_list(&self, name: &str) {
        let [_, list] = self.authority.public_files();
        std::fs::copy(list, self.path(name).join("revocations.pem")).unwrap();
    }
}

fn trust_domain() -> TrustDomain {
    TrustDomain::parse(TrustDomain::DEFAULT).unwrap()
}

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

fn node(code: &str) -> Subject {
    Subject::node(division(code)).unwrap()
}

fn other_authority() -> Authority {
    Authority::create(trust_domain(), "Guantong authority", Validity::days(10)).unwrap()
}

fn between(from_days: i64, to_days: i64) -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity {
        not_before: now + time::Duration::days(from_days),
        not_after: now + time::Duration::days(to_days),
    }
}

/// A certificate that the authority would never issue: its names are free to choose.
fn forge(authority: &Authority, names: Vec<SanType>) -> (String, String) {
    let issuer_key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.certificate_pem(), issuer_key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "forged");
    params.subject_alt_names = names;
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn append(file: &Path, text: &str) {
    let before = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, before + text).unwrap();
}

/// A node that serves gRPC health and notes who calls.
struct Server {
    address: SocketAddr,
    acceptor: Acceptor,
    callers: Arc<Mutex<Vec<Peer>>>,
}

impl Server {
    async fn start(identity: Arc<IdentityStore>) -> Server {
        Server::start_with(identity, AcceptLimits::default()).await
    }

    async fn start_with(identity: Arc<IdentityStore>, limits: AcceptLimits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = Acceptor::with_limits(identity, limits);
        let callers = Arc::new(Mutex::new(Vec::new()));
        let seen = callers.clone();
        let reporter = tonic_health::server::HealthReporter::new();
        let service = tonic_health::server::HealthService::from_health_reporter(reporter);
        let health = HealthServer::with_interceptor(service, move |request: tonic::Request<()>| {
            let peer = request.extensions().get::<Peer>().cloned();
            seen.lock().unwrap().push(peer.expect("every request carries its peer"));
            Ok(request)
        });
        let incoming = acceptor.incoming(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));
        Server { address, acceptor, callers }
    }

    fn endpoint(&self) -> String {
        self.address.to_string()
    }

    async fn dial(&self, from: &IdentityStore, expected: ExpectedPeer) -> Result<Dialed, DialError> {
        connect(&self.endpoint(), &from.current(), expected, PATIENCE).await
    }
}

/// One call over the channel.
async fn ask(dialed: &Dialed) -> Result<(), tonic::Status> {
    let mut client = HealthClient::new(dialed.channel.clone());
    client.check(HealthCheckRequest::default()).await.map(|_| ())
}

/// A TLS client of the plainest kind, as a stranger would bring it.
struct Stranger {
    roots: RootCertStore,
    identity: Option<(String, String)>,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
}

impl Stranger {
    fn trusting(authority_pem: &str) -> Stranger {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap()).unwrap();
        let protocols = vec![b"h2".to_vec()];
        Stranger { roots, identity: None, versions: vec![&rustls::version::TLS13], protocols }
    }

    fn with(mut self, certificate_pem: &str, key_pem: &str) -> Stranger {
        self.identity = Some((certificate_pem.to_owned(), key_pem.to_owned()));
        self
    }

    fn with_issued(self, issued: &Issued) -> Stranger {
        self.with(&issued.certificate_pem, &issued.key_pem)
    }

    /// Connects and reads; a refused client learns of it only here.
    async fn knock(self, address: SocketAddr) -> std::io::Error {
        use tokio::io::AsyncReadExt;
        let builder = rustls::ClientConfig::builder_with_provider(super::provider())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect(),
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = self.protocols;
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        match tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
            Err(error) => error,
            Ok(mut stream) => match stream.read(&mut [0; 1]).await {
                Ok(0) => std::io::ErrorKind::UnexpectedEof.into(),
                read => read.expect_err("a stranger must not be let in"),
            },
        }
    }
}

/// Waits until the condition holds; gives up after a while.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("still waiting: {what}"));
}
