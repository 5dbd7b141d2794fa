//! The audit log on disk: entries are only ever added, in the transaction of what they tell of.

use std::collections::BTreeMap;
use std::ops::Range;

use super::sql::{Args, Row, Rows, Sql, blob, code, division, int, text};
use super::{Store, StoreError};
use crate::audit::{self, Chain, Checkpoint, Copied, Hash, Head, Note, Signed, Span};
use crate::division::Division;

static ADD: Rows =
    Rows::new("INSERT INTO audit (slot, number, time_ms, event, line, hash) VALUES", "(?,?,?,?,?,?)", "");

/// Adds entries to the chain of this process.
pub(super) async fn append(sql: &mut Sql<'_>, notes: &[&Note], now_ms: u64) -> Result<(), StoreError> {
    if notes.is_empty() {
        return Ok(());
    }
    let slot = sql.slot();
    let mut chain = match head(sql, slot).await? {
        Some(head) => Chain::after(head),
        None => begin(sql, slot).await?,
    };
    let rows: Vec<audit::Row> = notes.iter().map(|note| chain.add(now_ms, note)).collect();
    sql.many(&ADD, &rows, |args, row| {
        args.push_int(slot);
        args.push_int(row.number as i64);
        args.push_int(row.time_ms as i64);
        args.push_text(&row.event);
        args.push_text(&row.line);
        args.push_blob(&row.hash.0);
    })
    .await?;
    Ok(())
}

async fn begin(sql: &mut Sql<'_>, slot: i64) -> Result<Chain, StoreError> {
    let own = sql.row("SELECT division FROM node WHERE slot = 0", Args::new()).await?;
    let own = own.ok_or_else(|| StoreError::unreadable("what the store says of itself"))?;
    Ok(Chain::new(division(&own, 0)?, slot))
}

/// The last entry of a chain.
async fn head(sql: &mut Sql<'_>, slot: i64) -> Result<Option<Head>, StoreError> {
    let last = "SELECT number, hash FROM audit WHERE slot = ? ORDER BY number DESC LIMIT 1";
    let row = sql.row(last, Args::ints(&[slot])).await?;
    row.map(|row| Ok(Head { number: int(&row, 0)? as u64, hash: hash(&row, 1)? })).transpose()
}

/// Checkpoints that are kept of one chain: the newest, and the last of each day before it.
const CHECKPOINTS_MAX: i64 = 400;
const DAY_MS: i64 = 86_400_000;
/// Entries about copies that are read at a time.
const COPIES_A_READ: i64 = 500;

/// Keeps a checkpoint. Of those of the same day it takes the place.
pub(super) async fn keep(sql: &mut Sql<'_>, signed: &Signed, now_ms: u64) -> Result<(), StoreError> {
    let Signed { checkpoint, signature, certificates } = signed;
    let Checkpoint { division, slot, epoch, head, time_ms } = *checkpoint;
    let (division, now_ms) = (code(division), now_ms as i64);
    let same_day = "DELETE FROM audit_checkpoint
        WHERE division = ? AND slot = ? AND epoch = ? AND number < ? AND kept_ms / ? = ?";
    let number = head.number as i64;
    let args = Args::ints(&[division, slot, epoch as i64, number, DAY_MS, now_ms / DAY_MS]);
    sql.run(same_day, args).await?;
    let put = "INSERT INTO audit_checkpoint
            (division, slot, epoch, number, hash, time_ms, kept_ms, signature, certificates)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (division, slot, epoch, number) DO NOTHING";
    let args = Args::ints(&[division, slot, epoch as i64, number]).blob(&head.hash.0);
    sql.run(put, args.int(time_ms as i64).int(now_ms).blob(signature).blob(certificates)).await?;
    let too_old = "DELETE FROM audit_checkpoint WHERE division = ? AND slot = ? AND kept_ms <
        (SELECT kept_ms FROM audit_checkpoint WHERE division = ? AND slot = ? ORDER BY kept_ms DESC LIMIT 1 OFFSET ?)";
    sql.run(too_old, Args::ints(&[division, slot, division, slot, CHECKPOINTS_MAX - 1])).await.map(|_| ())
}

