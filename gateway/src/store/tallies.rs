//! Kept counts, and how much the store holds. The numbers of a cell are packed together, so that a record changes few
//! rows; each gateway slot keeps rows of its own, and readers add them.

use std::collections::HashMap;

use bytes::Bytes;

use super::sql::{Args, Row, Rows, Sql, blob, code, division, int};
use super::{Store, StoreError};
use crate::aggregate::{Cell, TallyChange, merge_packed};
use crate::division::Division;

/// The packed numbers of one cell, as one slot keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TallyRow {
    /// Which cell.
    pub cell: Cell,
    /// How often the flows of its month were changed after it was over.
    pub revision: u64,
    /// See `aggregate::Entries`.
    pub numbers: Bytes,
}

/// Which cells are wanted: those of some periods in a stretch of divisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TallyRange {
    /// Cells of townships; otherwise of counties and what stands for them.
    pub townships: bool,
    /// The cells' periods.
    pub periods: TallyPeriods,
    /// The cells' divisions lie in it.
    pub scope: Division,
}

/// Periods of cells: see `aggregate::Cell`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TallyPeriods {
    /// These.
    Listed(Vec<u32>),
    /// From one to another, both included.
    Between(u32, u32),
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records, deleted ones included.
    pub records: u64,
    /// Fields where values stand side by side.
    pub conflicts: u64,
    /// Fields and records that peers refused.
    pub quarantined: u64,
    /// Rows that wait for their division.
    pub held: u64,
    /// On disk, the log included.
    pub store_bytes: u64,
}

static LOAD: Rows = Rows::new(
    "WITH wanted (place, township, period, county, division, slot) AS (VALUES",
    "(?,?,?,?,?,?)",
    ") SELECT w.place, t.numbers FROM wanted w CROSS JOIN tally t
       ON t.township = w.township AND t.period = w.period AND t.county = w.county AND t.division = w.division
          AND t.slot = w.slot",
);
static PUT: Rows = Rows::new(
    "INSERT INTO tally (township, period, county, division, slot, revision, numbers) VALUES",
    "(?,?,?,?,?,?,?)",
    "ON CONFLICT (township, period, county, division, slot) DO UPDATE
       SET revision = tally.revision + excluded.revision, numbers = excluded.numbers",
);

/// Township, period, county, division.
fn push_cell(args: &mut Args, cell: Cell) {
    args.push_int(i64::from(cell.is_township()));
    args.push_int(i64::from(cell.period));
    args.push_division(cell.division.county());
    args.push_division(cell.division);
}

/// Adds to counts. Only this slot writes its rows, so what is read here is what they are.
pub(super) async fn add(sql: &mut Sql<'_>, changes: &[TallyChange]) -> Result<(), StoreError> {
    let slot = sql.slot();
    let rows = sql
        .many_rows(&LOAD, changes, |args, place, change| {
            args.push_int(place);
            push_cell(args, change.cell);
            args.push_int(slot);
        })
        .await?;
    let mut held: HashMap<usize, Bytes> = HashMap::with_capacity(rows.len());
    for row in &rows {
        held.insert(usize::try_from(int(row, 0)?).unwrap_or(usize::MAX), blob(row, 1)?);
    }
    let mut merged = Vec::with_capacity(changes.len());
    for (place, change) in changes.iter().enumerate() {
        let packed = held.get(&place).map(|packed| &packed[..]).unwrap_or_default();
        let numbers =
            merge_packed(packed, &change.adds).map_err(|e| StoreError::unreadable(&e.to_string()))?;
        merged.push((change, numbers));
    }
    sql.many(&PUT, &merged, |args, (change, numbers)| {
        push_cell(args, change.cell);
        args.push_int(slot);
        args.push_int(i64::from(change.restates));
        args.push_blob(numbers);
    })
    .await?;
    Ok(())
}

/// Every number goes; how often a month was changed stays known.
pub(super) async fn forget(sql: &mut Sql<'_>) -> Result<(), StoreError> {
    let mut args = Args::new();
    args.push_blob(&[]);
    sql.run("UPDATE tally SET numbers = ?", args).await.map(|_| ())
}

/// From period, division, revision, numbers.
pub(super) fn tally(row: &Row) -> Result<TallyRow, StoreError> {
    let period = u32::try_from(int(row, 0)?).map_err(|_| StoreError::unreadable("a period"))?;
    let cell = Cell { division: division(row, 1)?, period };
    Ok(TallyRow { cell, revision: int(row, 2)? as u64, numbers: blob(row, 3)? })
}

impl Store {
    /// The rows of all cells in the ranges; a cell has a row for each slot.
    pub async fn tallies(&self, ranges: &[TallyRange]) -> Result<Vec<TallyRow>, StoreError> {
        let mut reader = self.reader().await?;
        let mut sql = reader.sql();
        let mut tallies = Vec::new();
        for range in ranges {
            let listed = "SELECT period, division, revision, numbers FROM tally
                WHERE township = ? AND period IN (SELECT value FROM json_each(?))
                  AND county BETWEEN ? AND ? AND division BETWEEN ? AND ?";
            let between = "SELECT period, division, revision, numbers FROM tally
                WHERE township = ? AND period BETWEEN ? AND ?
                  AND county BETWEEN ? AND ? AND division BETWEEN ? AND ?";
            let args = Args::new().int(i64::from(range.townships));
            let (list, args) = match &range.periods {
                TallyPeriods::Listed(periods) if periods.is_empty() => continue,
                TallyPeriods::Listed(periods) => (listed, args.list(periods.iter().map(|p| i64::from(*p)))),
                TallyPeriods::Between(first, last) => {
                    (between, args.int(i64::from(*first)).int(i64::from(*last)))
                }
            };
            let (low, high) = (code(range.scope), range.scope.last_code() as i64);
            let args = args.int(code(range.scope.county())).int(high).int(low).int(high);
            for row in &sql.rows(list, args).await? {
                tallies.push(tally(row)?);
            }
        }
        Ok(tallies)
    }

    /// How much the store holds.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let counts =
            "SELECT (SELECT CAST(sum(records) AS BIGINT) FROM node), (SELECT count(*) FROM conflict),
            (SELECT count(*) FROM quarantine), (SELECT count(*) FROM held)";
        let row = self.reader().await?.sql().row(counts, Args::new()).await?;
        let row = row.ok_or_else(|| StoreError::unreadable("how much the store holds"))?;
        let store_bytes = self.size_bytes().await?;
        Ok(Counts {
            records: int(&row, 0)? as u64,
            conflicts: int(&row, 1)? as u64,
            quarantined: int(&row, 2)? as u64,
            held: int(&row, 3)? as u64,
            store_bytes,
        })
    }
}
