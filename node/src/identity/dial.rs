//! Dialling another node: from `host:port` to a gRPC channel whose far end is known.
//!
//! One call makes one connection and says truthfully how it went: it returns only after the other side has let this
//! one in, which with TLS 1.3 is later than the handshake. The channel must never connect again by itself; who dials
//! anew is the caller, with the identity of that moment and its own patience.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guantong_gateway::division::Division;
use hyper_util::rt::TokioIo;
use rustls::client::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::peer::{Peer, TlsIo, tune};
use super::spiffe::{SpiffeId, Subject, TrustDomain};
use super::tls::Identity;
use super::words::{Fault, Trouble, Words};

const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Who must be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// The node of this division.
    Node(Division),
    /// Any node of the own trust domain.
    AnyNode,
}

impl ExpectedPeer {
    fn is_met_by(self, subject: &Subject) -> bool {
        match (self, subject) {
            (ExpectedPeer::Node(expected), Subject::Node(found)) => expected == *found,
            (ExpectedPeer::AnyNode, Subject::Node(_)) => true,
            (_, Subject::Partner(_) | Subject::Operator(_)) => false,
        }
    }
}

impl fmt::Display for ExpectedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpectedPeer::Node(division) => write!(f, "node/{:012}", division.code()),
            ExpectedPeer::AnyNode => f.write_str("a node"),
        }
    }
}

/// An open connection to another node.
#[derive(Clone, Debug)]
pub struct Dialed {
    /// For the clients of its services. Once the connection has ended every call on it fails; dial again.
    pub channel: Channel,
    /// Who is there. [`Peer::ended`] says in the end why the connection ended, [`Peer::cut`] ends it.
    pub peer: Peer,
}

/// Why dialling failed. `endpoint` is as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialError {
    /// Not of the form `host:port`.
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The name is unknown.
    Resolve {
        /// What was dialled.
        endpoint: String,
    },
    /// The machine is there, but nothing listens on the port.
    NotListening {
        /// What was dialled.
        endpoint: String,
    },
    /// No way to the machine.
    Unreachable {
        /// What was dialled.
        endpoint: String,
        /// As the system puts it.
        reason: String,
    },
    /// No answer within the time allowed.
    TimedOut {
        /// What was dialled.
        endpoint: String,
        /// How far it came.
        stage: Stage,
        /// The time allowed.
        allowed: Duration,
    },
    /// TLS or HTTP/2 failed, on this side or on the other.
    Refused {
        /// What was dialled.
        endpoint: String,
        /// Why.
        trouble: Trouble,
    },
    /// The lobby was asked for, and there is none, or it is full.
    NoLobby {
        /// What was dialled.
        endpoint: String,
    },
    /// A sound certificate of somebody else.
    WrongPeer {
        /// What was dialled.
        endpoint: String,
        /// Who answered.
        found: SpiffeId,
        /// Who should have.
        expected: ExpectedPeer,
    },
}

/// How far dialling came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the name.
    Resolving,
    /// Opening the TCP connection.
    Connecting,
    /// Agreeing on TLS and HTTP/2.
    Greeting,
}

