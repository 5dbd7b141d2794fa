//! The SQLite file: made readable by its owner only, held by one process, checked to be this program's and this
//! division's, and brought up to this program's format.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Sqlite};

use super::meta::{self, Founding};
use super::migrations::{KNOWN, STEPS};
use super::sql::{Args, Conn};
use super::{Options, StoreError, log, replace};
use crate::division::Division;

/// "GTng" as a number, in the file's header.
pub(super) const APPLICATION_ID: i64 = 0x4754_6e67;
/// Marks a file as ours, in the present format. A pragma takes no bound value.
static HEADER: LazyLock<String> =
    LazyLock::new(|| format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {KNOWN}"));

/// Connections that read; few, so that an idle node stays small.
const READERS_MAX: u32 = 2;
/// How long a read waits for one of them.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// Page cache of the connection that writes. Larger brings little: what is written is mostly new.
const WRITER_CACHE_KIB: u32 = 4 * 1024;
/// Page cache of a connection that reads.
const READER_CACHE_KIB: u32 = 1024;
/// After so many pages in the log they are moved to the database.
const CHECKPOINT_PAGES: u32 = 8_000;
/// A log that has grown beyond this is cut when it starts anew.
const LOG_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// The path in `sqlite:PATH`, or a plain path.
pub(super) fn path_of(location: &str) -> Result<PathBuf, StoreError> {
    let path = match location.split_once(':') {
        Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
        Some((scheme, rest)) if rest.starts_with("//") => return Err(StoreError::Unsupported(scheme.into())),
        _ => location,
    };
    if path.is_empty() || path == ":memory:" {
        return Err(StoreError::Unsupported(location.into()));
    }
    Ok(path.into())
}

/// What the system says of a file.
pub(super) fn io(path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Io(format!("{}: {error}", path.display())),
    }
}

/// Takes the file for this process until the lock is dropped, and ends what others began to put in its place. Folders
/// are made where they are missing, the file is not.
pub(super) fn claim(path: &Path) -> Result<File, StoreError> {
    let io = |error: std::io::Error| io(path, &error);
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        folders(folder).map_err(io)?;
    }
    let lock = private(&replace::beside(path, "-lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path.display().to_string())),
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    if let Some(former) = replace::settle(path).map_err(io)? {
        tracing::warn!(
            former = %former.display(),
            "another store was being put in the place of this one when that was cut short; it is in its place now \
             (上次中断的数据存储更换已完成)"
        );
    }
    Ok(lock)
}

/// Whether a process has the store open.
fn is_held(path: &Path) -> bool {
    File::open(replace::beside(path, "-lock")).is_ok_and(|lock| lock.try_lock().is_err())
}

/// Refuses a log that a disk changed, before SQLite takes the rest of it for nothing. Nobody may write to the store now.
fn whole_log(path: &Path) -> Result<(), StoreError> {
    log::damage(path).map_err(|error| io(path, &error))?.map_or(Ok(()), |what| Err(StoreError::Damaged(what)))
}

/// Makes a file that only its owner can read, or opens it. SQLite would make one readable by everyone; its log takes
/// the mode of the file.
pub(super) fn private(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    leave_to_owner(&file, path)?;
    Ok(file)
}

/// What the system's administrator makes in a node's folder belongs to the node.
#[cfg(unix)]
fn leave_to_owner(file: &File, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (own, around) = (file.metadata()?, folder.metadata()?);
    if own.uid() == around.uid() || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    fchown(file, Some(around.uid()), Some(around.gid()))
}

fn folders(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// How the one connection that writes is opened.
pub(super) fn writing(path: &Path, options: &Options) -> SqliteConnectOptions {
    let synchronous = if options.durable { SqliteSynchronous::Full } else { SqliteSynchronous::Off };
    let mut connect = common(path, WRITER_CACHE_KIB)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        .pragma("journal_size_limit", LOG_MAX_BYTES.to_string())
        // What is deleted is written over: erased content must not stay in unused bytes.
        .pragma("secure_delete", "ON");
    if let Some(pages) = options.max_page_count {
        connect = connect.pragma("max_page_count", pages.to_string());
    }
    connect
}

/// How a connection that reads is opened.
pub(super) fn reading(path: &Path) -> SqliteConnectOptions {
    common(path, READER_CACHE_KIB).pragma("query_only", "ON")
}

/// How a connection is opened that leaves everything as it is, the log too.
pub(super) fn looking(path: &Path) -> SqliteConnectOptions {
    reading(path).read_only(true)
}

/// How a connection is opened that copies.
pub(super) fn copying(path: &Path) -> SqliteConnectOptions {
    common(path, READER_CACHE_KIB)
}

fn common(path: &Path, cache_kib: u32) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(false)
        .busy_timeout(Duration::from_secs(5))
        .row_buffer_size(1_024)
        // What a statement of many rows must be able to undo goes to memory, not to a file.
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", format!("-{cache_kib}"))
        .disable_statement_logging()
}

/// Checks whose file it is, without a change to it; gives its format.
pub(super) async fn check(path: &Path) -> Result<i64, StoreError> {
    let not_ours = || StoreError::NotOurs(path.display().to_string());
    let (application, found, tables) = header(path).await.map_err(|error| match error {
        StoreError::NotOurs(_) => not_ours(),
        other => other,
    })?;
    match application {
        // A database that is not marked as anyone's is ours to begin, but only while it is empty.
        0 if found == 0 && tables == 0 => Ok(0),
        APPLICATION_ID if found > KNOWN => Err(StoreError::NewerSchema { found, known: KNOWN }),
        APPLICATION_ID if found > 0 => Ok(found),
        _ => Err(not_ours()),
    }
}

/// Whether a file is a database at all, whoever's.
pub(super) async fn is_database(path: &Path) -> bool {
    header(path).await.is_ok()
}

/// Application, format, and how many tables and indexes there are.
async fn header(path: &Path) -> Result<(i64, i64, i64), StoreError> {
    let mut conn = Conn::Sqlite(reading(path).connect().await?);
    let mut sql = conn.sql(None);
    let application = sql.number("PRAGMA application_id", Args::new()).await?;
    let format = sql.number("PRAGMA user_version", Args::new()).await?;
    let tables = sql.number("SELECT count(*) FROM sqlite_schema", Args::new()).await?;
    conn.close().await?;
    Ok((application, format, tables))
}

/// Brings the file to the present format. An empty one becomes a store of `founding.own`.
pub(super) async fn prepare(conn: &mut Conn, founding: &mut Founding<'_>) -> Result<(), StoreError> {
    let mut sql = conn.sql(None);
    sql.run("BEGIN IMMEDIATE", Args::new()).await?;
    let found = sql.number("PRAGMA user_version", Args::new()).await?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        sql.script(step.sqlite).await?;
    }
    if found < KNOWN {
        sql.script(HEADER.as_str()).await?;
    }
    meta::found(&mut sql, founding).await?;
    sql.run("COMMIT", Args::new()).await?;
    Ok(())
}

