//! A line between two nodes that runs through this process, so that it can be cut and slowed down. It passes bytes on and
//! never looks at them: what it carries is encrypted.

use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::HOST;
use super::process::Port;

/// Bytes that are read and passed on at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces of one direction that may be on their way at once, and how much a slow line takes before it has passed it on; who
/// sends more has to wait.
const PIECES_MAX: usize = 64;
const BUFFER_TIME: Duration = Duration::from_secs(1);
/// How long TCP waits at least before it sends again what was lost; what follows waits with it.
const RESEND_TIME: Duration = Duration::from_millis(200);

/// How slow a line is, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    /// What every byte takes longer.
    pub delay: Duration,
    /// What goes through in a second, in bytes; at least 1.
    pub bytes_per_s: u32,
    /// One of so many pieces is lost once, which TCP finds out and sends it again; 0: none.
    pub lost_one_in: u32,
}

/// How a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineState {
    /// It carries.
    Whole,
    /// It carries, slowly.
    Slow(Slowness),
    /// It carries nothing any more, and tells neither end: connections stay open.
    Silent,
    /// Connections break, and new ones fail.
    Cut,
}

impl LineState {
    fn carries(self) -> bool {
        matches!(self, LineState::Whole | LineState::Slow(_))
    }
}

/// A line; dropping it cuts it for ever.
pub(super) struct CuttableLine {
    port: u16,
    state: watch::Sender<LineState>,
    task: JoinHandle<()>,
}

impl CuttableLine {
    /// Listens on a port of its own, and passes connections on to `target` as it is at their time.
    pub(super) async fn open(target: Port) -> Result<CuttableLine> {
        let listener = TcpListener::bind((HOST, 0)).await.context("no free port for a line")?;
        let port = listener.local_addr()?.port();
        let (state, now) = watch::channel(LineState::Whole);
        let task = tokio::spawn(pass_on(listener, target, now));
        Ok(CuttableLine { port, state, task })
    }

    /// Where the child dials.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts, silences, slows down or mends the line.
    pub(super) fn set(&self, state: LineState) {
        self.state.send_replace(state);
    }
}

impl Drop for CuttableLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: TcpListener, target: Port, state: watch::Receiver<LineState>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (Ok((child, _)), Some(port)) = (accepted, target.get()) else { continue };
                let state = state.clone();
                if *state.borrow() != LineState::Cut {
                    connections.spawn(carry(child, port, state));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until an end closes it or the line is cut. One that fell silent never carries again.
async fn carry(mut child: TcpStream, port: u16, mut state: watch::Receiver<LineState>) {
    let Ok(mut parent) = TcpStream::connect((HOST, port)).await else { return };
    let now = state.clone();
    let carried = async {
        // Small frames must not wait for each other here; the nodes themselves do the same.
        child.set_nodelay(true)?;
        parent.set_nodelay(true)?;
        let ((from_child, to_child), (from_parent, to_parent)) = (child.split(), parent.split());
        tokio::try_join!(one_way(from_child, to_parent, &now), one_way(from_parent, to_child, &now))
    };
    // How a connection ended is for the nodes to notice.
    tokio::select! {
        _ = carried => return,
        _ = state.wait_for(|state| !state.carries()) => {}
    }
    // Both sockets stay open until the line is cut or mended.
    let _ = state.wait_for(|state| *state != LineState::Silent).await;
}

/// One direction, to its end.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: &watch::Receiver<LineState>,
) -> io::Result<()> {
    let (given, mut on_their_way) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async move {
        let (mut timing, mut bytes) = (Timing::new(Instant::now()), vec![0; PIECE_BYTES]);
        loop {
            sleep_until(timing.takes_more()).await;
            let read = from.read(&mut bytes).await?;
            let piece = bytes.get(..read).unwrap_or_default().to_vec();
            let arrives = timing.arrival(*state.borrow(), read, Instant::now());
            if read == 0 || given.send((arrives, piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((arrives, piece)) = on_their_way.recv().await {
            sleep_until(arrives).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_| ())
}

/// When pieces of one direction arrive: in their order, and each after all before it have gone through.
struct Timing {
    free: Instant,
    last: Instant,
    pieces: u32,
}

impl Timing {
    fn new(now: Instant) -> Timing {
        Timing { free: now, last: now, pieces: 0 }
    }

    /// When the line takes the next piece.
    fn takes_more(&self) -> Instant {
        self.free.checked_sub(BUFFER_TIME).unwrap_or(self.free)
    }

    /// For a piece that is there now.
    fn arrival(&mut self, state: LineState, bytes: usize, now: Instant) -> Instant {
        let mut arrives = now;
        if let LineState::Slow(Slowness { delay, bytes_per_s, lost_one_in }) = state {
            self.pieces = self.pieces.wrapping_add(1);
            let seconds = bytes as f64 / f64::from(bytes_per_s.max(1));
            self.free = self.free.max(now) + Duration::from_secs_f64(seconds);
            let is_lost = lost_one_in > 0 && self.pieces.is_multiple_of(lost_one_in);
            arrives = self.free + delay + if is_lost { RESEND_TIME + delay } else { Duration::ZERO };
        }
        self.last = self.last.max(arrives);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_arrive_late_in_order_and_not_faster_than_the_line() {
        let began = Instant::now();
        let slowness = Slowness { delay: Duration::from_millis(300), bytes_per_s: 10_000, lost_one_in: 3 };
        let mut timing = Timing::new(began);
        assert_eq!(timing.arrival(LineState::Whole, 1_000, began), began);
        let mut arrives_ms = |state, bytes| (timing.arrival(state, bytes, began) - began).as_millis();
        let slow = LineState::Slow(slowness);
        assert_eq!(arrives_ms(slow, 1_000), 400);
        assert_eq!(arrives_ms(slow, 1_000), 500, "100 ms for each thousand bytes");
        assert_eq!(arrives_ms(slow, 1_000), 1_100, "lost, and sent again");
        assert_eq!(arrives_ms(slow, 1_000), 1_100, "waits for the one before it");
        assert_eq!(arrives_ms(slow, 10_000), 1_700);
        assert_eq!(arrives_ms(LineState::Whole, 1_000), 1_700, "mended: nothing overtakes");
        assert_eq!(timing.takes_more(), began + Duration::from_millis(400), "a second before all is through");
    }
}
