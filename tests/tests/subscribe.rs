//! `guantong subscribe` as a data centre runs it: into files and into a PostgreSQL, from cron and without end, stopped
//! in good order and killed in the middle. What was acknowledged is always there.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Fleet, division, program, until, within};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::process::{Child, Command};

const COUNTY: &str = "220822";
/// Names a server where schemas may be made.
const SERVER: &str = "TEST_POSTGRES_URL";

fn grid_name(serial: usize) -> String {
    format!("divisions/220822101000/grids/220822101000{serial:03}")
}

/// One county with some grids.
async fn county(grids: usize) -> Fleet {
    let fleet = Fleet::start([NodeSpec::top(division(COUNTY))]).await;
    let mut ledger =
        "网格编码,所属区划,网格名称,网格类型,网格状态,户数,网格长,联系电话,启用日期,经度,纬度\n".to_owned();
    for serial in 1..=grids {
        ledger += &format!(
            "220822101000{serial:03},220822101000,第{serial}网格,综合网格,启用,{serial},某甲,0436-1000001,2024-01-05,123.08,44.81\n"
        );
    }
    let file = fleet.file("grids.csv", ledger);
    let import = ["import", "--kind", "grid", &file, "--source", "office", "--crs", "cgcs2000"];
    fleet.cli(COUNTY, &import).await.exits(0);
    fleet
}

async fn rename(fleet: &Fleet, serial: usize, name: &str) {
    let grid = v1::Grid { display_name: Some(name.into()), ..v1::Grid::default() };
    fleet.write(COUNTY, &grid_name(serial), &grid).await.unwrap();
}

async fn once(fleet: &Fleet, more: &[&str]) -> Value {
    let mut args = vec!["subscribe", "centre", "--once", "--json", "--kinds", "grid"];
    args.extend(more);
    fleet.cli(COUNTY, &args).await.exits(0).json()
}

/// `subscribe` without end, as a process of its own.
fn start(fleet: &Fleet, more: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(["subscribe", "centre", "--kinds", "grid"]).args(more);
    command.arg("--socket").arg(fleet.tree.socket_path(division(COUNTY)));
    command.env_remove(SERVER).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null());
    command.kill_on_drop(true).spawn().unwrap()
}

async fn owed(fleet: &Fleet) -> u64 {
    let shown = fleet.cli(COUNTY, &["subscriptions", "show", "centre", "--json"]).await.exits(0).json();
    let count = |lane: &str| shown["backlog"][lane].as_u64().unwrap_or(0);
    count("urgent_count") + count("normal_count") + count("bulk_count")
}

