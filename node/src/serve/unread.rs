//! Answers that the other end does not take: who grants no room for them and goes on answering pings would hold places
//! and memory here for ever. Such a connection is ended.
//!
//! Links are left out: their sessions end where receipts stay away. It must never hold up an answer.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::identity::Peer;

/// How long a piece of an answer may wait to be taken, and how much longer for what it holds: at this many bytes a second
/// the slowest line gets it.
const PATIENCE: Duration = Duration::from_secs(40);
const SLOWEST_BYTES_PER_S: u64 = 8 * 1024;
/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The path of links.
const LINKS: &str = "/guantong.v1.ExchangeService/";

fn time_for(bytes: usize) -> Duration {
    PATIENCE + Duration::from_millis(bytes as u64 * 1_000 / SLOWEST_BYTES_PER_S)
}

/// Pieces of answers that were not taken yet, of all connections: as many as there are.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<Mutex<Pieces>>);

#[derive(Default)]
struct Pieces {
    next: u64,
    waiting: HashMap<u64, Piece>,
}

struct Piece {
    peer: Arc<Peer>,
    due: Instant,
}

impl Unread {
    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        // Each change is one call: the data is sound after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same bytes, counted until nothing holds them any more: then all of them have gone into the connection.
    fn watched(&self, peer: &Arc<Peer>, data: Bytes) -> Bytes {
        if data.is_empty() {
            return data;
        }
        let mut pieces = self.pieces();
        let number = pieces.next;
        pieces.next += 1;
        let due = Instant::now() + time_for(data.len());
        pieces.waiting.insert(number, Piece { peer: peer.clone(), due });
        drop(pieces);
        Bytes::from_owner(Watched { data, number, unread: self.clone() })
    }

    /// Ends connections whose answers are not taken, until `stop`.
    pub(super) async fn end(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
            let now = Instant::now();
            let late: Vec<Arc<Peer>> = {
                let pieces = self.pieces();
                pieces
                    .waiting
                    .values()
                    .filter(|piece| piece.due <= now)
                    .map(|piece| piece.peer.clone())
                    .collect()
            };
            for peer in late.iter().filter(|peer| peer.ended().is_none()) {
                let division = peer.id.subject.division();
                tracing::warn!(
                    ?division, serial = %peer.serial, address = %peer.address,
                    "connection ended: the other side takes no answers (对方长时间不接收应答，连接已断开)"
                );
                peer.cut("the other side took no answers");
            }
        }
    }
}

/// A piece of an answer.
struct Watched {
    data: Bytes,
    number: u64,
    unread: Unread,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.unread.pieces().waiting.remove(&self.number);
    }
}

impl<S> Layer<S> for Unread {
    type Service = Watching<S>;

    fn layer(&self, inner: S) -> Watching<S> {
        Watching { unread: self.clone(), inner }
    }
}

/// Services whose answers are watched.
#[derive(Clone)]
pub(super) struct Watching<S> {
    unread: Unread,
    inner: S,
}

impl<S, I> Service<Request<I>> for Watching<S>
where
    S: Service<Request<I>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let is_link = request.uri().path().starts_with(LINKS);
        let peer = request.extensions().get::<Peer>().filter(|_| !is_link).cloned().map(Arc::new);
        let unread = self.unread.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let Some(peer) = peer else { return Ok(response) };
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| frame.map_data(|data| unread.watched(&peer, data))))
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_have_longer() {
        assert_eq!(time_for(0), PATIENCE);
        // The largest message over a line of 64 kbit/s.
        assert_eq!(time_for(4 << 20), PATIENCE + Duration::from_secs(512));
    }
}
