//! Ledgers: which were imported, what their rows brought last, and the rows that wait for their division.

use super::pack::{hashes_of, pack_hashes};
use super::sql::{Args, Rows, Sql, blob, code, division, int, latest_of_each, name, text};
use super::{Store, StoreError, Writer};
use crate::division::Division;
use crate::ingest::changes::{HeldRow, ImportRowMemory, RecordKey, SourceId};
use crate::record::RecordName;
use crate::schema::KindId;

/// A ledger that is being imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// Its number.
    pub id: SourceId,
    /// The number of this import; the first is 1.
    pub generation: i64,
}

/// A row that an earlier import brought and a later one did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VanishedRow {
    /// The row's key in the ledger.
    pub row: String,
    /// The record that it stands for.
    pub key: RecordKey,
    /// Its name.
    pub name: RecordName,
}

/// A row that waits for its division.
#[derive(Clone, Debug)]
pub struct HeldEntry {
    /// Its number.
    pub id: i64,
    /// The row.
    pub row: HeldRow,
}

static REMEMBER: Rows = Rows::new(
    "INSERT INTO import_row (source, row, key, generation, field_hashes) VALUES",
    "(?,?,?,?,?)",
    "ON CONFLICT (source, row) DO UPDATE SET key = excluded.key, generation = excluded.generation,
        field_hashes = excluded.field_hashes",
);
static RECALL: Rows = Rows::new(
    "WITH wanted (place, source, row) AS (VALUES",
    "(?,?,?)",
    ") SELECT w.place, i.key, i.generation, i.field_hashes FROM wanted w CROSS JOIN import_row i
       ON i.source = w.source AND i.row = w.row",
);
static HOLD: Rows = Rows::new(
    "INSERT INTO held (source, row_key, division, row, reason, held_ms) VALUES",
    "(?,?,?,?,?,?)",
    "ON CONFLICT (source, row_key) DO UPDATE SET division = excluded.division, row = excluded.row,
        reason = excluded.reason, held_ms = excluded.held_ms",
);

/// Stores what rows brought.
pub(super) async fn remember(sql: &mut Sql<'_>, rows: &[ImportRowMemory]) -> Result<(), StoreError> {
    sql.many(&REMEMBER, &latest_of_each(rows, |row| (row.source, &row.row)), |args, row| {
        args.push_int(row.source);
        args.push_text(&row.row);
        args.push_int(row.key);
        args.push_int(row.generation);
        args.push_blob(&pack_hashes(&row.values));
    })
    .await?;
    Ok(())
}

/// Holds rows and lets others go.
pub(super) async fn hold(sql: &mut Sql<'_>, held: &[HeldRow], released: &[i64]) -> Result<(), StoreError> {
    if !released.is_empty() {
        let release = "DELETE FROM held WHERE id IN (SELECT value FROM json_each(?))";
        sql.run(release, Args::new().list(released.iter().copied())).await?;
    }
    sql.many(&HOLD, &latest_of_each(held, |row| (row.source, &row.row_key)), |args, row| {
        args.push_int(row.source);
        args.push_text(&row.row_key);
        args.push_division(row.division);
        args.push_blob(&row.row);
        args.push_text(&row.reason);
        args.push_int(row.held_ms as i64);
    })
    .await?;
    Ok(())
}

impl Writer {
    /// Begins an import of a ledger, which gets a number with its first.
    pub async fn begin_import(&mut self, source: &str, kind: KindId) -> Result<SourceRow, StoreError> {
        let begin = "INSERT INTO source (name, kind, generation) VALUES (?, ?, 1)
            ON CONFLICT (name, kind) DO UPDATE SET generation = source.generation + 1
            RETURNING source, generation";
        let mut conn = self.take().await?;
        let mut sql = conn.sql(self.faults.as_deref());
        let row = sql.row(begin, Args::new().text(source).int(i64::from(kind.0))).await?;
        let row = row.ok_or_else(|| StoreError::unreadable("the list of ledgers"))?;
        let begun = SourceRow { id: int(&row, 0)?, generation: int(&row, 1)? };
        self.conn = Some(conn);
        Ok(begun)
    }

    /// What rows of a ledger brought last, in the order of `rows`; `None` where it never had the row.
    pub async fn import_rows(
        &mut self,
        source: SourceId,
        rows: &[String],
    ) -> Result<Vec<Option<ImportRowMemory>>, StoreError> {
        let mut conn = self.take().await?;
        let mut sql = conn.sql(self.faults.as_deref());
        let found = sql
            .many_rows(&RECALL, rows, |args, place, row| {
                args.push_int(place);
                args.push_int(source);
                args.push_text(row);
            })
            .await?;
        let mut memory = vec![None; rows.len()];
        for row in &found {
            let place = usize::try_from(int(row, 0)?).unwrap_or(usize::MAX);
            let (Some(slot), Some(key)) = (memory.get_mut(place), rows.get(place)) else { continue };
            *slot = Some(ImportRowMemory {
                source,
                row: key.clone(),
                key: int(row, 1)?,
                generation: int(row, 2)?,
                values: hashes_of(&blob(row, 3)?)?,
            });
        }
        self.conn = Some(conn);
        Ok(memory)
    }
}

impl Store {
    /// Rows of a ledger that no import since `generation` brought, by their keys, beginning after `after`.
    pub async fn vanished(
        &self,
        source: SourceId,
        generation: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<VanishedRow>, StoreError> {
        let list =
            "SELECT i.row, i.key, r.kind, r.home, r.id FROM import_row i JOIN record r ON r.key = i.key
            WHERE i.source = ? AND i.generation < ? AND i.row > ? ORDER BY i.row LIMIT ?";
        let args = Args::ints(&[source, generation]).text(after).int(limit as i64);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        let vanished = |row| Ok(VanishedRow { row: text(row, 0)?, key: int(row, 1)?, name: name(row, 2)? });
        rows.iter().map(vanished).collect()
    }

    /// Name and kind of a ledger.
    pub async fn source(&self, id: SourceId) -> Result<Option<(String, KindId)>, StoreError> {
        let get = "SELECT name, kind FROM source WHERE source = ?";
        let row = self.reader().await?.sql().row(get, Args::ints(&[id])).await?;
        row.map(|row| Ok((text(&row, 0)?, KindId(int(&row, 1)? as u32)))).transpose()
    }

    /// Rows that wait for their division (for `division`, where one is named), beginning after the number `after`.
    pub async fn held(
        &self,
        after: i64,
        limit: usize,
        division_awaited: Option<Division>,
    ) -> Result<Vec<HeldEntry>, StoreError> {
        let list = "SELECT id, source, row_key, division, row, reason, held_ms FROM held
            WHERE id > ? AND division BETWEEN ? AND ? ORDER BY id LIMIT ?";
        let (low, high) = division_awaited.map_or((0, i64::MAX), |division| (code(division), code(division)));
        let args = Args::ints(&[after, low, high, limit as i64]);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        let entry = |row| {
            let held = HeldRow {
                source: int(row, 1)?,
                row_key: text(row, 2)?,
                division: division(row, 3)?,
                row: blob(row, 4)?,
                reason: text(row, 5)?,
                held_ms: int(row, 6)? as u64,
            };
            Ok(HeldEntry { id: int(row, 0)?, row: held })
        };
        rows.iter().map(entry).collect()
    }
}
