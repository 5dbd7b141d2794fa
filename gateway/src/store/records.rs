//! Records, the divisions they were handed to, and their open conflicts.

use bytes::Bytes;

use super::keys::county_of_all;
use super::sql::{Args, Row, Rows, Sql, blob, code, division, int, name, text};
use super::{Store, StoreError, Writer};
use crate::division::Division;
use crate::ingest::changes::{RecordChange, RecordKey};
use crate::record::{FieldNumber, RecordName};
use crate::schema::KindId;

/// A record as it was read, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its number.
    pub key: RecordKey,
    /// Rises with each change.
    pub revision: i64,
    /// `record::codec`.
    pub state: Bytes,
}

/// From which to which id a home has records of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where.
    pub home: Division,
    /// The least id.
    pub first: String,
    /// The greatest id.
    pub last: String,
}

/// A record as it was read, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number.
    pub key: RecordKey,
    /// Its name.
    pub name: RecordName,
    /// Rises with each change.
    pub revision: i64,
    /// `record::codec`.
    pub state: Bytes,
}

/// A field where values stand side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictRow {
    /// The record's number.
    pub key: RecordKey,
    /// Its name.
    pub name: RecordName,
    /// The field.
    pub field: FieldNumber,
    /// The whole record, `record::codec`.
    pub state: Bytes,
}

static LOAD: Rows = Rows::new(
    "WITH wanted (place, county, kind, home, id) AS (VALUES",
    "(?,?,?,?,?)",
    ") SELECT w.place, r.key, r.revision, r.state FROM wanted w CROSS JOIN record r
       ON r.county = w.county AND r.kind = w.kind AND r.home = w.home AND r.id = w.id",
);
// OR FAIL: what a failed statement wrote is undone with the transaction, so it need not be able to undo it alone.
static INSERT: Rows = Rows::new(
    "INSERT OR FAIL INTO record (key, county, kind, home, id, revision, state, updated_ms) VALUES",
    "(?,?,?,?,?,?,?,?)",
    "",
);
static UPDATE: Rows = Rows::new(
    "WITH new (key, county, revision, state, updated_ms) AS (VALUES",
    "(?,?,?,?,?)",
    ") UPDATE OR FAIL record SET revision = new.revision + 1, state = new.state, updated_ms = new.updated_ms FROM new
       WHERE record.key = new.key AND record.county = new.county AND record.revision = new.revision",
);
static ADD_AUDIENCE: Rows = Rows::new(
    "INSERT INTO audience (division, county, key) VALUES",
    "(?,?,?)",
    "ON CONFLICT (division, county, key) DO NOTHING",
);
static ADD_CONFLICT: Rows = Rows::new(
    "INSERT INTO conflict (county, home, kind, id, field, key) VALUES",
    "(?,?,?,?,?,?)",
    // A record that had vanished from the file and came back has another number.
    "ON CONFLICT (county, home, kind, id, field) DO UPDATE SET key = excluded.key",
);

/// Writes all records, changed at this moment; gives how many are new.
pub(super) async fn write(
    sql: &mut Sql<'_>,
    records: &[RecordChange],
    at_ms: u64,
) -> Result<usize, StoreError> {
    let (mut new, mut changed): (Vec<&RecordChange>, Vec<&RecordChange>) =
        records.iter().partition(|r| r.revision == 0);
    // In the order of their numbers, so that two who write the same records wait for each other and do not lock each
    // other out.
    new.sort_unstable_by_key(|r| r.key);
    changed.sort_unstable_by_key(|r| r.key);
    let inserted = sql
        .many(&INSERT, &new, |args, record| {
            args.push_int(record.key);
            push_name(args, &record.name);
            args.push_int(1);
            args.push_blob(&record.state);
            args.push_int(at_ms as i64);
        })
        .await?;
    let updated = sql
        .many(&UPDATE, &changed, |args, record| {
            args.push_int(record.key);
            args.push_division(record.name.home.county());
            args.push_int(record.revision);
            args.push_blob(&record.state);
            args.push_int(at_ms as i64);
        })
        .await?;
    if inserted + updated != records.len() as u64 {
        return Err(StoreError::Stale);
    }
    let joined: Vec<_> =
        records.iter().flat_map(|r| r.audience_added.iter().map(move |d| (*d, r.name.home, r.key))).collect();
    sql.many(&ADD_AUDIENCE, &joined, |args, (division, home, key)| {
        args.push_division(*division);
        args.push_division(home.county());
        args.push_int(*key);
    })
    .await?;
    write_conflicts(sql, records).await?;
    Ok(new.len())
}

