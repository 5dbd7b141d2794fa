//! Reading a damaged SQLite file, stretch by stretch, around what cannot be read. Nothing is ever changed in it, and it and
//! its log lose only their names; where no damage shows at once, SQLite may move its log into it.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;

use sqlx::ConnectOptions;

use super::meta::Founding;
use super::pack::keys_of;
use super::sql::{Args, Conn, Row, blob, division, int};
use super::{Database, Options, Store, StoreError, StoredRecord, Writer, backup, meta, postgres, records};
use super::{log, replace, space, sqlite};
use crate::division::Division;
use crate::ingest::changes::RecordKey;

/// Rows read at a time.
const ROWS: i64 = 500;

/// A store that is to be set aside. Dropped before it is replaced, nothing has happened.
#[derive(Debug)]
pub struct Damaged {
    path: PathBuf,
    own: Division,
    /// No node starts meanwhile.
    lock: File,
    damage: String,
    /// `None`: nothing of it can be read.
    conn: Option<Conn>,
    walk: Walk,
}

/// How far a table was read by its numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    after: i64,
    ended: bool,
    /// Stretches that cannot be read.
    gaps: u64,
}

impl Damaged {
    /// Takes the store at `location`, which no node has open.
    ///
    /// # Errors
    /// A node runs on it; there is none; it is sound, and not to be set aside all the same; it is another program's or
    /// division's, or of a newer format; the disk has no room for another one.
    pub async fn open(location: &str, own: Division, even_if_sound: bool) -> Result<Damaged, StoreError> {
        if postgres::is_url(location) {
            return Err(StoreError::Unsupported("postgres".into()));
        }
        let path = sqlite::path_of(location)?;
        let lock = sqlite::claim(&path)?;
        let bytes = path.metadata().map_err(|error| sqlite::io(&path, &error))?.len();
        // Without room SQLite could not even look at it.
        space::ensure(&path, bytes)?;
        let log = log::damage(&path).map_err(|error| sqlite::io(&path, &error))?;
        // Of a log that is damaged, SQLite would read the beginning, and put it away with the rest.
        let has_log = log.is_some();
        let examined = match log {
            Some(what) => Err(StoreError::Damaged(what)),
            None => backup::examine(&path).await,
        };
        let damage = match examined {
            Ok((meta, ..)) if meta.division != own => {
                return Err(StoreError::OtherDivision { stored: meta.division, own });
            }
            Ok(_) if !even_if_sound => return Err(StoreError::Sound),
            Ok(_) => "no damage".to_owned(),
            Err(StoreError::NotOurs(named)) if sqlite::is_database(&path).await => {
                return Err(StoreError::NotOurs(named));
            }
            Err(StoreError::NotOurs(_)) => "the file does not begin as a database".to_owned(),
            Err(StoreError::Damaged(what) | StoreError::Corrupt(what) | StoreError::Database(what)) => what,
            Err(other) => return Err(other),
        };
        // Rather say that a page is damaged than take it for something.
        let reading = if has_log { sqlite::looking(&path) } else { sqlite::reading(&path) };
        let reading = reading.pragma("cell_size_check", "ON");
        let mut conn = reading.connect().await.ok().map(Conn::Sqlite);
        if let Some(conn) = &mut conn
            && let Ok(meta) = meta::meta(&mut conn.sql(None)).await
            && meta.division != own
        {
            return Err(StoreError::OtherDivision { stored: meta.division, own });
        }
        Ok(Damaged { path, own, lock, damage, conn, walk: Walk::default() })
    }

    /// What is wrong with it.
    pub fn damage(&self) -> &str {
        &self.damage
    }

    /// Stretches of records that could not be read so far.
    pub fn gaps(&self) -> u64 {
        self.walk.gaps + u64::from(self.conn.is_none())
    }

    /// The nodes below that it knew, as far as they can be read.
    pub async fn children(&mut self) -> Vec<Division> {
        let list = "SELECT division FROM peer WHERE role = 2";
        let Some(conn) = &mut self.conn else { return Vec::new() };
        let rows = conn.sql(None).rows(list, Args::new()).await.unwrap_or_default();
        rows.iter().filter_map(|row| division(row, 0).ok()).collect()
    }

