//! What a store can fail with, in words that an operator can act on. No statement and no stored value is ever repeated
//! here: both may hold personal data.

use sqlx::postgres::PgDatabaseError;

use crate::division::Division;

/// Why the store did not do something. After any of these nothing of the failed transaction is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room, on the disk or up to the store's own limit.
    #[error(
        "the disk is full, or the store has reached its limit; nothing was lost: make room and try again \
         (磁盘已满或数据存储已达上限，数据未丢失，请清理空间后重试)"
    )]
    Full,
    /// The disk has not enough room for what is about to be made. Nothing was begun.
    #[error(
        "{needed_mib} MiB are needed at {place}, and {free_mib} MiB are free; make room, or name another disk, and try \
         again: nothing was changed (磁盘空间不足，未做任何更改)"
    )]
    NoRoom {
        /// Where.
        place: String,
        /// How much is needed.
        needed_mib: u64,
        /// How much there is.
        free_mib: u64,
    },
    /// SQLite found its file damaged.
    #[error(
        "the store's file is damaged ({0}). Nothing more is written to it. Stop the node; then `guantong restore FILE \
         --config …` puts back a backup, or `guantong rebuild --config …` sets the file aside, saves what can be read, \
         and begins a store that the nodes above and below fill again (数据文件已损坏：请停止节点，用 guantong restore \
         恢复备份，或用 guantong rebuild 保留旧文件并重建)"
    )]
    Damaged(String),
    /// Something stored cannot be read.
    #[error(
        "the store is damaged ({0}). Stop the node; then put back a backup: `guantong restore FILE --config …`, on PostgreSQL \
         by its own tools; or, on SQLite, set the file aside: `guantong rebuild --config …` (数据存储已损坏：请停止节点，\
         恢复备份，或用 guantong rebuild 重建)"
    )]
    Corrupt(String),
    /// A store that was to be set aside is not damaged.
    #[error(
        "the store's file is sound, and nothing was changed; to set it aside and begin empty all the same, use \
         --even-if-sound (数据文件完好，未做任何更改)"
    )]
    Sound,
    /// Another copy is being made.
    #[error("another backup of this node is being made; wait until it is done (正在进行另一备份)")]
    CopyRuns,
    /// Another program holds the database for too long.
    #[error(
        "another program keeps the store locked; find it (a backup, a database tool) and end it (数据存储被其他程序锁定)"
    )]
    Busy,
    /// The database's server is away, or lets nobody in: it is tried again.
    #[error(
        "the database cannot be reached ({0}); nothing that was confirmed is lost, and the node goes on by itself as \
         soon as the database is back (数据库暂时无法连接，恢复后节点自动继续)"
    )]
    Unreachable(String),
    /// A server or database that cannot be used as it is.
    #[error("this database cannot be used: {0} (数据库不可用)")]
    Unusable(String),
    /// Another process has the store open.
    #[error(
        "the store {0} is in use by another process; a store belongs to one node process at a time \
         (数据存储正被另一进程使用)"
    )]
    InUse(String),
    /// A newer program wrote the store.
    #[error(
        "the store has format {found}, this program knows formats up to {known}; use the newer program, nothing was \
         changed (数据存储由更新版本的程序写入，请使用新版本程序)"
    )]
    NewerSchema {
        /// What the store says.
        found: i64,
        /// The latest that this program knows.
        known: i64,
    },
    /// The file or database belongs to another program, or the file is no database.
    #[error(
        "{0} is not a store of this program; name another one, or an empty one. If it was this node's store, its \
         beginning is damaged: put back a backup with `guantong restore`, or set it aside with `guantong rebuild` \
         (不是本程序的数据文件，或文件头已损坏)"
    )]
    NotOurs(String),
    /// The store belongs to another division.
    #[error(
        "the store belongs to division {stored}, this node is {own}; name another store, or correct the division \
         (数据存储属于其他区划)"
    )]
    OtherDivision {
        /// Whose it is.
        stored: Division,
        /// Who opened it.
        own: Division,
    },
    /// A database of a kind that this program cannot use.
    #[error(
        "this program cannot use a store of the kind `{0}`; write postgres://…, sqlite:FILE or a file's path"
    )]
    Unsupported(String),
    /// A record is not as it was when it was read, or exists although it was thought new: read it again and decide
    /// again.
    #[error("a record was changed by someone else meanwhile; the write is decided again")]
    Stale,
    /// Another gateway of this database changed what all of them keep in memory: read it again and decide again.
    #[error("another gateway changed what all gateways of this database share; the write is decided again")]
    Outdated,
    /// A file or folder cannot be made, opened, read or written.
    #[error(
        "the store cannot be read or written: {0}; look at the disk and its rights (数据存储无法读写，请检查磁盘和权限)"
    )]
    Io(String),
    /// Anything else that the database says.
    #[error("the database failed: {0}")]
    Database(String),
    /// By the seam for tests only.
    #[error("a fault was asked for here")]
    Injected,
}

