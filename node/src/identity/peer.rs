//! An open connection: who is at the other end, and a way to cut it.
//!
//! [`TlsIo`] exists only for a finished handshake with a known identity, in either direction. It must never hand out
//! bytes after its peer was cut.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::certificate::{Certificate, CertificateProblem};
use super::spiffe::SpiffeId;
use super::words::Trouble;

/// Silence after which TCP asks whether the other end is still there.
const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long bytes may wait that the other end does not take: then it is gone, or holds memory here for nothing.
#[cfg(target_os = "linux")]
const TCP_UNREAD_MAX: Duration = Duration::from_secs(60);

/// Who is at the other end of one connection. Served requests carry it in their extensions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The identity its certificate vouches for, in this node's trust domain.
    pub id: SpiffeId,
    /// Where it came from, or where it was reached. Not an identity: many may share one.
    pub address: SocketAddr,
    /// The serial number of its certificate, in lower-case hexadecimal digits.
    pub serial: Arc<str>,
    /// When its certificate runs out, Unix time in milliseconds.
    pub not_after_ms: u64,
    /// Cancelling it ends this connection, and no other of the same peer.
    pub cancel: CancellationToken,
    /// What it showed, its own certificate first: for checking again when the rules have changed.
    pub(super) chain: Arc<[CertificateDer<'static>]>,
    line: Arc<Line>,
}

impl Peer {
    /// Who showed this chain.
    pub(super) fn of_chain(
        chain: &[CertificateDer<'_>],
        address: SocketAddr,
    ) -> Result<Peer, CertificateProblem> {
        let own = chain.first().ok_or(CertificateProblem::NoIdentity)?;
        let certificate = Certificate::read(own)?;
        Ok(Peer {
            id: certificate.identity()?,
            address,
            serial: certificate.serial.into(),
            not_after_ms: certificate.not_after_ms,
            cancel: CancellationToken::new(),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            line: Arc::default(),
        })
    }

    /// The DNS names and addresses in its certificate.
    pub fn hosts(&self) -> Vec<String> {
        let read = self.chain.first().and_then(|own| Certificate::read(own).ok());
        let Some(Certificate { dns_names, addresses, .. }) = read else { return Vec::new() };
        dns_names.into_iter().chain(addresses.iter().map(ToString::to_string)).collect()
    }

    /// Ends the connection for a reason that [`ended`](Self::ended) then gives.
    pub fn cut(&self, reason: &'static str) {
        self.line.end(Trouble::Cut(reason));
        self.cancel.cancel();
    }

    /// Why the connection ended; `None` while it is open or if it ended without any trouble.
    pub fn ended(&self) -> Option<Trouble> {
        self.line.ended.get().cloned()
    }

    /// Waits until the other end has said something after the handshake, or the connection has ended.
    pub(super) async fn first_word(&self) -> Result<(), Trouble> {
        let mut state = self.line.state.subscribe();
        loop {
            match *state.borrow_and_update() {
                State::Quiet => {}
                State::Talking => return Ok(()),
                State::Ended => return Err(self.ended().unwrap_or(Trouble::Closed)),
            }
            if state.changed().await.is_err() {
                return Err(Trouble::Closed);
            }
        }
    }
}

/// What is known of a connection's course.
#[derive(Debug, Default)]
struct Line {
    state: watch::Sender<State>,
    ended: OnceLock<Trouble>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Quiet,
    Talking,
    Ended,
}

impl Line {
    /// Only the first reason counts: those after it follow from it.
    fn end(&self, trouble: Trouble) {
        let _ = self.ended.set(trouble);
        self.state.send_replace(State::Ended);
    }
}

/// A connection after its handshake. As a server's connection its [`ConnectInfo`](Connected::ConnectInfo) is the
/// [`Peer`].
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    talking: bool,
    /// Dropped with the connection: takes it off its acceptor's list.
    _registration: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl TlsIo {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        peer: Peer,
        registration: Option<Box<dyn std::any::Any + Send + Sync>>,
    ) -> TlsIo {
        let cancelled = Box::pin(peer.cancel.clone().cancelled_owned());
        TlsIo { stream, peer, cancelled, talking: false, _registration: registration }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cancelled.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.peer.line.end(Trouble::Cut("cancelled"));
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "this node ended the connection"))
    }

    /// A refused client often notices on writing, while the alert that says why waits to be read.
    fn end_of_write(&mut self, error: &io::Error, cx: &mut Context<'_>) {
        let mut bytes = [0; 64];
        let alert = match Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut bytes)) {
            Poll::Ready(Err(alert)) => Trouble::of_io(&alert),
            _ => Trouble::of_io(error),
        };
        self.peer.line.end(alert);
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_cut(cx)?;
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                if !this.talking {
                    this.talking = true;
                    this.peer.line.state.send_replace(State::Talking);
                }
            }
            Poll::Ready(Ok(())) if room => this.peer.line.end(Trouble::Closed),
            Poll::Ready(Err(error)) => this.peer.line.end(Trouble::of_io(error)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_cut(cx)?;
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        if let Poll::Ready(Err(error)) = &polled {
            this.end_of_write(error, cx);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        if let Poll::Ready(Err(error)) = &polled {
            this.end_of_write(error, cx);
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_cut(cx)?;
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Err(error)) = &polled {
            this.end_of_write(error, cx);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Drop for TlsIo {
    fn drop(&mut self) {
        // Whoever waits for a first word must not wait for a connection that is gone.
        self.peer.line.state.send_replace(State::Ended);
    }
}

impl Connected for TlsIo {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Small writes go out at once; a dead line, and a reader that takes nothing, are noticed.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE_IDLE).with_interval(TCP_KEEPALIVE_INTERVAL);
    let socket = socket2::SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_UNREAD_MAX))?;
    socket.set_tcp_keepalive(&keepalive)
}
