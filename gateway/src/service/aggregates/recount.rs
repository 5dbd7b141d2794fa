//! Counting every record anew, county by county, as the store was at one moment, and comparing with what was kept. What
//! differs is put right by adding the difference, so that writes may go on meanwhile. The checksums of links go the same
//! way.

mod checksums;

use std::collections::BTreeMap;

use guantong_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use checksums::Checksums;

use super::super::{node, status};
use crate::aggregate::{self, Cell, Entries, Sheet, TallyChange};
use crate::division::Division;
use crate::engine::{Engine, SumRepair};
use crate::measure::Code;
use crate::period::{Day, Month};
use crate::record::codec;
use crate::schema::KindId;
use crate::store::{Frozen, StoreError, StoredRecord};

/// Records read at a time.
const RECORDS_AT_ONCE: usize = 1_000;
/// Differences that are named; more are counted.
const NAMED_MAX: usize = 1_000;

pub(in crate::service) type Progress = mpsc::Sender<Result<v1::RecountAggregatesResponse, Status>>;

/// Kept or counted numbers, by cell and key.
type Numbers = BTreeMap<(Cell, u64), i64>;

pub(in crate::service) struct Recount {
    engine: Engine,
    repair: bool,
    /// Records so far, those that no figure counts among them.
    records: u64,
    said: v1::RecountAggregatesResponse,
}

impl Recount {
    pub(in crate::service) fn new(engine: Engine, repair: bool) -> Recount {
        Recount { engine, repair, records: 0, said: v1::RecountAggregatesResponse::default() }
    }

    /// Runs to the end, or until the receiver goes.
    pub(in crate::service) async fn run(mut self, out: Progress) {
        if let Err(status) = self.count(&out).await {
            let _ = out.send(Err(status)).await;
        }
    }

    async fn count(&mut self, out: &Progress) -> Result<(), Status> {
        let of_store = |e: StoreError| status::of_store(&e);
        let forgotten = self.engine.shared().sums_forgotten();
        let mut frozen = self.engine.shared().store.frozen().await.map_err(of_store)?;
        let counties = frozen.counties().await.map_err(of_store)?;
        self.said.county_total = counties.len() as u32;
        let shared = self.engine.shared().clone();
        let mut checksums = Checksums::begin(&shared, &mut frozen).await.map_err(of_store)?;
        for county in counties {
            let counted = self.counted(&mut frozen, county, &mut checksums).await.map_err(of_store)?;
            let kept = kept(&mut frozen, county).await.map_err(of_store)?;
            let changes = self.compare(&kept, &counted);
            if self.repair && !changes.is_empty() {
                let repaired = self.engine.repair_counts(changes).await;
                repaired.map_err(|e| status::of_engine(&self.engine.shared().schema, KindId(0), &e))?;
            }
            let compared = checksums.compare(&shared, &mut frozen, county, &mut self.said).await;
            compared.map_err(of_store)?;
            self.said.county_count += 1;
            if out.send(Ok(self.said.clone())).await.is_err() {
                return Ok(());
            }
            self.said.differences.clear();
            self.said.checksum_differences.clear();
        }
        self.count_records(&mut frozen).await?;
        let wrong = checksums.end(&shared, &mut frozen, &mut self.said).await.map_err(of_store)?;
        if self.repair && !wrong.is_empty() {
            let anew = wrong.anew.into_iter().collect();
            let repaired =
                self.engine.repair_sums(SumRepair { missing: wrong.missing, anew, forgotten }).await;
            repaired.map_err(|e| status::of_engine(&shared.schema, KindId(0), &e))?;
        }
        self.said.done = true;
        let _ = out.send(Ok(self.said.clone())).await;
        Ok(())
    }

    /// Compares the number of all records with what was kept.
    async fn count_records(&mut self, frozen: &mut Frozen) -> Result<(), Status> {
        let kept = frozen.record_count().await.map_err(|e| status::of_store(&e))? as i64;
        let counted = self.records as i64;
        if kept == counted {
            return Ok(());
        }
        self.said.difference_count += 1;
        self.said.differences.push(v1::CountDifference {
            division: self.engine.shared().own().to_string(),
            measure: "records".into(),
            kept,
            counted,
            ..v1::CountDifference::default()
        });
        if self.repair {
            let repaired = self.engine.repair_record_count(counted - kept).await;
            repaired.map_err(|e| status::of_engine(&self.engine.shared().schema, KindId(0), &e))?;
        }
        Ok(())
    }

