//! Whether the store answers, as those see it who use it all the time: an operator who asks why nothing goes on is told,
//! although the store cannot be asked then. Nothing is decided by it.

use std::sync::Arc;

use tokio::sync::watch;

use super::Shared;
use crate::store::StoreError;

/// The store cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Why, in plain words; the latest reason.
    pub reason: String,
}

/// Who finds that out. What one of them sees, the other does not take back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// The task that writes.
    Writing = 0,
    /// Whoever keeps the duty, each second, where there can be several gateways.
    Keeping = 1,
}

/// What is known of it now.
#[derive(Debug)]
pub(super) struct Outages(watch::Sender<[Option<Outage>; 2]>);

impl Default for Outages {
    fn default() -> Outages {
        Outages(watch::Sender::new([None, None]))
    }
}

/// The one that began first.
fn earliest(seen: &[Option<Outage>; 2]) -> Option<Outage> {
    seen.iter().flatten().min_by_key(|outage| outage.since_ms).cloned()
}

impl Shared {
    /// `None`: the store answers, as far as anyone knows.
    pub fn outage(&self) -> Option<Outage> {
        earliest(&self.outages.0.borrow())
    }

    /// Waits until the store is known not to answer.
    pub async fn until_outage(&self) -> Outage {
        let mut seen = self.outages.0.subscribe();
        // The sender is this very `Shared`: it does not go away meanwhile.
        let found =
            seen.wait_for(|seen| earliest(seen).is_some()).await.ok().and_then(|seen| earliest(&seen));
        found.unwrap_or_else(|| Outage { since_ms: (self.environment.now_ms)(), reason: String::new() })
    }

    /// The store's file is damaged: from now on nothing more is written to it by this process, and everyone is told what
    /// to do. Anything else is left aside.
    pub(crate) fn found_damaged(&self, error: &StoreError) {
        if matches!(error, StoreError::Damaged(_)) && self.damage.set(error.clone()).is_ok() {
            self.alarm(error.to_string());
            self.store_failed(Seen::Writing, error);
        }
    }

    /// Looks through the store once, beside all other work.
    pub(super) fn look_for_damage(self: &Arc<Shared>) {
        // It must not keep the store open.
        let (shared, examined) = (Arc::downgrade(self), self.store.examine());
        tokio::spawn(async move {
            if let (Err(error), Some(shared)) = (examined.await, shared.upgrade()) {
                shared.found_damaged(&error);
            }
        });
    }

    pub(super) fn store_failed(&self, by: Seen, error: &StoreError) {
        let now_ms = (self.environment.now_ms)();
        self.outages.0.send_modify(|seen| {
            let since_ms = seen[by as usize].as_ref().map_or(now_ms, |outage| outage.since_ms);
            seen[by as usize] = Some(Outage { since_ms, reason: error.to_string() });
        });
    }

    pub(super) fn store_answers(&self, by: Seen) {
        self.outages.0.send_if_modified(|seen| seen[by as usize].take().is_some());
    }
}
