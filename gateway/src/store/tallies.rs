//! Sums over records, and how much the store holds.

use super::sql::{Args, Rows, Sql, code, int, text};
use super::{Database, Store, StoreError};
use crate::aggregate::TallyKey;
use crate::division::Division;

/// One sum of a division.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TallyRow {
    /// `grids`, `cases`, …
    pub measure: String,
    /// What is counted within the measure.
    pub class: String,
    /// The sum.
    pub value: i64,
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

static ADD: Rows = Rows::new(
    "INSERT INTO tally (division, measure, class, slot, value) VALUES",
    "(?,?,?,0,?)",
    "ON CONFLICT (division, measure, class, slot) DO UPDATE SET value = tally.value + excluded.value",
);

/// Adds to sums.
pub(super) async fn add(sql: &mut Sql<'_>, tallies: &[(TallyKey, i64)]) -> Result<(), StoreError> {
    sql.many(&ADD, tallies, |args, (key, amount)| {
        args.push_division(key.division);
        args.push_text(key.measure);
        args.push_text(key.class);
        args.push_int(*amount);
    })
    .await?;
    Ok(())
}

impl Store {
    /// The sums of a division that are not 0, by measure and class.
    pub async fn tallies(&self, division: Division) -> Result<Vec<TallyRow>, StoreError> {
        let list = "SELECT measure, class, CAST(sum(value) AS BIGINT) FROM tally WHERE division = ?
            GROUP BY measure, class HAVING sum(value) <> 0 ORDER BY measure, class";
        let rows = self.reader().await?.sql().rows(list, Args::ints(&[code(division)])).await?;
        let tally = |row| Ok(TallyRow { measure: text(row, 0)?, class: text(row, 1)?, value: int(row, 2)? });
        rows.iter().map(tally).collect()
    }

    /// How much the store holds.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let counts =
            "SELECT (SELECT CAST(sum(records) AS BIGINT) FROM node), (SELECT count(*) FROM conflict),
            (SELECT count(*) FROM quarantine), (SELECT count(*) FROM held)";
        let row = self.reader().await?.sql().row(counts, Args::new()).await?;
        let row = row.ok_or_else(|| StoreError::unreadable("how much the store holds"))?;
        let store_bytes = match &*self.database {
            Database::Sqlite(database) => database.size_bytes(),
            Database::Postgres(database) => database.size_bytes().await?,
        };
        Ok(Counts {
            records: int(&row, 0)? as u64,
            conflicts: int(&row, 1)? as u64,
            quarantined: int(&row, 2)? as u64,
            held: int(&row, 3)? as u64,
            store_bytes,
        })
    }
}
