//! What a store says of itself: whose it is, its random number, and the number of its last transaction.

use super::sql::{Args, Sql, code, division, int, maybe_blob};
use super::{Meta, StoreError};
use crate::division::Division;

/// What a new store begins with.
pub(super) struct Founding<'a> {
    pub(super) own: Division,
    /// Draws random numbers.
    pub(super) fresh: &'a mut (dyn FnMut() -> u64 + Send),
    /// Unix milliseconds.
    pub(super) now_ms: u64,
}

/// Makes an empty store one of this division.
///
/// # Errors
/// It is another division's.
pub(super) async fn found(sql: &mut Sql<'_>, founding: &mut Founding<'_>) -> Result<(), StoreError> {
    if sql.number("SELECT count(*) FROM node", Args::new()).await? == 0 {
        let node = "INSERT INTO node (slot, division, epoch, created_ms, revision, records, sequence)
            VALUES (0, ?, ?, ?, 0, 0, 0)";
        let args = Args::ints(&[code(founding.own), (founding.fresh)() as i64, founding.now_ms as i64]);
        sql.run(node, args).await?;
    }
    owned_by(sql, founding.own).await
}

/// Refuses a store of another division.
pub(super) async fn owned_by(sql: &mut Sql<'_>, own: Division) -> Result<(), StoreError> {
    let stored = meta(sql).await?.division;
    if stored == own { Ok(()) } else { Err(StoreError::OtherDivision { stored, own }) }
}

/// Makes room for another process that writes.
pub(super) async fn join(sql: &mut Sql<'_>, slot: i64) -> Result<(), StoreError> {
    let join = "INSERT INTO node (slot, division, epoch, created_ms, revision, records, sequence, schema_fingerprint)
        SELECT ?, division, epoch, created_ms, 0, 0, 0, schema_fingerprint FROM node WHERE slot = 0
        ON CONFLICT (slot) DO NOTHING";
    sql.run(join, Args::ints(&[slot])).await.map(|_| ())
}

/// What the store says of itself.
pub(super) async fn meta(sql: &mut Sql<'_>) -> Result<Meta, StoreError> {
    let say = "SELECT division, epoch, created_ms, (SELECT CAST(sum(revision) AS BIGINT) FROM node),
        schema_fingerprint FROM node WHERE slot = 0";
    let row = sql.row(say, Args::new()).await?;
    let row = row.ok_or_else(|| StoreError::unreadable("what the store says of itself"))?;
    Ok(Meta {
        division: division(&row, 0)?,
        epoch: int(&row, 1)? as u64,
        created_ms: int(&row, 2)? as u64,
        revision: int(&row, 3)? as u64,
        schema_fingerprint: maybe_blob(&row, 4)?.and_then(|bytes| <[u8; 16]>::try_from(&bytes[..]).ok()),
    })
}
