//! What is kept in memory of records that rule others: the table of divisions, the thresholds of the four colours. Read
//! from the store at the start and when another gateway changed them, and taught by each transaction of this one.

use std::sync::{Arc, PoisonError};

use super::Shared;
use crate::division::Divisions;
use crate::ingest::changes::Changes;
use crate::ingest::{division_entry, threshold_entry};
use crate::record::{Record, RecordName, codec};
use crate::schema::Kind;
use crate::store::StoreError;
use crate::threshold::Thresholds;

/// Records read at a time.
const PAGE_RECORDS: usize = 1_000;

impl Shared {
    /// The divisions known now.
    pub fn divisions(&self) -> Arc<Divisions> {
        self.divisions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The thresholds known now.
    pub fn thresholds(&self) -> Arc<Thresholds> {
        self.thresholds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts the imported divisions over the embedded ones, and reads the thresholds.
    pub(super) async fn load_tables(&self) -> Result<(), StoreError> {
        let mut divisions = Divisions::embedded();
        self.each_record("division", |kind, name, record| {
            division_entry(kind, name.home, record).into_iter().for_each(|entry| divisions.insert(entry));
        })
        .await?;
        let mut thresholds = Thresholds::default();
        self.each_record("threshold", |kind, name, record| {
            let entry = threshold_entry(kind, name.home, &name.id, record);
            entry.into_iter().for_each(|entry| thresholds.learn(entry));
        })
        .await?;
        *self.divisions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(divisions);
        *self.thresholds.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(thresholds);
        self.figures_changed();
        Ok(())
    }

    async fn each_record(
        &self,
        kind: &str,
        mut take: impl FnMut(&Kind, &RecordName, &Record),
    ) -> Result<(), StoreError> {
        let Some(kind) = self.schema.kind_named(kind) else { return Ok(()) };
        let mut after: Option<RecordName> = None;
        loop {
            let last = after.as_ref().map(|name| (name.home, &*name.id));
            let page = self.store.list(kind.id, None, last, PAGE_RECORDS).await?;
            let Some(end) = page.last() else { return Ok(()) };
            after = Some(end.name.clone());
            for stored in page {
                if let Ok(record) = codec::decode(stored.state) {
                    take(kind, &stored.name, &record);
                }
            }
        }
    }

    /// What a transaction that is on disk says of divisions and thresholds.
    pub(super) fn learn(&self, changes: &Changes) {
        if !changes.divisions.is_empty() {
            let mut known = Divisions::clone(&self.divisions());
            changes.divisions.iter().cloned().for_each(|entry| known.insert(entry));
            *self.divisions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        }
        if !changes.thresholds.is_empty() {
            let mut known = Thresholds::clone(&self.thresholds());
            changes.thresholds.iter().cloned().for_each(|entry| known.learn(entry));
            *self.thresholds.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        }
    }
}