/// Adds to the number of records what it was found to lack, and forgets conflicts of records that are not there.
pub(super) async fn recounted(sql: &mut Sql<'_>, more: i64) -> Result<(), StoreError> {
    let add = "UPDATE node SET records = records + ? WHERE slot = ?";
    sql.run(add, Args::ints(&[more, sql.slot()])).await?;
    let gone = "DELETE FROM conflict WHERE NOT EXISTS
        (SELECT 1 FROM record r WHERE r.key = conflict.key AND r.county = conflict.county)";
    sql.run(gone, Args::new()).await.map(|_| ())
}

async fn write_conflicts(sql: &mut Sql<'_>, records: &[RecordChange]) -> Result<(), StoreError> {
    let mut open = Vec::new();
    for record in records {
        let Some(fields) = &record.conflicts else { continue };
        if record.revision != 0 {
            let delete = "DELETE FROM conflict WHERE county = ? AND kind = ? AND home = ? AND id = ?";
            let mut args = Args::new();
            push_name(&mut args, &record.name);
            sql.run(delete, args).await?;
        }
        open.extend(fields.iter().map(|field| (record, *field)));
    }
    sql.many(&ADD_CONFLICT, &open, |args, (record, field)| {
        args.push_division(record.name.home.county());
        args.push_division(record.name.home);
        args.push_int(i64::from(record.name.kind.0));
        args.push_text(&record.name.id);
        args.push_int(i64::from(*field));
        args.push_int(record.key);
    })
    .await?;
    Ok(())
}

/// County, kind, home, id.
pub(super) fn push_name(args: &mut Args, name: &RecordName) {
    args.push_division(name.home.county());
    args.push_int(i64::from(name.kind.0));
    args.push_division(name.home);
    args.push_text(&name.id);
}

/// The records of these numbers, in their order; those that are missing are left out.
pub(super) async fn by_keys(sql: &mut Sql<'_>, keys: &[RecordKey]) -> Result<Vec<StoredRecord>, StoreError> {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(Vec::new()) };
    // Records that came together are read together: most often the keys are a run without gaps.
    let run = last - first + 1 == keys.len() as i64 && keys.is_sorted();
    let rows = match (run, county_of_all(keys)) {
        (true, _) => {
            let run = "SELECT key, kind, home, id, revision, state FROM record
                WHERE key BETWEEN ? AND ? ORDER BY key";
            sql.rows(run, Args::ints(&[*first, *last])).await?
        }
        // The county tells a distributed database where they are.
        (false, Some(county)) => {
            let each = sql.either(
                "SELECT r.key, r.kind, r.home, r.id, r.revision, r.state
                FROM json_each(?) w CROSS JOIN record r ON r.key = w.value AND r.county = ?",
                "SELECT r.key, r.kind, r.home, r.id, r.revision, r.state
                FROM unnest(?::bigint[]) WITH ORDINALITY AS w (value, place)
                JOIN record r ON r.key = w.value AND r.county = ? ORDER BY w.place",
            );
            sql.rows(each, Args::new().list(keys.iter().copied()).int(county)).await?
        }
        (false, None) => {
            let each = sql.either(
                "SELECT r.key, r.kind, r.home, r.id, r.revision, r.state
                FROM json_each(?) w CROSS JOIN record r ON r.key = w.value",
                "SELECT r.key, r.kind, r.home, r.id, r.revision, r.state
                FROM unnest(?::bigint[]) WITH ORDINALITY AS w (value, place)
                JOIN record r ON r.key = w.value ORDER BY w.place",
            );
            sql.rows(each, Args::new().list(keys.iter().copied())).await?
        }
    };
    rows.iter().map(stored).collect()
}

