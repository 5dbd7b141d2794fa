//! Batches that go out: rows of the outbox to batches, batches to parts, and what has no receipt yet.
//!
//! A row is delivered when every batch that holds a record of it has its receipt, and never before. What is in flight
//! stays within the peer's window, except for one batch alone, so that no window stops a link for ever.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use guantong_proto::v1;

use super::lanes::{self, LANES, Turns};
use super::payload::{
    self, BATCH_RAW_BYTES_MAX, BATCH_RECORDS_MAX, IN_FLIGHT_BATCHES_MAX, PART_BYTES_MAX, raw_bytes_of,
};
use super::split::split;
use super::types::{Limits, OutboxRow, Stats, Want};

/// Eighths of the window that each lane may fill, so that there is room for an urgent batch beside bulk.
const SHARES: [u64; 3] = [8, 7, 6];

/// Rows with all their receipts, and what the peer refused of them.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) seqs: Vec<i64>,
    pub(super) refusals: Vec<v1::Refusal>,
}

/// What is known of a lane's rows in the outbox.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Outbox {
    /// There may be some.
    #[default]
    Unread,
    /// The driver is reading.
    Asked,
    /// The driver is reading, and rows were added meanwhile.
    AskedBefore,
    /// There were none.
    Empty,
}

#[derive(Default)]
struct LaneQueue {
    outbox: Outbox,
    /// The greatest row that was offered.
    after_seq: Option<i64>,
    records: VecDeque<(i64, v1::BatchRecord)>,
    raw_bytes: usize,
    /// A batch that waits for room in the window.
    staged: Option<Packed>,
}

struct Packed {
    payload: Bytes,
    raw_bytes: usize,
    records: usize,
    rows: Vec<i64>,
    names: Vec<u64>,
}

#[derive(Default)]
struct Pending {
    records_queued: usize,
    batches: usize,
}

struct InFlight {
    payload_bytes: u64,
    rows: Vec<i64>,
    /// Hashes of its records' names, ascending: a receipt speaks of no others.
    names: Vec<u64>,
    /// When the last part went out.
    sent_ms: Option<u64>,
}

struct Emitting {
    batch_id: u64,
    lane: usize,
    payload: Bytes,
    raw_bytes: usize,
    part: u32,
}

/// The sending half of a session.
#[derive(Default)]
pub(super) struct Sending {
    queues: [LaneQueue; 3],
    turns: Turns,
    pending: BTreeMap<i64, Pending>,
    in_flight: BTreeMap<u64, InFlight>,
    in_flight_bytes: u64,
    window_bytes: u64,
    emitting: Option<Emitting>,
    last_id: u64,
    /// Since when the oldest batch in flight is the oldest.
    oldest_since_ms: u64,
    batch_raw_bytes: usize,
    batches_max: u64,
    held: bool,
}

impl Sending {
    pub(super) fn new(limits: &Limits) -> Sending {
        Sending {
            batch_raw_bytes: limits.batch_raw_bytes.clamp(1, BATCH_RAW_BYTES_MAX),
            batches_max: limits.in_flight_batches_max.clamp(1, IN_FLIGHT_BATCHES_MAX) as u64,
            ..Sending::default()
        }
    }

    pub(super) fn set_window(&mut self, window_bytes: u32) {
        self.window_bytes = u64::from(window_bytes);
    }

