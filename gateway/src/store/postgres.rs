//! A database of a PostgreSQL server: checked to be this program's and this division's, brought up to this program's
//! format, and reached again after it was away.
//!
//! The tables stand in the first schema of the search path. Whoever writes holds an advisory lock, on the very
//! connection that writes: when the lock is taken anew, whatever the connection before had begun is over, committed or
//! not. Nothing here ever shows the URL, which may hold a password.

pub(super) mod distribute;
pub mod schemas;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, Postgres};

use super::meta::{self, Founding};
use super::migrations::{KNOWN, STEPS};
use super::sql::{Args, Conn, Reader, Sql, in_time, int, maybe, maybe_text, text};
use super::{Options, StoreError};
use crate::division::Division;
use crate::ingest::changes::Lineage;

/// The oldest server that is known to do.
const OLDEST_VERSION: i64 = 130_000;
/// Connections that read.
const READERS_MAX: u32 = 8;
/// How long a read waits for one of them, and how long a server may take to let us in.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long the lock of a process that has just ended is waited for.
const LOCK_TIME: Duration = Duration::from_secs(3);
const LOCK_STEP: Duration = Duration::from_millis(50);
/// Advisory locks of this program: "GTng" for making tables, and from there on one for each slot.
const SLOT_LOCKS: i64 = 0x4754_6e68;
/// Statements kept prepared on a connection.
const STATEMENTS_MAX: usize = 256;

/// What every connection is told: not to wait without a limit, and to notice a dead line. `synchronous_commit` is never
/// lowered from what the server's owner has set.
const SESSION: &str = "
    SET lock_timeout = '30s';
    SET idle_in_transaction_session_timeout = '60s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 2;
    SET client_min_messages = warning;
    SET TIME ZONE 'UTC';
";
const DURABLE: &str = "
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";
const NOT_DURABLE: &str = "SET synchronous_commit = off";
const READING: &str = "SET default_transaction_read_only = on";

/// The database, and how it is reached.
pub(super) struct Database {
    options: PgConnectOptions,
    shown: String,
    durable: bool,
    /// Which of the processes that write this one is, by the connection that writes now or did last.
    slot: AtomicI64,
    /// Places for processes that write.
    slots: i64,
    readers: PgPool,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Whether a location names a database of PostgreSQL.
pub(super) fn is_url(location: &str) -> bool {
    location.starts_with("postgres://") || location.starts_with("postgresql://")
}

impl Database {
    /// Opens the database, making the tables where they are missing; gives the connection that writes, too.
    pub(super) async fn open(
        url: &str,
        founding: &mut Founding<'_>,
        options: &Options,
    ) -> Result<(Database, Conn), StoreError> {
        let database = Database::at(url, founding.own, options)?;
        let mut conn = database.session().await?;
        database.check_server(&mut conn.sql(None)).await?;
        database.prepare(&mut conn.sql(None), founding).await?;
        let slot = database.lock(&mut conn.sql(None), 0..database.slots).await?;
        let conn = seated(conn, slot).await?;
        database.sits(&conn);
        Ok((database, conn))
    }

    /// Whether the database could be opened, without a change to it; gives its name for people.
    pub(super) async fn check(url: &str, own: Division) -> Result<String, StoreError> {
        let database = Database::at(url, own, &Options::default())?;
        let mut conn = database.session().await?;
        let mut sql = conn.sql(None);
        database.check_server(&mut sql).await?;
        match database.format(&mut sql).await? {
            0 => {}
            found if found > KNOWN => return Err(StoreError::NewerSchema { found, known: KNOWN }),
            _ => meta::owned_by(&mut sql, own).await?,
        }
        conn.close().await?;
        Ok(database.shown)
    }

