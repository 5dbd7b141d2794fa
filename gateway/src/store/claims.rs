//! Claims of nodes, and the two questions that a claim waits for: how far the outbox goes, and whether that much of it is
//! gone.

use super::sql::{Args, Rows, Sql, division, int};
use super::{Store, StoreError};
use crate::claiming::{Claimed, Claims};
use crate::division::Division;
use crate::ingest::topology::PeerId;

static PUT: Rows = Rows::new(
    "INSERT INTO claim (division, through_ms, arrived_ms, quarantined_count) VALUES",
    "(?,?,?,?)",
    "ON CONFLICT (division) DO UPDATE SET through_ms = excluded.through_ms, arrived_ms = excluded.arrived_ms,
        quarantined_count = excluded.quarantined_count",
);

/// Stores claims in place of what was known of the same nodes. Each node once.
pub(super) async fn put(sql: &mut Sql<'_>, claims: &[(Division, Claimed)]) -> Result<(), StoreError> {
    sql.many(&PUT, claims, |args, (division, claimed)| {
        args.push_division(*division);
        args.push_int(claimed.through_ms as i64);
        args.push_int(claimed.arrived_ms as i64);
        args.push_int(claimed.quarantined_count as i64);
    })
    .await?;
    Ok(())
}

/// Notes that rows of a peer have new numbers, up to the highest that there is.
pub(super) async fn joined(sql: &mut Sql<'_>, peer: PeerId) -> Result<(), StoreError> {
    let newest = newest(sql, peer).await?;
    let noted = "INSERT INTO outbox_joined (peer, seq) VALUES (?, ?)
        ON CONFLICT (peer) DO UPDATE SET seq = excluded.seq";
    sql.run(noted, Args::ints(&[peer.0, newest])).await?;
    Ok(())
}

async fn newest(sql: &mut Sql<'_>, peer: PeerId) -> Result<i64, StoreError> {
    // One look into the index for each lane.
    let newest = "SELECT max(seq) FROM outbox WHERE peer = ? AND lane = ?";
    let mut highest = 0;
    for lane in 1..=3 {
        highest = highest.max(sql.number(newest, Args::ints(&[peer.0, lane])).await?);
    }
    Ok(highest)
}

impl Store {
    /// The claims of all nodes that are known, the node's own among them.
    pub async fn claims(&self) -> Result<Claims, StoreError> {
        let list = "SELECT division, through_ms, arrived_ms, quarantined_count FROM claim ORDER BY division";
        let rows = self.reader().await?.sql().rows(list, Args::new()).await?;
        let claim = |row| {
            let claimed = Claimed {
                through_ms: int(row, 1)? as u64,
                arrived_ms: int(row, 2)? as u64,
                quarantined_count: int(row, 3)? as u64,
            };
            Ok((division(row, 0)?, claimed))
        };
        rows.iter().map(claim).collect()
    }

    /// The highest number in a peer's outbox; 0: it is owed nothing.
    pub async fn newest_owed(&self, peer: PeerId) -> Result<i64, StoreError> {
        newest(&mut self.reader().await?.sql(), peer).await
    }

    /// Whether rows of a peer's outbox are left that had a number up to `position`, or may have had it before rows were
    /// joined.
    pub async fn is_owed_up_to(&self, peer: PeerId, position: i64) -> Result<bool, StoreError> {
        let mut reader = self.reader().await?;
        let mut sql = reader.sql();
        let joined =
            sql.number("SELECT seq FROM outbox_joined WHERE peer = ?", Args::ints(&[peer.0])).await?;
        let oldest = "SELECT min(seq) FROM outbox WHERE peer = ? AND lane = ?";
        for lane in 1..=3 {
            // Numbers begin at 1.
            let oldest = sql.number(oldest, Args::ints(&[peer.0, lane])).await?;
            if oldest > 0 && oldest <= position.max(joined) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many values and records a peer refused.
    pub async fn refused_count(&self, peer: PeerId) -> Result<u64, StoreError> {
        let count = "SELECT count(*) FROM quarantine WHERE peer = ?";
        Ok(self.reader().await?.sql().number(count, Args::ints(&[peer.0])).await? as u64)
    }
}