/// All whole lines of a table's segments, the later of a name in place of the earlier.
fn lines(folder: &Path, table: &str) -> BTreeMap<String, Value> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder.join(table)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut rows = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let row: Value = serde_json::from_str(line).unwrap();
            rows.insert(row["name"].as_str().unwrap().to_owned(), row);
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_json_are_kept_up_to_date() {
    let fleet = county(20).await;
    let folder = fleet.path("lines");
    let to = ["--to", folder.to_str().unwrap(), "--format", "jsonl"];
    let first = once(&fleet, &to).await;
    assert_eq!(first["changes"], 20);
    assert_eq!(owed(&fleet).await, 0);
    let rows = lines(&folder, "grids");
    let row = &rows[&grid_name(3)];
    assert_eq!((&row["grid_type"], &row["households"]), (&"comprehensive".into(), &3.into()));
    assert_eq!((&row["valid_from"], &row["home"]), (&"2024-01-05".into(), &"220822101000".into()));
    assert_eq!(row["centroid_longitude"], 123.08);
    assert!(row["contact_name"].is_null(), "personal data only where it is asked for");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["labels"]["grids.grid_type"]["comprehensive"], "综合网格");
    assert_eq!(manifest["tables"]["grids"]["files"][0]["rows"], 20);

    rename(&fleet, 3, "改名").await;
    rename(&fleet, 3, "又改名").await;
    let deleted = v1::Grid { deleted: Some(true), ..v1::Grid::default() };
    fleet.write(COUNTY, &grid_name(4), &deleted).await.unwrap();
    assert_eq!(once(&fleet, &to).await["changes"], 2, "the latest form, once");
    let rows = lines(&folder, "grids");
    assert_eq!(rows[&grid_name(3)]["display_name"], "又改名");
    assert_eq!((rows.len(), &rows[&grid_name(4)]["deleted"]), (20, &true.into()));

    // Asked for something else, it says so and changes nothing.
    let other = ["subscribe", "centre", "--once", "--kinds", "case", to[0], to[1], to[2], to[3]];
    fleet.cli(COUNTY, &other).await.exits(1).says(&["covers other records"]);
    // A copy that is lost is made anew.
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(once(&fleet, &to).await["changes"], 20);
    assert_eq!(lines(&folder, "grids")[&grid_name(3)]["display_name"], "又改名");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_until_it_is_told_to_stop() {
    let fleet = county(5).await;
    let folder = fleet.path("lines");
    let mut following = start(&fleet, &["--to", folder.to_str().unwrap(), "--format", "jsonl"]);
    let shows = |name: &'static str| {
        let folder = folder.clone();
        async move || {
            folder.join("grids").exists()
                && lines(&folder, "grids").values().any(|row| row["display_name"] == name)
        }
    };
    until("everything came", shows("第5网格")).await;
    rename(&fleet, 1, "改名").await;
    until("the change came", shows("改名")).await;
    let list = fleet.cli(COUNTY, &["subscriptions", "list", "--json"]).await.exits(0).json();
    assert_ne!(list["subscriptions"][0]["reader_address"], "", "somebody reads");
    // A second one takes over, and the first is told.
    let mut second = start(&fleet, &["--to", fleet.path("other").to_str().unwrap(), "--format", "jsonl"]);
    let code = within("the first ends", following.wait()).await.unwrap().code();
    assert_eq!(code, Some(1), "it does not fight for the subscription");
    rename(&fleet, 2, "再改").await;
    until("the second follows", async || {
        let other = fleet.path("other");
        other.join("grids").exists() && lines(&other, "grids").values().any(|r| r["display_name"] == "再改")
    })
    .await;
    let id = second.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert_eq!(within("it stops", second.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_files_hold_what_was_acknowledged() {
    let fleet = county(900).await;
    let folder = fleet.path("parquet");
    let to = ["--to", folder.to_str().unwrap(), "--format", "parquet"];
    let first = once(&fleet, &to).await;
    assert_eq!(first["changes"], 900);
    rename(&fleet, 7, "改名").await;
    once(&fleet, &to).await;
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let files = manifest["tables"]["grids"]["files"].as_array().unwrap();
    let rows: u64 = files.iter().map(|file| file["rows"].as_u64().unwrap()).sum();
    assert_eq!(rows, 901, "the later row is in a later file");
    for file in files {
        let bytes = std::fs::read(folder.join(file["path"].as_str().unwrap())).unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    }
}

/// Killed at any moment, nothing that was acknowledged is missing, and what comes twice changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_it_is_killed() {
    let fleet = county(900).await;
    let folder = fleet.path("lines");
    let to = ["--to", folder.to_str().unwrap(), "--format", "jsonl"];
    let mut all: BTreeSet<String> = BTreeSet::new();
    for round in 0..12_u64 {
        let mut following = start(&fleet, &to);
        for serial in 1..=20 {
            rename(&fleet, serial + 20 * round as usize, &format!("轮{round}")).await;
        }
        // A little later in each round: before it reads, between write and acknowledgement, after.
        for _ in 0..round * 40 {
            tokio::task::yield_now().await;
        }
        following.start_kill().unwrap();
        following.wait().await.unwrap();
        if folder.join("grids").exists() {
            all.extend(lines(&folder, "grids").into_keys());
            let owed = owed(&fleet).await;
            assert!(all.len() as u64 + owed >= 900, "round {round}: {} there and {owed} owed", all.len());
        }
    }
    once(&fleet, &to).await;
    let rows = lines(&folder, "grids");
    assert_eq!(rows.len(), 900);
    for round in 0..12 {
        for serial in 1..=20 {
            let row = &rows[&grid_name(serial + 20 * round)];
            assert_eq!(row["display_name"], format!("轮{round}"), "the latest form");
        }
    }
}

/// A database of the test's own.
struct Database {
    server: PgConnectOptions,
    name: String,
}

impl Database {
    /// `None`, and loudly so, where no server is named.
    async fn new() -> Option<Database> {
        let Ok(url) = std::env::var(SERVER) else {
            let text = format!("NOT RUN: subscribe into PostgreSQL; {SERVER} names no server\n");
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            return None;
        };
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("subscribe_{}", std::process::id());
        let database = Database { server: server.disable_statement_logging(), name };
        database.at_server("CREATE DATABASE", "ENCODING 'UTF8' TEMPLATE template0").await;
        Some(database)
    }

    async fn at_server(&self, what: &str, how: &str) {
        let mut conn = self.server.connect().await.unwrap();
        let text = format!("{what} {} {how}", self.name);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }

    fn url(&self) -> String {
        self.server.clone().database(&self.name).to_url_lossy().to_string()
    }

    async fn open(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.unwrap()
    }

    /// One text.
    async fn text(&self, query: &str) -> String {
        let mut conn = self.open().await;
        let row = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(&mut conn).await.unwrap();
        row.get::<Option<String>, _>(0).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_kept_up_to_date_on_postgres() {
    let Some(database) = Database::new().await else { return };
    let fleet = county(600).await;
    let url = database.url();
    let to = ["--to", url.as_str(), "--format", "postgres"];
    assert_eq!(once(&fleet, &to).await["changes"], 600);
    let row = "SELECT concat_ws('|', grid_type, households, valid_from, centroid_longitude, home, deleted,
        contact_name) FROM guantong.grids WHERE name LIKE '%007'";
    assert_eq!(database.text(row).await, "comprehensive|7|2024-01-05|123.08|220822101000|f");
    let label =
        "SELECT label FROM guantong.enum_labels WHERE table_name = 'grids' AND column_name = 'grid_type'
        AND value = 'comprehensive'";
    assert_eq!(database.text(label).await, "综合网格");
    let comment = "SELECT col_description('guantong.grids'::regclass, attnum) FROM pg_attribute
        WHERE attrelid = 'guantong.grids'::regclass AND attname = 'grid_code'";
    assert!(database.text(comment).await.starts_with("网格编码"));
    let complete = "SELECT (caught_up_time > now() - interval '1 minute')::text FROM guantong.subscription";
    assert_eq!(database.text(complete).await, "true");

    // A column that the contract has and the table has not comes by itself, with everything again.
    let narrow = "ALTER TABLE guantong.grids DROP COLUMN households; UPDATE guantong.subscription SET columns = 'older'";
    sqlx::raw_sql(narrow).execute(&mut database.open().await).await.unwrap();
    assert_eq!(once(&fleet, &to).await["changes"], 600);
    assert_eq!(
        database.text("SELECT sum(households)::text FROM guantong.grids").await,
        (600 * 601 / 2).to_string()
    );

    killed_in_the_middle(&fleet, &database, &to).await;
    database_away(&fleet, &database, &to).await;
    let deleted = v1::Grid { deleted: Some(true), ..v1::Grid::default() };
    fleet.write(COUNTY, &grid_name(9), &deleted).await.unwrap();
    once(&fleet, &to).await;
    let deleted = "SELECT string_agg(grid_code || deleted, ',') FROM guantong.grids WHERE deleted";
    assert_eq!(database.text(deleted).await, "220822101000009true", "its row stays");
    // A column that somebody made into something else is named, and nothing is done.
    let wrong = "ALTER TABLE guantong.grids ALTER COLUMN households TYPE text";
    sqlx::raw_sql(wrong).execute(&mut database.open().await).await.unwrap();
    let mut args = vec!["subscribe", "centre", "--once", "--kinds", "grid"];
    args.extend(to);
    fleet.cli(COUNTY, &args).await.exits(1).says(&["grids.households", "bigint"]);
    database.at_server("DROP DATABASE", "WITH (FORCE)").await;
}

async fn killed_in_the_middle(fleet: &Fleet, database: &Database, to: &[&str]) {
    for round in 0..8_u64 {
        let mut following = start(fleet, to);
        for serial in 1..=20 {
            rename(fleet, serial + 20 * round as usize, &format!("轮{round}")).await;
        }
        for _ in 0..round * 60 {
            tokio::task::yield_now().await;
        }
        following.start_kill().unwrap();
        following.wait().await.unwrap();
        // What is neither owed nor there would be lost.
        let owed = owed(fleet).await;
        let there = "SELECT count(*)::text FROM guantong.grids WHERE display_name LIKE '轮%'";
        let there: u64 = database.text(there).await.parse().unwrap();
        assert!(there + owed >= 20 * (round + 1), "round {round}: {there} there and {owed} owed");
    }
    once(fleet, to).await;
    let count =
        "SELECT count(*)::text FROM guantong.grids WHERE display_name = '轮' || ((households - 1) / 20)";
    assert_eq!(database.text(count).await, "160");
}

/// A database that ends its connections is come back to.
async fn database_away(fleet: &Fleet, database: &Database, to: &[&str]) {
    let mut following = start(fleet, to);
    until("it follows", async || {
        let list = fleet.cli(COUNTY, &["subscriptions", "list", "--json"]).await.exits(0).json();
        list["subscriptions"][0]["reader_address"] != ""
    })
    .await;
    let end = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
        WHERE application_name = 'guantong subscribe'";
    assert_eq!(database.text(end).await, "true");
    rename(fleet, 300, "回来").await;
    until("the change came", async || {
        let count = "SELECT count(*)::text FROM guantong.grids WHERE display_name = '回来'";
        database.text(count).await == "1"
    })
    .await;
    following.start_kill().unwrap();
    following.wait().await.unwrap();
}
