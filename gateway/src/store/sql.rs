//! One way to speak to both databases: a statement, its values, its rows. Statements are written once, with `?`, in
//! what SQLite and PostgreSQL both understand (`sql/text.rs` says what is translated); where they truly differ, two
//! texts stand side by side in `Sql::either`. Only integers, texts and bytes are stored.
//!
//! It knows no table. It never puts a value into a text, and never repeats a text or a value in an error.

mod args;
mod text;

pub(super) use args::{Args, code};
pub(super) use text::Rows;

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Postgres, Row as _, Sqlite};

use super::StoreError;
use crate::division::Division;
use crate::record::RecordName;
use crate::schema::KindId;

/// How long a server may take for one statement. The longest owe a new child everything; a line that is dead without
/// having said so is found out by then at the latest.
const STATEMENT_TIME: Duration = Duration::from_secs(300);

/// A connection of one's own.
#[derive(Debug)]
pub(super) enum Conn {
    Sqlite(SqliteConnection),
    Postgres {
        conn: Box<PgConnection>,
        /// Which of the store's processes this one is.
        slot: i64,
    },
}

impl Conn {
    /// To run statements; `faults` counts down at each, and the one that brings it to 0 fails.
    pub(super) fn sql<'c>(&'c mut self, faults: Option<&'c AtomicI64>) -> Sql<'c> {
        match self {
            Conn::Sqlite(conn) => Sql { on: On::Sqlite(conn), faults, slot: 0 },
            Conn::Postgres { conn, slot } => Sql { on: On::Postgres(conn), faults, slot: *slot },
        }
    }

    /// Closes it, so that the other end knows at once.
    pub(super) async fn close(self) -> Result<(), StoreError> {
        match self {
            Conn::Sqlite(conn) => Ok(conn.close().await?),
            Conn::Postgres { conn, .. } => in_time(conn.close()).await,
        }
    }
}

/// A connection lent for reading.
pub(super) enum Reader {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Reader {
    /// To run statements.
    pub(super) fn sql(&mut self) -> Sql<'_> {
        match self {
            Reader::Sqlite(conn) => Sql { on: On::Sqlite(conn), faults: None, slot: 0 },
            Reader::Postgres(conn) => Sql { on: On::Postgres(conn), faults: None, slot: 0 },
        }
    }
}

impl Reader {
    /// Sees from now on what is stored now, whatever is written meanwhile.
    pub(super) async fn begin(self) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot { reader: self, ended: false };
        let mut sql = snapshot.sql();
        let begin = sql.either("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        sql.run(begin, Args::new()).await?;
        // With SQLite the moment is that of the first read.
        sql.number("SELECT revision FROM node WHERE slot = 0", Args::new()).await?;
        Ok(snapshot)
    }

    /// Not to be used by anyone else afterwards, whatever state it is left in.
    fn close_on_drop(&mut self) {
        match self {
            Reader::Sqlite(conn) => conn.close_on_drop(),
            Reader::Postgres(conn) => conn.close_on_drop(),
        }
    }
}

/// A connection that sees the store as it was at one moment. Left without an end, it is closed.
pub(super) struct Snapshot {
    reader: Reader,
    ended: bool,
}

impl Snapshot {
    /// To run statements.
    pub(super) fn sql(&mut self) -> Sql<'_> {
        self.reader.sql()
    }

    /// Gives the connection back.
    pub(super) async fn end(mut self) -> Result<(), StoreError> {
        self.sql().run("COMMIT", Args::new()).await?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.ended {
            self.reader.close_on_drop();
        }
    }
}

/// Whom a statement goes to.
enum On<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What runs statements.
pub(super) struct Sql<'c> {
    on: On<'c>,
    faults: Option<&'c AtomicI64>,
    slot: i64,
}

/// Waits for the server, but not for ever.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_TIME, answer).await {
        Ok(answer) => answer.map_err(StoreError::of_postgres),
        Err(_) => Err(StoreError::Unreachable(format!("no answer in {} s", STATEMENT_TIME.as_secs()))),
    }
}