/// The records of these names, in their order; `None` where there is none.
pub(super) async fn by_names(
    sql: &mut Sql<'_>,
    names: &[RecordName],
) -> Result<Vec<Option<Loaded>>, StoreError> {
    let rows = sql
        .many_rows(&LOAD, names, |args, place, name| {
            args.push_int(place);
            push_name(args, name);
        })
        .await?;
    let mut loaded = vec![None; names.len()];
    for row in rows {
        let place = usize::try_from(int(&row, 0)?).unwrap_or(usize::MAX);
        let record = Loaded { key: int(&row, 1)?, revision: int(&row, 2)?, state: blob(&row, 3)? };
        if let Some(slot) = loaded.get_mut(place) {
            *slot = Some(record);
        }
    }
    Ok(loaded)
}

/// From key, kind, home, id, revision, state.
pub(super) fn stored(row: &Row) -> Result<StoredRecord, StoreError> {
    Ok(StoredRecord { key: int(row, 0)?, name: name(row, 1)?, revision: int(row, 4)?, state: blob(row, 5)? })
}

/// Least and greatest code of a scope; of the whole store without one.
pub(super) fn range(scope: Option<Division>) -> (i64, i64) {
    scope.map_or((0, i64::MAX), |scope| (code(scope), scope.last_code() as i64))
}

/// The county that a scope begins in.
fn first_county(scope: Option<Division>) -> i64 {
    scope.map_or(0, |scope| code(scope.county()))
}

impl Writer {
    /// The records of these names, in their order; `None` where there is none.
    pub async fn load(&mut self, names: &[RecordName]) -> Result<Vec<Option<Loaded>>, StoreError> {
        let mut conn = self.take().await?;
        let loaded = by_names(&mut conn.sql(self.faults.as_deref()), names).await?;
        self.conn = Some(conn);
        Ok(loaded)
    }

    /// The records of these numbers, in their order; those that are missing are left out.
    pub async fn load_keys(&mut self, keys: &[RecordKey]) -> Result<Vec<StoredRecord>, StoreError> {
        let mut conn = self.take().await?;
        let records = by_keys(&mut conn.sql(self.faults.as_deref()), keys).await?;
        self.conn = Some(conn);
        Ok(records)
    }
}

impl Store {
    /// One record.
    pub async fn get(&self, name: &RecordName) -> Result<Option<Loaded>, StoreError> {
        let get =
            "SELECT key, revision, state FROM record WHERE county = ? AND kind = ? AND home = ? AND id = ?";
        let mut args = Args::new();
        push_name(&mut args, name);
        let row = self.reader().await?.sql().row(get, args).await?;
        row.map(|row| Ok(Loaded { key: int(&row, 0)?, revision: int(&row, 1)?, state: blob(&row, 2)? }))
            .transpose()
    }

    /// The records of these names, in their order; `None` where there is none.
    pub async fn get_many(&self, names: &[RecordName]) -> Result<Vec<Option<Loaded>>, StoreError> {
        by_names(&mut self.reader().await?.sql(), names).await
    }

    /// Records of one kind with a home in `scope` (`None`: all), in the order of home and id, beginning after `after`.
    pub async fn list(
        &self,
        kind: KindId,
        scope: Option<Division>,
        after: Option<(Division, &str)>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let mut sql = reader.sql();
        let (low, high) = range(scope);
        let (after_home, after_id) = after.map_or((0, ""), |(home, id)| (code(home), id));
        let mut county = first_county(scope).max(after.map_or(0, |(home, _)| code(home.county())));
        let mut records = Vec::new();
        // County by county: each is one stretch of the index, and there are few of them.
        while records.len() < limit {
            let next = "SELECT min(county) FROM record WHERE county BETWEEN ? AND ?";
            let found = sql.number(next, Args::ints(&[county, high])).await?;
            if found == 0 {
                break;
            }
            let list = "SELECT key, kind, home, id, revision, state FROM record
                WHERE county = ? AND kind = ? AND home BETWEEN ? AND ? AND (home, id) > (?, ?)
                ORDER BY home, id LIMIT ?";
            let args = Args::ints(&[found, i64::from(kind.0), low, high, after_home]).text(after_id);
            let rows = sql.rows(list, args.int((limit - records.len()) as i64)).await?;
            for row in &rows {
                records.push(stored(row)?);
            }
            county = found + 1;
        }
        Ok(records)
    }

