//! What peers are owed: rows of packed keys, deleted on receipt, and joined before they grow without bound.

use std::collections::BTreeMap;

use guantong_proto::rules::Lane;

use super::pack::{keys_of, pack_keys};
use super::records::range;
use super::sql::{Args, Rows, Sql, blob, code, int, maybe_text};
use super::{Store, StoreError, claims};
use crate::division::Division;
use crate::ingest::changes::{OutboxGroup, RecordKey};
use crate::ingest::topology::PeerId;

/// The most keys of one row, so that a row is never more than a few batches.
pub(super) const ROW_KEYS_MAX: usize = 512;
/// An outbox is looked at when it holds more than twice what it held at least since the last look, and this many keys
/// besides.
const COMPACT_ABOVE_KEYS: i64 = 10_000;

static ADD: Rows = Rows::new(
    "INSERT INTO outbox (peer, lane, traceparent, fresh, count, written_ms, keys) VALUES",
    "(?,?,?,?,?,?,?)",
    "",
);
static ADD_TOTAL: Rows = Rows::new(
    "INSERT INTO outbox_total (peer, lane, slot, count, least) VALUES",
    "(?,?,?,?,?)",
    "ON CONFLICT (peer, lane, slot) DO UPDATE SET count = outbox_total.count + excluded.count,
       least = CASE WHEN outbox_total.least < outbox_total.count + excluded.count THEN outbox_total.least
                    ELSE outbox_total.count + excluded.count END",
);

/// A lane as it is stored.
pub(super) fn lane_code(lane: Lane) -> i64 {
    match lane {
        Lane::Urgent => 1,
        Lane::Normal => 2,
        Lane::Bulk => 3,
    }
}

/// A lane as it was stored.
pub(super) fn lane_from(code: i64) -> Lane {
    match code {
        1 => Lane::Urgent,
        2 => Lane::Normal,
        _ => Lane::Bulk,
    }
}

/// Adds groups, cut into rows.
pub(super) async fn add(sql: &mut Sql<'_>, groups: &[OutboxGroup], now_ms: u64) -> Result<(), StoreError> {
    let rows: Vec<(&OutboxGroup, &[RecordKey])> =
        groups.iter().flat_map(|g| g.keys.chunks(ROW_KEYS_MAX).map(move |keys| (g, keys))).collect();
    sql.many(&ADD, &rows, |args, (group, keys)| {
        args.push_int(group.peer.0);
        args.push_int(lane_code(group.lane));
        args.push_maybe_text(group.traceparent.as_deref());
        args.push_int(i64::from(group.fresh));
        args.push_int(keys.len() as i64);
        args.push_int(now_ms as i64);
        args.push_blob(&pack_keys(keys));
    })
    .await?;
    let mut totals: BTreeMap<(PeerId, i64), i64> = BTreeMap::new();
    for group in groups {
        *totals.entry((group.peer, lane_code(group.lane))).or_default() += group.keys.len() as i64;
    }
    count(sql, totals).await
}

/// Notes by how much each outbox has grown. Each slot counts for itself, also below zero.
async fn count(sql: &mut Sql<'_>, totals: BTreeMap<(PeerId, i64), i64>) -> Result<(), StoreError> {
    let slot = sql.slot();
    let totals: Vec<_> = totals.into_iter().collect();
    sql.many(&ADD_TOTAL, &totals, |args, ((peer, lane), count)| {
        args.push_int(peer.0);
        args.push_int(*lane);
        args.push_int(slot);
        args.push_int(*count);
        args.push_int((*count).min(0));
    })
    .await?;
    Ok(())
}

/// A row that is gone.
pub(super) struct Delivered {
    pub(super) seq: i64,
    pub(super) lane: i64,
    fresh: bool,
    written_ms: i64,
    pub(super) keys: bytes::Bytes,
}

/// Deletes rows that have their receipts; gives those that were still there.
pub(super) async fn delete(
    sql: &mut Sql<'_>,
    peer: PeerId,
    seqs: &[i64],
) -> Result<Vec<Delivered>, StoreError> {
    let delete = "DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each(?)) AND peer = ?
        RETURNING seq, lane, fresh, written_ms, keys, count";
    let rows = sql.rows(delete, Args::new().list(seqs.iter().copied()).int(peer.0)).await?;
    let mut totals: BTreeMap<(PeerId, i64), i64> = BTreeMap::new();
    let mut delivered = Vec::with_capacity(rows.len());
    for row in &rows {
        let gone = Delivered {
            seq: int(row, 0)?,
            lane: int(row, 1)?,
            fresh: int(row, 2)? != 0,
            written_ms: int(row, 3)?,
            keys: blob(row, 4)?,
        };
        *totals.entry((peer, gone.lane)).or_default() -= int(row, 5)?;
        delivered.push(gone);
    }
    count(sql, totals).await?;
    Ok(delivered)
}