    /// What the records of a county say.
    async fn counted(
        &mut self,
        frozen: &mut Frozen,
        county: Division,
        checksums: &mut Checksums,
    ) -> Result<Numbers, StoreError> {
        let own = self.engine.shared().own();
        let mut sheet = Sheet::default();
        let mut page = frozen.records(county, None, RECORDS_AT_ONCE).await?;
        while !page.is_empty() {
            let last = page.last().map(|stored| stored.key);
            // The next ones are read while these are counted.
            let count = async { self.count_page(&page, &mut sheet, checksums) };
            let (next, ()) = tokio::join!(frozen.records(county, last, RECORDS_AT_ONCE), count);
            page = next?;
            tokio::task::yield_now().await;
        }
        let changes = sheet.into_changes(own, Day::FIRST);
        let numbers = changes.iter().flat_map(|c| c.adds.iter().map(|(key, n)| ((c.cell, *key), *n)));
        Ok(numbers.collect())
    }

    fn count_page(&mut self, page: &[StoredRecord], sheet: &mut Sheet, checksums: &mut Checksums) {
        let shared = self.engine.shared();
        self.records += page.len() as u64;
        for stored in page {
            let counts = shared.own().contains(stored.name.home);
            self.said.record_count += u64::from(counts);
            let Ok(record) = codec::decode(stored.state.clone()) else {
                self.said.unreadable_count += 1;
                continue;
            };
            checksums.add(shared, stored, &record);
            if counts {
                let kind = shared.schema.kind(stored.name.kind);
                let contribution = aggregate::contribution_of(kind, stored.name.home, &record);
                sheet.add(&contribution, stored.name.home, 1);
            }
        }
    }

    /// Notes what differs, and gives what must be added to put it right.
    fn compare(&mut self, kept: &Numbers, counted: &Numbers) -> Vec<TallyChange> {
        let mut missing: BTreeMap<Cell, Vec<(u64, i64)>> = BTreeMap::new();
        let keys = kept.keys().chain(counted.keys().filter(|key| !kept.contains_key(key)));
        for key in keys {
            let of = |numbers: &Numbers| numbers.get(key).copied().unwrap_or(0);
            let (kept, counted) = (of(kept), of(counted));
            if kept == counted {
                continue;
            }
            missing.entry(key.0).or_default().push((key.1, counted - kept));
            if self.said.difference_count < NAMED_MAX as u64 {
                self.said.differences.push(difference(*key, kept, counted));
            }
            self.said.difference_count += 1;
        }
        let change = |(cell, mut adds): (Cell, Vec<(u64, i64)>)| {
            adds.sort_unstable();
            TallyChange { cell, restates: Month::of_number(cell.period).is_some(), adds }
        };
        missing.into_iter().map(change).collect()
    }
}

/// What was kept for a county; the slots' parts are added.
async fn kept(frozen: &mut Frozen, county: Division) -> Result<Numbers, StoreError> {
    let mut numbers = Numbers::new();
    for row in frozen.tallies(county).await? {
        for entry in Entries::of(&row.numbers) {
            let (key, number) = entry.map_err(|e| StoreError::Corrupt(e.to_string()))?;
            *numbers.entry((row.cell, key)).or_default() += number;
        }
    }
    Ok(numbers)
}

fn difference((cell, key): (Cell, u64), kept: i64, counted: i64) -> v1::CountDifference {
    let of_day = Month::of_number(cell.period).is_none() && cell.period != Cell::ALL;
    let code = Code::of_number(if of_day { (key >> 5) as u32 } else { key as u32 });
    let period = if of_day {
        Day::of_number(cell.period + (key & 31) as u32).map(|day| day.to_string())
    } else {
        Month::of_number(cell.period).map(|month| month.to_string())
    };
    v1::CountDifference {
        division: cell.division.to_string(),
        period: period.unwrap_or_default(),
        measure: code.count().map_or_else(|| code.number().to_string(), |count| count.name().into()),
        class_name: node::class_name(code),
        kept,
        counted,
    }
}
