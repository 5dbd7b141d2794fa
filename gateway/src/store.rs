//! What a node keeps, on disk: records, what peers are owed, and all that must change with them in one transaction;
//! in a file of SQLite or a database of PostgreSQL.
//!
//! The only place that knows sqlx. It stores what it is told and decides nothing: what a transaction writes is made by
//! `ingest` as plain data, and is applied whole or not at all. One `Writer` changes the store, in the engine's one
//! task; any number of readers use the `Store` beside it and see only whole transactions. Statements stand in one file
//! for each subject; values are bound, never written into them.

mod apply;
mod audit;
mod backup;
mod bundles;
mod claims;
mod erasure;
mod error;
mod facets;
mod gateways;
mod grants;
mod history;
mod imports;
mod invitations;
mod keys;
mod log;
mod meta;
mod migrations;
mod outbox;
mod outbox_read;
mod pack;
mod peers;
mod postgres;
mod proofs;
mod quarantine;
mod records;
mod recount;
mod recovery;
mod replace;
mod reports;
mod rescue;
mod restore;
mod space;
mod sql;
mod sqlite;
mod standing;
mod subscriptions;
mod sums;
mod tallies;
#[cfg(test)]
pub(crate) mod tests;

pub use backup::{Copied, Copying};
pub use erasure::REWRITTEN_MAX_BYTES;
pub use error::StoreError;
pub use facets::{Listed, Position, Stretch, Way};
pub use gateways::{Hold, Notice, Notices, View};
pub use history::ResolutionRow;
pub use imports::{HeldEntry, SourceRow, VanishedRow};
pub use migrations::KNOWN as FORMAT;
pub use outbox_read::{Backlog, LaneBacklog, Owed, OwedRow};
pub use postgres::distribute::{Distribution, distribute};
pub use postgres::schemas;
pub use quarantine::QuarantineEntry;
pub use records::{ConflictRow, Loaded, Span, StoredRecord};
pub use recount::Frozen;
pub use recovery::StoredLineage;
pub use reports::ReportHead;
pub use rescue::Damaged;
pub use restore::{Restored, Restoring};
pub use standing::RecordStanding;
pub use sums::{HomeSums, LEFT_OUT_MAX, LinkStanding, SumPage};
pub use tallies::{Counts, TallyPeriods, TallyRange, TallyRow};

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use crate::division::Division;
use crate::ingest::changes::{Lineage, RecordKey};
use meta::Founding;
use sql::{Args, Conn, Reader};

/// Numbers for records are reserved by so many: whatever is left of them when the process ends is never used.
const NUMBERS_RESERVED: i64 = 1 << 14;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// A transaction is on disk before it counts (the default). `false` is for tests: a power loss may undo it.
    pub durable: bool,
    /// The greatest size of a SQLite store, in pages of 4 KiB.
    pub max_page_count: Option<u32>,
    /// How many processes may write to a PostgreSQL store at once, 1 to 128. SQLite has one.
    pub processes_max: u8,
    /// A seam for tests: counts down at each statement of the writer, and the one that brings it to 0 fails.
    pub fail_at_statement: Option<Arc<AtomicI64>>,
}

impl Default for Options {
    fn default() -> Options {
        Options { durable: true, max_page_count: None, processes_max: 1, fail_at_statement: None }
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

/// Where the tables are.
#[derive(Debug)]
enum Database {
    Sqlite(sqlite::Database),
    Postgres(postgres::Database),
}

/// A store, for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    database: Arc<Database>,
}

/// The one who changes a store.
#[derive(Debug)]
pub struct Writer {
    database: Arc<Database>,
    /// `None` after a failure: what became of the transaction is left to the database, and the next use opens anew.
    conn: Option<Conn>,
    faults: Option<Arc<AtomicI64>>,
    /// How often `conn` was opened.
    openings: u64,
    /// Where `conn` writes, as far as that can be read.
    lineage: Lineage,
    /// Of the last transaction, Unix milliseconds.
    moment_ms: u64,
    /// Numbers for records that are reserved on disk.
    reserved: Range<i64>,
    /// What is decided from.
    view: View,
}

impl Database {
    /// Which of the processes that write this one is.
    fn slot(&self) -> i64 {
        match self {
            Database::Sqlite(_) => 0,
            Database::Postgres(database) => database.slot(),
        }
    }
}

impl Store {
    /// Opens the store at `location`: `sqlite:PATH` or a path, whose folders are made where they are missing, or
    /// `postgres://…`, a database that must be there. `fresh` draws random numbers, `now_ms` is Unix milliseconds.
    ///
    /// # Errors
    /// Refuses a store that another process has open, one of another division or program, and one of a newer format.
    pub async fn open(
        location: &str,
        own: Division,
        mut fresh: impl FnMut() -> u64 + Send,
        now_ms: u64,
        options: Options,
    ) -> Result<(Store, Writer), StoreError> {
        let mut founding = Founding { own, fresh: &mut fresh, now_ms };
        let (database, conn) = if postgres::is_url(location) {
            let (database, conn) = postgres::Database::open(location, &mut founding, &options).await?;
            (Database::Postgres(database), conn)
        } else {
            let path = sqlite::path_of(location)?;
            let (database, conn) = sqlite::Database::open(path, &mut founding, &options).await?;
            (Database::Sqlite(database), conn)
        };
        Store::over(database, conn, options.fail_at_statement).await
    }

