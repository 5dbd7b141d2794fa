//! What peers refused: kept until the peer takes it, and owed again when that may help.

use std::collections::BTreeMap;

use guantong_proto::rules::Lane;
use guantong_proto::v1::RefusalReason;

use super::outbox::{add, delete, lane_code, lane_from};
use super::pack::keys_of;
use super::sql::{Args, Rows, Sql, int, latest_of_each, maybe, name, text};
use super::{Store, StoreError};
use crate::ingest::changes::{OutboxGroup, Quarantine, RecordKey, Refused};
use crate::ingest::topology::PeerId;
use crate::record::{FieldNumber, RecordName};

/// Something that a peer refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// By whom.
    pub peer: PeerId,
    /// The record's number.
    pub key: RecordKey,
    /// Its name.
    pub name: RecordName,
    /// The lane it goes in again.
    pub lane: Lane,
    /// What and why.
    pub refused: Refused,
    /// When, Unix milliseconds.
    pub refused_ms: u64,
}

static ADD: Rows = Rows::new(
    "INSERT INTO quarantine (peer, key, field, lane, reason, detail, seq, refused_ms, retry_ms) VALUES",
    "(?,?,?,?,?,?,?,?,?)",
    "ON CONFLICT (peer, key, field) DO UPDATE SET lane = excluded.lane, reason = excluded.reason, detail = excluded.detail,
        seq = excluded.seq, refused_ms = excluded.refused_ms, retry_ms = excluded.retry_ms",
);

/// Takes in a receipt: rows go, what was delivered with them leaves quarantine, what was refused enters it.
///
/// A row that went in several batches has its last receipt after fields of it were refused. So only a row that is newer
/// than the refusal ends it: what is tried again, or changed, always has a newer one.
pub(super) async fn delivered(
    sql: &mut Sql<'_>,
    peer: PeerId,
    seqs: &[i64],
    refused: &[Quarantine],
    now_ms: u64,
) -> Result<(), StoreError> {
    let rows = if seqs.is_empty() { Vec::new() } else { delete(sql, peer, seqs).await? };
    let any = "SELECT count(*) FROM (SELECT 1 FROM quarantine WHERE peer = ? LIMIT 1) AS any_of_it";
    if sql.number(any, Args::ints(&[peer.0])).await? != 0 {
        for row in &rows {
            let taken = "DELETE FROM quarantine WHERE peer = ? AND seq < ?
                AND key IN (SELECT value FROM json_each(?))";
            let args = Args::ints(&[peer.0, row.seq]).list(keys_of(&row.keys)?);
            sql.run(taken, args).await?;
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let lane = rows.iter().map(|row| row.lane).min().unwrap_or(lane_code(Lane::Bulk));
    let newest = sql.either(
        "SELECT max(seq) FROM sqlite_sequence WHERE name = 'outbox'",
        "SELECT last_value FROM outbox_seq",
    );
    let newest = sql.number(newest, Args::new()).await?;
    let refused = latest_of_each(refused, |row| (row.key, row.refused.field));
    sql.many(&ADD, &refused, |args, row| {
        args.push_int(peer.0);
        args.push_int(row.key);
        args.push_int(i64::from(row.refused.field));
        args.push_int(lane);
        args.push_int(row.refused.reason as i64);
        args.push_text(&row.refused.detail);
        args.push_int(newest);
        args.push_int(now_ms as i64);
        args.push_maybe(row.refused.retry_at_ms.map(|ms| ms as i64));
    })
    .await?;
    Ok(())
}

/// Owes a peer again what it refused: all of it, or what is due by `due_ms`.
pub(super) async fn retry(
    sql: &mut Sql<'_>,
    peer: PeerId,
    due_ms: Option<u64>,
    now_ms: u64,
) -> Result<(), StoreError> {
    let due = due_ms.map_or(i64::MAX, |ms| ms as i64);
    let keys = if due_ms.is_some() {
        let due_now = "SELECT DISTINCT key, lane FROM quarantine WHERE peer = ? AND retry_ms <= ?";
        sql.rows(due_now, Args::ints(&[peer.0, due])).await?
    } else {
        sql.rows("SELECT DISTINCT key, lane FROM quarantine WHERE peer = ?", Args::ints(&[peer.0])).await?
    };
    // Once is enough: whatever is refused again comes with its next time.
    let noted = "UPDATE quarantine SET retry_ms = NULL WHERE peer = ? AND retry_ms <= ?";
    sql.run(noted, Args::ints(&[peer.0, due])).await?;
    let mut lanes: BTreeMap<i64, Vec<RecordKey>> = BTreeMap::new();
    for row in &keys {
        lanes.entry(int(row, 1)?).or_default().push(int(row, 0)?);
    }
    let group = |(lane, mut keys): (i64, Vec<RecordKey>)| {
        keys.sort_unstable();
        OutboxGroup { peer, lane: lane_from(lane), traceparent: None, fresh: false, keys }
    };
    let groups: Vec<OutboxGroup> = lanes.into_iter().map(group).collect();
    add(sql, &groups, now_ms).await
}

impl Store {
    /// What peers refused, by peer, record and field, beginning after `after`.
    pub async fn quarantine(
        &self,
        after: Option<(PeerId, RecordKey, FieldNumber)>,
        limit: usize,
    ) -> Result<Vec<QuarantineEntry>, StoreError> {
        let list =
            "SELECT q.peer, q.key, r.kind, r.home, r.id, q.lane, q.field, q.reason, q.detail, q.retry_ms,
                q.refused_ms
            FROM quarantine q JOIN record r ON r.key = q.key
            WHERE (q.peer, q.key, q.field) > (?, ?, ?) ORDER BY q.peer, q.key, q.field LIMIT ?";
        let (peer, key, field) = after.unwrap_or((PeerId(i64::MIN), 0, 0));
        let args = Args::ints(&[peer.0, key, i64::from(field), limit as i64]);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        let entry = |row| {
            let reason = i32::try_from(int(row, 7)?).unwrap_or_default();
            let refused = Refused {
                field: int(row, 6)? as FieldNumber,
                reason: RefusalReason::try_from(reason).unwrap_or_default(),
                detail: text(row, 8)?,
                retry_at_ms: maybe(row, 9)?.map(|ms| ms as u64),
            };
            Ok(QuarantineEntry {
                peer: PeerId(int(row, 0)?),
                key: int(row, 1)?,
                name: name(row, 2)?,
                lane: lane_from(int(row, 5)?),
                refused,
                refused_ms: int(row, 10)? as u64,
            })
        };
        rows.iter().map(entry).collect()
    }

    /// When the next of what `peer` refused falls due, Unix milliseconds.
    pub async fn next_retry_ms(&self, peer: PeerId) -> Result<Option<u64>, StoreError> {
        let next = "SELECT min(retry_ms) FROM quarantine WHERE peer = ? AND retry_ms IS NOT NULL";
        let row = self.reader().await?.sql().row(next, Args::ints(&[peer.0])).await?;
        row.map_or(Ok(None), |row| Ok(maybe(&row, 0)?.map(|ms| ms as u64)))
    }
}