    fn at(url: &str, own: Division, with: &Options) -> Result<Database, StoreError> {
        let mut connect = options(url)?;
        if connect.get_application_name().is_none() {
            connect = connect.application_name(&format!("guantong {own}"));
        }
        let shown = shown(&connect);
        let readers = PgPoolOptions::new()
            .max_connections(READERS_MAX)
            .min_connections(0)
            .acquire_timeout(CONNECT_TIME)
            .idle_timeout(Duration::from_secs(600))
            .max_lifetime(None)
            // A server that was away has cut them.
            .test_before_acquire(true)
            .after_connect(|conn, _| {
                Box::pin(async move {
                    conn.execute(sqlx::raw_sql(SESSION)).await?;
                    conn.execute(sqlx::raw_sql(READING)).await.map(drop)
                })
            })
            .connect_lazy_with(connect.clone());
        let (durable, slots) = (with.durable, i64::from(with.processes_max));
        Ok(Database { options: connect, shown, durable, slot: AtomicI64::new(0), slots, readers })
    }

    /// Another connection to write with, when the one before was given up: in the same place, or in another one if
    /// somebody has that now. Then nothing that was decided for the former place counts.
    pub(super) async fn connect(&self) -> Result<Conn, StoreError> {
        let mut conn = self.session().await?;
        let own = self.slot();
        let slot = match self.lock(&mut conn.sql(None), own..own + 1).await {
            // A gateway that began meanwhile, or this one's own dead line, which the server has not noticed yet.
            Err(StoreError::InUse(_)) => self.lock(&mut conn.sql(None), 0..self.slots).await?,
            locked => locked?,
        };
        if slot != own {
            tracing::warn!(
                own,
                slot,
                "this gateway's slot was taken; it goes on in another (网关槽位被占用，已换用其他槽位)"
            );
        }
        seated(conn, slot).await
    }

    /// Where the server writes.
    ///
    /// # Errors
    /// It is a standby, which writes nowhere (yet).
    pub(super) async fn lineage(&self, conn: &mut Conn) -> Result<Lineage, StoreError> {
        Ok(Lineage { timeline: self.timeline(conn).await?, place: self.place(conn).await? })
    }

