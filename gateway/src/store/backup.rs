//! A copy of a SQLite store while it is in use: the store as it was at one moment, without unused bytes, checked. Writers
//! do not wait for it, and its memory does not grow with the store.
//!
//! It must never leave a copy behind: the file loses its name before anyone reads it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::ConnectOptions;

use super::sql::{Args, Conn, Sql, text};
use super::{Database, Meta, Store, StoreError, meta, replace, space, sqlite};

/// How often is said how far a copy has come.
const SAY_EVERY: Duration = Duration::from_millis(200);
/// Steps of SQLite's machine between two looks at whether anybody still wants the copy.
const STEPS: i32 = 20_000;

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copying {
    /// Bytes so far.
    pub copied: u64,
    /// About how many there will be.
    pub expected: u64,
    /// The copy is whole, and is being checked.
    pub checking: bool,
}

/// A copy of a store.
#[derive(Debug)]
pub struct Copied {
    /// It, at its beginning; gone when it is closed.
    pub file: File,
    /// Its size.
    pub bytes: u64,
    /// What the store says of itself in it.
    pub meta: Meta,
    /// Its format.
    pub format: i64,
    /// Records in it.
    pub records: u64,
}

impl Store {
    /// Copies the store as it is now, and checks the copy. `said` hears how far it has come. Whoever drops the future
    /// ends the work.
    ///
    /// # Errors
    /// A store of PostgreSQL; no room; another copy that is being made; a copy that is not sound, which says that the
    /// store is not.
    pub async fn copy(&self, said: impl Fn(Copying)) -> Result<Copied, StoreError> {
        let Database::Sqlite(database) = &*self.database else {
            return Err(StoreError::Unsupported("postgres".into()));
        };
        let _alone = database.copying.try_lock().map_err(|_| StoreError::CopyRuns)?;
        let expected = database.size_bytes();
        let copy = Unfinished::new(replace::copy(database.path()))?;
        space::ensure(&copy.path, expected)?;
        said(Copying { copied: 0, expected, checking: false });
        let filled = fill(database.path(), &copy);
        tokio::pin!(filled);
        let mut look = tokio::time::interval(SAY_EVERY);
        loop {
            tokio::select! {
                filled = &mut filled => break filled?,
                _ = look.tick() => said(Copying { copied: copy.bytes(), expected, checking: false }),
            }
        }
        said(Copying { copied: copy.bytes(), expected, checking: true });
        let (meta, format, records) = examine(&copy.path).await?;
        let file = File::open(&copy.path).map_err(|error| sqlite::io(&copy.path, &error))?;
        Ok(Copied { file, bytes: copy.bytes(), meta, format, records })
    }

    /// Looks through the store's file for damage, beside all other work; that does not keep the store open. `Ok` for a
    /// store of PostgreSQL, whose server does that. The error says what was found.
    pub fn examine(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let path = match &*self.database {
            Database::Sqlite(database) => Some(database.path().to_owned()),
            Database::Postgres(_) => None,
        };
        async move {
            let Some(path) = path else { return Ok(()) };
            let mut conn = Conn::Sqlite(sqlite::reading(&path).connect().await?);
            sound(&mut conn.sql(None), "PRAGMA quick_check(1)").await?;
            conn.close().await
        }
    }
}

/// A file that goes with this value.
struct Unfinished {
    path: PathBuf,
    given_up: Arc<AtomicBool>,
}

impl Unfinished {
    fn new(path: PathBuf) -> Result<Unfinished, StoreError> {
        let io = |error: std::io::Error| sqlite::io(&path, &error);
        // Of a work that was given up a moment ago.
        replace::remove(&path).map_err(io)?;
        sqlite::private(&path).map_err(io)?;
        Ok(Unfinished { path, given_up: Arc::default() })
    }

    fn bytes(&self) -> u64 {
        self.path.metadata().map_or(0, |file| file.len())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        if let Err(error) = replace::remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a copy of the store is left over; it goes at the next start");
        }
    }
}

/// Copies into the empty file.
async fn fill(from: &Path, copy: &Unfinished) -> Result<(), StoreError> {
    let into = copy.path.to_str().ok_or_else(|| StoreError::Io("the path is no UTF-8".into()))?;
    let mut conn = sqlite::copying(from).connect().await?;
    let given_up = copy.given_up.clone();
    conn.lock_handle().await?.set_progress_handler(STEPS, move || !given_up.load(Ordering::Relaxed));
    let mut conn = Conn::Sqlite(conn);
    conn.sql(None).run("VACUUM INTO ?", Args::new().text(into)).await?;
    conn.close().await
}

/// Checks a file that is no store in use, down to its last page; gives what it says of itself, its format, and how many
/// records it has.
pub(super) async fn examine(path: &Path) -> Result<(Meta, i64, u64), StoreError> {
    let format = sqlite::check(path).await?;
    if format == 0 {
        return Err(StoreError::NotOurs(path.display().to_string()));
    }
    let mut conn = Conn::Sqlite(sqlite::reading(path).connect().await?);
    let mut sql = conn.sql(None);
    sound(&mut sql, "PRAGMA integrity_check(1)").await?;
    let meta = meta::meta(&mut sql).await?;
    let records = sql.number("SELECT CAST(sum(records) AS BIGINT) FROM node", Args::new()).await?;
    conn.close().await?;
    Ok((meta, format, records as u64))
}

async fn sound(sql: &mut Sql<'_>, look: &'static str) -> Result<(), StoreError> {
    let found = sql.row(look, Args::new()).await?.map_or(Ok(String::new()), |row| text(&row, 0))?;
    // What SQLite says of a damage names tables and pages, never a value.
    if found == "ok" { Ok(()) } else { Err(StoreError::Damaged(found)) }
}