    /// The records that some node has not got yet; `None`: nobody can say.
    pub async fn undelivered(&mut self) -> Option<HashSet<RecordKey>> {
        let list = "SELECT seq, keys FROM outbox WHERE seq > ?
            AND peer NOT IN (SELECT peer FROM peer WHERE role = 3) ORDER BY seq LIMIT ?";
        let conn = self.conn.as_mut()?;
        let (mut walk, mut keys) = (Walk::default(), HashSet::new());
        while let Some(rows) = walk.next(conn, list).await {
            for row in rows {
                keys.extend(blob(&row, 1).and_then(|packed| keys_of(&packed)).ok()?);
            }
        }
        (walk.gaps == 0).then_some(keys)
    }

    /// The next records that can be read; `None`: that was all.
    pub async fn records(&mut self) -> Option<Vec<StoredRecord>> {
        let list =
            "SELECT key, kind, home, id, revision, state FROM record WHERE key > ? ORDER BY key LIMIT ?";
        let rows = self.walk.next(self.conn.as_mut()?, list).await?;
        let count = rows.len();
        let read: Vec<StoredRecord> = rows.iter().filter_map(|row| records::stored(row).ok()).collect();
        self.walk.gaps += (count - read.len()) as u64;
        Some(read)
    }

    /// An empty store beside it, to take its place.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn another(
        &self,
        mut fresh: impl FnMut() -> u64 + Send,
        now_ms: u64,
    ) -> Result<(Store, Writer), StoreError> {
        let making = replace::making(&self.path);
        let io = |error: std::io::Error| sqlite::io(&making, &error);
        replace::remove(&making).map_err(io)?;
        let lock = self.lock.try_clone().map_err(io)?;
        let (options, mut founding) =
            (Options::default(), Founding { own: self.own, fresh: &mut fresh, now_ms });
        let (database, conn) = sqlite::Database::held(making.clone(), lock, &mut founding, &options).await?;
        Store::over(Database::Sqlite(database), conn, None).await
    }

    /// Puts the other store, closed by now, in its place. Gives the name that the damaged file has now.
    ///
    /// # Errors
    /// The disk refused.
    pub async fn replace(mut self) -> Result<Option<PathBuf>, StoreError> {
        // Before another file has its name: closing removes the log by its name.
        if let Some(conn) = self.conn.take() {
            let _ = conn.close().await;
        }
        replace::exchange(&self.path).map_err(|error| sqlite::io(&self.path, &error))
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        // Where it is not there any more, it is in the store's place.
        if let Err(error) = replace::remove(&replace::making(&self.path)) {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished store is left over; it goes at the next start");
        }
    }
}

impl Walk {
    /// The next rows of a statement that takes the number to begin after, and how many; the first column is the number.
    async fn next(&mut self, conn: &mut Conn, list: &'static str) -> Option<Vec<Row>> {
        while !self.ended {
            for count in [ROWS, 1] {
                let Ok(rows) = read(conn, list, self.after, count).await else { continue };
                match rows.last().map(|row| int(row, 0)) {
                    Some(Ok(last)) if last > self.after => self.after = last,
                    _ => {
                        self.ended = true;
                        return None;
                    }
                }
                return Some(rows);
            }
            self.step_over(conn, list).await;
        }
        None
    }

    /// Looks for the next number from which reading goes on.
    async fn step_over(&mut self, conn: &mut Conn, list: &'static str) {
        self.gaps += 1;
        let (mut bad, mut step) = (self.after, 1);
        let mut good = loop {
            let Some(at) = self.after.checked_add(step) else { break i64::MAX };
            match read(conn, list, at, 1).await {
                Ok(rows) if rows.is_empty() => break i64::MAX,
                Ok(_) => break at,
                Err(_) => (bad, step) = (at, step.saturating_mul(2)),
            }
        };
        // As near to the damage as can be.
        while good != i64::MAX && good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match read(conn, list, middle, 1).await {
                Ok(_) => good = middle,
                Err(_) => bad = middle,
            }
        }
        self.ended = good == i64::MAX;
        self.after = good;
    }
}

async fn read(conn: &mut Conn, list: &'static str, after: i64, count: i64) -> Result<Vec<Row>, StoreError> {
    conn.sql(None).rows(list, Args::ints(&[after, count])).await
}