    /// Which tables of which database of which server these are, as a hash: a dump that is put back makes others.
    /// `None`: this user may not ask.
    async fn place(&self, conn: &mut Conn) -> Result<Option<i64>, StoreError> {
        let ask = "SELECT CAST((SELECT system_identifier FROM pg_control_system()) AS TEXT) || ' ' ||
            CAST((SELECT oid FROM pg_database WHERE datname = current_database()) AS TEXT) || ' ' ||
            CAST(CAST(CAST('node' AS regclass) AS oid) AS TEXT)";
        let place = match conn.sql(None).row(ask, Args::new()).await {
            Ok(row) => row.map_or(Ok(None), |row| maybe_text(&row, 0))?,
            Err(StoreError::Unreachable(why)) => return Err(StoreError::Unreachable(why)),
            // What is not known is not compared.
            Err(_) => None,
        };
        let hash = |place: String| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&blake3::hash(place.as_bytes()).as_bytes()[..8]);
            i64::from_le_bytes(bytes)
        };
        Ok(place.map(hash))
    }

    /// The timeline that the server writes on; `None`: this user may not ask, or the server knows none.
    async fn timeline(&self, conn: &mut Conn) -> Result<Option<i64>, StoreError> {
        let mut sql = conn.sql(None);
        if sql.number("SELECT CAST(pg_is_in_recovery() AS INTEGER)", Args::new()).await? != 0 {
            return Err(StoreError::Unreachable("this server only reads now".into()));
        }
        // Of a file of the log, the first eight digits. What `pg_control_checkpoint` says is as old as the checkpoint.
        let ask =
            "SELECT CAST(CAST(CAST('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS bit(32))
            AS BIGINT) AS BIGINT)";
        match sql.number(ask, Args::new()).await {
            Ok(timeline) => Ok(Some(timeline)),
            Err(StoreError::Unreachable(why)) => Err(StoreError::Unreachable(why)),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the timeline of the PostgreSQL server cannot be read; grant EXECUTE on pg_current_wal_lsn() and \
                     pg_walfile_name(pg_lsn); until then a failover shows only where transactions are missing \
                     (无法读取数据库时间线，请授予函数执行权限)"
                );
                Ok(None)
            }
        }
    }

    /// Takes note of the place that a connection writes in.
    pub(super) fn sits(&self, conn: &Conn) {
        let Conn::Postgres { slot, .. } = conn else { return };
        self.slot.store(*slot, Ordering::Release);
    }

    /// A connection to read with.
    pub(super) async fn reader(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.readers.acquire().await.map_err(StoreError::of_postgres)
    }

    /// Ends all reading.
    pub(super) async fn close(&self) {
        // Whoever still reads keeps its connection until it is done; nobody waits for that here.
        let _ = tokio::time::timeout(CONNECT_TIME, self.readers.close()).await;
    }

    /// Server, port and database, for people.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Bytes on the server's disk, indexes included.
    pub(super) async fn size_bytes(&self) -> Result<u64, StoreError> {
        let size = "SELECT CAST(sum(pg_total_relation_size(c.oid)) AS BIGINT)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = current_schema() AND c.relkind = 'r'";
        let mut reader = Reader::Postgres(self.reader().await?);
        Ok(reader.sql().number(size, Args::new()).await? as u64)
    }

    /// Which of the processes that write this one is.
    pub(super) fn slot(&self) -> i64 {
        self.slot.load(Ordering::Acquire)
    }

    /// A connection that hears what other gateways say.
    pub(super) async fn listener(&self) -> Result<PgListener, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIME)
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await.map_err(StoreError::of_postgres)?;
        // Whoever listens must know that it missed something.
        listener.eager_reconnect(false);
        Ok(listener)
    }

    /// Another connection of its own.
    pub(super) async fn session(&self) -> Result<Conn, StoreError> {
        let connected = tokio::time::timeout(CONNECT_TIME, self.options.connect()).await;
        let late = || StoreError::Unreachable(format!("no connection in {} s", CONNECT_TIME.as_secs()));
        let mut conn = connected.map_err(|_| late())?.map_err(StoreError::of_postgres)?;
        in_time(conn.execute(sqlx::raw_sql(SESSION))).await?;
        let durable = if self.durable { DURABLE } else { NOT_DURABLE };
        in_time(conn.execute(sqlx::raw_sql(durable))).await?;
        Ok(Conn::Postgres { conn: Box::new(conn), slot: self.slot() })
    }

    /// Whether the server is one that keeps what it is told.
    async fn check_server(&self, sql: &mut Sql<'_>) -> Result<(), StoreError> {
        let ask = "SELECT CAST(current_setting('server_version_num') AS BIGINT), current_setting('server_encoding'),
            current_setting('server_version'), CAST(pg_is_in_recovery() AS INTEGER),
            CAST(current_schema() AS TEXT), current_setting('fsync')";
        let row = sql.row(ask, Args::new()).await?.ok_or_else(|| StoreError::unreadable("the server"))?;
        let unusable = |why: String| Err(StoreError::Unusable(format!("{}: {why}", self.shown)));
        if int(&row, 0)? < OLDEST_VERSION {
            return unusable(format!("PostgreSQL {} is too old; 13 or later is needed", text(&row, 2)?));
        }
        let encoding = text(&row, 1)?;
        if encoding != "UTF8" {
            return unusable(format!(
                "the database has the encoding {encoding}; make one with CREATE DATABASE … ENCODING 'UTF8' \
                 TEMPLATE template0"
            ));
        }
        if int(&row, 3)? != 0 {
            return unusable("this server is a standby that only reads; name the primary".into());
        }
        if maybe_text(&row, 4)?.is_none() {
            return unusable("no schema of the search path exists; make it with CREATE SCHEMA".into());
        }
        if self.durable && text(&row, 5)? != "on" {
            tracing::warn!(
                "the PostgreSQL server runs with fsync = off: what is confirmed may be lost with its power \
                 (PostgreSQL 未开启 fsync，断电可能丢失已确认的数据)"
            );
        }
        Ok(())
    }

    /// Brings the database to the present format. An empty one becomes a store of `founding.own`.
    async fn prepare(&self, sql: &mut Sql<'_>, founding: &mut Founding<'_>) -> Result<(), StoreError> {
        sql.run("BEGIN", Args::new()).await?;
        // Of several that open an empty database, one makes the tables and the others find them.
        sql.rows("SELECT pg_advisory_xact_lock(1196715623, 0)", Args::new()).await?;
        let found = self.format(sql).await?;
        if found > KNOWN {
            return Err(StoreError::NewerSchema { found, known: KNOWN });
        }
        if found == 0 {
            sql.script("CREATE TABLE guantong_format (format BIGINT NOT NULL)").await?;
            sql.run("INSERT INTO guantong_format (format) VALUES (0)", Args::new()).await?;
        }
        for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
            sql.script(step.postgres).await?;
        }
        if found < KNOWN {
            sql.run("UPDATE guantong_format SET format = ?", Args::ints(&[KNOWN])).await?;
        }
        meta::found(sql, founding).await?;
        sql.run("COMMIT", Args::new()).await?;
        Ok(())
    }

    /// The format of the store in this schema; 0 where there is none yet.
    async fn format(&self, sql: &mut Sql<'_>) -> Result<i64, StoreError> {
        let tables = "SELECT count(*), count(*) FILTER (WHERE c.relname = 'guantong_format')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')
              AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')";
        let row = sql.row(tables, Args::new()).await?.ok_or_else(|| StoreError::unreadable("the server"))?;
        match (int(&row, 0)?, int(&row, 1)?) {
            (0, _) => Ok(0),
            // Not ours, or not finished by whoever began it: nothing of a step is ever left half done.
            (_, 0) => Err(StoreError::NotOurs(self.shown.clone())),
            _ => {
                let format = sql.row("SELECT max(format) FROM guantong_format", Args::new()).await?;
                let format = format.map_or(Ok(None), |row| maybe(&row, 0))?;
                format.filter(|format| *format > 0).ok_or_else(|| StoreError::NotOurs(self.shown.clone()))
            }
        }
    }

    /// Makes this connection the one that writes for a slot, the first of `slots` that nobody has.
    async fn lock(&self, sql: &mut Sql<'_>, slots: Range<i64>) -> Result<i64, StoreError> {
        // Two numbers: ours with the slot, and the store's table, which stands for its schema.
        let lock = "SELECT CAST(pg_try_advisory_lock(CAST(? AS INTEGER),
                CAST(CAST('node'::regclass::oid AS BIGINT) - 2147483648 AS INTEGER)) AS INTEGER)";
        let deadline = tokio::time::Instant::now() + LOCK_TIME;
        loop {
            for slot in slots.clone() {
                if sql.number(lock, Args::ints(&[SLOT_LOCKS + slot])).await? != 0 {
                    return Ok(slot);
                }
            }
            // Whoever held it may have ended this moment: its server process takes a little to notice.
            if tokio::time::Instant::now() > deadline {
                return Err(StoreError::InUse(self.shown.clone()));
            }
            tokio::time::sleep(LOCK_STEP).await;
        }
    }
}

/// The connection as one that writes in a slot, which it has the lock of.
async fn seated(mut conn: Conn, slot: i64) -> Result<Conn, StoreError> {
    meta::join(&mut conn.sql(None), slot).await?;
    if let Conn::Postgres { slot: sits, .. } = &mut conn {
        *sits = slot;
    }
    Ok(conn)
}

fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    // What the URL's parser says may repeat parts of the URL.
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        StoreError::Unusable(
            "the URL is not right; write postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full, with special \
             characters percent-encoded"
                .into(),
        )
    })?;
    Ok(options.statement_cache_capacity(STATEMENTS_MAX).disable_statement_logging())
}

/// Server, port and database: what may be shown of a URL.
fn shown(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("PostgreSQL {}:{}/{database}", socket.display(), options.get_port()),
        None => format!("PostgreSQL {}:{}/{database}", options.get_host(), options.get_port()),
    }
}
