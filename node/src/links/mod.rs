//! The link to the parent, kept up: dialled, and dialled again whenever it ends, until the node stops.
//!
//! What goes over a link is the gateway's to know. Every attempt and what became of it is shown in the node's status.
//! It must never give up, and never dial in a tight loop.

pub(crate) mod renewal;
pub(crate) mod retry;
mod trust;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guantong_gateway::engine::Engine;
use guantong_gateway::service::{self, Checkpoints, LinkEnd, Links};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Parent;
use crate::identity::{ExpectedPeer, Identity, IdentityStore, Peer, connect};
use retry::Retry;

/// For one attempt, from looking up the name to the parent's first word.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// How often the parent's certificate is checked against the clock.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The link of this node to its parent.
pub struct Uplink {
    /// What the link carries.
    pub engine: Engine,
    /// Where its state is shown.
    pub links: Links,
    /// Who hands checkpoints of the audit log to the parent.
    pub checkpoints: Arc<Checkpoints>,
    /// Who dials; each attempt takes the identity of its moment.
    pub identity: Arc<IdentityStore>,
    /// Whom.
    pub parent: Parent,
}

impl Uplink {
    /// Keeps the link up until `stop`, and returns when it has ended in good order.
    pub async fn keep(self, stop: CancellationToken) {
        let mut retry = Retry::default();
        let mut replaced = self.identity.subscribe();
        let mut duty = self.engine.shared().duty();
        for address in self.parent.address.iter().cycle() {
            // Of several gateways on one database, one dials.
            tokio::select! {
                has = duty.wait_for(|has| *has) => if has.is_err() { return },
                () = stop.cancelled() => return,
            }
            let end = self.link_on_duty(address, &mut duty, &stop).await;
            if stop.is_cancelled() {
                return;
            }
            if end.was_up {
                retry.reset();
            }
            let wait = retry.wait(end.retry_after_ms.map(Duration::from_millis));
            self.show_end(address, &end.reason, wait);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // A new certificate is worth an attempt at once.
                Ok(()) = replaced.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One attempt, and the link that comes of it; it ends when another gateway may have the duty.
    async fn link_on_duty(
        &self,
        address: &str,
        duty: &mut watch::Receiver<bool>,
        stop: &CancellationToken,
    ) -> LinkEnd {
        let over = stop.child_token();
        let link = self.link(address, &over);
        tokio::pin!(link);
        tokio::select! {
            end = &mut link => return end,
            _ = duty.wait_for(|has| !*has) => over.cancel(),
        }
        link.await
    }

    /// One attempt, and the link that comes of it.
    async fn link(&self, address: &str, stop: &CancellationToken) -> LinkEnd {
        let parent = self.parent.division;
        self.links.attempt(parent, address);
        let replaced = self.identity.subscribe();
        let identity = self.identity.current();
        if identity.has_expired(unix_ms()) {
            return tokio::select! {
                said = renewal::return_to(&self.parent, address, &self.identity) => never_up(said),
                () = stop.cancelled() => never_up("the node is stopping".to_owned()),
            };
        }
        let dialed = tokio::select! {
            dialed = connect(address, &identity, ExpectedPeer::Node(parent), CONNECT_TIME) => dialed,
            () = stop.cancelled() => return never_up("the node is stopping".to_owned()),
        };
        let dialed = match dialed {
            Ok(dialed) => dialed,
            Err(error) => return never_up(error.to_string()),
        };
        self.checkpoints.linked(Some((parent, dialed.channel.clone())));
        let linked =
            service::dial(&self.engine, &self.links, dialed.channel.clone(), parent, address, stop.clone());
        // Beside the link, on its connection.
        let beside = futures::future::join3(
            self.recheck_always(&dialed.peer, replaced),
            renewal::keep(dialed.channel.clone(), self.identity.clone()),
            trust::follow(dialed.channel.clone(), self.identity.clone(), self.engine.clone()),
        );
        let mut end = tokio::select! {
            end = linked => end,
            (never, _, _) = beside => match never {},
        };
        self.checkpoints.linked(None);
        // Where the line itself broke, it knows better than what was spoken over it.
        if let Some(trouble) = dialed.peer.ended() {
            end.reason = trouble.words().to_string();
        }
        end
    }

    /// Cuts the connection when the parent would not be accepted any more: its certificate ran out, was revoked, or
    /// its authority is no longer trusted. Looks after each reload and every minute.
    async fn recheck_always(
        &self,
        parent: &Peer,
        mut replaced: watch::Receiver<Arc<Identity>>,
    ) -> Infallible {
        loop {
            let changed = tokio::time::timeout(RECHECK_INTERVAL, replaced.changed()).await;
            if let Err(why) = self.identity.current().check_dialed(parent) {
                let (division, serial) = (self.parent.division, &parent.serial);
                tracing::warn!(%division, %serial, "connection ended: {why}");
                parent.cut(why.cut_reason());
            }
            if let Ok(Err(_)) = changed {
                // Nobody is left who could replace the identity: only the clock is.
                tokio::time::sleep(RECHECK_INTERVAL).await;
            }
        }
    }

    fn show_end(&self, address: &str, reason: &str, wait: Duration) {
        let parent = self.parent.division;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.links.failed(parent, reason, unix_ms().saturating_add(wait_ms));
        tracing::warn!(%parent, address, wait_ms, "no link to the parent: {reason} (与上级的连接中断)");
    }
}

fn never_up(reason: String) -> LinkEnd {
    LinkEnd { reason, retry_after_ms: None, was_up: false }
}

/// Now, as Unix time in milliseconds.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