impl DialError {
    /// A short fixed name, for metrics and JSON.
    pub fn code(&self) -> &'static str {
        match self {
            DialError::Endpoint { .. } => "bad_endpoint",
            DialError::Resolve { .. } => "unknown_host",
            DialError::NotListening { .. } => "not_listening",
            DialError::Unreachable { .. } => "unreachable",
            DialError::TimedOut { .. } => "timed_out",
            DialError::Refused { trouble, .. } => trouble.code(),
            DialError::NoLobby { .. } => "no_lobby",
            DialError::WrongPeer { .. } => "wrong_peer",
        }
    }

    /// The sentence for an operator.
    pub fn words(&self) -> Words {
        match self {
            DialError::Endpoint { endpoint } => Words::new(
                format!("«{endpoint}» is not of the form host:port, such as county.example:7443"),
                "地址应写作 主机:端口，例如 county.example:7443",
            ),
            DialError::Resolve { endpoint } => Words::new(
                format!(
                    "{endpoint}: the host name is not known here; check its spelling and the name service"
                ),
                format!("{endpoint}：无法解析主机名；请检查拼写和域名服务"),
            ),
            DialError::NotListening { endpoint } => Words::new(
                format!(
                    "{endpoint}: nothing listens there; is the other node running, and is the port right?"
                ),
                format!("{endpoint}：该端口无人监听；请确认对方节点已运行、端口无误"),
            ),
            DialError::Unreachable { endpoint, reason } => Words::new(
                format!("{endpoint}: cannot be reached: {reason}; check the network and firewalls"),
                format!("{endpoint}：无法到达；请检查网络和防火墙"),
            ),
            DialError::TimedOut { endpoint, stage, allowed } => {
                let seconds = allowed.as_secs_f64();
                let (en, zh) = match stage {
                    Stage::Resolving => ("the name service did not answer", "域名服务未应答"),
                    Stage::Connecting => {
                        ("no answer; check the network and firewalls", "无应答；请检查网络和防火墙")
                    }
                    Stage::Greeting => (
                        "the connection opened, but the other side did not go on",
                        "连接已建立，但对方没有继续应答",
                    ),
                };
                Words::new(
                    format!("{endpoint}: {en} (within {seconds} s)"),
                    format!("{endpoint}：{zh}（时限 {seconds} 秒）"),
                )
            }
            DialError::Refused { endpoint, trouble } => {
                let words = trouble.words();
                Words::new(format!("{endpoint}: {}", words.en), format!("{endpoint}：{}", words.zh))
            }
            DialError::NoLobby { endpoint } => Words::new(
                format!(
                    "{endpoint}: that node takes no new nodes now: it has no authority in its configuration, or too many                      ask at once; try again"
                ),
                format!("{endpoint}：该节点目前不接受入网或续期（未配置签发机构，或请求过多），请稍后再试"),
            ),
            DialError::WrongPeer { endpoint, found, expected } => Words::new(
                format!("{endpoint}: connected to {found}, but {expected} was expected; check the address"),
                format!("{endpoint}：对方是 {found}，而应为 {expected}；请检查地址"),
            ),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().fmt(f)
    }
}

impl std::error::Error for DialError {}

/// Connects to `host:port` (`[address]:port` for IPv6), all within `timeout`. The server's certificate must be signed
/// by a trusted authority, name that host, and be that of the expected peer; none of our bytes beyond the handshake
/// are sent before that is clear.
///
/// # Errors
/// Why not, and on which side; see [`DialError`].
pub async fn connect(
    endpoint: &str,
    identity: &Identity,
    expected: ExpectedPeer,
    timeout: Duration,
) -> Result<Dialed, DialError> {
    let trust_domain = Some(identity.id().trust_domain.clone());
    dial(endpoint, &Calling { config: identity.client_config(), trust_domain, expected }, timeout).await
}

/// How a connection is asked for.
struct Calling {
    config: Arc<ClientConfig>,
    /// Of the server; `None`: any.
    trust_domain: Option<TrustDomain>,
    expected: ExpectedPeer,
}

async fn dial(endpoint: &str, calling: &Calling, timeout: Duration) -> Result<Dialed, DialError> {
    let target = Target::parse(endpoint)?;
    let mut stage = Stage::Resolving;
    let dialing = async {
        let addresses = resolve(&target).await?;
        stage = Stage::Connecting;
        let tcp = open(&target, &addresses).await?;
        stage = Stage::Greeting;
        let io = secure(&target, tcp, calling).await?;
        speak(&target, io).await
    };
    match tokio::time::timeout(timeout, dialing).await {
        Ok(result) => result,
        Err(_) => Err(DialError::TimedOut { endpoint: endpoint.to_owned(), stage, allowed: timeout }),
    }
}

/// Connects to the lobby of `host:port`, with whatever a configuration of [`lobby`](super::lobby) shows. Who is there is
/// the configuration's to check, but it must be a node.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to_lobby(
    endpoint: &str,
    config: Arc<ClientConfig>,
    expected: ExpectedPeer,
    timeout: Duration,
) -> Result<Dialed, DialError> {
    let dialed = dial(endpoint, &Calling { config, trust_domain: None, expected }, timeout).await;
    dialed.map_err(|error| match error {
        DialError::Refused { endpoint, trouble: Trouble::NotHttp2 } => DialError::NoLobby { endpoint },
        other => other,
    })
}

