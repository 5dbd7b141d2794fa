//! Whether the store answers, as those see it who use it all the time: an operator who asks why nothing goes on is told,
//! although the store cannot be asked then. Nothing is decided by it.

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
