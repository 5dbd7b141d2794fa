//! Backups of running nodes, and what is put back: whole, of the right node, and of no newer program; whatever is cut
//! short in the middle leaves the store as it was, and nothing that was written since is lost.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Done, Fleet, division, program, run, until, write};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::process::Command;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";

async fn county_and_township() -> Fleet {
    let county = division(COUNTY);
    Fleet::start([NodeSpec::top(county), NodeSpec::below(county, division(TOWNSHIP))]).await
}

fn name(id: u32) -> String {
    format!("divisions/220822101000/cases/{id}")
}

fn case(title: &str) -> v1::Case {
    v1::Case { case_kind: Some(1), title: Some(title.to_owned()), ..v1::Case::default() }
}

fn store(fleet: &Fleet, node: &str) -> PathBuf {
    fleet.tree.node_dir(division(node)).join("guantong.db")
}

async fn backup(fleet: &Fleet, node: &str, file: &str) -> Done {
    fleet.cli(node, &["backup", file, "--json"]).await
}

async fn restore(fleet: &Fleet, node: &str, file: &str) -> Done {
    let config = fleet.tree.config_path(division(node));
    run(&["restore", file, "--config", config.to_str().unwrap(), "--json"]).await
}

async fn stop(fleet: &mut Fleet, node: &str) {
    fleet.tree.stop(division(node)).await.unwrap();
}

async fn start(fleet: &mut Fleet, node: &str) {
    fleet.tree.start(division(node)).await.unwrap();
}

async fn titles(fleet: &Fleet, node: &str, ids: impl IntoIterator<Item = u32>) -> Vec<Option<String>> {
    let mut titles = Vec::new();
    for id in ids {
        let shown = fleet.shown::<v1::Case>(node, &name(id)).await;
        titles.push(shown.map(|case| case.title().to_owned()));
    }
    titles
}

/// Names in the node's folder that begin with the store's.
fn beside(fleet: &Fleet, node: &str) -> Vec<String> {
    let entries = std::fs::read_dir(fleet.tree.node_dir(division(node))).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("guantong.db"));
    names.sort();
    names
}

/// One number out of a store that no node has open.
async fn number(path: &Path, sql: &'static str) -> i64 {
    let mut conn = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let number = sqlx::query(sql).fetch_one(&mut conn).await.unwrap().get(0);
    conn.close().await.unwrap();
    number
}