/// Keeps a checkpoint in place of all that were kept of its chain.
pub(super) async fn keep_instead(sql: &mut Sql<'_>, signed: &Signed, now_ms: u64) -> Result<(), StoreError> {
    let Checkpoint { division, slot, .. } = signed.checkpoint;
    let former = "DELETE FROM audit_checkpoint WHERE division = ? AND slot = ?";
    sql.run(former, Args::ints(&[code(division), slot])).await?;
    keep(sql, signed, now_ms).await
}

/// From division, slot, epoch, number, hash, time, signature, certificates.
fn signed(row: &Row) -> Result<Signed, StoreError> {
    let checkpoint = Checkpoint {
        division: division(row, 0)?,
        slot: int(row, 1)?,
        epoch: int(row, 2)? as u64,
        head: Head { number: int(row, 3)? as u64, hash: hash(row, 4)? },
        time_ms: int(row, 5)? as u64,
    };
    Ok(Signed { checkpoint, signature: blob(row, 6)?.into(), certificates: blob(row, 7)?.into() })
}

fn hash(row: &Row, column: usize) -> Result<Hash, StoreError> {
    Hash::of_bytes(&blob(row, column)?).ok_or_else(|| StoreError::unreadable("a hash of the audit log"))
}

/// From number, time, event, line, hash.
fn entry(row: &Row) -> Result<audit::Row, StoreError> {
    Ok(audit::Row {
        number: int(row, 0)? as u64,
        time_ms: int(row, 1)? as u64,
        event: text(row, 2)?,
        line: text(row, 3)?,
        hash: hash(row, 4)?,
    })
}

impl Store {
    /// The slots whose gateways have a chain, ascending.
    pub async fn audit_slots(&self) -> Result<Vec<i64>, StoreError> {
        let slots = "SELECT slot FROM node WHERE EXISTS (SELECT 1 FROM audit WHERE audit.slot = node.slot) ORDER BY slot";
        let rows = self.reader().await?.sql().rows(slots, Args::new()).await?;
        rows.iter().map(|row| int(row, 0)).collect()
    }

    /// How far a chain has come; `None`: it has not begun.
    pub async fn audit_head(&self, slot: i64) -> Result<Option<Head>, StoreError> {
        head(&mut self.reader().await?.sql(), slot).await
    }

    /// Entries of a chain in their order, beginning after the number `after`.
    pub async fn audit_entries(
        &self,
        slot: i64,
        after: u64,
        limit: usize,
    ) -> Result<Vec<audit::Row>, StoreError> {
        let list = "SELECT number, time_ms, event, line, hash FROM audit
            WHERE slot = ? AND number > ? ORDER BY number LIMIT ?";
        let args = Args::ints(&[slot, after as i64, limit as i64]);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        rows.iter().map(entry).collect()
    }

    /// Entries of a chain, the latest first, before the number `before` and in this stretch of time; `event` empty: of
    /// all events.
    pub async fn audit_latest(
        &self,
        slot: i64,
        before: u64,
        time_ms: Range<u64>,
        event: &str,
        limit: usize,
    ) -> Result<Vec<audit::Row>, StoreError> {
        let list = "SELECT number, time_ms, event, line, hash FROM audit
            WHERE slot = ? AND number < ? AND time_ms >= ? AND time_ms < ? AND (? = '' OR event = ?)
            ORDER BY number DESC LIMIT ?";
        let bounded = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let args = Args::ints(&[slot, bounded(before), bounded(time_ms.start), bounded(time_ms.end)]);
        let args = args.text(event).text(event).int(limit as i64);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        rows.iter().map(entry).collect()
    }

