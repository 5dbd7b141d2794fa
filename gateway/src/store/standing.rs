//! How one record stands with one peer: whether it waits in the peer's outbox, and what the peer refused of it.

use guantong_proto::rules::Lane;
use guantong_proto::v1::RefusalReason;

use super::outbox::lane_code;
use super::pack::keys_of;
use super::sql::{Args, Sql, blob, int, maybe, text};
use super::{Store, StoreError};
use crate::ingest::changes::{RecordKey, Refused};
use crate::ingest::topology::PeerId;
use crate::record::FieldNumber;

/// Rows of an outbox that are looked through at a time. They are not indexed by record: only a person asks for one.
const ROWS_AT_ONCE: i64 = 256;

/// How a record stands with a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordStanding {
    /// It waits to be sent, or for its receipt: in its most urgent lane, and since when, Unix milliseconds.
    pub waiting: Option<(Lane, u64)>,
    /// What the peer refused of it, and when, Unix milliseconds; by field.
    pub refused: Vec<(Refused, u64)>,
}

impl Store {
    /// How a record stands with a peer. Costs as much as the peer is owed rows.
    pub async fn record_standing(&self, peer: PeerId, key: RecordKey) -> Result<RecordStanding, StoreError> {
        let mut reader = self.reader().await?;
        let mut sql = reader.sql();
        let mut waiting: Option<(Lane, u64)> = None;
        for lane in [Lane::Urgent, Lane::Normal, Lane::Bulk] {
            if let Some(since_ms) = first_owed(&mut sql, peer, lane, key).await? {
                let (urgent, earliest_ms) = waiting.unwrap_or((lane, since_ms));
                waiting = Some((urgent, earliest_ms.min(since_ms)));
            }
        }
        let list = "SELECT field, reason, detail, retry_ms, refused_ms FROM quarantine
            WHERE peer = ? AND key = ? ORDER BY field";
        let rows = sql.rows(list, Args::ints(&[peer.0, key])).await?;
        let refused = |row| {
            let reason = i32::try_from(int(row, 1)?).unwrap_or_default();
            let refused = Refused {
                field: int(row, 0)? as FieldNumber,
                reason: RefusalReason::try_from(reason).unwrap_or_default(),
                detail: text(row, 2)?,
                retry_at_ms: maybe(row, 3)?.map(|ms| ms as u64),
            };
            Ok::<_, StoreError>((refused, int(row, 4)? as u64))
        };
        Ok(RecordStanding { waiting, refused: rows.iter().map(refused).collect::<Result<_, _>>()? })
    }
}

/// When the oldest row of a lane that names the record was written.
async fn first_owed(
    sql: &mut Sql<'_>,
    peer: PeerId,
    lane: Lane,
    key: RecordKey,
) -> Result<Option<u64>, StoreError> {
    let mut after = 0;
    loop {
        let next = "SELECT seq, written_ms, keys FROM outbox
            WHERE peer = ? AND lane = ? AND seq > ? ORDER BY seq LIMIT ?";
        let rows = sql.rows(next, Args::ints(&[peer.0, lane_code(lane), after, ROWS_AT_ONCE])).await?;
        for row in &rows {
            after = int(row, 0)?;
            if keys_of(&blob(row, 2)?)?.contains(&key) {
                return Ok(Some(int(row, 1)? as u64));
            }
        }
        if (rows.len() as i64) < ROWS_AT_ONCE {
            return Ok(None);
        }
    }
}