    /// Records of one kind and home in the order of their ids, beginning after `after`.
    pub async fn of_home(
        &self,
        kind: KindId,
        home: Division,
        after_id: &str,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, StoreError> {
        let list = "SELECT key, kind, home, id, revision, state FROM record
            WHERE county = ? AND kind = ? AND home = ? AND id > ? ORDER BY id LIMIT ?";
        let args = Args::ints(&[code(home.county()), i64::from(kind.0), code(home)]);
        let args = args.text(after_id).int(limit as i64);
        let rows = self.reader().await?.sql().rows(list, args).await?;
        rows.iter().map(stored).collect()
    }

    /// The first and the last record of one kind at each home in `scope`, by their ids. `counties` are those of the homes.
    pub async fn spans(
        &self,
        kind: KindId,
        scope: Division,
        counties: &[Division],
    ) -> Result<Vec<Span>, StoreError> {
        let spans = "SELECT home, min(id), max(id) FROM record
            WHERE county IN (SELECT value FROM json_each(?)) AND kind = ? AND home BETWEEN ? AND ?
            GROUP BY home ORDER BY home";
        let (low, high) = range(Some(scope));
        let args = Args::new().list(counties.iter().map(|county| code(*county)));
        let args = args.int(i64::from(kind.0)).int(low).int(high);
        let rows = self.reader().await?.sql().rows(spans, args).await?;
        let span = |row| Ok(Span { home: division(row, 0)?, first: text(row, 1)?, last: text(row, 2)? });
        rows.iter().map(span).collect()
    }

    /// Records in the order of their numbers, beginning after `after`; 0 for the first. For work on the whole store.
    pub async fn scan(&self, after: RecordKey, limit: usize) -> Result<Vec<StoredRecord>, StoreError> {
        let scan =
            "SELECT key, kind, home, id, revision, state FROM record WHERE key > ? ORDER BY key LIMIT ?";
        let rows = self.reader().await?.sql().rows(scan, Args::ints(&[after, limit as i64])).await?;
        rows.iter().map(stored).collect()
    }

    /// Open conflicts of records with a home in `scope`, in the order of home, kind, id and field, after `after`.
    pub async fn conflicts(
        &self,
        scope: Option<Division>,
        after: Option<(&RecordName, FieldNumber)>,
        limit: usize,
    ) -> Result<Vec<ConflictRow>, StoreError> {
        let list = "SELECT c.key, c.kind, c.home, c.id, c.field, r.state FROM conflict c JOIN record r ON r.key = c.key AND r.county = c.county
            WHERE c.county BETWEEN ? AND ? AND c.home BETWEEN ? AND ?
              AND (c.county, c.home, c.kind, c.id, c.field) > (?, ?, ?, ?, ?)
            ORDER BY c.county, c.home, c.kind, c.id, c.field LIMIT ?";
        let (low, high) = range(scope);
        let args = Args::ints(&[first_county(scope), high, low, high]);
        let args = match after {
            Some((name, field)) => args
                .int(code(name.home.county()))
                .int(code(name.home))
                .int(i64::from(name.kind.0))
                .text(&name.id)
                .int(i64::from(field)),
            None => args.int(0).int(0).int(0).text("").int(0),
        };
        let rows = self.reader().await?.sql().rows(list, args.int(limit as i64)).await?;
        let conflict = |row| {
            let field = int(row, 4)? as FieldNumber;
            Ok(ConflictRow { key: int(row, 0)?, name: name(row, 1)?, field, state: blob(row, 5)? })
        };
        rows.iter().map(conflict).collect()
    }
}
