//! The child's end of a link: the call to the parent, and its driver.

use std::time::Duration;

use guantong_proto::v1;
use guantong_proto::v1::exchange_service_client::ExchangeServiceClient;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::super::{Links, MESSAGE_MAX_BYTES};
use super::ending::refused;
use super::{Driver, FRAMES_MAX, LinkEnd};
use crate::division::Division;
use crate::engine::Engine;
use crate::ingest::topology::Role;
use crate::session::{Session, Settings, Side};

/// Bytes of batches that the parent may have under way to this node.
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Runs a link to the parent until it ends.
pub async fn dial(
    engine: &Engine,
    links: &Links,
    channel: tonic::transport::Channel,
    parent: Division,
    address: &str,
    stop: CancellationToken,
) -> LinkEnd {
    let failed = |reason: String| LinkEnd { reason, retry_after_ms: None, was_up: false };
    let (out, frames) = mpsc::channel::<v1::Frame>(FRAMES_MAX);
    let requests = ReceiverStream::new(frames).map(|frame| v1::LinkRequest { frame: Some(frame) });
    let known = match engine.peer(Role::Parent, parent).await {
        Ok(known) => known,
        Err(error) => return failed(error.to_string()),
    };
    let shared = engine.shared();
    let session = Session::new(
        Settings {
            side: Side::Child,
            own: shared.own(),
            peer: parent,
            epoch: shared.epoch(),
            revision: known.as_ref().map_or(shared.revision(), |p| p.continuous(shared.revision())),
            peer_revision: known.as_ref().map_or(0, |p| p.revision),
            token: known.and_then(|p| p.token),
            rules: shared.schema.rule_table(),
            window_bytes: WINDOW_BYTES,
            software_version: env!("CARGO_PKG_VERSION").into(),
            limits: Default::default(),
        },
        (shared.environment.now_ms)(),
    );
    let mut driver =
        Driver::new(engine.clone(), links.clone(), session, Role::Parent, parent, address, out, stop);
    // The Hello must be on its way before the server answers the call.
    driver.pump().await;
    let mut client = ExchangeServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES);
    let call = tokio::time::timeout(Duration::from_secs(15), client.link(requests));
    let response = match call.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return refused(&status),
        Err(_) => return failed("the parent did not answer the call in 15 s".into()),
    };
    let inbound = response.map(|frame| frame.map(|f| f.frame.unwrap_or_default()));
    driver.run(Box::pin(inbound)).await
}
