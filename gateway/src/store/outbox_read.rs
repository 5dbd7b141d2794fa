//! Reading what peers are owed. Rows are read before the records that they name, so that a record is never older than
//! the row whose receipt it will give.

use guantong_proto::rules::Lane;

use super::outbox::lane_code;
use super::pack::keys_of;
use super::records::{StoredRecord, by_keys};
use super::sql::{Args, blob, int, maybe, maybe_text};
use super::{Store, StoreError};
use crate::ingest::changes::RecordKey;
use crate::ingest::topology::PeerId;

/// One row of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedRow {
    /// Its number, for the receipt.
    pub seq: i64,
    /// W3C trace context of the write.
    pub traceparent: Option<String>,
    /// The peer could not have these records when the row was written.
    pub fresh: bool,
    /// When it was written, Unix milliseconds.
    pub written_ms: u64,
    /// Which records, ascending.
    pub keys: Vec<RecordKey>,
}

/// The next that a peer is owed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// In the order of their numbers.
    pub rows: Vec<OwedRow>,
    /// The records that the rows name, by ascending number, each once, not older than the rows.
    pub records: Vec<StoredRecord>,
}

impl Owed {
    /// The record of a number that one of the rows names.
    pub fn record(&self, key: RecordKey) -> Option<&StoredRecord> {
        self.records.binary_search_by_key(&key, |r| r.key).ok().map(|i| &self.records[i])
    }
}

/// What a peer is owed in one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneBacklog {
    /// Records; one that is owed several times counts several times.
    pub count: u64,
    /// When the oldest was written, Unix milliseconds.
    pub oldest_ms: Option<u64>,
}

/// What a peer is owed, and what it refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Lane by lane.
    pub urgent: LaneBacklog,
    /// See `urgent`.
    pub normal: LaneBacklog,
    /// See `urgent`.
    pub bulk: LaneBacklog,
    /// Fields and records that it refused.
    pub quarantined: u64,
}

impl Store {
    /// The next rows of a lane, without those that are under way, with their records: rows of together no more than
    /// `keys_max` keys, but one row always. Where several write, a row may appear after others with greater numbers: so
    /// rows are told apart by what is under way, not by how far one has read.
    pub async fn owed(
        &self,
        peer: PeerId,
        lane: Lane,
        under_way: &[i64],
        keys_max: usize,
    ) -> Result<Owed, StoreError> {
        self.owed_within(peer, lane, 0, i64::MAX, under_way, keys_max).await
    }

    /// The same of the rows with numbers above `after` and up to `through`, for a bundle: what has a smaller number and
    /// comes later goes into the next one.
    pub async fn owed_between(
        &self,
        peer: PeerId,
        lane: Lane,
        (after, through): (i64, i64),
        keys_max: usize,
    ) -> Result<Owed, StoreError> {
        self.owed_within(peer, lane, after, through, &[], keys_max).await
    }

    async fn owed_within(
        &self,
        peer: PeerId,
        lane: Lane,
        mut after: i64,
        through: i64,
        under_way: &[i64],
        keys_max: usize,
    ) -> Result<Owed, StoreError> {
        let mut reader = self.reader().await?;
        let mut sql = reader.sql();
        let mut rows: Vec<OwedRow> = Vec::new();
        let (mut count, mut page) = (0, 4);
        'pages: loop {
            let next = "SELECT seq, traceparent, fresh, written_ms, keys FROM outbox
                WHERE peer = ? AND lane = ? AND seq > ? AND seq <= ?
                  AND seq NOT IN (SELECT value FROM json_each(?))
                ORDER BY seq LIMIT ?";
            let args = Args::ints(&[peer.0, lane_code(lane), after, through]).list(under_way.iter().copied());
            let found = sql.rows(next, args.int(page)).await?;
            for row in &found {
                let keys = keys_of(&blob(row, 4)?)?;
                if !rows.is_empty() && count + keys.len() > keys_max {
                    break 'pages;
                }
                (count, after) = (count + keys.len(), int(row, 0)?);
                let (fresh, written_ms) = (int(row, 2)? != 0, int(row, 3)? as u64);
                rows.push(OwedRow { seq: after, traceparent: maybe_text(row, 1)?, fresh, written_ms, keys });
            }
            if (found.len() as i64) < page || count >= keys_max {
                break;
            }
            page *= 4;
        }
        let mut keys: Vec<RecordKey> = rows.iter().flat_map(|row| row.keys.iter().copied()).collect();
        keys.sort_unstable();
        keys.dedup();
        let records = by_keys(&mut sql, &keys).await?;
        Ok(Owed { rows, records })
    }

    /// How much a peer is owed. Costs the same however much it is.
    pub async fn backlog(&self, peer: PeerId) -> Result<Backlog, StoreError> {
        let mut reader = self.reader().await?;
        let mut sql = reader.sql();
        let mut backlog = Backlog::default();
        let lanes = "SELECT lane, CAST(sum(count) AS BIGINT), (SELECT written_ms FROM outbox o
                WHERE o.peer = t.peer AND o.lane = t.lane ORDER BY seq LIMIT 1)
            FROM outbox_total t WHERE peer = ? GROUP BY peer, lane";
        for row in sql.rows(lanes, Args::ints(&[peer.0])).await? {
            let lane = match int(&row, 0)? {
                1 => &mut backlog.urgent,
                2 => &mut backlog.normal,
                _ => &mut backlog.bulk,
            };
            *lane =
                LaneBacklog { count: int(&row, 1)? as u64, oldest_ms: maybe(&row, 2)?.map(|ms| ms as u64) };
        }
        let quarantined = "SELECT count(*) FROM quarantine WHERE peer = ?";
        backlog.quarantined = sql.number(quarantined, Args::ints(&[peer.0])).await? as u64;
        Ok(backlog)
    }
}