impl StoreError {
    /// Whether others changed meanwhile what was decided from, so that it must be decided again.
    pub fn is_stale(&self) -> bool {
        matches!(self, StoreError::Stale | StoreError::Outdated)
    }

    /// Whether trying again cannot help: the node must stop and a person must look.
    pub fn is_fatal(&self) -> bool {
        match self {
            StoreError::Full | StoreError::NoRoom { .. } | StoreError::CopyRuns | StoreError::Sound => false,
            StoreError::Busy | StoreError::Injected => false,
            StoreError::Stale | StoreError::Outdated => false,
            StoreError::Database(_) | StoreError::Unreachable(_) => false,
            StoreError::Damaged(_)
            | StoreError::Corrupt(_)
            | StoreError::Io(_)
            | StoreError::InUse(_)
            | StoreError::NewerSchema { .. }
            | StoreError::NotOurs(_)
            | StoreError::OtherDivision { .. }
            | StoreError::Unsupported(_)
            | StoreError::Unusable(_) => true,
        }
    }

    /// What a PostgreSQL server said, or that it said nothing. Its own words are repeated only where nobody was let in:
    /// after that they may hold what was written.
    pub(super) fn of_postgres(error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => of_sqlstate(error),
                None => StoreError::Database("an error of another database".into()),
            },
            sqlx::Error::Io(error) => StoreError::Unreachable(error.to_string()),
            sqlx::Error::Tls(error) => StoreError::Unreachable(format!("no TLS connection: {error}")),
            sqlx::Error::PoolTimedOut => StoreError::Unreachable("no connection in time".into()),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                StoreError::Io("the store was closed".into())
            }
            // What does not fit the protocol comes from a line that broke in the middle, or from no PostgreSQL.
            sqlx::Error::Protocol(_) => StoreError::Unreachable("the server's answer was cut".into()),
            sqlx::Error::Configuration(_) => {
                StoreError::Unusable("a certificate or key that the URL names cannot be read".into())
            }
            _ => StoreError::Database("the driver of PostgreSQL failed".into()),
        }
    }

    /// Something stored is not what this program writes.
    pub(super) fn unreadable(what: &str) -> StoreError {
        StoreError::Corrupt(format!("{what} cannot be read"))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::Database(error) if error.is_unique_violation() => StoreError::Stale,
            sqlx::Error::Database(error) => {
                let code = error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
                of_sqlite(code, error.message())
            }
            sqlx::Error::Io(error) => StoreError::Io(error.to_string()),
            sqlx::Error::ColumnDecode { index, .. } => StoreError::unreadable(&format!("column {index}")),
            sqlx::Error::WorkerCrashed | sqlx::Error::PoolClosed => {
                StoreError::Io("the store was closed".into())
            }
            sqlx::Error::PoolTimedOut => StoreError::Busy,
            other => StoreError::Database(other.to_string()),
        }
    }
}

/// The index of the log, which lies in memory and in a file, found no room.
const SQLITE_IOERR_SHMSIZE: i32 = 10 | 19 << 8;

/// SQLite's result codes; the low byte is the primary one.
fn of_sqlite(code: i32, message: &str) -> StoreError {
    match code & 0xff {
        _ if code == SQLITE_IOERR_SHMSIZE => StoreError::Full,
        5 | 6 => StoreError::Busy,
        8 | 10 | 14 | 23 => StoreError::Io(message.into()),
        11 => StoreError::Damaged(message.into()),
        13 => StoreError::Full,
        26 => StoreError::NotOurs("the file".into()),
        _ => StoreError::Database(message.into()),
    }
}

/// PostgreSQL's SQLSTATEs; the first two characters are the class.
fn of_sqlstate(error: &PgDatabaseError) -> StoreError {
    let words = || error.message().to_owned();
    match error.code() {
        "23505" | "40001" | "40P01" => StoreError::Stale,
        "53100" => StoreError::Full,
        "55P03" | "57014" => StoreError::Busy,
        // A standby that was not made the primary (yet).
        "25006" => StoreError::Unreachable("this server only reads now".into()),
        "25P03" => StoreError::Unreachable("the server ended a transaction that took too long".into()),
        "XX001" | "XX002" => StoreError::Corrupt("PostgreSQL found a damaged page or index".into()),
        "42501" => StoreError::Unusable(
            "the database user may not do what a store needs; let it own the database or its schema".into(),
        ),
        "3D000" => StoreError::Unusable(words()),
        code => match code.get(..2).unwrap_or_default() {
            "08" | "28" | "57" | "53" => StoreError::Unreachable(words()),
            _ => {
                let place = error.table().map(|table| format!(" in table {table}")).unwrap_or_default();
                StoreError::Database(format!("PostgreSQL's error {code}{place}"))
            }
        },
    }
}
