//! The audit log of real nodes: what happened is in it, and nobody changes it unseen, neither a byte nor all of it.

#![allow(clippy::unwrap_used, clippy::panic)]

use guantong::demo::tree::NodeSpec;
use guantong_gateway::audit::{Hash, digest, extend, origin};
use guantong_proto::v1;
use guantong_tests::harness::wire::send_garbage;
use guantong_tests::harness::{Done, Fleet, division, run, until};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

const COUNTY: &str = "220822";
const BESIDE: &str = "220822102";
const TOWNSHIP: &str = "220822101";

async fn tree() -> Fleet {
    let county = division(COUNTY);
    Fleet::start([NodeSpec::top(county), NodeSpec::below(county, division(TOWNSHIP))]).await
}

async fn verify(fleet: &Fleet, node: &str) -> (Done, Value) {
    let done = fleet.cli(node, &["audit", "verify", "--json"]).await;
    let json = done.json();
    (done, json)
}

/// Waits until the parent keeps a checkpoint of the township's log as it stands or later.
async fn kept_by_parent(fleet: &Fleet) {
    until("the parent keeps a checkpoint", async || {
        verify(fleet, TOWNSHIP).await.1["parent_checkpoints"].as_u64().unwrap() > 0
    })
    .await;
}

/// The township's store, while its node is stopped.
async fn store(fleet: &Fleet) -> SqliteConnection {
    let config = std::fs::read_to_string(fleet.tree.config_path(division(TOWNSHIP))).unwrap();
    let line = config.lines().find(|line| line.starts_with("data_dir")).unwrap();
    let dir = line.split('"').nth(1).unwrap();
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let path = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "db" || e == "sqlite"));
    SqliteConnectOptions::new().filename(path.unwrap()).connect().await.unwrap()
}

async fn run_sql(conn: &mut SqliteConnection, sql: &'static str) {
    let done = sqlx::query(sql).execute(conn).await.unwrap();
    assert!(done.rows_affected() > 0, "{sql}");
}

/// Computes every hash of the chain anew, as one would who knows how.
async fn forge(conn: &mut SqliteConnection) {
    let rows =
        sqlx::query("SELECT number, line FROM audit ORDER BY number").fetch_all(&mut *conn).await.unwrap();
    let mut hash: Hash = origin(division(TOWNSHIP), 0);
    for row in rows {
        let (number, line): (i64, String) = (row.get(0), row.get(1));
        hash = extend(hash, digest(&line));
        let update = "UPDATE audit SET hash = ? WHERE number = ?";
        sqlx::query(update).bind(hash.0.to_vec()).bind(number).execute(&mut *conn).await.unwrap();
    }
}