/// Owes a peer all that concerns `scope`, or everything.
pub(super) async fn backfill(
    sql: &mut Sql<'_>,
    peer: PeerId,
    scope: Option<Division>,
    subtree_kinds: &[u32],
    now_ms: u64,
) -> Result<(), StoreError> {
    let keys = match scope {
        None => key_list(sql, "SELECT group_concat(key) FROM record", Args::new()).await?,
        Some(division) => {
            let (low, high) = range(Some(division));
            let homes =
                "SELECT group_concat(key) FROM record WHERE county BETWEEN ? AND ? AND home BETWEEN ? AND ?";
            let mut keys =
                key_list(sql, homes, Args::ints(&[code(division.county()), high, low, high])).await?;
            let handed = "SELECT group_concat(key) FROM audience WHERE division BETWEEN ? AND ?";
            keys.extend(key_list(sql, handed, Args::ints(&[low, high])).await?);
            keys.extend(keys_above(sql, division, subtree_kinds).await?);
            keys
        }
    };
    owe_all(sql, peer, keys, now_ms).await
}

/// Owes a peer these records, each once, when there is time for them.
pub(super) async fn owe_all(
    sql: &mut Sql<'_>,
    peer: PeerId,
    mut keys: Vec<RecordKey>,
    now_ms: u64,
) -> Result<(), StoreError> {
    keys.sort_unstable();
    keys.dedup();
    let group = OutboxGroup { peer, lane: Lane::Bulk, traceparent: None, fresh: false, keys };
    add(sql, &[group], now_ms).await
}

/// The records of the divisions above a scope that concern everyone inside those divisions.
pub(super) async fn keys_above(
    sql: &mut Sql<'_>,
    scope: Division,
    subtree_kinds: &[u32],
) -> Result<Vec<RecordKey>, StoreError> {
    let mut keys = Vec::new();
    for home in scope.enclosing().skip(1) {
        for kind in subtree_kinds {
            let above = "SELECT group_concat(key) FROM record WHERE county = ? AND kind = ? AND home = ?";
            let args = Args::ints(&[code(home.county()), i64::from(*kind), code(home)]);
            keys.extend(key_list(sql, above, args).await?);
        }
    }
    Ok(keys)
}

/// The keys that a query finds, in one row as text: a row for each would cost a round trip's share each.
pub(super) async fn key_list(
    sql: &mut Sql<'_>,
    query: &'static str,
    args: Args,
) -> Result<Vec<RecordKey>, StoreError> {
    let Some(row) = sql.row(query, args).await? else { return Ok(Vec::new()) };
    let key = |key: &str| key.parse().map_err(|_| StoreError::unreadable("a list of keys"));
    maybe_text(&row, 0)?.map_or(Ok(Vec::new()), |list| list.split(',').map(key).collect())
}

/// Joins a peer's rows if they hold more than twice their distinct keys: each key then stands once, in its most urgent
/// lane, and is fresh only if it was in all rows.
pub(super) async fn compact(sql: &mut Sql<'_>, peer: PeerId) -> Result<(), StoreError> {
    let all = "SELECT seq, keys FROM outbox WHERE peer = ?";
    let rows = sql.rows(all, Args::ints(&[peer.0])).await?;
    let (mut seqs, mut keys) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        seqs.push(int(row, 0)?);
        keys.extend(keys_of(&blob(row, 1)?)?);
    }
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    if count <= 2 * keys.len() {
        // Rows in flight keep their numbers, so that their receipts count. At worst all that is distinct is in one lane.
        let noted =
            "UPDATE outbox_total SET least = CASE WHEN count < ? THEN count ELSE ? END WHERE peer = ?";
        let distinct = keys.len() as i64;
        sql.run(noted, Args::ints(&[distinct, distinct, peer.0])).await?;
        return Ok(());
    }
    let mut owed: Vec<(RecordKey, i64, bool)> = Vec::new();
    let mut oldest: BTreeMap<i64, i64> = BTreeMap::new();
    // Only what was read, and is still there: others may have added to it, and receipts may have come.
    for row in delete(sql, peer, &seqs).await? {
        let first = oldest.entry(row.lane).or_insert(row.written_ms);
        *first = row.written_ms.min(*first);
        owed.extend(keys_of(&row.keys)?.into_iter().map(|key| (key, row.lane, row.fresh)));
    }
    owed.sort_unstable();
    let mut groups: BTreeMap<(i64, bool), Vec<RecordKey>> = BTreeMap::new();
    for same in owed.chunk_by(|a, b| a.0 == b.0) {
        let fresh = same.iter().all(|o| o.2);
        groups.entry((same[0].1, fresh)).or_default().push(same[0].0);
    }
    for ((lane, fresh), keys) in groups {
        let written_ms = oldest.get(&lane).map_or(0, |ms| *ms as u64);
        let group = OutboxGroup { peer, lane: lane_from(lane), traceparent: None, fresh, keys };
        add(sql, &[group], written_ms).await?;
    }
    sql.run("UPDATE outbox_total SET least = count WHERE peer = ?", Args::ints(&[peer.0])).await?;
    claims::joined(sql, peer).await
}

impl Store {
    /// The peers whose outboxes hold so much more than what can be distinct in them that they should be compacted.
    pub async fn outboxes_to_compact(&self) -> Result<Vec<PeerId>, StoreError> {
        let grown = "SELECT DISTINCT peer FROM outbox_total GROUP BY peer, lane
            HAVING sum(count) > 2 * CASE WHEN sum(least) > 0 THEN sum(least) ELSE 0 END + ? ORDER BY peer";
        let rows = self.reader().await?.sql().rows(grown, Args::ints(&[COMPACT_ABOVE_KEYS])).await?;
        rows.iter().map(|row| Ok(PeerId(int(row, 0)?))).collect()
    }
}
