//! What a store can fail with, in words that an operator can act on. No statement and no stored value is ever repeated
//! here: both may hold personal data.

use crate::division::Division;

/// Why the store did not do something. After any of these nothing of the failed transaction is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room, on the disk or up to the store's own limit.
    #[error(
        "the disk is full, or the store has reached its limit; nothing was lost: make room and try again"
    )]
    Full,
    /// The database, or something stored in it, cannot be read.
    #[error("the store is damaged ({0}); stop the node and restore its last backup")]
    Corrupt(String),
    /// Another program holds the database for too long.
    #[error("another program keeps the store locked; find it (a backup, a database tool) and end it")]
    Busy,
    /// Another process has the store open.
    #[error("the store {0} is in use by another process; a store belongs to one node process at a time")]
    InUse(String),
    /// A newer program wrote the store.
    #[error("the store has format {found}, this program knows formats up to {known}; use the newer program")]
    NewerSchema {
        /// What the store says.
        found: i64,
        /// The latest that this program knows.
        known: i64,
    },
    /// The file belongs to another program, or is no database.
    #[error("{0} is not a store of this program; name another file")]
    NotOurs(String),
    /// The store belongs to another division.
    #[error(
        "the store belongs to division {stored}, this node is {own}; name another file, or correct the division"
    )]
    OtherDivision {
        /// Whose it is.
        stored: Division,
        /// Who opened it.
        own: Division,
    },
    /// A database of a kind that this program cannot use.
    #[error("this program cannot use a store of the kind `{0}`; write sqlite:FILE or a file's path")]
    Unsupported(String),
    /// A record is not as it was when it was read, or exists although it was thought new: read it again and decide
    /// again.
    #[error("a record was changed by someone else meanwhile; the write is decided again")]
    Stale,
    /// A file or folder cannot be made, opened, read or written.
    #[error("the store cannot be read or written: {0}")]
    Io(String),
    /// Anything else that the database says.
    #[error("the database failed: {0}")]
    Database(String),
    /// By the seam for tests only.
    #[error("a fault was asked for here")]
    Injected,
}

impl StoreError {
    /// Whether trying again cannot help: the node must stop and a person must look.
    pub fn is_fatal(&self) -> bool {
        match self {
            StoreError::Full | StoreError::Busy | StoreError::Stale | StoreError::Injected => false,
            StoreError::Database(_) => false,
            StoreError::Corrupt(_)
            | StoreError::Io(_)
            | StoreError::InUse(_)
            | StoreError::NewerSchema { .. }
            | StoreError::NotOurs(_)
            | StoreError::OtherDivision { .. }
            | StoreError::Unsupported(_) => true,
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

/// SQLite's result codes; the low byte is the primary one.
fn of_sqlite(code: i32, message: &str) -> StoreError {
    match code & 0xff {
        5 | 6 => StoreError::Busy,
        8 | 10 | 14 | 23 => StoreError::Io(message.into()),
        11 => StoreError::Corrupt(message.into()),
        13 => StoreError::Full,
        26 => StoreError::NotOurs("the file".into()),
        _ => StoreError::Database(message.into()),
    }
}
