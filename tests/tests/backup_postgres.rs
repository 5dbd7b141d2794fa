//! A node on PostgreSQL, backed up and put back by PostgreSQL's own tools: the node notices at its start that it stands
//! in another database, begins as another, and gets back what it forgot. `TEST_POSTGRES_URL` names the server
//! (`tests/postgres.sh run …`).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write as _;
use std::path::PathBuf;

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Fleet, division, until};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::process::Command;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
/// Names a server where databases may be made.
const SERVER: &str = "TEST_POSTGRES_URL";

fn name(id: u32) -> String {
    format!("divisions/220822101000/cases/{id}")
}

fn case(title: &str) -> v1::Case {
    v1::Case { case_kind: Some(1), title: Some(title.to_owned()), ..v1::Case::default() }
}

/// An empty database of its own, by its URL; `None`, and loudly so, where no server is named.
async fn database(what: &str) -> Option<String> {
    let Ok(url) = std::env::var(SERVER) else {
        let text = format!("NOT RUN: backups of a node on PostgreSQL; {SERVER} names no server\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    };
    let server: PgConnectOptions = url.parse().unwrap();
    let name = format!("backup_{what}_{}", std::process::id());
    let mut conn: PgConnection = server.connect().await.unwrap();
    let make = format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0");
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let url = server.database(&name).to_url_lossy().to_string();
    // The tools do not know what the driver adds.
    Some(url.split('?').next().unwrap().to_owned())
}

/// One of PostgreSQL's tools, where Debian puts them or in the path.
fn tool(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("GUANTONG_POSTGRES_BIN") {
        return PathBuf::from(folder).join(name);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let tools = versions.map(|version| version.path().join("bin").join(name)).filter(|tool| tool.exists());
    tools.max().unwrap_or_else(|| name.into())
}

async fn run(name: &str, args: &[&str]) {
    let done = Command::new(tool(name)).args(args).output().await.unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_put_back_is_noticed_and_nothing_is_lost() {
    let (Some(first), Some(second)) = (database("first").await, database("second").await) else { return };
    let (county, township) = (division(COUNTY), division(TOWNSHIP));
    let top = NodeSpec::top(county).environment("GUANTONG_STORE", &first);
    let mut fleet = Fleet::start([top, NodeSpec::below(county, township)]).await;
    fleet.write(TOWNSHIP, &name(1), &case("甲")).await.unwrap();
    fleet.equal().await;
    let file = fleet.path("county.dump").to_str().unwrap().to_owned();
    fleet.cli(COUNTY, &["backup", &file]).await.exits(1).says(&["PostgreSQL", "pg_dump"]);
    // While the node runs.
    run("pg_dump", &["--format=custom", "--file", &file, "--dbname", &first]).await;
    fleet.write(TOWNSHIP, &name(1), &case("乙")).await.unwrap();
    fleet.write(TOWNSHIP, &name(2), &case("丙")).await.unwrap();
    fleet.equal().await;

    fleet.tree.stop(county).await.unwrap();
    run("pg_restore", &["--no-owner", "--exit-on-error", "--dbname", &second, &file]).await;
    fleet.tree.set_environment(county, "GUANTONG_STORE", Some(&second)).unwrap();
    fleet.tree.start(county).await.unwrap();
    let warnings = fleet.status(COUNTY).await.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("another database than before")), "{warnings:?}");
    fleet.linked(township).await;
    let title =
        async |id| fleet.shown::<v1::Case>(COUNTY, &name(id)).await.map(|case| case.title().to_owned());
    until("the county has what it forgot", async || {
        title(1).await.as_deref() == Some("乙") && title(2).await.as_deref() == Some("丙")
    })
    .await;
    fleet.equal().await;
    let recovery = fleet.status(COUNTY).await.recovery.unwrap();
    assert_eq!(recovery.cause(), v1::RecoveryCause::PutBack);
    // At the next start it is the same store as before.
    fleet.tree.stop(county).await.unwrap();
    fleet.tree.start(county).await.unwrap();
    assert!(!fleet.status(COUNTY).await.warnings.iter().any(|warning| warning.contains("another database")));
    fleet.tree.end().await;
    for url in [first, second] {
        let database: PgConnectOptions = url.parse().unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", database.get_database().unwrap());
        let server: PgConnectOptions = std::env::var(SERVER).unwrap().parse().unwrap();
        let mut conn: PgConnection = server.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }
}
