//! What records are found by beside their names, and the ways that lists go: by name, by facet, by the moment of the
//! last change. Each way gives numbers of records and where it stands after them, a bounded stretch at a time; what the
//! records are is read after that.

use super::records::{push_name, range};
use super::sql::{Args, Row, Rows, Sql, blob, code, int, name, text};
use super::{Store, StoreError};
use crate::division::Division;
use crate::ingest::changes::{FacetRow, RecordKey};
use crate::record::RecordName;
use crate::schema::KindId;
use bytes::Bytes;

/// Counties that are looked into for one stretch of names; where none of them has the kind, the stretch is empty.
const COUNTIES_MAX: usize = 32;

/// A way through the records of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By home and id.
    Names,
    /// By value, then home.
    Facet {
        /// Which facet, `Facet::number`.
        facet: i64,
        /// The least value.
        first: i64,
        /// The greatest value.
        last: i64,
    },
    /// By the moment at which this node took in their last change, from this one on, Unix milliseconds.
    Updated(u64),
}

/// Where a way stands: after what it gave last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// After this home's code and id.
    Name(i64, String),
    /// After this value, home and number.
    Facet(i64, i64, RecordKey),
    /// After this moment and number.
    Updated(i64, RecordKey),
}

/// A stretch of a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Candidates, in the order of the way, each with where the way stands after it.
    pub keys: Vec<(RecordKey, Position)>,
    /// Where the way goes on; `None`: this was its end.
    pub next: Option<Position>,
}

/// A record as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub key: RecordKey,
    /// Its name.
    pub name: RecordName,
    /// `record::codec`.
    pub state: Bytes,
    /// When this node took in its last change, Unix milliseconds.
    pub updated_ms: u64,
}

static ADD: Rows = Rows::new(
    "INSERT INTO facet (facet, value, home, key, county) VALUES",
    "(?,?,?,?,?)",
    "ON CONFLICT (facet, value, home, key, county) DO NOTHING",
);
static REMOVE: Rows = Rows::new(
    "WITH old (facet, value, home, key, county) AS (VALUES",
    "(?,?,?,?,?)",
    // With the values directly after IN, SQLite would look through the whole table.
    ") DELETE FROM facet WHERE (facet, value, home, key, county)
       IN (SELECT facet, value, home, key, county FROM old)",
);

fn push(args: &mut Args, row: &FacetRow) {
    args.push_int(row.value.facet);
    args.push_int(row.value.value);
    args.push_division(row.home);
    args.push_int(row.key);
    args.push_division(row.home.county());
}

/// Changes what records are found by.
pub(super) async fn change(
    sql: &mut Sql<'_>,
    removed: &[FacetRow],
    added: &[FacetRow],
) -> Result<(), StoreError> {
    sql.many(&REMOVE, removed, push).await?;
    sql.many(&ADD, added, push).await?;
    Ok(())
}

/// From key, kind, home, id, state, updated_ms.
fn listed(row: &Row) -> Result<Listed, StoreError> {
    Ok(Listed {
        key: int(row, 0)?,
        name: name(row, 1)?,
        state: blob(row, 4)?,
        updated_ms: int(row, 5)? as u64,
    })
}

impl Store {
    /// One record, by its name.
    pub async fn find(&self, name: &RecordName) -> Result<Option<Listed>, StoreError> {
        let find = "SELECT key, kind, home, id, state, updated_ms FROM record
            WHERE county = ? AND kind = ? AND home = ? AND id = ?";
        let mut args = Args::new();
        push_name(&mut args, name);
        self.reader().await?.sql().row(find, args).await?.as_ref().map(listed).transpose()
    }

    /// The records of these numbers, in any order; those that are missing are left out.
    pub async fn listed(&self, keys: &[RecordKey]) -> Result<Vec<Listed>, StoreError> {
        let mut reader = self.reader().await?;
        let list = "SELECT key, kind, home, id, state, updated_ms FROM record
            WHERE key IN (SELECT value FROM json_each(?))";
        let rows = reader.sql().rows(list, Args::new().list(keys.iter().copied())).await?;
        rows.iter().map(listed).collect()
    }

    /// A stretch of a way through the records of a kind with a home in `scope`, of at most `limit` candidates. A facet
    /// of more than one value, and the order of changes, lead outside the scope too. `from` is where the way stood.
    pub async fn stretch(
        &self,
        kind: KindId,
        scope: Division,
        way: Way,
        from: Option<&Position>,
        limit: usize,
    ) -> Result<Stretch, StoreError> {
        let mut reader = self.reader().await?;
        let sql = &mut reader.sql();
        match way {
            Way::Names => names(sql, kind, scope, from, limit).await,
            Way::Facet { facet, first, last } => {
                by_facet(sql, scope, (facet, first, last), from, limit).await
            }
            Way::Updated(since_ms) => updated(sql, kind, since_ms, from, limit).await,
        }
    }
}