    /// Over a database that is open.
    async fn over(
        database: Database,
        mut conn: Conn,
        faults: Option<Arc<AtomicI64>>,
    ) -> Result<(Store, Writer), StoreError> {
        let view = gateways::stored_view(&mut conn.sql(None)).await?;
        let lineage = match &database {
            Database::Sqlite(_) => Lineage::default(),
            Database::Postgres(database) => database.lineage(&mut conn).await?,
        };
        let database = Arc::new(database);
        let store = Store { database: database.clone() };
        let conn = Some(conn);
        Ok((
            store,
            Writer { database, conn, faults, openings: 1, lineage, moment_ms: 0, reserved: 0..0, view },
        ))
    }

    /// Whether the store at `location` could be opened, without opening or changing it. Says which it is, without user
    /// and password.
    ///
    /// # Errors
    /// As [`open`](Self::open); whether another process has it open is not looked at.
    pub async fn check(location: &str, own: Division) -> Result<String, StoreError> {
        if postgres::is_url(location) {
            postgres::Database::check(location, own).await
        } else {
            sqlite::Database::check(&sqlite::path_of(location)?, own).await
        }
    }

    /// What the store says of itself.
    pub async fn meta(&self) -> Result<Meta, StoreError> {
        meta::meta(&mut self.reader().await?.sql()).await
    }

    /// Ends all reading. Whoever still reads gets an error.
    pub async fn close(&self) {
        match &*self.database {
            Database::Sqlite(database) => database.close().await,
            Database::Postgres(database) => database.close().await,
        }
    }

    /// Which database it is, for people; without user and password.
    pub fn location(&self) -> String {
        match &*self.database {
            Database::Sqlite(database) => database.shown(),
            Database::Postgres(database) => database.shown().to_owned(),
        }
    }

    /// Bytes on disk, logs included.
    pub async fn size_bytes(&self) -> Result<u64, StoreError> {
        match &*self.database {
            Database::Sqlite(database) => Ok(database.size_bytes()),
            Database::Postgres(database) => database.size_bytes().await,
        }
    }

    async fn reader(&self) -> Result<Reader, StoreError> {
        match &*self.database {
            Database::Sqlite(database) => database.reader().await.map(Reader::Sqlite),
            Database::Postgres(database) => database.reader().await.map(Reader::Postgres),
        }
    }
}

impl Writer {
    /// A reader of the same store.
    pub fn store(&self) -> Store {
        Store { database: self.database.clone() }
    }

    /// Keys for new records with homes in these counties, in their order. A key is given out once, whether or not its
    /// record is ever stored, and by this process alone.
    pub async fn allocate(&mut self, counties: &[Division]) -> Result<Vec<RecordKey>, StoreError> {
        let count = counties.len() as i64;
        if self.reserved.end - self.reserved.start < count {
            let mut conn = self.take().await?;
            let reserve = "UPDATE node SET sequence = sequence + ? WHERE slot = ? RETURNING sequence";
            let block = count.max(NUMBERS_RESERVED);
            let mut sql = conn.sql(self.faults.as_deref());
            let end = sql.number(reserve, Args::ints(&[block, sql.slot()])).await?;
            self.conn = Some(conn);
            if end >= 1 << keys::NUMBER_BITS {
                return Err(StoreError::Database("all numbers for records of this process are used".into()));
            }
            self.reserved = end - block + 1..end + 1;
        }
        let first = self.reserved.start;
        self.reserved.start += count;
        let slot = self.database.slot();
        Ok(counties.iter().zip(first..).map(|(county, number)| keys::key(*county, slot, number)).collect())
    }

    /// Waits until whatever was begun before is over, kept or undone, and gives how often the connection was opened so
    /// far: when that has risen, others may have written meanwhile, and this process may have another slot.
    pub async fn settle(&mut self) -> Result<u64, StoreError> {
        let conn = self.take().await?;
        self.conn = Some(conn);
        Ok(self.openings)
    }

    /// How often the connection was opened so far.
    pub fn openings(&self) -> u64 {
        self.openings
    }

    /// Where this process writes, as far as that can be read.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Everything that is decided from now on is decided from what was read after this.
    pub fn decide_from(&mut self, view: View) {
        self.view = view;
    }

    /// Gives memory back, as after a burst of work.
    pub async fn shrink(&mut self) -> Result<(), StoreError> {
        if let Database::Postgres(_) = &*self.database {
            return Ok(());
        }
        let mut conn = self.take().await?;
        conn.sql(None).run("PRAGMA shrink_memory", Args::new()).await?;
        self.conn = Some(conn);
        Ok(())
    }

    /// Closes; SQLite's log is moved into the database before.
    pub async fn close(mut self) -> Result<(), StoreError> {
        match self.conn.take() {
            Some(conn) => conn.close().await,
            None => Ok(()),
        }
    }

    /// The connection, taken out: it is put back only after it has done all that was asked, so that no failure and no
    /// dropped future leaves half a transaction behind.
    async fn take(&mut self) -> Result<Conn, StoreError> {
        if let Some(conn) = self.conn.take() {
            return Ok(conn);
        }
        let conn = match &*self.database {
            Database::Sqlite(database) => database.connect().await?,
            Database::Postgres(database) => {
                let mut conn = database.connect().await?;
                self.lineage = database.lineage(&mut conn).await?;
                database.sits(&conn);
                conn
            }
        };
        self.openings += 1;
        // Of another slot, or of a database that has forgotten that it reserved them.
        self.reserved = 0..0;
        Ok(conn)
    }
}
