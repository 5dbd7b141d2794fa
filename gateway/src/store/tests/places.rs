//! Where stores of the tests are: a folder, or a database of a PostgreSQL server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::*;

/// Names a server where databases may be made.
const SERVER: &str = "TEST_POSTGRES_URL";

/// A folder with one SQLite file.
pub(super) struct SqlitePlace {
    folder: tempfile::TempDir,
}

impl SqlitePlace {
    pub(super) fn new() -> SqlitePlace {
        SqlitePlace { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("inner/node.db")
    }
}

impl Place for SqlitePlace {
    async fn open(&self, options: Options) -> Result<(Store, Writer), StoreError> {
        let mut random = 41;
        let fresh = || {
            random += 1;
            random
        };
        Store::open(&format!("sqlite:{}", self.path().display()), division("220822"), fresh, 1_000, options)
            .await
    }

    async fn open_as(&self, own: Division) -> Result<(Store, Writer), StoreError> {
        Store::open(self.path().to_str().unwrap(), own, || 1, 1, fast()).await
    }

    async fn dump(&self) -> Vec<String> {
        dump_file(&self.path()).await
    }

    async fn another(&self) -> SqlitePlace {
        SqlitePlace::new()
    }
}

/// Every row of every table, in a fixed order.
pub(super) async fn dump_file(path: &Path) -> Vec<String> {
    let mut conn = super::super::sqlite::reading(path).connect().await.unwrap();
    let tables = "SELECT t.name, group_concat('quote(' || c.name || ')', ' || '','' || ')
        FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' GROUP BY t.name ORDER BY t.name";
    let mut dump = Vec::new();
    for table in sqlx::query(tables).fetch_all(&mut conn).await.unwrap() {
        let (name, columns): (String, String) = (table.get(0), table.get(1));
        let all = format!("SELECT {columns} FROM {name} ORDER BY 1");
        for row in sqlx::query(sqlx::AssertSqlSafe(all)).fetch_all(&mut conn).await.unwrap() {
            dump.push(format!("{name}: {}", row.get::<String, _>(0)));
        }
    }
    conn.close().await.unwrap();
    assert!(!dump.is_empty());
    dump
}

/// A database of its own, dropped with the place.
pub(crate) struct PostgresPlace {
    server: PgConnectOptions,
    name: String,
}

impl PostgresPlace {
    /// `None`, and loudly so, where no server is named.
    pub(crate) async fn new() -> Option<PostgresPlace> {
        PostgresPlace::made("ENCODING 'UTF8' TEMPLATE template0").await
    }

    /// A database made in a certain way.
    pub(crate) async fn made(how: &str) -> Option<PostgresPlace> {
        static TOLD: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Ok(url) = std::env::var(SERVER) else {
            // Not by `eprintln`, which tests that pass keep to themselves.
            TOLD.call_once(|| {
                let text = format!("NOT RUN: the store's tests on PostgreSQL; {SERVER} names no server\n");
                std::io::stderr().write_all(text.as_bytes()).unwrap();
            });
            return None;
        };
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("store_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let place = PostgresPlace { server: server.disable_statement_logging(), name };
        place.at_server("CREATE DATABASE", how).await;
        Some(place)
    }

    async fn at_server(&self, what: &str, how: &str) {
        let mut conn = self.server.connect().await.unwrap();
        let text = format!("{what} {} {how}", self.name);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }

    /// The database's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The database's URL.
    pub(crate) fn url(&self) -> String {
        self.server.clone().database(&self.name).to_url_lossy().to_string()
    }

    /// The server's port.
    pub(crate) fn port(&self) -> u16 {
        self.server.get_port()
    }

    /// The database's URL by way of another port.
    pub(crate) fn url_at(&self, port: u16) -> String {
        self.server.clone().port(port).database(&self.name).to_url_lossy().to_string()
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.unwrap()
    }

    /// A script, run on it.
    pub(crate) async fn script(&self, script: &'static str) {
        let mut conn = self.connect().await;
        sqlx::raw_sql(script).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }
}

impl Drop for PostgresPlace {
    fn drop(&mut self) {
        // A thread of its own: whoever drops this may be inside a runtime, or unwinding.
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(self.at_server("DROP DATABASE", "WITH (FORCE)"));
            });
        });
    }
}

impl Place for PostgresPlace {
    async fn open(&self, options: Options) -> Result<(Store, Writer), StoreError> {
        let mut random = 41;
        let fresh = || {
            random += 1;
            random
        };
        Store::open(&self.url(), division("220822"), fresh, 1_000, options).await
    }

    async fn open_as(&self, own: Division) -> Result<(Store, Writer), StoreError> {
        Store::open(&self.url(), own, || 1, 1, fast()).await
    }

    /// Numbers from a sequence count also what failed: only their order is shown.
    async fn dump(&self) -> Vec<String> {
        let mut conn = self.connect().await;
        let columns = "SELECT c.table_name::text, string_agg(
                CASE WHEN c.table_name <> 'outbox' AND c.column_name = 'seq' THEN '0::text'
                     WHEN c.is_identity = 'YES' OR c.column_default LIKE 'nextval%'
                     THEN 'dense_rank() OVER (ORDER BY ' || quote_ident(c.column_name) || ')::text'
                     ELSE 'coalesce(' || quote_ident(c.column_name) || '::text, ''NULL'')' END,
                ' || '','' || ' ORDER BY c.ordinal_position)
            FROM information_schema.columns c WHERE c.table_schema = current_schema()
            GROUP BY c.table_name ORDER BY c.table_name";
        let mut dump = Vec::new();
        for table in sqlx::query(columns).fetch_all(&mut conn).await.unwrap() {
            let (name, columns): (String, String) = (table.get(0), table.get(1));
            let all = format!(
                "SELECT line FROM (SELECT {columns} AS line FROM {name}) AS lines ORDER BY line COLLATE \"C\""
            );
            for row in sqlx::query(AssertSqlSafe(all)).fetch_all(&mut conn).await.unwrap() {
                dump.push(format!("{name}: {}", row.get::<String, _>(0)));
            }
        }
        conn.close().await.unwrap();
        assert!(!dump.is_empty());
        dump
    }

    async fn another(&self) -> PostgresPlace {
        PostgresPlace::new().await.unwrap()
    }
}
