//! What the parent trusts: roots and revocation lists, taken over while the link is up.
//!
//! What is taken over is decided in `identity::trust`, by signatures alone. It must never disturb the link.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use guantong_gateway::audit::Event;
use guantong_gateway::engine::Engine;
use guantong_proto::v1;
use guantong_proto::v1::enrolment_service_client::EnrolmentServiceClient;
use tonic::transport::Channel;

use crate::identity::IdentityStore;
use crate::identity::store::Matter;
use crate::identity::trust::Trust;

/// Wait before it is asked for again, where the answer ended and the link goes on.
const AGAIN: Duration = Duration::from_secs(60);
/// The longest answer, in bytes: the lists of a province.
const TRUST_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Takes over what the parent says, over the connection of a link. It never ends by itself.
pub(super) async fn follow(channel: Channel, identity: Arc<IdentityStore>, engine: Engine) -> Infallible {
    let mut client = EnrolmentServiceClient::new(channel).max_decoding_message_size(TRUST_MAX_BYTES);
    loop {
        match client.watch_trust(v1::WatchTrustRequest {}).await {
            Ok(answer) => {
                let mut answers = answer.into_inner();
                while let Ok(Some(answer)) = answers.message().await {
                    let offered = answer.trust.unwrap_or_default();
                    if take_over(&identity, &offered).await {
                        engine.audit(Event::TrustTakenOver { from: "parent" });
                    }
                }
            }
            // A parent of an earlier version.
            Err(status) => tracing::debug!("the parent does not say whom it trusts: {}", status.message()),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether anything was new.
async fn take_over(identity: &Arc<IdentityStore>, offered: &v1::Trust) -> bool {
    let offered =
        Trust { authorities: offered.authorities.clone(), revocations: offered.revocation_lists.clone() };
    let store = identity.clone();
    let Ok(taken) = tokio::task::spawn_blocking(move || store.take_over(&offered)).await else {
        return false;
    };
    let mut is_new = false;
    let problem = match taken {
        Ok((changed, not_taken)) => {
            is_new = changed;
            if changed {
                tracing::info!(
                    "revocation lists or roots were taken over from the parent (已接收上级的吊销列表或根证书)"
                );
            }
            not_taken.first().map(ToString::to_string)
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = &problem {
        tracing::error!("what the parent trusts is not taken over: {problem}");
    }
    let note =
        |problem| format!("what the parent trusts is not taken over: {problem} (未接收上级的信任信息)");
    identity.note(Matter::Trust, problem.map(note));
    is_new
}
