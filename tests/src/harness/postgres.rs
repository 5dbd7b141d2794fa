//! Databases of their own on the PostgreSQL server that `TEST_POSTGRES_URL` names (`tests/postgres.sh run …`). It must
//! never touch a database that it did not make.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// Names a server where databases may be made.
pub const SERVER: &str = "TEST_POSTGRES_URL";

/// A new database on the server; `None` where no server is named. `what` is a part of its name: letters and digits.
pub async fn database(what: &str) -> Option<String> {
    let server: PgConnectOptions = std::env::var(SERVER).ok()?.parse().unwrap();
    let name = format!("test_{what}_{}", std::process::id());
    let mut conn: PgConnection = server.connect().await.unwrap();
    let make = format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0");
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    Some(server.database(&name).to_url_lossy().to_string())
}