async fn change(path: &Path, sql: &str) {
    let mut conn = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// A backup that is made while others write holds everything up to one moment, and nothing after it; put back, the node
/// gets what it forgot, keeps what it writes meanwhile, and writes as another from its first start on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_working_node_is_put_back_and_nothing_is_lost() {
    let mut fleet = county_and_township().await;
    let (stop_writing, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let writing = tokio::spawn({
        let (client, stop, written) = (fleet.client(TOWNSHIP), stop_writing.clone(), written.clone());
        async move {
            while !stop.load(Ordering::Acquire) {
                let id = written.load(Ordering::Acquire);
                write(&client, &name(id), &case("甲")).await.unwrap();
                written.store(id + 1, Ordering::Release);
            }
        }
    });
    until("some are written", async || written.load(Ordering::Acquire) > 50).await;
    let before = written.load(Ordering::Acquire);
    let file = fleet.path("a.backup").to_str().unwrap().to_owned();
    let made = backup(&fleet, TOWNSHIP, &file).await.exits(0).json();
    let after = written.load(Ordering::Acquire);
    until("others are written since", async || written.load(Ordering::Acquire) > after + 20).await;
    stop_writing.store(true, Ordering::Release);
    writing.await.unwrap();
    let count = written.load(Ordering::Acquire);
    let records = made["record_count"].as_u64().unwrap();
    // Beside the cases: the node's record of itself.
    assert!((u64::from(before)..=u64::from(after) + 2).contains(&records), "{before} {records} {after}");
    assert_eq!(beside(&fleet, TOWNSHIP).iter().filter(|name| name.contains("copy")).count(), 0);
    fleet.cli(TOWNSHIP, &["backup", &file]).await.exits(1).says(&["is there already", "--force"]);
    fleet.cli(TOWNSHIP, &["backup", &file, "--force"]).await.exits(0).shows(&["personal data", "keys"]);
    let made = backup(&fleet, TOWNSHIP, fleet.path("b.backup").to_str().unwrap()).await.json();
    fleet.write(TOWNSHIP, &name(0), &case("乙")).await.unwrap();
    fleet.write(TOWNSHIP, &name(count), &case("丙")).await.unwrap();
    fleet.equal().await;

    stop(&mut fleet, TOWNSHIP).await;
    let epoch = number(&store(&fleet, TOWNSHIP), "SELECT epoch FROM node").await;
    let restored = restore(&fleet, TOWNSHIP, fleet.path("b.backup").to_str().unwrap()).await.exits(0).json();
    assert_eq!(restored["revision"], made["revision"]);
    let former = PathBuf::from(restored["former_store"].as_str().unwrap());
    assert_eq!(number(&former, "SELECT epoch FROM node").await, epoch, "the store of before is kept");
    // Back from the backup, and at work before the line is up again.
    let township = division(TOWNSHIP);
    fleet.tree.set_environment(township, "GUANTONG_PARENT__ADDRESS", Some("127.0.0.1:9")).unwrap();
    start(&mut fleet, TOWNSHIP).await;
    assert_eq!(titles(&fleet, TOWNSHIP, [0, count]).await, [Some("甲".to_owned()), None], "it has forgotten");
    fleet.write(TOWNSHIP, &name(count + 1), &case("丁")).await.unwrap();
    stop(&mut fleet, TOWNSHIP).await;
    assert_ne!(number(&store(&fleet, TOWNSHIP), "SELECT epoch FROM node").await, epoch, "not found out yet");
    fleet.tree.set_environment(township, "GUANTONG_PARENT__ADDRESS", None).unwrap();
    start(&mut fleet, TOWNSHIP).await;
    let expected: Vec<_> = ["乙", "丙", "丁"].map(|title| Some(title.to_owned())).into();
    for node in [TOWNSHIP, COUNTY] {
        until(&format!("{node} has everything"), async || {
            titles(&fleet, node, [0, count, count + 1]).await == expected
        })
        .await;
    }
    fleet.equal().await;
    let status = fleet.cli(TOWNSHIP, &["status", "--json"]).await.json();
    assert_eq!(status["conflictCount"].as_str().unwrap_or("0"), "0", "nothing was written twice: {status}");
    let recovery = fleet.status(TOWNSHIP).await.recovery.unwrap();
    assert_eq!(recovery.cause(), v1::RecoveryCause::PutBack);
    let audit = fleet.cli(TOWNSHIP, &["audit", "show", "--limit", "1000"]).await.out;
    assert!(audit.contains("store_put_back") && audit.contains("store_renewed"), "{audit}");
    fleet.cli(TOWNSHIP, &["audit", "verify"]).await;
}

/// What is not a whole backup of this very node, by this program or an older one, is refused, and not a byte of the store
/// is changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_and_the_store_stays_as_it_is() {
    let mut fleet = county_and_township().await;
    fleet.write(TOWNSHIP, &name(1), &case("甲")).await.unwrap();
    fleet.equal().await;
    let path = |name: &str| fleet.path(name).to_str().unwrap().to_owned();
    let (own, others) = (path("own.backup"), path("county.backup"));
    backup(&fleet, TOWNSHIP, &own).await.exits(0);
    backup(&fleet, COUNTY, &others).await.exits(0);
    restore(&fleet, TOWNSHIP, &own).await.exits(1).says(&["a node runs", "stop it first"]);

    let whole = std::fs::read(&own).unwrap();
    let mut altered = whole.clone();
    altered[whole.len() - 100] ^= 1;
    let cut = fleet.file("cut.backup", &whole[..whole.len() / 2]);
    let altered = fleet.file("altered.backup", altered);
    let text = fleet.file("notes.backup", "these are notes");
    let nothing = fleet.file("nothing.backup", "");
    let beginning = fleet.file("beginning.backup", &whole[..100]);
    let head = fleet.file("head.backup", &whole[..4096]);
    let longer = fleet.file("longer.backup", [&*whole, b"more"].concat());
    let changed =
        fleet.file("changed.backup", String::from_utf8_lossy(&whole[..4096]).replacen("22", "44", 1));
    let newer = fleet.file("newer.backup", newer(&whole));
    stop(&mut fleet, TOWNSHIP).await;
    let before = std::fs::read(store(&fleet, TOWNSHIP)).unwrap();
    for (file, said) in [
        (&others, "is of division 220822000000"),
        (&cut, "is not whole"),
        (&altered, "was altered or damaged"),
        (&text, "is no backup"),
        (&nothing, "不是备份文件"),
        (&beginning, "is no backup"),
        (&head, "备份文件不完整"),
        (&longer, "is not whole"),
        (&changed, "备份文件已被改动或损坏"),
        (&newer, "newer program"),
    ] {
        restore(&fleet, TOWNSHIP, file).await.exits(1).says(&[said]);
        assert_eq!(std::fs::read(store(&fleet, TOWNSHIP)).unwrap(), before, "{file}");
        assert_eq!(beside(&fleet, TOWNSHIP), ["guantong.db", "guantong.db-lock"], "{file}");
    }
    // No server answers there, and none is asked.
    let config = std::fs::read_to_string(fleet.tree.config_path(division(TOWNSHIP))).unwrap();
    let on_postgres =
        fleet.file("postgres.toml", format!("store = \"postgres://x:y@127.0.0.1:9/z\"\n{config}"));
    let refused = run(&["restore", &own, "--config", &on_postgres]).await;
    refused.exits(1).says(&["keeps its records in PostgreSQL", "pg_restore"]);
    // A store that a newer program wrote is not opened, and not changed either.
    change(&store(&fleet, TOWNSHIP), "PRAGMA user_version = 999").await;
    let newer = std::fs::read(store(&fleet, TOWNSHIP)).unwrap();
    let refused = fleet.tree.start(division(TOWNSHIP)).await.unwrap_err().to_string();
    assert!(refused.contains("use the newer program") && refused.contains("更新版本"), "{refused}");
    let config = fleet.tree.config_path(division(TOWNSHIP));
    let rebuild = run(&["rebuild", "--config", config.to_str().unwrap()]).await;
    rebuild.exits(1).says(&["use the newer program", "nothing was changed"]);
    assert_eq!(std::fs::read(store(&fleet, TOWNSHIP)).unwrap(), newer);
    restore(&fleet, TOWNSHIP, &own).await.exits(0);
    start(&mut fleet, TOWNSHIP).await;
    fleet.linked(division(TOWNSHIP)).await;
    fleet.equal().await;
}

