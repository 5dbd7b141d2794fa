//! Claims over a link: a child's go to the engine, and to the parent goes what the engine says may be said.

use std::sync::Arc;

use guantong_proto::v1;
use tokio::sync::watch;

use super::Driver;
use crate::claiming::Spoken;
use crate::ingest::topology::Role;

/// How far the parent of a link has been told.
#[derive(Default)]
pub(super) struct Claims {
    /// To a parent, once greeted.
    spoken: Option<watch::Receiver<Arc<Spoken>>>,
    serial: u64,
}

impl Claims {
    /// Waits until something new may be said; for ever on a link to a child.
    pub(super) async fn changed(&mut self) {
        if let Some(spoken) = &mut self.spoken
            && spoken.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl Driver {
    /// The link was greeted: a parent is to hear everything again.
    pub(super) fn begin_claims(&mut self) {
        let parent = self.role == Role::Parent;
        self.claims = Claims { spoken: parent.then(|| self.engine.shared().spoken()), serial: 0 };
    }

    /// Says what is new. Nothing is lost where the link is not open yet: it is said once it is.
    pub(super) fn say_claims(&mut self) {
        let Some(spoken) = &self.claims.spoken else { return };
        if spoken.borrow().serial() == self.claims.serial {
            return;
        }
        let (new, serial) = spoken.borrow().since(self.claims.serial, self.engine.shared().own());
        for (division, claimed) in new {
            let claim = v1::Claim {
                division: division.to_string(),
                through_ms: i64::try_from(claimed.through_ms).unwrap_or(i64::MAX),
                quarantined_count: claimed.quarantined_count,
            };
            if !self.session.queue_claim(claim) {
                return;
            }
        }
        self.claims.serial = serial;
    }

    /// A child claims. What makes no sense is left aside: it could only make this node say less.
    pub(super) fn peer_claims(&self, claim: &v1::Claim) {
        if self.role != Role::Child {
            return;
        }
        if let Err(error) = self.engine.shared().claimed(self.peer_division, claim) {
            tracing::debug!(peer = %self.peer_division, %error, "a claim was not taken");
        }
    }
}