/// Whether a text is of the form `host:port`, for checking a configuration.
///
/// # Errors
/// [`DialError::Endpoint`].
pub fn check_endpoint(endpoint: &str) -> Result<(), DialError> {
    Target::parse(endpoint).map(|_| ())
}

struct Target {
    endpoint: String,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    uri: Uri,
}

impl Target {
    fn parse(endpoint: &str) -> Result<Target, DialError> {
        let wrong = || DialError::Endpoint { endpoint: endpoint.to_owned() };
        let (host, port) = endpoint.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) if inner.contains(':') => inner,
            None if !host.contains(':') => host,
            _ => return Err(wrong()),
        };
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        // The scheme only tells the server what it knows already; TLS is made here, below the channel.
        let uri = format!("https://{endpoint}").parse().map_err(|_| wrong())?;
        Ok(Target { endpoint: endpoint.to_owned(), host: host.to_owned(), port, server_name, uri })
    }

    fn refused(&self, trouble: Trouble) -> DialError {
        DialError::Refused { endpoint: self.endpoint.clone(), trouble }
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, DialError> {
    let unknown = || DialError::Resolve { endpoint: target.endpoint.clone() };
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await.map_err(|_| unknown())?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() { Err(unknown()) } else { Ok(addresses) }
}

/// The first address that answers.
async fn open(target: &Target, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut last = None;
    for address in addresses {
        let opened = TcpStream::connect(address).await.and_then(|tcp| tune(&tcp).map(|()| tcp));
        match opened {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = Some(error),
        }
    }
    let endpoint = target.endpoint.clone();
    Err(match last {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            DialError::NotListening { endpoint }
        }
        Some(error) => DialError::Unreachable { endpoint, reason: error.kind().to_string() },
        None => DialError::Resolve { endpoint },
    })
}

/// The handshake, and the comparison of the server's identity with the expected one.
async fn secure(target: &Target, tcp: TcpStream, calling: &Calling) -> Result<TlsIo, DialError> {
    let address = tcp.peer_addr().map_err(|error| target.refused(Trouble::of_io(&error)))?;
    let connector = TlsConnector::from(calling.config.clone());
    let stream = connector
        .connect(target.server_name.clone(), tcp)
        .await
        .map_err(|error| target.refused(Trouble::of_io(&error)))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Peer::of_chain(chain, address)
        .map_err(|problem| target.refused(Trouble::Theirs(Fault::Identity(problem.to_string()))))?;
    let is_stranger = calling.trust_domain.as_ref().is_some_and(|ours| peer.id.trust_domain != *ours);
    if is_stranger || !calling.expected.is_met_by(&peer.id.subject) {
        let (endpoint, expected) = (target.endpoint.clone(), calling.expected);
        return Err(DialError::WrongPeer { endpoint, found: peer.id, expected });
    }
    let spoken = stream.get_ref().1.alpn_protocol();
    if spoken.is_none_or(|spoken| !calling.config.alpn_protocols.iter().any(|asked| asked == spoken)) {
        return Err(target.refused(Trouble::NotHttp2));
    }
    Ok(TlsIo::new(stream.into(), peer, None))
}

/// HTTP/2 over the connection, up to the server's first word: only that shows that it accepted our certificate.
async fn speak(target: &Target, io: TlsIo) -> Result<Dialed, DialError> {
    let peer = io.peer().clone();
    let once = Arc::new(Mutex::new(Some(TokioIo::new(io))));
    let connector = tower::service_fn(move |_: Uri| {
        let io = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(io.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, "this connection has ended (连接已断开)")
        }))
    });
    let channel = Endpoint::from(target.uri.clone())
        .user_agent(concat!("guantong/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| target.refused(Trouble::Other(error.to_string())))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await;
    // A refusal reads differently in the channel's error, depending on how far it came; the line knows the reason.
    peer.first_word().await.map_err(|trouble| target.refused(trouble))?;
    let channel = channel.map_err(|error| {
        target.refused(Trouble::of_error(&error).unwrap_or_else(|| Trouble::Other(error.to_string())))
    })?;
    Ok(Dialed { channel, peer })
}
