//! Once a day, after midnight in Beijing, the node writes how many of everything there were at the divisions that it
//! acts for. A node that was off at midnight does it when it is back, with what it has then; days on which it was not
//! running at all have no snapshot.

use guantong_proto::v1;

use super::EngineError;
use super::group::bring_all;
use super::task::Task;
use crate::aggregate::snapshot::{self, Stocks};
use crate::period::Day;
use crate::record::RecordName;
use crate::store::{StoreError, TallyPeriods, TallyRange};

/// Snapshots written in one transaction.
const SNAPSHOTS_AT_ONCE: usize = 500;

impl Task {
    /// Writes yesterday's snapshots, if that was not done yet.
    pub(super) async fn take_snapshots(&mut self) -> Result<(), EngineError> {
        let today = Day::of_ms((self.shared.environment.now_ms)());
        if self.snapshots_of == Some(today) {
            return Ok(());
        }
        let created = Day::of_ms(self.shared.store.meta().await?.created_ms);
        // What a store holds on its first day, it did not hold the day before.
        if created < today {
            let due = self.snapshots_due(today.plus(-1)).await?;
            for some in due.chunks(SNAPSHOTS_AT_ONCE) {
                self.write_snapshots(some).await?;
            }
        }
        self.snapshots_of = Some(today);
        Ok(())
    }

    async fn snapshots_due(&self, day: Day) -> Result<Vec<(RecordName, v1::SnapshotDay)>, EngineError> {
        let Some(kind) = self.shared.schema.kind_named("snapshot") else { return Ok(Vec::new()) };
        let (divisions, topology) = (self.shared.divisions(), self.shared.topology());
        let mut stocks = Stocks::before(day);
        let range = |townships| TallyRange {
            townships,
            periods: TallyPeriods::Listed(stocks.periods()),
            scope: self.shared.own(),
        };
        let rows = self.shared.store.tallies(&[range(false), range(true)]).await?;
        for row in &rows {
            stocks.take(row.cell, &row.numbers).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        }
        divisions.villages_in(self.shared.own()).for_each(|village| stocks.know(village.home()));
        let mut due = Vec::new();
        for (home, stock) in stocks.into_homes() {
            // A home's own villages: those of a township. A county's lie in its townships.
            let listed = divisions.villages_in(home).filter(|village| village.home() == home);
            let counts = stock.counts(listed);
            let taken = stock.taken_in(day.of_month()..day.of_month() + 1);
            if !topology.acts_for(home) || counts.is_empty() || taken {
                continue;
            }
            let entry = snapshot::entry(day, &counts);
            if let Ok(name) = RecordName::new(home, kind.id, &day.month().to_string()) {
                due.push((name, entry));
            }
        }
        Ok(due)
    }

    async fn write_snapshots(&mut self, due: &[(RecordName, v1::SnapshotDay)]) -> Result<(), EngineError> {
        let records = self.load_records(due.iter().map(|(name, _)| name.clone()).collect()).await?;
        let (_, changes, links) = self.decide(due.len(), |work| {
            bring_all(work, records);
            for (name, day) in due {
                if let Some(slot) = work.slot(name) {
                    work.add_snapshot(slot, day.clone());
                }
            }
        });
        self.commit(&changes, &links).await
    }
}
