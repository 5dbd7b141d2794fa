//! Batches that come in: parts to whole batches, and which of them still wait for a receipt.
//!
//! Everything is checked against what the peer may do, before memory is spent on it. What the records say is not
//! looked at: a bad record is the engine's to refuse, and must never end the link.

use std::collections::BTreeMap;

use guantong_proto::v1;

use super::payload::{self, BATCH_RAW_BYTES_MAX, IN_FLIGHT_BATCHES_MAX, PART_BYTES_MAX, PayloadError};

/// A batch that breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Batches are numbered from 1 without gaps, and their parts from 0.
    #[error("part {part} of batch {batch_id} came where part {expected_part} of batch {expected_id} was due")]
    Order {
        /// The batch that came.
        batch_id: u64,
        /// Its part.
        part: u32,
        /// The batch that was due.
        expected_id: u64,
        /// The part that was due.
        expected_part: u32,
    },
    /// A part that is empty or too large.
    #[error("a part of batch {batch_id} has {bytes} bytes; 1 to {PART_BYTES_MAX} are allowed")]
    PartSize {
        /// Which batch.
        batch_id: u64,
        /// Bytes in the part.
        bytes: usize,
    },
    /// More bytes than a batch may have, before or after decompression.
    #[error("batch {batch_id} is larger than announced, or than the {BATCH_RAW_BYTES_MAX} bytes allowed")]
    TooLarge {
        /// Which batch.
        batch_id: u64,
    },
    /// More under way than was granted.
    #[error(
        "batch {batch_id} goes beyond the window of {window_bytes} bytes and {IN_FLIGHT_BATCHES_MAX} batches"
    )]
    Window {
        /// Which batch.
        batch_id: u64,
        /// The largest window granted on this link.
        window_bytes: u64,
    },
    /// The payload is not what it should be.
    #[error("batch {batch_id}: {source}")]
    Payload {
        /// Which batch.
        batch_id: u64,
        /// What is wrong with it.
        source: PayloadError,
    },
}

/// A batch with all its parts.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) batch_id: u64,
    pub(super) lane: v1::Lane,
    pub(super) epoch: u64,
    pub(super) peer_epoch: u64,
    pub(super) revision: u64,
    pub(super) payload_bytes: u64,
    pub(super) records: Vec<v1::BatchRecord>,
}

struct Assembling {
    /// Part 0 without its payload.
    head: v1::Batch,
    next_part: u32,
    payload: Vec<u8>,
}

struct Unreceipted {
    payload_bytes: u64,
    sender_epoch: u64,
}

/// The receiving half of a session.
#[derive(Default)]
pub(super) struct Receiving {
    last_id: u64,
    assembling: Option<Assembling>,
    unreceipted: BTreeMap<u64, Unreceipted>,
    unreceipted_bytes: u64,
    window_bytes: u64,
    window_bytes_max: u64,
}

impl Receiving {
    pub(super) fn new(window_bytes: u32) -> Receiving {
        let window_bytes = u64::from(window_bytes);
        Receiving { window_bytes, window_bytes_max: window_bytes, ..Receiving::default() }
    }

    /// What the peer may have under way, from the next receipt on.
    pub(super) fn grant(&mut self, window_bytes: u32) {
        self.window_bytes = u64::from(window_bytes);
    }

    /// The window to write into a frame that goes out now.
    pub(super) fn granted(&mut self) -> u32 {
        self.window_bytes_max = self.window_bytes_max.max(self.window_bytes);
        self.window_bytes as u32
    }

    /// Takes a part; gives the batch with its last one.
    pub(super) fn part(&mut self, part: v1::Batch) -> Result<Option<Whole>, BatchError> {
        let mut assembling = self.accept(&part)?;
        assembling.payload.extend_from_slice(&part.payload);
        assembling.next_part += 1;
        if !part.last {
            self.assembling = Some(assembling);
            return Ok(None);
        }
        self.whole(assembling).map(Some)
    }

    fn accept(&mut self, part: &v1::Batch) -> Result<Assembling, BatchError> {
        let batch_id = part.batch_id;
        let expected_part = self.assembling.as_ref().map_or(0, |a| a.next_part);
        let expected_id = self.last_id.saturating_add(1);
        if (batch_id, part.part) != (expected_id, expected_part) {
            return Err(BatchError::Order { batch_id, part: part.part, expected_id, expected_part });
        }
        if !(1..=PART_BYTES_MAX).contains(&part.payload.len()) {
            return Err(BatchError::PartSize { batch_id, bytes: part.payload.len() });
        }
        let assembling = self.assembling.take().unwrap_or_else(|| Assembling {
            head: v1::Batch { payload: bytes::Bytes::new(), ..part.clone() },
            next_part: 0,
            payload: Vec::with_capacity(if part.last { part.payload.len() } else { 2 * PART_BYTES_MAX }),
        });
        let raw_bytes = assembling.head.raw_bytes as usize;
        let total = assembling.payload.len() + part.payload.len();
        if raw_bytes > BATCH_RAW_BYTES_MAX || total > payload::compressed_max(raw_bytes) {
            return Err(BatchError::TooLarge { batch_id });
        }
        let beyond = self.unreceipted_bytes.saturating_add(total as u64) > self.window_bytes_max;
        if self.unreceipted.len() >= IN_FLIGHT_BATCHES_MAX || (beyond && !self.unreceipted.is_empty()) {
            return Err(BatchError::Window { batch_id, window_bytes: self.window_bytes_max });
        }
        Ok(assembling)
    }

