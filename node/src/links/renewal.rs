//! The node's own certificate, renewed by itself: over the link's connection while it is good, in the parent's lobby
//! after it has run out.
//!
//! Each renewal has a new key, which is made here and never leaves. A failure is tried again, and shown until it is
//! over. It must never disturb the link.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use guantong_proto::v1;
use guantong_proto::v1::enrolment_service_client::EnrolmentServiceClient;
use tonic::transport::Channel;

use super::retry::Retry;
use super::unix_ms;
use crate::config::Parent;
use crate::identity::certificate::Certificate;
use crate::identity::pki::KeyRequest;
use crate::identity::store::Matter;
use crate::identity::words::beijing_time;
use crate::identity::{DialError, ExpectedPeer, IdentityStore, Trouble, connect_to_lobby};

/// For one renewal: the parent's authority signs, and waits for its disk.
const RENEWAL_TIME: Duration = Duration::from_secs(60);
/// How often the clock is looked at: it may be set, and a machine may have slept.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// When a certificate is due, Unix time in milliseconds.
pub(crate) fn due_ms(certificate: &Certificate) -> u64 {
    due(certificate.not_before_ms, certificate.not_after_ms, &certificate.serial)
}

/// From two thirds of its time on, each a little later than others that were issued with it.
fn due(from_ms: u64, to_ms: u64, serial: &str) -> u64 {
    let lifetime_ms = to_ms.saturating_sub(from_ms);
    let drawn = serial.get(serial.len().saturating_sub(4)..);
    let drawn = drawn.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
    // Up to a twelfth: at three quarters all have asked.
    let later_ms = lifetime_ms / 12 * drawn / 0xffff;
    from_ms.saturating_add(lifetime_ms / 3 * 2).saturating_add(later_ms)
}

/// Renews the certificate whenever it is due, over the connection of a link. It never ends by itself.
pub(super) async fn keep(channel: Channel, identity: Arc<IdentityStore>) -> Infallible {
    let mut retry = Retry::default();
    let mut replaced = identity.subscribe();
    loop {
        replaced.mark_unchanged();
        let due_ms = due_ms(identity.current().certificate());
        let wait = Duration::from_millis(due_ms.saturating_sub(unix_ms()));
        if !wait.is_zero() {
            identity.note(Matter::Renewal, None);
            tokio::select! {
                () = tokio::time::sleep(wait.min(LOOK_INTERVAL)) => {}
                _ = replaced.changed() => {}
            }
            continue;
        }
        match ask(channel.clone(), &identity).await {
            Ok(()) => retry.reset(),
            Err(reason) => {
                let until = beijing_time(identity.current().certificate().not_after_ms);
                identity.note(
                    Matter::Renewal,
                    Some(format!(
                        "the certificate is good until {until} and could not be renewed: {reason} (证书续期失败)"
                    )),
                );
                tokio::time::sleep(retry.wait(None)).await;
            }
        }
    }
}

/// Has a certificate renewed that has run out, in the parent's lobby. Says how it went.
pub(super) async fn return_to(parent: &Parent, address: &str, identity: &Arc<IdentityStore>) -> String {
    let expired = beijing_time(identity.current().certificate().not_after_ms);
    let reason = match visit(parent, address, identity).await {
        Ok(()) => return "the certificate was renewed after it had run out (证书过期后已续期)".to_owned(),
        Err(reason) => reason,
    };
    let text = format!(
        "this node's certificate expired on {expired} and is not renewed: {reason} (证书已过期，续期失败)"
    );
    identity.note(Matter::Renewal, Some(text.clone()));
    text
}

/// The visit to the lobby.
async fn visit(parent: &Parent, address: &str, identity: &Arc<IdentityStore>) -> Result<(), String> {
    let current = identity.current();
    if current.trusts_nobody(unix_ms()) {
        return Err(format!(
            "every root authority that it knows has ended, too, so it cannot tell its parent from others; {INVITED_AGAIN}"
        ));
    }
    let expected = ExpectedPeer::Node(parent.division);
    match connect_to_lobby(address, current.returning_config(), expected, RENEWAL_TIME).await {
        Ok(dialed) => {
            let asked = ask(dialed.channel, identity).await;
            asked.map_err(|reason| dialed.peer.ended().map_or(reason, |trouble| said(&trouble)))
        }
        Err(DialError::Refused { trouble, .. }) => Err(said(&trouble)),
        Err(error) => Err(error.to_string()),
    }
}

/// What is left where nothing can be renewed.
const INVITED_AGAIN: &str = "the parent's operator must invite this node again with `guantong invite`, and then run \
                             `guantong enroll --force` here (须由上级重新邀请)";

/// A parent that refuses a certificate which has run out will do so tomorrow, too.
fn said(trouble: &Trouble) -> String {
    use crate::identity::words::Fault;
    match trouble {
        Trouble::Ours(Fault::OutOfDate | Fault::Revoked) => {
            format!("the parent lets it in no more ({trouble}); {INVITED_AGAIN}")
        }
        other => other.to_string(),
    }
}

/// One renewal over a connection.
async fn ask(channel: Channel, identity: &Arc<IdentityStore>) -> Result<(), String> {
    let new = KeyRequest::new().map_err(|error| error.to_string())?;
    let mut client = EnrolmentServiceClient::new(channel);
    let request = v1::RenewRequest { signing_request: new.request_pem.clone() };
    let answer = tokio::time::timeout(RENEWAL_TIME, client.renew(request)).await;
    let answer = answer.map_err(|_| "the parent did not answer in time (上级未及时应答)".to_owned())?;
    let certificate = answer.map_err(|status| status.message().to_owned())?.into_inner().certificate;
    let store = identity.clone();
    let renewed = tokio::task::spawn_blocking(move || store.renew(&certificate, &new.key_pem)).await;
    match renewed.map_err(|_| "the new certificate was not kept".to_owned())? {
        Ok(renewed) => {
            let until = beijing_time(renewed.certificate().not_after_ms);
            tracing::info!("the certificate was renewed, valid to {until} (证书已自动续期)");
            identity.note(Matter::Renewal, None);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_due_between_two_thirds_and_three_quarters_of_their_time() {
        let due = |serial| due(1_200_000, 2_400_000, serial);
        assert_eq!((due("ab0000"), due("abffff"), due("")), (2_000_000, 2_100_000, 2_000_000));
        assert!((2_049_000..2_051_000).contains(&due("cd7fff")));
    }
}
