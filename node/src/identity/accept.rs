//! Accepting connections: from a TCP listener to a stream of peers with known identities.
//!
//! Each handshake is a task of its own with a limit on its time, and their number is bounded, so that strangers on the
//! port disturb nobody. Refusals are told to the operator in words, and to the peer by nothing but the TLS alert. A
//! failure of one connection must never end the stream.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{LazyConfigAcceptor, TlsStream};
use tokio_stream::Stream;

use super::crowd::{Place, Places, address_of};
use super::lobby::{self, GUESTS_MAX, GUESTS_PER_ADDRESS, Guest, GuestPlace, Lobby, LobbyIo};
use super::now_ms;
use super::peer::{Peer, TlsIo, tune};
use super::spiffe::SpiffeId;
use super::store::IdentityStore;
use super::tls::{ALPN_HTTP2, Identity};
use super::words::{Crowd, Fault, Trouble};

/// Refusals that are remembered for `status`.
const REFUSALS_KEPT: usize = 64;
/// A refusal that repeats is logged again after this long.
const REFUSAL_LOG_INTERVAL_MS: u64 = 60_000;
/// How often open connections are checked against the clock and the revocation lists.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Wait after the system could not give a connection, such as when it is out of file descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);
/// How long, and for how many bytes, a refused peer is listened to, so that the alert reaches it before a reset does.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;
/// Finished handshakes that wait for the server to take them.
const READY_CONNECTIONS: usize = 16;

/// Bounds on strangers, and on those who are known.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// Handshakes under way at once; further connections wait in the listener's queue.
    pub handshakes: usize,
    /// Handshakes of one address, so that it never takes all of them; further connections are refused.
    pub handshakes_per_address: usize,
    /// How long one handshake may take.
    pub handshake_time: Duration,
    /// Connections in all: each takes some 40 KiB and a file descriptor. More than there are links.
    pub connections: usize,
    /// Connections of one address. Many: a whole prefecture may stand behind one translated address.
    pub connections_per_address: usize,
    /// Connections of one identity. A node needs one; partners and operators may run a few programs.
    pub connections_per_identity: usize,
}

impl Default for AcceptLimits {
    fn default() -> AcceptLimits {
        AcceptLimits {
            handshakes: 256,
            handshakes_per_address: 64,
            handshake_time: Duration::from_secs(10),
            connections: 8_192,
            connections_per_address: 2_048,
            connections_per_identity: 64,
        }
    }
}

/// Connections from one address that failed for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where they came from.
    pub address: IpAddr,
    /// Why they failed.
    pub trouble: Trouble,
    /// How many there were.
    pub count: u64,
    /// When the first came, Unix time in milliseconds.
    pub first_ms: u64,
    /// When the last came, Unix time in milliseconds.
    pub last_ms: u64,
    logged_ms: u64,
}

/// Accepts connections with the identity that is current at each. Cheap to clone; clones share their state.
#[derive(Clone)]
pub struct Acceptor {
    identity: Arc<IdentityStore>,
    limits: AcceptLimits,
    shared: Arc<Shared>,
    lobby: Option<LobbyDoor>,
}

/// Where guests are let in.
#[derive(Clone)]
struct LobbyDoor {
    guests: mpsc::Sender<LobbyIo>,
    grace: Duration,
}

/// A connection after its handshake.
enum Arrived {
    Peer(TlsIo),
    Guest(LobbyIo),
}

/// Who is told of each refusal.
type Told = Box<dyn Fn(IpAddr, &Trouble) + Send + Sync>;

#[derive(Default)]
struct Shared {
    refusals: Mutex<VecDeque<Refusal>>,
    refused: AtomicU64,
    open: Mutex<HashMap<u64, Peer>>,
    next: AtomicU64,
    handshakes: Places<IpAddr>,
    connections: Places<()>,
    addresses: Places<IpAddr>,
    identities: Places<SpiffeId>,
    told: OnceLock<Told>,
    guests: Places<()>,
    guest_addresses: Places<IpAddr>,
}

/// Places of one connection.
type Seats = (Place<()>, Place<IpAddr>, Place<SpiffeId>);

impl Acceptor {
    /// An acceptor with the usual limits.
    pub fn new(identity: Arc<IdentityStore>) -> Acceptor {
        Acceptor::with_limits(identity, AcceptLimits::default())
    }

    /// An acceptor with limits of one's own.
    pub fn with_limits(identity: Arc<IdentityStore>, limits: AcceptLimits) -> Acceptor {
        Acceptor { identity, limits, shared: Arc::default(), lobby: None }
    }

    /// Starts accepting from the listener. What comes out is for tonic's `serve_with_incoming_shutdown`; it never
    /// yields an error and does not end by itself. Dropping it closes the listener; connections stay.
    pub fn incoming(&self, listener: TcpListener) -> Incoming {
        let (ready, connections) = mpsc::channel(READY_CONNECTIONS);
        tokio::spawn(self.clone().accept_all(listener, ready.clone()));
        tokio::spawn(self.clone().recheck_always(ready));
        Incoming { connections }
    }