    /// Begins no batch while this holds.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    pub(super) fn wants(&mut self) -> Option<Want> {
        if self.is_full() {
            return None;
        }
        let budget_bytes = self.target_bytes();
        let wanting = |q: &LaneQueue| q.outbox == Outbox::Unread && q.raw_bytes < budget_bytes;
        let lane = self.queues.iter().position(wanting)?;
        self.queues[lane].outbox = Outbox::Asked;
        Some(Want { lane: LANES[lane], after_seq: self.queues[lane].after_seq, budget_bytes })
    }

    /// Queues the rows; gives those that are delivered as they are, because nothing of them can be sent.
    pub(super) fn offer(&mut self, lane: v1::Lane, rows: Vec<OutboxRow>) -> Delivered {
        if rows.is_empty() {
            self.lane_empty(lane);
            return Delivered::default();
        }
        let mut delivered = Delivered::default();
        let queue = &mut self.queues[lanes::index(lane)];
        queue.outbox = Outbox::Unread;
        for row in rows {
            queue.after_seq = queue.after_seq.max(Some(row.seq));
            if self.pending.contains_key(&row.seq) {
                continue;
            }
            let before = queue.records.len();
            for record in row.records {
                let name = record.name.clone();
                match split(record, BATCH_RAW_BYTES_MAX) {
                    Some(parts) => queue.records.extend(parts.into_iter().map(|part| (row.seq, part))),
                    None => delivered.refusals.push(unsendable(name)),
                }
            }
            let queued = queue.records.range(before..);
            queue.raw_bytes += queued.map(|(_, record)| raw_bytes_of(record)).sum::<usize>();
            let records_queued = queue.records.len() - before;
            if records_queued == 0 {
                delivered.seqs.push(row.seq);
            } else {
                self.pending.insert(row.seq, Pending { records_queued, batches: 0 });
            }
        }
        delivered
    }

    pub(super) fn lane_empty(&mut self, lane: v1::Lane) {
        let queue = &mut self.queues[lanes::index(lane)];
        queue.outbox = match queue.outbox {
            Outbox::Asked | Outbox::Empty => Outbox::Empty,
            Outbox::AskedBefore | Outbox::Unread => Outbox::Unread,
        };
    }

    pub(super) fn notify(&mut self, lane: v1::Lane) {
        let queue = &mut self.queues[lanes::index(lane)];
        queue.outbox = match queue.outbox {
            Outbox::Asked | Outbox::AskedBefore => Outbox::AskedBefore,
            Outbox::Empty | Outbox::Unread => Outbox::Unread,
        };
    }

    /// The next part to send, where something waits and has room. Its epochs are left to fill in.
    pub(super) fn next_part(&mut self, now_ms: u64, stats: &mut Stats) -> std::io::Result<Option<v1::Batch>> {
        if self.emitting.is_none() && (self.held || !self.start_batch(now_ms, stats)?) {
            return Ok(None);
        }
        let Some(emitting) = &mut self.emitting else { return Ok(None) };
        let payload = emitting.payload.split_to(emitting.payload.len().min(PART_BYTES_MAX));
        let part = v1::Batch {
            batch_id: emitting.batch_id,
            lane: LANES[emitting.lane].into(),
            part: emitting.part,
            last: emitting.payload.is_empty(),
            raw_bytes: if emitting.part == 0 { emitting.raw_bytes as u32 } else { 0 },
            payload,
            ..v1::Batch::default()
        };
        emitting.part += 1;
        if part.last {
            self.emitting = None;
            if let Some(sent) = self.in_flight.get_mut(&part.batch_id) {
                sent.sent_ms = Some(now_ms);
            }
        }
        Ok(Some(part))
    }

    fn start_batch(&mut self, now_ms: u64, stats: &mut Stats) -> std::io::Result<bool> {
        let waiting = [0, 1, 2].map(|lane| {
            let queue: &LaneQueue = &self.queues[lane];
            queue.staged.is_some() || !queue.records.is_empty()
        });
        let Some(turn) = self.turns.next(waiting) else { return Ok(false) };
        let share = if turn.due { SHARES[0] } else { SHARES[turn.lane] };
        if !self.has_room(0, share) {
            return Ok(false);
        }
        let packed = match self.queues[turn.lane].staged.take() {
            Some(packed) => packed,
            None => self.pack(turn.lane)?,
        };
        let payload_bytes = packed.payload.len() as u64;
        if !self.has_room(payload_bytes, share) {
            self.queues[turn.lane].staged = Some(packed);
            return Ok(false);
        }
        self.turns.took(turn.lane, waiting);
        if self.in_flight.is_empty() {
            self.oldest_since_ms = now_ms;
        }
        self.last_id += 1;
        self.in_flight_bytes += payload_bytes;
        stats.sent_batches += 1;
        stats.sent_bytes += payload_bytes;
        stats.sent_records += packed.records as u64;
        let Packed { payload, raw_bytes, rows, names, .. } = packed;
        self.in_flight.insert(self.last_id, InFlight { payload_bytes, rows, names, sent_ms: None });
        self.emitting =
            Some(Emitting { batch_id: self.last_id, lane: turn.lane, payload, raw_bytes, part: 0 });
        Ok(true)
    }

    fn pack(&mut self, lane: usize) -> std::io::Result<Packed> {
        let target_bytes = self.target_bytes();
        let queue = &mut self.queues[lane];
        let (mut records, mut rows, mut raw_bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((_, record)) = queue.records.front() {
            let bytes = raw_bytes_of(record);
            let full = raw_bytes + bytes > target_bytes || records.len() == BATCH_RECORDS_MAX;
            if full && !records.is_empty() {
                break;
            }
            let Some((seq, record)) = queue.records.pop_front() else { break };
            raw_bytes += bytes;
            records.push(record);
            let Some(pending) = self.pending.get_mut(&seq) else { continue };
            pending.records_queued -= 1;
            if rows.last() != Some(&seq) {
                rows.push(seq);
                pending.batches += 1;
            }
        }
        queue.raw_bytes -= raw_bytes;
        if queue.records.is_empty() {
            queue.records = VecDeque::new();
        }
        let count = records.len();
        let mut names: Vec<u64> = records.iter().map(|r| name_hash(&r.name)).collect();
        names.sort_unstable();
        let (payload, raw_bytes) = payload::pack(records)?;
        Ok(Packed { payload, raw_bytes, records: count, rows, names })
    }

    /// Takes a receipt of a batch that was sent whole; `None`: there is no such batch, or no longer.
    pub(super) fn receipt(&mut self, now_ms: u64, receipt: v1::Receipt) -> Option<Delivered> {
        self.in_flight.get(&receipt.batch_id)?.sent_ms?;
        let was_oldest = self.in_flight.keys().next() == Some(&receipt.batch_id);
        let batch = self.in_flight.remove(&receipt.batch_id)?;
        if was_oldest {
            self.oldest_since_ms = now_ms;
        }
        self.in_flight_bytes -= batch.payload_bytes;
        self.window_bytes = u64::from(receipt.window_bytes);
        let mut seqs = Vec::new();
        for seq in batch.rows {
            let Some(pending) = self.pending.get_mut(&seq) else { continue };
            pending.batches -= 1;
            if pending.batches == 0 && pending.records_queued == 0 {
                self.pending.remove(&seq);
                seqs.push(seq);
            }
        }
        let mut refusals = receipt.refusals;
        refusals.retain(|refusal| batch.names.binary_search(&name_hash(&refusal.record)).is_ok());
        Some(Delivered { seqs, refusals })
    }

    /// Forgets what was not sent; what is in flight may still get its receipts.
    pub(super) fn stop(&mut self) {
        self.queues = Default::default();
        self.emitting = None;
    }

    /// When the oldest batch has waited for `timeout_ms` since it was sent and became the oldest.
    pub(super) fn receipt_due_ms(&self, timeout_ms: u64) -> Option<u64> {
        let sent_ms = self.in_flight.values().next()?.sent_ms?;
        Some(sent_ms.max(self.oldest_since_ms).saturating_add(timeout_ms))
    }

    /// Nothing waits here and nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        let nothing_waits = self.queues.iter().all(|q| q.records.is_empty() && q.staged.is_none());
        nothing_waits && self.in_flight.is_empty()
    }

    /// Idle, and the outbox was found empty in every lane.
    pub(super) fn is_drained(&self) -> bool {
        self.is_idle() && self.queues.iter().all(|q| q.outbox == Outbox::Empty)
    }

    /// The number of the last batch; 0: none yet.
    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(super) fn in_flight(&self) -> (u64, usize) {
        (self.in_flight_bytes, self.in_flight.len())
    }

    fn is_full(&self) -> bool {
        !self.has_room(1, SHARES[0])
    }

    fn has_room(&self, bytes: u64, share: u64) -> bool {
        let within = self.in_flight_bytes + bytes <= self.window_bytes * share / SHARES[0];
        let few = (self.in_flight.len() as u64) < self.batches_max * share / SHARES[0];
        self.in_flight.is_empty() || (within && few)
    }

    /// Two batches should fit the window, so that one is under way while the other is written.
    fn target_bytes(&self) -> usize {
        let half = usize::try_from(self.window_bytes / 2).unwrap_or(usize::MAX);
        self.batch_raw_bytes.min(half.max(PART_BYTES_MAX))
    }

    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        let queued: usize = self.queues.iter().map(|q| q.records.capacity()).sum();
        queued + self.pending.len() + self.in_flight.len() + usize::from(self.emitting.is_some())
    }
}

fn name_hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn unsendable(record: String) -> v1::Refusal {
    v1::Refusal {
        record,
        field: 0,
        reason: v1::RefusalReason::TooLarge.into(),
        detail:
            "one value of this record is larger than a batch, or the record cannot be read; it was not sent"
                .into(),
        retry_at_ms: 0,
    }
}

#[cfg(test)]
#[path = "sending_tests.rs"]
mod tests;