/// The same backup as a newer program would have made it.
fn newer(whole: &[u8]) -> Vec<u8> {
    let end = whole.iter().position(|byte| *byte == 0).unwrap();
    let head = std::str::from_utf8(&whole[..end]).unwrap();
    let lines: Vec<&str> = head.lines().collect();
    let mut said: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    said["store_format"] = 999.into();
    let mut head = format!("{}\n{said}\n", lines[0]);
    head.push_str(&format!("{}\n", blake3::hash(head.as_bytes()).to_hex()));
    let mut newer = head.into_bytes();
    newer.resize(4096, 0);
    newer.extend_from_slice(&whole[4096..]);
    newer
}

/// Writes so much at the township that a copy of its store takes a while.
async fn fill(fleet: &Fleet) {
    let long = "长".repeat(10_000);
    for id in 0..40 {
        let narrative = Some(long.clone());
        fleet.write(TOWNSHIP, &name(id), &v1::Case { narrative, ..case("甲") }).await.unwrap();
    }
}

/// A restore that is killed at any moment leaves the store as it was, or what was put back: never anything between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_is_whole_or_has_not_happened() {
    let mut fleet = county_and_township().await;
    fill(&fleet).await;
    let file = fleet.path("a.backup").to_str().unwrap().to_owned();
    backup(&fleet, TOWNSHIP, &file).await.exits(0);
    fleet.write(TOWNSHIP, &name(77), &case("乙")).await.unwrap();
    fleet.equal().await;
    stop(&mut fleet, TOWNSHIP).await;
    let path = store(&fleet, TOWNSHIP);
    let making = path.with_file_name("guantong.db-making");
    let of_before = number(&path, "SELECT revision FROM node").await;
    let mut killed = 0;
    for bytes in [1, 500_000, 1_200_000, u64::MAX] {
        let mut child = Command::new(program())
            .args(["restore", &file, "--config"])
            .arg(fleet.tree.config_path(division(TOWNSHIP)))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Killed once so much of it is there; or else where it happens to be.
        while child.try_wait().unwrap().is_none() {
            if making.metadata().is_ok_and(|made| made.len() >= bytes) {
                child.kill().await.unwrap();
                killed += 1;
            }
            tokio::task::yield_now().await;
        }
        if !path.exists() {
            // In the very middle of the exchange: whoever comes next ends it.
            assert!(path.with_file_name("guantong.db-next").exists());
            continue;
        }
        let revision = number(&path, "SELECT revision FROM node").await;
        let put_back = number(&path, "SELECT put_back_ms IS NOT NULL FROM shared").await != 0;
        assert_eq!(put_back, revision != of_before, "it is the one or the other");
    }
    assert!(killed > 0, "none of them was killed");
    restore(&fleet, TOWNSHIP, &file).await.exits(0);
    assert!(!making.exists());
    start(&mut fleet, TOWNSHIP).await;
    until("it has all of it", async || titles(&fleet, TOWNSHIP, [77]).await == [Some("乙".to_owned())]).await;
    fleet.equal().await;
}