    /// The same, and a lobby beside it, which also takes nodes whose certificate ran out no longer ago than `grace`.
    pub fn incoming_with_lobby(&self, listener: TcpListener, grace: Duration) -> (Incoming, Lobby) {
        let (guests, waiting) = mpsc::channel(READY_CONNECTIONS);
        let acceptor = Acceptor { lobby: Some(LobbyDoor { guests, grace }), ..self.clone() };
        (acceptor.incoming(listener), Lobby { guests: waiting })
    }

    /// The latest refusals, the newest first.
    pub fn recent_refusals(&self) -> Vec<Refusal> {
        let mut refusals: Vec<_> = lock(&self.shared.refusals).iter().cloned().collect();
        refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.last_ms));
        refusals
    }

    /// Tells somebody of each refusal, from now on; it must not block. Only the first who asks is told.
    pub fn tell(&self, told: impl Fn(IpAddr, &Trouble) + Send + Sync + 'static) {
        let _ = self.shared.told.set(Box::new(told));
    }

    /// How many connections were refused since the start.
    pub fn refused_count(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// The peers whose connections are open now; one with several connections is there several times.
    pub fn peers(&self) -> Vec<Peer> {
        lock(&self.shared.open).values().cloned().collect()
    }

    /// Cuts every open connection that would not be let in now: its certificate ran out, was revoked, or its
    /// authority is no longer trusted. Returns how many. Runs by itself after each reload and every minute.
    pub fn recheck(&self) -> usize {
        let identity = self.identity.current();
        let peers = self.peers();
        peers.iter().filter(|peer| cut_if_wrong(peer, &identity)).count()
    }

    async fn recheck_always(self, ready: mpsc::Sender<TlsIo>) {
        let mut replaced = self.identity.subscribe();
        loop {
            tokio::select! {
                () = ready.closed() => return,
                changed = replaced.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RECHECK_INTERVAL) => {}
            }
            self.recheck();
        }
    }

    async fn accept_all(self, listener: TcpListener, ready: mpsc::Sender<TlsIo>) {
        let slots = Arc::new(Semaphore::new(self.limits.handshakes.max(1)));
        loop {
            let slot = tokio::select! {
                () = ready.closed() => return,
                slot = slots.clone().acquire_owned() => slot,
            };
            let accepted = tokio::select! {
                () = ready.closed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, address)) => {
                    let from = address_of(address.ip());
                    let places = self.limits.handshakes_per_address;
                    let Some(place) = self.shared.handshakes.take(from, places) else {
                        self.refuse(address, Trouble::Crowded(Crowd::Handshakes));
                        continue;
                    };
                    let (acceptor, ready) = (self.clone(), ready.clone());
                    tokio::spawn(async move {
                        // The server is gone if this fails, and with it the need for the connection.
                        match acceptor.handshake(tcp, address).await {
                            Some(Arrived::Peer(connection)) => drop(ready.send(connection).await),
                            Some(Arrived::Guest(guest)) => {
                                if let Some(door) = &acceptor.lobby {
                                    drop(door.guests.send(guest).await);
                                }
                            }
                            None => {}
                        }
                        // Held to here, so that a server that is slow to take connections slows down strangers too.
                        drop((slot, place));
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error} (无法接受连接)");
                    tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn handshake(&self, tcp: TcpStream, address: SocketAddr) -> Option<Arrived> {
        if let Err(error) = tune(&tcp) {
            tracing::debug!(%address, "connection lost before the handshake: {error}");
            return None;
        }
        let identity = self.identity.current();
        let accepting = self.accept(tcp, address, &identity);
        match tokio::time::timeout(self.limits.handshake_time, accepting).await {
            Err(_) => self.refuse(address, Trouble::Silent),
            Ok(Err((error, tcp))) => {
                self.refuse(address, Trouble::of_io(&error));
                if let Some(tcp) = tcp {
                    linger(tcp).await;
                }
            }
            Ok(Ok((stream, place))) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let is_silent = chain.is_empty();
                // rustls lets in whoever asks for no protocol at all.
                if place.is_none() && stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP2) {
                    self.refuse(address, Trouble::NotHttp2);
                    return None;
                }
                match (place, Peer::of_chain(chain, address)) {
                    (None, Ok(peer)) => match self.seats(&peer) {
                        Ok(seats) => {
                            return Some(Arrived::Peer(self.register(stream.into(), peer, &identity, seats)));
                        }
                        Err(crowd) => self.refuse(address, Trouble::Crowded(crowd)),
                    },
                    (Some(place), Ok(peer)) => {
                        let guest = Guest { address, peer: Some(peer) };
                        return Some(Arrived::Guest(LobbyIo::new(stream, guest, place)));
                    }
                    (Some(place), Err(_)) if is_silent => {
                        let guest = Guest { address, peer: None };
                        return Some(Arrived::Guest(LobbyIo::new(stream, guest, place)));
                    }
                    (_, Err(problem)) => {
                        self.refuse(address, Trouble::Theirs(Fault::Identity(problem.to_string())))
                    }
                }
            }
        }
        None
    }

    /// The handshake. A place comes with it where the client has asked for the lobby, and has got one.
    async fn accept(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        identity: &Identity,
    ) -> Result<Handshaken, NotHandshaken> {
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
        tokio::pin!(hello);
        let start = match hello.as_mut().await {
            Ok(start) => start,
            Err(error) => return Err((error, hello.take_io())),
        };
        let asked =
            start.client_hello().alpn().is_some_and(|mut names| names.any(|name| name == lobby::ALPN));
        let mut place = None;
        let mut config = identity.server_config();
        if asked && let Some(door) = &self.lobby {
            place = self.guest_place(address);
            if place.is_some() {
                config =
                    identity.lobby_config(door.grace).map_err(|error| (io::Error::other(error), None))?;
            }
        }
        let accepted = start.into_stream(config).into_fallible().await;
        accepted.map(|stream| (stream, place)).map_err(|(error, tcp)| (error, Some(tcp)))
    }

    fn guest_place(&self, address: SocketAddr) -> Option<GuestPlace> {
        let all = self.shared.guests.take((), GUESTS_MAX)?;
        Some((all, self.shared.guest_addresses.take(address_of(address.ip()), GUESTS_PER_ADDRESS)?))
    }

    fn seats(&self, peer: &Peer) -> Result<Seats, Crowd> {
        let (shared, limits) = (&self.shared, &self.limits);
        let from = address_of(peer.address.ip());
        let all = shared.connections.take((), limits.connections).ok_or(Crowd::Connections)?;
        let address = shared.addresses.take(from, limits.connections_per_address).ok_or(Crowd::Address)?;
        let of_identity = shared.identities.take(peer.id.clone(), limits.connections_per_identity);
        Ok((all, address, of_identity.ok_or(Crowd::Identity)?))
    }

    fn register(
        &self,
        stream: TlsStream<TcpStream>,
        peer: Peer,
        judged_by: &Arc<Identity>,
        seats: Seats,
    ) -> TlsIo {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.open).insert(number, peer.clone());
        let registration = Registration { shared: self.shared.clone(), number, _seats: seats };
        // A reload during the handshake has looked through the list before this peer was on it.
        let current = self.identity.current();
        if !Arc::ptr_eq(judged_by, &current) {
            cut_if_wrong(&peer, &current);
        }
        TlsIo::new(stream, peer, Some(Box::new(registration)))
    }

    /// Remembers and reports a refusal. One that repeats is counted, not logged each time: a child that dials every
    /// few seconds must not fill the disk.
    fn refuse(&self, address: SocketAddr, trouble: Trouble) {
        if trouble == Trouble::Closed {
            // Port probes of load balancers and monitors.
            tracing::debug!(%address, "connection closed before the handshake ended");
            return;
        }
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let now = now_ms();
        let address = address.ip();
        if let Some(told) = self.shared.told.get() {
            told(address, &trouble);
        }
        let mut refusals = lock(&self.shared.refusals);
        let known = refusals.iter_mut().find(|known| known.address == address && known.trouble == trouble);
        let refusal = match known {
            Some(known) => known,
            None => {
                if refusals.len() == REFUSALS_KEPT {
                    let oldest = (0..refusals.len()).min_by_key(|index| refusals[*index].last_ms);
                    oldest.map(|index| refusals.remove(index));
                }
                refusals.push_back(Refusal {
                    address,
                    trouble,
                    count: 0,
                    first_ms: now,
                    last_ms: now,
                    logged_ms: 0,
                });
                let Some(new) = refusals.back_mut() else { return };
                new
            }
        };
        refusal.count += 1;
        refusal.last_ms = now;
        if now.saturating_sub(refusal.logged_ms) >= REFUSAL_LOG_INTERVAL_MS {
            refusal.logged_ms = now;
            tracing::warn!(%address, count = refusal.count, "connection refused: {}", refusal.trouble);
        }
    }
}

type Handshaken = (tokio_rustls::server::TlsStream<TcpStream>, Option<GuestPlace>);
type NotHandshaken = (io::Error, Option<TcpStream>);

fn cut_if_wrong(peer: &Peer, identity: &Identity) -> bool {
    let Err(why) = identity.check_peer(peer) else { return false };
    // An operator's name stays out of the log; the serial number finds it for those who may know.
    let division = peer.id.subject.division();
    tracing::warn!(?division, serial = %peer.serial, address = %peer.address, "connection ended: {why}");
    peer.cut(why.cut_reason());
    true
}

/// Connections with known peers, as they come.
pub struct Incoming {
    connections: mpsc::Receiver<TlsIo>,
}

impl Stream for Incoming {
    type Item = io::Result<TlsIo>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<TlsIo>>> {
        self.get_mut().connections.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// Takes a connection off the list when it is dropped.
struct Registration {
    shared: Arc<Shared>,
    number: u64,
    _seats: Seats,
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.number);
    }
}

/// Closes a refused connection without losing the alert: closing with unread bytes would send a reset after it.
async fn linger(mut tcp: TcpStream) {
    let drained = async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut (&mut tcp).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// The data behind these locks is sound after any panic: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
