//! Databases of their own on the PostgreSQL server that `TEST_POSTGRES_URL` names (`tests/postgres.sh run …`). It must
//! never touch a database that it did not make; the server itself may be restarted.

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::until;

/// Names a server where databases may be made.
pub const SERVER: &str = "TEST_POSTGRES_URL";
/// Names the file with the number of the server's process, where it may be ended.
pub const PROCESS: &str = "TEST_POSTGRES_PID";

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

/// The server's process, where it is one that is started again when it ends.
pub fn process() -> Option<i32> {
    let text = std::fs::read_to_string(std::env::var_os(PROCESS)?).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Ends the server at once, as `pg_ctl stop -m immediate` does, and waits until it answers again: `tests/postgres.sh` starts
/// it. What was committed is there, what was not is gone, and all connections are broken.
pub async fn restart() {
    let server: PgConnectOptions = std::env::var(SERVER).unwrap().parse().unwrap();
    let before = process().unwrap();
    kill_process(Pid::from_raw(before).unwrap(), Signal::QUIT).unwrap();
    until("the server of PostgreSQL has started again", async || {
        let is_new = process().is_some_and(|now| now != before);
        is_new && PgConnection::connect_with(&server).await.is_ok()
    })
    .await;
}
