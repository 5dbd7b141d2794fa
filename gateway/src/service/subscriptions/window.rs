//! What a reader was sent and has not acknowledged. It decides when a row of the outbox was received whole, and when a
//! reader must acknowledge something before it gets more. Pure: it knows neither time nor store.

use std::collections::{BTreeMap, BTreeSet};

/// Batches that may be under way.
const BATCHES_MAX: usize = 8;
/// Bytes of changes that may be under way before no further batch is sent.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Number of a batch, among those of one reader.
pub(super) type BatchId = u64;

#[derive(Debug)]
struct Sent {
    bytes: usize,
    rows: Vec<i64>,
    /// Its acknowledgement is being stored.
    acknowledged: bool,
}

/// The batches under way to one reader.
#[derive(Debug, Default)]
pub(super) struct Window {
    batches: BTreeMap<BatchId, Sent>,
    /// A row may be spread over several batches.
    rows: BTreeMap<i64, BTreeSet<BatchId>>,
    bytes: usize,
}

impl Window {
    /// Whether another batch may be sent. One may always, however large, where none is under way.
    pub(super) fn has_room(&self) -> bool {
        self.batches.len() < BATCHES_MAX && self.bytes < BYTES_MAX
    }

    /// Notes a batch that is sent, with the rows that it has a part of.
    pub(super) fn sent(&mut self, batch: BatchId, bytes: usize, rows: Vec<i64>) {
        for row in &rows {
            self.rows.entry(*row).or_default().insert(batch);
        }
        self.bytes += bytes;
        self.batches.insert(batch, Sent { bytes, rows, acknowledged: false });
    }

    /// A further batch holds a part of these rows: they are not whole before it is acknowledged.
    pub(super) fn expect(&mut self, batch: BatchId, rows: &[i64]) {
        for row in rows {
            self.rows.entry(*row).or_default().insert(batch);
        }
    }

    /// The rows under way: read, and not yet known to be deleted.
    pub(super) fn under_way(&self) -> Vec<i64> {
        self.rows.keys().copied().collect()
    }

    /// An acknowledgement: the rows that are received whole by it. `None`: no such batch is under way.
    pub(super) fn acknowledge(&mut self, batch: BatchId) -> Option<Vec<i64>> {
        let sent = self.batches.get_mut(&batch)?;
        sent.acknowledged = true;
        let rows = sent.rows.clone();
        let acknowledged = |id: &BatchId| self.batches.get(id).is_some_and(|sent| sent.acknowledged);
        let whole = |row: &i64| self.rows.get(row).is_some_and(|parts| parts.iter().all(acknowledged));
        Some(rows.into_iter().filter(whole).collect())
    }

    /// The acknowledgement is stored.
    pub(super) fn stored(&mut self, batch: BatchId) {
        let Some(sent) = self.batches.remove(&batch) else { return };
        self.bytes -= sent.bytes;
        for row in sent.rows {
            if let Some(parts) = self.rows.get_mut(&row) {
                parts.remove(&batch);
                if parts.is_empty() {
                    self.rows.remove(&row);
                }
            }
        }
    }

    /// The acknowledgement could not be stored: it must come again.
    pub(super) fn not_stored(&mut self, batch: BatchId) {
        if let Some(sent) = self.batches.get_mut(&batch) {
            sent.acknowledged = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_row_goes_with_the_last_of_its_parts() {
        let mut window = Window::default();
        window.sent(1, 10, vec![7, 8]);
        window.expect(2, &[8]);
        assert_eq!(window.acknowledge(1), Some(vec![7]));
        window.stored(1);
        assert_eq!(window.acknowledge(1), None, "once");
        window.sent(2, 10, vec![8]);
        assert_eq!(window.acknowledge(2), Some(vec![8]));
        window.not_stored(2);
        assert_eq!(window.acknowledge(2), Some(vec![8]), "again");
        window.stored(2);
        assert!(window.rows.is_empty() && window.bytes == 0);
    }

    #[test]
    fn a_reader_that_acknowledges_nothing_gets_no_more() {
        let mut window = Window::default();
        for batch in 0..BATCHES_MAX as u64 {
            assert!(window.has_room());
            window.sent(batch, 1, vec![]);
        }
        assert!(!window.has_room());
        window.acknowledge(3);
        window.stored(3);
        assert!(window.has_room());
        let mut large = Window::default();
        large.sent(1, BYTES_MAX, vec![]);
        assert!(!large.has_room());
    }

    proptest! {
        #[test]
        fn each_row_is_whole_once_and_not_before_all_its_parts(
            parts in proptest::collection::vec((0u64..6, 0i64..6), 1..40),
            order in Just((0u64..6).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut window = Window::default();
            for batch in 0..6 {
                let mut rows: Vec<i64> = parts.iter().filter(|p| p.0 == batch).map(|p| p.1).collect();
                rows.dedup();
                window.sent(batch, 1, rows);
            }
            let (mut done, mut acknowledged) = (Vec::new(), Vec::new());
            for batch in order {
                acknowledged.push(batch);
                for row in window.acknowledge(batch).unwrap() {
                    prop_assert!(parts.iter().filter(|p| p.1 == row).all(|p| acknowledged.contains(&p.0)));
                    done.push(row);
                }
                window.stored(batch);
            }
            done.sort_unstable();
            done.dedup();
            let mut all: Vec<i64> = parts.iter().map(|p| p.1).collect();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(done, all);
            prop_assert!(window.rows.is_empty() && window.batches.is_empty());
        }
    }
}