/// Runs the program with a limit on the size of the files that it writes, as a disk that fills up in the middle.
async fn cramped(blocks: u32, args: &[&str]) -> Done {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut all = vec!["-c", &script];
    let program = program();
    all.push(program.to_str().unwrap());
    all.extend(args);
    let output = Command::new("bash").args(all).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A disk that is full in the middle of a backup or a restore: nothing half is left, the store is as it was, and it is
/// said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_in_the_middle_leaves_nothing_half() {
    let mut fleet = county_and_township().await;
    fill(&fleet).await;
    let file = fleet.path("a.backup").to_str().unwrap().to_owned();
    let socket = fleet.tree.socket_path(division(TOWNSHIP));
    let backup = ["backup", &file, "--socket", socket.to_str().unwrap()];
    cramped(500, &backup).await.exits(1).says(&["a.backup", "nothing of it is left"]);
    let left: Vec<_> = std::fs::read_dir(fleet.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("a.backup")), "{left:?}");
    fleet.cli(TOWNSHIP, &["backup", &file]).await.exits(0);

    stop(&mut fleet, TOWNSHIP).await;
    let before = std::fs::read(store(&fleet, TOWNSHIP)).unwrap();
    let config = fleet.tree.config_path(division(TOWNSHIP));
    let restore = ["restore", &file, "--config", config.to_str().unwrap()];
    cramped(500, &restore).await.exits(1).says(&["the store's disk refused", "nothing was changed"]);
    assert_eq!(std::fs::read(store(&fleet, TOWNSHIP)).unwrap(), before);
    assert_eq!(beside(&fleet, TOWNSHIP), ["guantong.db", "guantong.db-lock"]);
    start(&mut fleet, TOWNSHIP).await;
    fleet.linked(division(TOWNSHIP)).await;
    fleet.equal().await;
}