/// The records that a query finds, at most `limit`, each with where the way stands after it. Its rows begin with the
/// record's number; the limit is its last argument.
async fn candidates(
    sql: &mut Sql<'_>,
    query: &'static str,
    args: Args,
    limit: usize,
    position: impl Fn(&Row) -> Result<Position, StoreError>,
) -> Result<Vec<(RecordKey, Position)>, StoreError> {
    let rows = sql.rows(query, args.int(limit as i64)).await?;
    rows.iter().map(|row| Ok((int(row, 0)?, position(row)?))).collect()
}

/// Ends a way that gave less than it was asked for.
fn stretch(keys: Vec<(RecordKey, Position)>, limit: usize) -> Stretch {
    let next = keys.last().filter(|_| keys.len() == limit).map(|(_, position)| position.clone());
    Stretch { keys, next }
}

async fn names(
    sql: &mut Sql<'_>,
    kind: KindId,
    scope: Division,
    from: Option<&Position>,
    limit: usize,
) -> Result<Stretch, StoreError> {
    let (low, high) = range(Some(scope));
    let (mut home, mut id) = match from {
        Some(Position::Name(home, id)) => ((*home).max(low), id.as_str()),
        _ => (low, ""),
    };
    let mut keys = Vec::new();
    for _ in 0..COUNTIES_MAX {
        // Each county is one stretch of the index. What is no division stands between counties.
        let county = Division::from_code(home as u64).map_or(home, |d| code(d.county()));
        let next = "SELECT min(county) FROM record WHERE county BETWEEN ? AND ?";
        let county = sql.number(next, Args::ints(&[county, high])).await?;
        if county == 0 {
            return Ok(Stretch { keys, next: None });
        }
        let list = "SELECT key, home, id FROM record
            WHERE county = ? AND kind = ? AND home <= ? AND (home, id) > (?, ?) ORDER BY home, id LIMIT ?";
        let args = Args::ints(&[county, i64::from(kind.0), high, home.max(county)]).text(id);
        let position = |row: &Row| Ok(Position::Name(int(row, 1)?, text(row, 2)?));
        keys.extend(candidates(sql, list, args, limit - keys.len(), position).await?);
        if keys.len() >= limit {
            return Ok(stretch(keys, limit));
        }
        (home, id) = (county + 1, "");
    }
    Ok(Stretch { keys, next: Some(Position::Name(home, String::new())) })
}

async fn by_facet(
    sql: &mut Sql<'_>,
    scope: Division,
    (facet, first, last): (i64, i64, i64),
    from: Option<&Position>,
    limit: usize,
) -> Result<Stretch, StoreError> {
    let (low, high) = range(Some(scope));
    let (value, home, key) = match from {
        Some(Position::Facet(value, home, key)) => (*value, *home, *key),
        _ => (first, if first == last { low } else { 0 }, 0),
    };
    let end = if first == last { high } else { i64::MAX };
    let list = "SELECT key, value, home FROM facet
        WHERE facet = ? AND (value, home, key) > (?, ?, ?) AND (value, home) <= (?, ?)
        ORDER BY value, home, key LIMIT ?";
    let args = Args::ints(&[facet, value, home, key, last, end]);
    let position = |row: &Row| Ok(Position::Facet(int(row, 1)?, int(row, 2)?, int(row, 0)?));
    Ok(stretch(candidates(sql, list, args, limit, position).await?, limit))
}

async fn updated(
    sql: &mut Sql<'_>,
    kind: KindId,
    since_ms: u64,
    from: Option<&Position>,
    limit: usize,
) -> Result<Stretch, StoreError> {
    let (at_ms, key) = match from {
        Some(Position::Updated(at_ms, key)) => (*at_ms, *key),
        _ => (since_ms.min(i64::MAX as u64) as i64, 0),
    };
    let list = "SELECT key, updated_ms FROM record WHERE kind = ? AND (updated_ms, key) > (?, ?)
        ORDER BY updated_ms, key LIMIT ?";
    let args = Args::ints(&[i64::from(kind.0), at_ms, key]);
    let position = |row: &Row| Ok(Position::Updated(int(row, 1)?, int(row, 0)?));
    Ok(stretch(candidates(sql, list, args, limit, position).await?, limit))
}