#[tokio::test]
async fn a_changed_byte_and_a_chain_made_anew_are_found() {
    let mut fleet = tree().await;
    kept_by_parent(&fleet).await;
    let (done, json) = verify(&fleet, TOWNSHIP).await;
    assert_eq!(json["intact"], true, "{done:#?}");
    done.exits(0);
    let township = division(TOWNSHIP);

    fleet.tree.stop(township).await.unwrap();
    let mut conn = store(&fleet).await;
    run_sql(
        &mut conn,
        "UPDATE audit SET line = replace(line, '\"link_up\"', '\"link_uq\"') WHERE number = 2",
    )
    .await;
    conn.close().await.unwrap();
    fleet.tree.start(township).await.unwrap();
    fleet.linked(township).await;
    let (done, json) = verify(&fleet, TOWNSHIP).await;
    assert_eq!(json["first_problem"]["entry"], 2, "{done:#?}");
    done.exits(3);

    // Everything computed anew, and what the node itself had signed taken away.
    fleet.tree.stop(township).await.unwrap();
    let mut conn = store(&fleet).await;
    run_sql(&mut conn, "UPDATE audit SET line = replace(line, '\"link_uq\"', '\"link_ur\"'), event = 'link_ur' WHERE number = 2").await;
    run_sql(&mut conn, "DELETE FROM audit_checkpoint").await;
    forge(&mut conn).await;
    conn.close().await.unwrap();
    fleet.tree.start(township).await.unwrap();
    fleet.linked(township).await;
    let done = fleet.cli(TOWNSHIP, &["audit", "verify"]).await.exits(3);
    done.shows(&["is not the one whose signature the parent keeps"]);
    for node in [COUNTY, TOWNSHIP] {
        until("both ends raise an alarm", async || {
            let warnings = fleet.status(node).await.warnings;
            warnings.iter().any(|warning| warning.contains("audit log"))
        })
        .await;
        let shown = async || fleet.cli(node, &["audit", "show", "--event", "checkpoint_contradicted"]).await;
        until("both ends have it in their logs", async || shown().await.out.contains("kept=")).await;
    }

    // Somebody has found out why, and goes on from there.
    fleet.cli(COUNTY, &["audit", "accept", BESIDE]).await.exits(1).says(&["nothing that"]);
    fleet.cli(COUNTY, &["audit", "accept", TOWNSHIP]).await.exits(0).shows(&["is followed from entry"]);
    let warnings = fleet.status(COUNTY).await.warnings;
    assert!(!warnings.iter().any(|warning| warning.contains("audit log")), "{warnings:?}");
    let shown = fleet.cli(COUNTY, &["audit", "show", "--event", "checkpoint_accepted"]).await.exits(0);
    shown.shows(&["peer=220822101000", "signed_hash="]);
    until("what is kept fits the log again", async || {
        fleet.cli(TOWNSHIP, &["audit", "verify"]).await.code == 0
    })
    .await;
}

#[tokio::test]
async fn what_happened_is_shown_and_an_export_is_checked_without_the_node() {
    let fleet = tree().await;
    send_garbage(&fleet.tree.address(division(COUNTY)).unwrap(), b"GET / HTTP/1.1\r\n\r\n").await;
    let name = "divisions/220822101000/grids/220822101000001";
    fleet
        .write(TOWNSHIP, name, &v1::Grid { display_name: Some("第一网格".into()), ..Default::default() })
        .await
        .unwrap();
    fleet.equal().await;
    let grant = ["grant", "set", "hotline", "--scope", COUNTY, "--level", "read"];
    fleet.cli(COUNTY, &grant).await.exits(0);
    for (node, event, words) in [
        (COUNTY, "connection_refused", "reason=not_tls"),
        (COUNTY, "received", "peer=220822101000"),
        (TOWNSHIP, "delivered", "peer=node:220822000000"),
        (TOWNSHIP, "command", "command=RecordService.WriteRecord outcome=ok"),
        (COUNTY, "grant_set", "partner=hotline"),
        (COUNTY, "link_up", "recognition=RECOGNITION_NEW"),
    ] {
        until(&format!("{event} is shown"), async || {
            let shown = fleet.cli(node, &["audit", "show", "--event", event]).await.exits(0);
            shown.out.contains(words)
        })
        .await;
    }
    kept_by_parent(&fleet).await;

    let file = fleet.path("audit.jsonl");
    let file = file.to_str().unwrap();
    fleet.cli(TOWNSHIP, &["audit", "export", file]).await.exits(0);
    fleet.cli(TOWNSHIP, &["audit", "export", file]).await.exits(1).says(&["cannot write"]);
    let check = ["audit", "verify", "--file", file, "--json"];
    let intact = run(&check).await.exits(0).json();
    assert!(intact["intact"] == true && intact["parent_checkpoints"].as_u64().unwrap() > 0);
    let exported = std::fs::read_to_string(file).unwrap();
    assert!(!exported.contains("第一网格"));
    std::fs::write(file, exported.replace("WriteRecord", "ReadRecord")).unwrap();
    let changed = run(&check).await.exits(3).json();
    assert_eq!(changed["intact"], false);
    let without_end: Vec<&str> = exported.lines().collect();
    std::fs::write(file, without_end[..without_end.len() - 1].join("\n")).unwrap();
    assert_eq!(run(&check).await.exits(3).json()["intact"], false);
}
