//! What a link reads for its peer: outbox rows, and of their records what the peer may have.

use guantong_proto::rules::Lane;
use guantong_proto::v1;

use super::Driver;
use crate::engine::EngineError;
use crate::session::{OutboxRow, Want};
use crate::step::Step;

/// A guess at the size of a record, to read about as many as a batch takes.
const RECORD_BYTES: usize = 256;

impl Driver {
    /// Reads what the peer is owed next, as it may have it.
    pub(super) async fn read_outbox(&mut self, want: Want) -> Result<(), EngineError> {
        let shared: std::sync::Arc<_> = self.engine.shared().clone();
        let Some((peer, route)) = self.peer.and_then(|peer| Some((peer, shared.route(peer)?))) else {
            self.session.lane_empty(want.lane);
            return Ok(());
        };
        let under_way: Vec<i64> = self.rows.keys().copied().collect();
        let keys_max = (want.budget_bytes / RECORD_BYTES).clamp(1, 4_000);
        let owed = shared.store.owed(peer, lane(want.lane), &under_way, keys_max).await;
        let owed = owed.inspect_err(|error| shared.found_damaged(error))?;
        if owed.rows.is_empty() {
            self.session.lane_empty(want.lane);
            return Ok(());
        }
        let mut rows = Vec::with_capacity(owed.rows.len());
        for row in &owed.rows {
            let mut records = Vec::with_capacity(row.keys.len());
            for stored in row.keys.iter().filter_map(|key| owed.record(*key)) {
                match route.batch_record(&stored.name, &stored.state, row.traceparent.as_deref(), row.fresh) {
                    Ok(record) => records.extend(record),
                    Err(error) => {
                        tracing::error!(%error, record = ?stored.name, "a stored record cannot be read")
                    }
                }
            }
            rows.push(OutboxRow { seq: row.seq, records });
        }
        self.rows.extend(owed.rows.into_iter().map(|row| (row.seq, row.keys)));
        Step::OutboxRead.reached();
        self.session.offer(want.lane, rows);
        Ok(())
    }
}

fn lane(lane: v1::Lane) -> Lane {
    match lane {
        v1::Lane::Urgent => Lane::Urgent,
        v1::Lane::Normal => Lane::Normal,
        v1::Lane::Bulk | v1::Lane::Unspecified => Lane::Bulk,
    }
}