impl Sql<'_> {
    /// The number of this process among those that write to the store; what each adds up stands in rows of its own.
    pub(super) fn slot(&self) -> i64 {
        self.slot
    }

    /// The text for this database.
    pub(super) fn either(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.on {
            On::Sqlite(_) => sqlite,
            On::Postgres(_) => postgres,
        }
    }

    fn fault(&self) -> Result<(), StoreError> {
        match self.faults {
            Some(left) if left.fetch_sub(1, Ordering::Relaxed) == 1 => Err(StoreError::Injected),
            _ => Ok(()),
        }
    }

    /// Runs a statement; gives how many rows it wrote.
    pub(super) async fn run(&mut self, sql: &'static str, args: Args) -> Result<u64, StoreError> {
        self.fault()?;
        match &mut self.on {
            On::Sqlite(conn) => {
                let done = sqlx::query_with(sql, args.into_sqlite()).execute(&mut **conn).await?;
                Ok(done.rows_affected())
            }
            On::Postgres(conn) => {
                let query = sqlx::query_with(AssertSqlSafe(text::for_postgres(sql)), args.into_postgres());
                Ok(in_time(query.execute(&mut **conn)).await?.rows_affected())
            }
        }
    }

    /// Runs a statement and gives its rows.
    pub(super) async fn rows(&mut self, sql: &'static str, args: Args) -> Result<Vec<Row>, StoreError> {
        self.fault()?;
        match &mut self.on {
            On::Sqlite(conn) => {
                let rows = sqlx::query_with(sql, args.into_sqlite()).fetch_all(&mut **conn).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            On::Postgres(conn) => {
                let query = sqlx::query_with(AssertSqlSafe(text::for_postgres(sql)), args.into_postgres());
                Ok(in_time(query.fetch_all(&mut **conn)).await?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Runs a statement and gives its row, where there is one.
    pub(super) async fn row(&mut self, sql: &'static str, args: Args) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Runs a statement whose one value is a number; 0 where it is none.
    pub(super) async fn number(&mut self, sql: &'static str, args: Args) -> Result<i64, StoreError> {
        let row = self.row(sql, args).await?;
        row.map_or(Ok(0), |row| Ok(maybe(&row, 0)?.unwrap_or(0)))
    }

    /// Runs a script of this program, such as a step to a new format.
    pub(super) async fn script(&mut self, script: &'static str) -> Result<(), StoreError> {
        self.fault()?;
        match &mut self.on {
            On::Sqlite(conn) => sqlx::raw_sql(script).execute(&mut **conn).await.map(|_| ())?,
            On::Postgres(conn) => in_time(sqlx::raw_sql(script).execute(&mut **conn)).await.map(|_| ())?,
        }
        Ok(())
    }

    /// Runs a statement over all items; gives how many rows were written. On PostgreSQL no two items may concern the
    /// same row.
    pub(super) async fn many<T>(
        &mut self,
        sql: &'static Rows,
        items: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<u64, StoreError> {
        let mut written = 0;
        let bind = |args: &mut Args, _: i64, item: &T| bind(args, item);
        if matches!(self.on, On::Sqlite(_)) {
            for (text, items) in sql.cut(items) {
                written += self.run(text, bound(sql, items, 0, &bind)).await?;
            }
            return Ok(written);
        }
        for items in sql.arrays(items) {
            self.fault()?;
            let args = bound(sql, items, 0, &bind);
            if let On::Postgres(conn) = &mut self.on {
                let query =
                    sqlx::query_with(AssertSqlSafe(sql.for_postgres(&args)), args.into_columns(sql.width()));
                written += in_time(query.execute(&mut **conn)).await?.rows_affected();
            }
        }
        Ok(written)
    }

    /// Runs a query over all items; `bind` is also given the item's position.
    pub(super) async fn many_rows<T>(
        &mut self,
        sql: &'static Rows,
        items: &[T],
        bind: impl Fn(&mut Args, i64, &T),
    ) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::with_capacity(items.len());
        let mut first = 0;
        if matches!(self.on, On::Sqlite(_)) {
            for (text, items) in sql.cut(items) {
                rows.extend(self.rows(text, bound(sql, items, first, &bind)).await?);
                first += items.len();
            }
            return Ok(rows);
        }
        for items in sql.arrays(items) {
            self.fault()?;
            let args = bound(sql, items, first, &bind);
            if let On::Postgres(conn) = &mut self.on {
                let query =
                    sqlx::query_with(AssertSqlSafe(sql.for_postgres(&args)), args.into_columns(sql.width()));
                rows.extend(in_time(query.fetch_all(&mut **conn)).await?.into_iter().map(Row::Postgres));
            }
            first += items.len();
        }
        Ok(rows)
    }
}

/// Of items for the same row, the last: one statement of PostgreSQL writes a row only once.
pub(super) fn latest_of_each<'i, T, K: Eq + Hash>(items: &'i [T], row_of: impl Fn(&'i T) -> K) -> Vec<&'i T> {
    let mut seen = HashSet::with_capacity(items.len());
    let mut latest: Vec<&T> = items.iter().rev().filter(|item| seen.insert(row_of(item))).collect();
    latest.reverse();
    latest
}

fn bound<T>(sql: &Rows, items: &[T], first: usize, bind: &impl Fn(&mut Args, i64, &T)) -> Args {
    let mut args = Args::with_capacity(items.len() * sql.width());
    for (i, item) in items.iter().enumerate() {
        bind(&mut args, (first + i) as i64, item);
    }
    args
}

/// A column that cannot be read as what it must be.
fn unreadable(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::ColumnDecode { index, .. } => StoreError::unreadable(&format!("column {index}")),
        other => StoreError::unreadable(&other.to_string()),
    }
}

/// A column that is a number.
pub(super) fn int(row: &Row, column: usize) -> Result<i64, StoreError> {
    maybe(row, column)?.ok_or_else(|| StoreError::unreadable(&format!("column {column}")))
}

/// A column that may be empty.
pub(super) fn maybe(row: &Row, column: usize) -> Result<Option<i64>, StoreError> {
    match row {
        Row::Sqlite(row) => row.try_get(column).map_err(unreadable),
        // What is computed can be narrower than what is stored.
        Row::Postgres(row) => row
            .try_get::<Option<i64>, _>(column)
            .or_else(|_| row.try_get::<Option<i32>, _>(column).map(|value| value.map(i64::from)))
            .or_else(|_| row.try_get::<Option<bool>, _>(column).map(|value| value.map(i64::from)))
            .map_err(unreadable),
    }
}

/// A column that is text.
pub(super) fn text(row: &Row, column: usize) -> Result<String, StoreError> {
    match row {
        Row::Sqlite(row) => row.try_get(column),
        Row::Postgres(row) => row.try_get(column),
    }
    .map_err(unreadable)
}

/// A column that is text or empty.
pub(super) fn maybe_text(row: &Row, column: usize) -> Result<Option<String>, StoreError> {
    match row {
        Row::Sqlite(row) => row.try_get(column),
        Row::Postgres(row) => row.try_get(column),
    }
    .map_err(unreadable)
}

/// A column of bytes.
pub(super) fn blob(row: &Row, column: usize) -> Result<Bytes, StoreError> {
    maybe_blob(row, column)?.ok_or_else(|| StoreError::unreadable(&format!("column {column}")))
}

/// A column of bytes or empty.
pub(super) fn maybe_blob(row: &Row, column: usize) -> Result<Option<Bytes>, StoreError> {
    let bytes: Option<Vec<u8>> = match row {
        Row::Sqlite(row) => row.try_get(column),
        Row::Postgres(row) => row.try_get(column),
    }
    .map_err(unreadable)?;
    Ok(bytes.map(Bytes::from))
}

/// A column that is a division.
pub(super) fn division(row: &Row, column: usize) -> Result<Division, StoreError> {
    let code = int(row, column)?;
    Division::from_code(code as u64).ok_or_else(|| StoreError::unreadable("a division"))
}

/// Kind, home and id from three columns.
pub(super) fn name(row: &Row, first: usize) -> Result<RecordName, StoreError> {
    let kind = u32::try_from(int(row, first)?).map_err(|_| StoreError::unreadable("a kind"))?;
    let id: &str = match row {
        Row::Sqlite(row) => row.try_get(first + 2),
        Row::Postgres(row) => row.try_get(first + 2),
    }
    .map_err(unreadable)?;
    Ok(RecordName { kind: KindId(kind), home: division(row, first + 1)?, id: id.into() })
}
