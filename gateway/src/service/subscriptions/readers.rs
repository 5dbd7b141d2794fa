//! Who reads which subscription now: at most one reader each, the newest. Acknowledgements find their reader here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::window::{BatchId, Window};

/// Why a reader must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A newer reader reads the same subscription.
    Replaced,
    /// The subscription was deleted.
    Deleted,
}

/// One reader of a subscription.
#[derive(Debug)]
pub(super) struct Reader {
    /// Drawn at random: its batches' ids begin with it.
    id: u64,
    /// From where it reads.
    pub(super) address: String,
    window: Mutex<Window>,
    /// Wakes the reader: something was acknowledged.
    pub(super) acknowledged: Notify,
    ending: watch::Sender<Option<Ending>>,
}

impl Reader {
    pub(super) fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a batch is acknowledged by.
    pub(super) fn ack_id(&self, batch: BatchId) -> String {
        format!("{:016x}-{batch}", self.id)
    }

    /// The batch of an id that this reader gave out; `None`: another did.
    pub(super) fn batch(&self, ack_id: &str) -> Option<BatchId> {
        let (id, batch) = ack_id.split_once('-')?;
        (u64::from_str_radix(id, 16) == Ok(self.id)).then(|| batch.parse().ok()).flatten()
    }

    /// Waits until the reader must end.
    pub(super) async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        loop {
            if let Some(why) = *ending.borrow_and_update() {
                return why;
            }
            if ending.changed().await.is_err() {
                return Ending::Replaced;
            }
        }
    }

    fn end(&self, why: Ending) {
        self.ending.send_replace(Some(why));
    }
}

#[derive(Debug, Default)]
struct Known {
    reader: Option<Arc<Reader>>,
    acknowledged_ms: u64,
}

/// The readers of all subscriptions, by the subscriptions' ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers {
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

impl Readers {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new reader; an older one of the same subscription is told to end.
    pub(super) fn begin(&self, subscription: &str, address: &str, random: u64) -> Arc<Reader> {
        let reader = Arc::new(Reader {
            id: random,
            address: address.to_owned(),
            window: Mutex::default(),
            acknowledged: Notify::new(),
            ending: watch::Sender::new(None),
        });
        let mut known = self.known();
        let state = known.entry(subscription.to_owned()).or_default();
        if let Some(older) = state.reader.replace(reader.clone()) {
            older.end(Ending::Replaced);
        }
        reader
    }

    /// A reader has ended.
    pub(super) fn gone(&self, subscription: &str, reader: &Arc<Reader>) {
        if let Some(state) = self.known().get_mut(subscription)
            && state.reader.as_ref().is_some_and(|current| Arc::ptr_eq(current, reader))
        {
            state.reader = None;
        }
    }

    /// A subscription was deleted.
    pub(super) fn delete(&self, subscription: &str) {
        let state = self.known().remove(subscription);
        if let Some(reader) = state.and_then(|state| state.reader) {
            reader.end(Ending::Deleted);
        }
    }

    /// Who reads a subscription now.
    pub(super) fn current(&self, subscription: &str) -> Option<Arc<Reader>> {
        self.known().get(subscription).and_then(|state| state.reader.clone())
    }

    /// Notes when a batch was acknowledged, Unix milliseconds.
    pub(super) fn acknowledged(&self, subscription: &str, now_ms: u64) {
        if let Some(state) = self.known().get_mut(subscription) {
            state.acknowledged_ms = now_ms;
        }
    }

    /// When a batch was acknowledged last; 0: not since the node started.
    pub(super) fn acknowledged_ms(&self, subscription: &str) -> u64 {
        self.known().get(subscription).map_or(0, |state| state.acknowledged_ms)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newer_reader_replaces_the_older_and_an_old_end_does_not_disturb_it() {
        let readers = Readers::default();
        let older = readers.begin("feed", "a", 1);
        let newer = readers.begin("feed", "b", 2);
        assert_eq!(older.ended().await, Ending::Replaced);
        readers.gone("feed", &older);
        assert_eq!(readers.current("feed").unwrap().address, "b");
        assert_eq!(newer.batch(&newer.ack_id(9)), Some(9));
        assert_eq!(newer.batch(&older.ack_id(9)), None, "of another reader");
        assert_eq!(newer.batch("x"), None);
        readers.delete("feed");
        assert_eq!(newer.ended().await, Ending::Deleted);
    }
}
