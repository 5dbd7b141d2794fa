//! What a node keeps, on disk: records, what peers are owed, and all that must change with them in one transaction.
//!
//! The only place that knows sqlx. It stores what it is told and decides nothing: what a transaction writes is made by
//! `ingest` as plain data, and is applied whole or not at all. One `Writer` changes the store, in the engine's one
//! task; any number of readers use the `Store` beside it and see only whole transactions. Statements stand in one file
//! for each subject; values are bound, never written into them.

mod apply;
mod claims;
mod error;
mod file;
mod grants;
mod history;
mod imports;
mod outbox;
mod outbox_read;
mod pack;
mod peers;
mod quarantine;
mod records;
mod sql;
mod subscriptions;
mod tallies;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use history::ResolutionRow;
pub use imports::{HeldEntry, SourceRow, VanishedRow};
pub use outbox_read::{Backlog, LaneBacklog, Owed, OwedRow};
pub use quarantine::QuarantineEntry;
pub use records::{ConflictRow, Loaded, StoredRecord};
pub use tallies::{Counts, TallyRow};

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection, Sqlite};

use crate::division::Division;
use crate::ingest::changes::RecordKey;
use sql::{Args, Sql};

/// Connections that read; few, so that an idle node stays small.
const READERS_MAX: u32 = 2;
/// How long a read waits for one of them.
const READER_TIMEOUT: Duration = Duration::from_secs(30);

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// A transaction is on disk before it counts (the default). `false` is for tests: a power loss may undo it.
    pub durable: bool,
    /// The store's greatest size, in pages of 4 KiB.
    pub max_page_count: Option<u32>,
    /// A seam for tests: counts down at each statement of the writer, and the one that brings it to 0 fails.
    pub fail_at_statement: Option<Arc<AtomicI64>>,
}

impl Default for Options {
    fn default() -> Options {
        Options { durable: true, max_page_count: None, fail_at_statement: None }
    }
}

/// What a store says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Whose it is.
    pub division: Division,
    /// Random number of the store; a new one after a restore.
    pub epoch: u64,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Number of the last transaction.
    pub revision: u64,
    /// Of the rules by which its records were judged; `None`: none were yet.
    pub schema_fingerprint: Option<[u8; 16]>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    readers: SqlitePool,
    /// Other processes find it locked.
    _lock: File,
}

/// A store, for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

/// The one who changes a store.
#[derive(Debug)]
pub struct Writer {
    inner: Arc<Inner>,
    connect: SqliteConnectOptions,
    /// `None` after a failure: what became of the transaction is left to the database, and the next use opens anew.
    conn: Option<SqliteConnection>,
    faults: Option<Arc<AtomicI64>>,
    next_key: RecordKey,
}

impl Store {
    /// Opens the store at `location` (`sqlite:PATH`, or a path), making it and its folders where they are missing.
    /// `fresh` draws random numbers, `now_ms` is Unix milliseconds.
    ///
    /// # Errors
    /// Refuses a store that another process has open, one of another division or program, and one of a newer format.
    pub async fn open(
        location: &str,
        own: Division,
        mut fresh: impl FnMut() -> u64,
        now_ms: u64,
        options: Options,
    ) -> Result<(Store, Writer), StoreError> {
        let path = file::path_of(location)?;
        let lock = file::claim(&path)?;
        file::check(&path).await?;
        let connect = file::writing(&path, &options);
        let mut conn = connect.connect().await?;
        file::prepare(&mut conn, own, &mut fresh, now_ms).await?;
        let greatest = Sql::plain(&mut conn).number("SELECT max(key) FROM record", Args::new()).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .acquire_timeout(READER_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(file::reading(&path));
        let inner = Arc::new(Inner { path, readers, _lock: lock });
        let store = Store { inner: inner.clone() };
        let faults = options.fail_at_statement;
        Ok((store, Writer { inner, connect, conn: Some(conn), faults, next_key: greatest + 1 }))
    }

    /// What the store says of itself.
    pub async fn meta(&self) -> Result<Meta, StoreError> {
        file::meta(&mut Sql::plain(&mut *self.reader().await?)).await
    }

    /// Ends all reading. Whoever still reads gets an error.
    pub async fn close(&self) {
        self.inner.readers.close().await;
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.inner.readers.acquire().await?)
    }
}

impl Writer {
    /// A reader of the same store.
    pub fn store(&self) -> Store {
        Store { inner: self.inner.clone() }
    }

    /// Numbers for `count` new records. A number is used once, whether or not its record is ever stored.
    pub fn allocate(&mut self, count: usize) -> std::ops::Range<RecordKey> {
        let first = self.next_key;
        self.next_key += count as RecordKey;
        first..self.next_key
    }

    /// Gives memory back, as after a burst of work.
    pub async fn shrink(&mut self) -> Result<(), StoreError> {
        let mut conn = self.take().await?;
        Sql::plain(&mut conn).run("PRAGMA shrink_memory", Args::new()).await?;
        self.conn = Some(conn);
        Ok(())
    }

    /// Moves the log into the database and closes.
    pub async fn close(mut self) -> Result<(), StoreError> {
        match self.conn.take() {
            Some(conn) => Ok(conn.close().await?),
            None => Ok(()),
        }
    }

    /// The connection, taken out: it is put back only after it has done all that was asked, so that no failure and no
    /// dropped future leaves half a transaction behind.
    async fn take(&mut self) -> Result<SqliteConnection, StoreError> {
        match self.conn.take() {
            Some(conn) => Ok(conn),
            None => Ok(self.connect.connect().await?),
        }
    }
}
