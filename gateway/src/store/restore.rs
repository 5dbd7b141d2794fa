//! A backup in the place of a store, while no node runs on it. What is brought is made whole and checked beside the
//! store; only then the two are exchanged, and the store of before is kept under another name.
//!
//! It must never begin where the store is in use, and never put anything there that is not a whole store of the very
//! division.

use std::fs::File;
use std::path::PathBuf;

use sqlx::ConnectOptions;

use super::meta::{self, Founding};
use super::sql::{Args, Conn};
use super::{Meta, Options, StoreError, audit, backup, postgres, replace, space, sqlite};
use crate::audit::Event;
use crate::division::Division;

/// A store that is being put back. Dropped, nothing has happened.
#[derive(Debug)]
pub struct Restoring {
    path: PathBuf,
    own: Division,
    /// No node starts meanwhile.
    _lock: File,
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the store says of itself.
    pub meta: Meta,
    /// Records in it.
    pub records: u64,
    /// Where the store of before is kept; `None`: there was none.
    pub former: Option<PathBuf>,
}

impl Restoring {
    /// Takes the store's place at `location` for a backup of `bytes`.
    ///
    /// # Errors
    /// A node runs on it; it is a database of PostgreSQL; the disk has no room.
    pub fn begin(location: &str, own: Division, bytes: u64) -> Result<Restoring, StoreError> {
        if postgres::is_url(location) {
            return Err(StoreError::Unsupported("postgres".into()));
        }
        let path = sqlite::path_of(location)?;
        let lock = sqlite::claim(&path)?;
        space::ensure(&path, bytes)?;
        Ok(Restoring { path, own, _lock: lock })
    }

    /// An empty file for the store's bytes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn file(&self) -> Result<File, StoreError> {
        let making = replace::making(&self.path);
        let io = |error: std::io::Error| sqlite::io(&making, &error);
        replace::remove(&making).map_err(io)?;
        sqlite::private(&making).map_err(io)
    }

    /// Checks what was written into the file, marks it as put back by somebody, and puts it in the store's place.
    ///
    /// # Errors
    /// It is no store, is damaged, is another division's or of a newer program; or the disk failed. Nothing has happened
    /// then.
    pub async fn finish(self, by: &str, now_ms: u64) -> Result<Restored, StoreError> {
        let making = replace::making(&self.path);
        let io = |error: std::io::Error| sqlite::io(&making, &error);
        let (meta, _, records) = backup::examine(&making).await?;
        if meta.division != self.own {
            return Err(StoreError::OtherDivision { stored: meta.division, own: self.own });
        }
        let mut conn = Conn::Sqlite(sqlite::writing(&making, &Options::default()).connect().await?);
        // It is no new store: nothing is drawn.
        let mut founding = Founding { own: self.own, fresh: &mut || 0, now_ms };
        sqlite::prepare(&mut conn, &mut founding).await?;
        let mut sql = conn.sql(None);
        meta::owned_by(&mut sql, self.own).await?;
        sql.run("BEGIN IMMEDIATE", Args::new()).await?;
        sql.run("UPDATE shared SET put_back_ms = ?", Args::ints(&[now_ms as i64])).await?;
        let put_back = Event::StorePutBack { by: by.to_owned() }.into();
        audit::append(&mut sql, &[&put_back], now_ms).await?;
        sql.run("COMMIT", Args::new()).await?;
        conn.close().await?;
        let former = replace::exchange(&self.path).map_err(io)?;
        Ok(Restored { meta, records, former })
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        // Where it is not there any more, it is in the store's place.
        if let Err(error) = replace::remove(&replace::making(&self.path)) {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished store is left over; it goes at the next start");
        }
    }
}