    fn whole(&mut self, assembling: Assembling) -> Result<Whole, BatchError> {
        let Assembling { head, payload, .. } = assembling;
        let batch_id = head.batch_id;
        let records = payload::unpack(&payload, head.raw_bytes as usize)
            .map_err(|source| BatchError::Payload { batch_id, source })?;
        let payload_bytes = payload.len() as u64;
        self.last_id = batch_id;
        self.unreceipted_bytes += payload_bytes;
        self.unreceipted.insert(batch_id, Unreceipted { payload_bytes, sender_epoch: head.epoch });
        let (lane, v1::Batch { epoch, peer_epoch, revision, .. }) = (head.lane(), head);
        Ok(Whole { batch_id, lane, epoch, peer_epoch, revision, payload_bytes, records })
    }

    /// The batch is on disk, or given up: its bytes are free. Gives the epoch of its sender, once.
    pub(super) fn release(&mut self, batch_id: u64) -> Option<u64> {
        let batch = self.unreceipted.remove(&batch_id)?;
        self.unreceipted_bytes -= batch.payload_bytes;
        Some(batch.sender_epoch)
    }

    /// No batch is half here or waits for its receipt.
    pub(super) fn is_idle(&self) -> bool {
        self.assembling.is_none() && self.nothing_unreceipted()
    }

    /// Every whole batch has its receipt.
    pub(super) fn nothing_unreceipted(&self) -> bool {
        self.unreceipted.is_empty()
    }

    /// The number of the last whole batch; 0: none yet.
    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Gives up what is half here.
    pub(super) fn forget_parts(&mut self) {
        self.assembling = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::session::tests::noise;
    use bytes::Bytes;

    fn parts(batch_id: u64, state_bytes: usize) -> Vec<v1::Batch> {
        let state = noise(batch_id, state_bytes);
        let record = v1::BatchRecord { state, ..Default::default() };
        let (payload, raw_bytes) = payload::pack(vec![record]).unwrap();
        let chunks: Vec<&[u8]> = payload.chunks(PART_BYTES_MAX).collect();
        let part = |(i, chunk): (usize, &&[u8])| v1::Batch {
            batch_id,
            part: i as u32,
            last: i + 1 == chunks.len(),
            raw_bytes: if i == 0 { raw_bytes as u32 } else { 0 },
            payload: Bytes::copy_from_slice(chunk),
            epoch: 7,
            ..Default::default()
        };
        chunks.iter().enumerate().map(part).collect()
    }

    fn feed(receiving: &mut Receiving, parts: Vec<v1::Batch>) -> Result<Option<Whole>, BatchError> {
        parts.into_iter().try_fold(None, |_, part| receiving.part(part))
    }

    #[test]
    fn parts_make_a_batch() {
        let mut receiving = Receiving::new(1 << 20);
        let three = parts(1, 40_000);
        assert_eq!(three.len(), 3);
        let whole = feed(&mut receiving, three).unwrap().unwrap();
        assert_eq!(whole.records[0].state.len(), 40_000);
        assert!(!receiving.is_idle());
        assert_eq!(receiving.release(1), Some(7));
        assert_eq!(receiving.release(1), None);
        assert!(receiving.is_idle());
        assert_eq!(receiving.unreceipted_bytes, 0);
    }

    #[test]
    fn parts_and_batches_out_of_order_are_refused() {
        let order = |batches: Vec<v1::Batch>| {
            matches!(feed(&mut Receiving::new(1 << 20), batches), Err(BatchError::Order { .. }))
        };
        let (one, two) = (parts(1, 40_000), parts(2, 10));
        assert!(order(two.clone()));
        assert!(order(vec![one[1].clone()]));
        assert!(order(vec![one[0].clone(), one[2].clone()]));
        assert!(order(vec![one[0].clone(), one[0].clone()]));
        assert!(order(vec![one[0].clone(), two[0].clone()]));
        let twice = [parts(1, 10), parts(1, 10)].concat();
        assert!(order(twice));
    }

    #[test]
    fn sizes_are_checked_before_memory_is_spent() {
        let with = |change: fn(&mut v1::Batch)| {
            let mut part = parts(1, 40_000).remove(0);
            change(&mut part);
            Receiving::new(1 << 20).part(part).unwrap_err()
        };
        assert!(matches!(with(|p| p.raw_bytes = 2 << 20), BatchError::TooLarge { .. }));
        assert!(matches!(with(|p| p.raw_bytes = 10), BatchError::TooLarge { .. }));
        assert!(matches!(with(|p| p.payload = Bytes::new()), BatchError::PartSize { .. }));
        assert!(matches!(
            with(|p| p.payload = vec![0; PART_BYTES_MAX + 1].into()),
            BatchError::PartSize { .. }
        ));
        assert!(matches!(with(|p| p.last = true), BatchError::Payload { .. }));
    }

    #[test]
    fn a_sender_keeps_to_its_window() {
        let mut receiving = Receiving::new(10_000);
        feed(&mut receiving, parts(1, 40_000)).unwrap();
        let beyond = feed(&mut receiving, parts(2, 10)).unwrap_err();
        assert!(matches!(beyond, BatchError::Window { window_bytes: 10_000, .. }));

        let mut receiving = Receiving::new(10_000);
        feed(&mut receiving, parts(1, 4_000)).unwrap();
        receiving.grant(0);
        assert_eq!(receiving.granted(), 0);
        feed(&mut receiving, parts(2, 4_000)).unwrap();
    }

    #[test]
    fn no_more_batches_than_the_protocol_allows() {
        let mut receiving = Receiving::new(1 << 20);
        for batch_id in 1..=IN_FLIGHT_BATCHES_MAX as u64 {
            feed(&mut receiving, parts(batch_id, 10)).unwrap();
        }
        assert!(matches!(feed(&mut receiving, parts(65, 10)), Err(BatchError::Window { .. })));
    }
}