/// The database of one file, held by this process.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    writing: SqliteConnectOptions,
    readers: SqlitePool,
    /// One copy at a time.
    pub(super) copying: tokio::sync::Mutex<()>,
    /// Other processes find it locked.
    _lock: File,
}

impl Database {
    /// Opens the file, making it and its folders where they are missing; gives the connection that writes, too.
    pub(super) async fn open(
        path: PathBuf,
        founding: &mut Founding<'_>,
        options: &Options,
    ) -> Result<(Database, Conn), StoreError> {
        let lock = claim(&path)?;
        Database::held(path, lock, founding, options).await
    }

    /// The same, by whoever holds the lock.
    pub(super) async fn held(
        path: PathBuf,
        lock: File,
        founding: &mut Founding<'_>,
        options: &Options,
    ) -> Result<(Database, Conn), StoreError> {
        private(&path).map_err(|error| io(&path, &error))?;
        whole_log(&path)?;
        check(&path).await?;
        let writing = writing(&path, options);
        let mut conn = Conn::Sqlite(writing.connect().await?);
        prepare(&mut conn, founding).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .acquire_timeout(READER_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(reading(&path));
        let copying = tokio::sync::Mutex::default();
        Ok((Database { path, writing, readers, copying, _lock: lock }, conn))
    }

    /// Whether the file could be opened, where there is one; gives its name for people.
    pub(super) async fn check(path: &Path, own: Division) -> Result<String, StoreError> {
        let shown = format!("SQLite {}", path.display());
        if !path.exists() {
            return Ok(format!("{shown}, which will be made"));
        }
        if !is_held(path) {
            whole_log(path)?;
        }
        if check(path).await? > 0 {
            let mut conn = Conn::Sqlite(reading(path).connect().await?);
            meta::owned_by(&mut conn.sql(None), own).await?;
            conn.close().await?;
        }
        Ok(shown)
    }

    /// Another connection to write with, when the one before was given up.
    pub(super) async fn connect(&self) -> Result<Conn, StoreError> {
        Ok(Conn::Sqlite(self.writing.connect().await?))
    }

    /// A connection to read with.
    pub(super) async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// Ends all reading.
    pub(super) async fn close(&self) {
        self.readers.close().await;
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, for people.
    pub(super) fn shown(&self) -> String {
        format!("SQLite {}", self.path.display())
    }

    /// Bytes on disk, the log included.
    pub(super) fn size_bytes(&self) -> u64 {
        let beside =
            |suffix| std::fs::metadata(replace::beside(&self.path, suffix)).map_or(0, |file| file.len());
        beside("") + beside("-wal")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_its_path() {
        for (location, path) in [
            ("node.db", "node.db"),
            ("sqlite:node.db", "node.db"),
            ("sqlite://node.db", "node.db"),
            ("sqlite:///var/lib/node.db", "/var/lib/node.db"),
            ("./a:b/node.db", "./a:b/node.db"),
        ] {
            assert_eq!(path_of(location).unwrap(), PathBuf::from(path));
        }
        for location in ["postgres://host/base", "sqlite::memory:", "", "sqlite:"] {
            assert!(matches!(path_of(location), Err(StoreError::Unsupported(_))), "{location}");
        }
    }
}
