//! The two ways in: the local socket, and mutual TLS where it is configured. Both lead to the same services; each
//! request carries who is calling, as the system or the certificate vouches for it. It must never let a request
//! through without that.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use guantong_gateway::audit::Event;
use guantong_gateway::engine::Engine;
use guantong_gateway::service::{Caller, Rates, Shown, Visitor, Who};
use guantong_proto::v1;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tower::util::MapRequestLayer;

use super::audited::Audited;
use super::identity::NodeIdentity;
use super::rated::Rated;
use super::unread::Unread;
use crate::config::Config;
use crate::identity::accept::Incoming;
use crate::identity::lobby::{Guest, Lobby};
use crate::identity::{Acceptor, Peer, Refusal, Subject};
use crate::telemetry::request_span;

mod socket;

use socket::LocalSocket;

/// What a caller may send on one stream, and on one connection, before it is read. It takes no memory until it is
/// used, and a slow store must not be buried by its links.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Calls under way on one connection.
const STREAMS_MAX: u32 = 128;
/// Headers of one call.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// A line that is silent for so long is asked whether it is still there, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Calls of a guest under way on one connection, and how long one may take.
const GUEST_STREAMS_MAX: u32 = 4;
const GUEST_CALL_TIME: Duration = Duration::from_secs(30);
/// The paths of the calls that look at the caller's certificate.
const ENROLMENT: &str = "/guantong.v1.EnrolmentService/";
/// Wait after the system could not give a connection.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Open listeners, before anyone is let in.
pub(super) struct Doors {
    local: LocalSocket,
    network: Option<(Acceptor, TcpListener)>,
}

impl Doors {
    /// Opens what the configuration names.
    pub(super) async fn open(config: &Config, identity: Option<&Arc<NodeIdentity>>) -> anyhow::Result<Doors> {
        let local = LocalSocket::open(&config.socket(), config.socket_group.as_deref())
            .context("`socket` cannot be opened (无法打开本机套接字)")?;
        tracing::info!(socket = %config.socket().display(), "listening to programs of this machine (本机接口已开启)");
        let network = match (&config.listen, identity) {
            (Some(listen), Some(identity)) => {
                let listener = TcpListener::bind(listen)
                    .await
                    .with_context(|| format!("cannot listen on {listen}, see `listen` (无法监听该地址)"))?;
                tracing::info!(%listen, "listening to nodes and operators over mutual TLS (网络接口已开启)");
                Some((Acceptor::new(identity.store.clone()), listener))
            }
            _ => None,
        };
        Ok(Doors { local, network })
    }

    /// The latest connections that were refused, for the node's status.
    pub(super) fn refusals(&self) -> Arc<dyn Fn() -> Vec<v1::RefusedConnection> + Send + Sync> {
        let acceptor = self.network.as_ref().map(|(acceptor, _)| acceptor.clone());
        Arc::new(move || {
            let refusals = acceptor.as_ref().map_or_else(Vec::new, Acceptor::recent_refusals);
            refusals.iter().map(shown).collect()
        })
    }

    /// Lets callers in until `stop`, and then waits for those inside. With a lobby goes how long after its certificate ran
    /// out a node is let in there.
    pub(super) fn serve(
        self,
        services: Routes,
        lobby: Option<(Routes, Duration)>,
        engine: &Engine,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        let services = with_manners(services);
        let audited = Audited(engine.clone());
        let local = serve_local(self.local, services.clone(), audited.clone(), stop.clone());
        tasks.spawn(local);
        if let Some((acceptor, listener)) = self.network {
            let engine = engine.clone();
            acceptor.tell(move |address, trouble| {
                let (address, reason) = (address.to_string(), trouble.code());
                engine.audit(Event::ConnectionRefused { address, reason });
            });
            // Accepting begins here: it needs the runtime, and somebody to answer.
            let incoming = match lobby {
                Some((lobby, grace)) => {
                    let (incoming, guests) = acceptor.incoming_with_lobby(listener, grace);
                    tasks.spawn(serve_lobby(guests, lobby, stop.clone()));
                    incoming
                }
                None => acceptor.incoming(listener),
            };
            let unread = Unread::default();
            tasks.spawn(unread.clone().end(stop.clone()));
            let rates = Rates::new(audited.0.clone());
            tasks.spawn(serve_network(incoming, services, audited, rates, unread, stop.clone()));
        }
    }
}

