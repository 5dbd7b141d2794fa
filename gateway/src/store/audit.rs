//! The audit log on disk: entries are only ever added, in the transaction of what they tell of.

use super::sql::{Args, Row, Rows, Sql, blob, division, int, text};
use super::{Store, StoreError};
use crate::audit::{self, Chain, Hash, Head, Note};

static ADD: Rows =
    Rows::new("INSERT INTO audit (slot, number, time_ms, event, line, hash) VALUES", "(?,?,?,?,?,?)", "");

/// Adds entries to the chain of this process.
pub(super) async fn append(sql: &mut Sql<'_>, notes: &[Note], now_ms: u64) -> Result<(), StoreError> {
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
}
