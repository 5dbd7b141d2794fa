//! `ExchangeService`: the parent's end of a link.

use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use guantong_proto::v1;
use guantong_proto::v1::Recognition;
use guantong_proto::v1::exchange_service_server::ExchangeService;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::driver::{Driver, FRAMES_MAX};
use super::links::{LINKS_MAX, Links};
use super::{caller, status};
use crate::audit::Event;
use crate::division::Division;
use crate::engine::Engine;
use crate::ingest::topology::Role;
use crate::session::greeting::{Token, recognise};
use crate::session::{Session, Settings, Side};

/// Bytes of batches that a child may have under way to this node.
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// The window where many children are linked: a gateway that is swamped grants less.
const WINDOW_BYTES_SWAMPED: u32 = 256 * 1024;
/// Links beyond which windows are small.
const SWAMPED_LINKS: usize = 256;

pub(super) struct Exchange {
    engine: Engine,
    links: Links,
    software_version: String,
    stop: CancellationToken,
}

impl Exchange {
    pub(super) fn new(
        engine: Engine,
        links: Links,
        software_version: String,
        stop: CancellationToken,
    ) -> Exchange {
        Exchange { engine, links, software_version, stop }
    }

    fn session(&self, child: Division) -> Session {
        let shared = self.engine.shared();
        let swamped = self.links.child_count() > SWAMPED_LINKS;
        let settings = Settings {
            side: Side::Parent,
            own: shared.own(),
            peer: child,
            epoch: shared.epoch(),
            revision: shared.revision(),
            peer_revision: 0,
            token: None,
            rules: shared.schema.rule_table(),
            window_bytes: if swamped { WINDOW_BYTES_SWAMPED } else { WINDOW_BYTES },
            software_version: self.software_version.clone(),
            limits: Default::default(),
        };
        Session::new(settings, (shared.environment.now_ms)())
    }

    /// While a child is linked, only the store that holds its newest token may take the link over: a half-open line
    /// does not lock a node out, and a copy of it does not push it aside.
    async fn is_intruder(&self, child: Division, hello: &v1::Hello) -> Result<bool, Status> {
        if !self.links.child_is_linked(child) {
            return Ok(false);
        }
        let known =
            self.engine.peer(Role::Child, child).await.map_err(|e| status::busy(e.to_string(), RETRY))?;
        let token = hello.token.map(Token::from);
        Ok(known.is_some_and(|peer| recognise(&peer.issued, token) != Recognition::Known))
    }
}

const RETRY: Duration = Duration::from_secs(5);

#[tonic::async_trait]
impl ExchangeService for Exchange {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<v1::LinkResponse, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<v1::LinkRequest>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let (child, address) = caller::node(request.extensions())?;
        let own = self.engine.shared().own();
        if !own.strictly_contains(child) {
            let message = format!("{child} does not lie inside {own}: this node is not its parent");
            return Err(status::not_allowed(message));
        }
        if self.links.child_count() >= LINKS_MAX {
            return Err(status::busy("this gateway serves as many links as it can", Duration::from_secs(30)));
        }
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(Duration::from_secs(10), inbound.message()).await;
        let first = first.map_err(|_| status::busy("no Hello came in 10 s", RETRY))??;
        let frame = first.and_then(|r| r.frame).unwrap_or_default();
        if let Some(v1::frame::Kind::Hello(hello)) = &frame.kind
            && self.is_intruder(child, hello).await?
        {
            let reason = "a second node with the identity of one that is linked was refused; stop the copy \
                          (身份重复的节点被拒绝，请停用副本)";
            self.links.refused(child, &address, reason);
            tracing::error!(%child, %address, reason);
            self.engine.audit(Event::CopiedNode { peer: child });
            return Err(status::duplicate_identity());
        }
        let (out, frames) = mpsc::channel(FRAMES_MAX);
        let mut session = self.session(child);
        let now_ms = (self.engine.shared().environment.now_ms)();
        // A broken first frame ends the session with a Goodbye, like any other.
        let _ = session.handle_frame(now_ms, frame);
        let stop = self.stop.child_token();
        let driver = Driver::new(
            self.engine.clone(),
            self.links.clone(),
            session,
            Role::Child,
            child,
            &address,
            out,
            stop,
        );
        let rest = inbound.map(|request| request.map(|r| r.frame.unwrap_or_default()));
        tokio::spawn(driver.run(Box::pin(rest)));
        let responses = ReceiverStream::new(frames).map(|frame| Ok(v1::LinkResponse { frame: Some(frame) }));
        Ok(Response::new(Box::pin(responses)))
    }
}