/// gRPC's own services: health, and the contract for clients that ask for it.
fn with_manners(services: Routes) -> Routes {
    let health = tonic_health::server::HealthService::from_health_reporter(
        tonic_health::server::HealthReporter::new(),
    );
    let services = services.add_service(tonic_health::pb::health_server::HealthServer::new(health));
    let contract = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(guantong_proto::FILE_DESCRIPTOR_SET)
    };
    // The official Python client, among others, still asks for the older of the two.
    let reflection = contract().build_v1().and_then(|v1| Ok((v1, contract().build_v1alpha()?)));
    match reflection {
        Ok((v1, v1alpha)) => services.add_service(v1).add_service(v1alpha).prepare(),
        // The descriptors are a part of this program; without reflection it still works.
        Err(error) => {
            tracing::error!("reflection is not served: {error}");
            services.prepare()
        }
    }
}

fn server() -> Server {
    Server::builder()
        .trace_fn(request_span)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
}

async fn serve_local(socket: LocalSocket, services: Routes, audited: Audited, stop: CancellationToken) {
    let callers = MapRequestLayer::new(|mut request: Request<Body>| {
        let user = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred.map(|peer| peer.uid()));
        let address = user.map_or_else(|| "local".to_owned(), |user| format!("local user {user}"));
        request.extensions_mut().insert(Caller { who: Who::Local, address });
        request
    });
    let incoming = connections(&socket.listener);
    let served = server()
        .layer(callers)
        .layer(audited)
        .add_routes(services)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await;
    ended("the local socket", served);
    socket.remove();
}

async fn serve_network(
    incoming: Incoming,
    services: Routes,
    audited: Audited,
    rates: Rates,
    unread: Unread,
    stop: CancellationToken,
) {
    let callers = MapRequestLayer::new(|mut request: Request<Body>| {
        // Without a peer there is no caller, and every service refuses.
        if let Some(peer) = request.extensions().get::<Peer>() {
            let caller = Caller { who: who(&peer.id.subject), address: peer.address.to_string() };
            let enrolling = request.uri().path().starts_with(ENROLMENT);
            let visitor = enrolling.then(|| visitor(peer.address, false, Some(peer)));
            request.extensions_mut().insert(caller);
            if let Some(visitor) = visitor {
                request.extensions_mut().insert(visitor);
            }
        }
        request
    });
    let served = server()
        .layer(callers)
        .layer(Rated(rates))
        .layer(audited)
        .layer(unread)
        .add_routes(services)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await;
    ended("the network port", served);
}

/// Those who have no certificate yet, or one that has run out. They are nobody's caller.
async fn serve_lobby(guests: Lobby, services: Routes, stop: CancellationToken) {
    let visitors = MapRequestLayer::new(|mut request: Request<Body>| {
        if let Some(guest) = request.extensions().get::<Guest>() {
            let visitor = visitor(guest.address, true, guest.peer.as_ref());
            request.extensions_mut().insert(visitor);
        }
        request
    });
    let served = server()
        .max_concurrent_streams(GUEST_STREAMS_MAX)
        .timeout(GUEST_CALL_TIME)
        .layer(visitors)
        .add_routes(services)
        .serve_with_incoming_shutdown(guests, stop.cancelled_owned())
        .await;
    ended("the lobby", served);
}

fn visitor(address: SocketAddr, in_lobby: bool, peer: Option<&Peer>) -> Visitor {
    let shown = peer.and_then(|peer| {
        let division = peer.id.subject.division()?;
        let (hosts, serial) = (peer.hosts(), peer.serial.to_string());
        Some(Shown { division, hosts, serial, not_after_ms: peer.not_after_ms })
    });
    Visitor { address: address.ip(), in_lobby, shown }
}

fn ended(door: &str, served: Result<(), tonic::transport::Error>) {
    if let Err(error) = served {
        tracing::error!("{door} failed: {error}");
    }
}

fn who(subject: &Subject) -> Who {
    match subject {
        Subject::Node(division) => Who::Node(*division),
        Subject::Operator(name) => Who::Operator(name.clone()),
        Subject::Partner(name) => Who::Partner(name.clone()),
    }
}

/// Connections as they come. Where the system has none to give, it is not asked again at once.
fn connections(listener: &UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    futures::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => {
                    tracing::warn!("cannot accept a local connection: {error} (无法接受本机连接)");
                    tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                }
            }
        }
    })
}

fn shown(refusal: &Refusal) -> v1::RefusedConnection {
    let seconds = i64::try_from(refusal.last_ms / 1000).unwrap_or_default();
    let nanos = i32::try_from(refusal.last_ms % 1000 * 1_000_000).unwrap_or_default();
    let times = if refusal.count > 1 { format!(", {} times", refusal.count) } else { String::new() };
    v1::RefusedConnection {
        time: Some(prost_types::Timestamp { seconds, nanos }),
        address: refusal.address.to_string(),
        reason: format!("{}{times}", refusal.trouble.words()),
    }
}