    /// The lines of erasures of a record, the latest first, at most so many. Lines that only look alike may be among them.
    pub async fn audit_erased(&self, record: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let list = "SELECT line FROM audit WHERE event = 'erased' AND line LIKE ? ESCAPE '!'
            ORDER BY time_ms DESC LIMIT ?";
        let named = serde_json::to_string(record).unwrap_or_default();
        let plain = named.replace('!', "!!").replace('%', "!%").replace('_', "!_");
        let args = Args::new().text(&format!("%{plain}%")).int(limit as i64);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        rows.iter().map(|row| text(row, 0)).collect()
    }

    /// Copies that were made of what the store holds, as far as its log tells, up to a moment in Unix milliseconds.
    pub async fn audit_copies(&self, until_ms: u64) -> Result<BTreeMap<Copied, Span>, StoreError> {
        // The condition is that of the index.
        let list = "SELECT time_ms, slot, number, line FROM audit
            WHERE (event = 'bundle_made' OR event = 'store_put_back' OR event = 'store_rebuilt'
                OR event = 'command' AND line LIKE '%\"BackupService.CreateBackup\"%')
              AND time_ms <= ? AND (time_ms, slot, number) > (?, ?, ?)
            ORDER BY time_ms, slot, number LIMIT ?";
        let until_ms = i64::try_from(until_ms).unwrap_or(i64::MAX);
        let mut all: BTreeMap<Copied, Span> = BTreeMap::new();
        let mut after = [-1; 3];
        loop {
            let [time_ms, slot, number] = after;
            let args = Args::ints(&[until_ms, time_ms, slot, number, COPIES_A_READ]);
            let rows = self.reader().await?.sql().rows(list, args).await?;
            let Some(last) = rows.last() else { return Ok(all) };
            after = [int(last, 0)?, int(last, 1)?, int(last, 2)?];
            for row in &rows {
                if let Some((copied, span)) = audit::copied(&text(row, 3)?) {
                    all.entry(copied).and_modify(|all| *all = all.and(span)).or_insert(span);
                }
            }
        }
    }

    /// Checkpoints of a node's chains that are kept here, by slot, time and number, beginning after `after`.
    pub async fn checkpoints(
        &self,
        division: Division,
        after: Option<(i64, u64, u64)>,
        limit: usize,
    ) -> Result<Vec<Signed>, StoreError> {
        let list = "SELECT division, slot, epoch, number, hash, time_ms, signature, certificates
            FROM audit_checkpoint WHERE division = ? AND (slot, time_ms, number) > (?, ?, ?)
            ORDER BY slot, time_ms, number LIMIT ?";
        let (slot, time_ms, number) = after.unwrap_or((-1, 0, 0));
        let args = Args::ints(&[code(division), slot, time_ms as i64, number as i64, limit as i64]);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        rows.iter().map(signed).collect()
    }

    /// The furthest checkpoint of a chain in this life of its store: whatever clocks say, it is the last.
    pub async fn furthest_checkpoint(
        &self,
        division: Division,
        slot: i64,
        epoch: u64,
    ) -> Result<Option<Signed>, StoreError> {
        let furthest = "SELECT division, slot, epoch, number, hash, time_ms, signature, certificates
            FROM audit_checkpoint WHERE division = ? AND slot = ? AND epoch = ? ORDER BY number DESC LIMIT 1";
        let args = Args::ints(&[code(division), slot, epoch as i64]);
        let row = self.reader().await?.sql().row(furthest, args).await?;
        row.as_ref().map(signed).transpose()
    }

    /// The checkpoint of a chain that was kept last.
    pub async fn newest_checkpoint(
        &self,
        division: Division,
        slot: i64,
    ) -> Result<Option<Signed>, StoreError> {
        let newest = "SELECT division, slot, epoch, number, hash, time_ms, signature, certificates
            FROM audit_checkpoint WHERE division = ? AND slot = ? ORDER BY kept_ms DESC, number DESC LIMIT 1";
        let row = self.reader().await?.sql().row(newest, Args::ints(&[code(division), slot])).await?;
        row.as_ref().map(signed).transpose()
    }
}
