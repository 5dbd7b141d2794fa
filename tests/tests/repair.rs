//! Records that vanish from a stopped node's file, or are altered there by hand: noticed at the next start, said, brought
//! back through the links, and nothing else is changed. Real processes of four tiers.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Done, Fleet, division, found, until};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

const PREFECTURE: &str = "2208";
const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
const NEIGHBOUR: &str = "220822102";
const NODES: [&str; 4] = [PREFECTURE, COUNTY, TOWNSHIP, NEIGHBOUR];

/// What a node says when its records are not what it kept of them.
const NOTICED: &str = "本节点数据与留存的校验不符";

async fn tree() -> Fleet {
    let [prefecture, county, township, neighbour] = NODES.map(division);
    let fleet = Fleet::start([
        NodeSpec::top(prefecture),
        NodeSpec::below(prefecture, county),
        NodeSpec::below(county, township),
        NodeSpec::below(county, neighbour),
    ])
    .await;
    for home in [TOWNSHIP, NEIGHBOUR] {
        for id in ["1", "2", "3"] {
            let party = v1::Party { name: "当事人".to_owned(), ..v1::Party::default() };
            let case = v1::Case {
                case_kind: Some(1),
                title: Some("甲".into()),
                risk: Some(v1::CaseRisk::Red.into()),
                parties: vec![party],
                ..v1::Case::default()
            };
            fleet.write(home, &name(home, id), &case).await.unwrap();
        }
    }
    // Each node writes a record about itself, once it has time.
    for (node, records) in NODES.into_iter().zip([10, 9, 4, 4]) {
        until("it has all", async || fleet.status(node).await.record_count == records).await;
    }
    fleet.equal().await;
    fleet
}

fn name(home: &str, id: &str) -> String {
    format!("divisions/{}/cases/{id}", division(home))
}

/// What every node shows of every record, and how many records it says that it has.
async fn everything(fleet: &Fleet) -> BTreeMap<(&'static str, String), Option<(String, Vec<u8>)>> {
    let mut all = BTreeMap::new();
    for node in NODES {
        let count = fleet.status(node).await.record_count.to_string();
        all.insert((node, "records".to_owned()), Some((count, Vec::new())));
        for home in [TOWNSHIP, NEIGHBOUR] {
            for id in ["1", "2", "3"] {
                let name = name(home, id);
                let shown = fleet.record(node, &name).await;
                all.insert((node, name), shown.map(|record| (record.etag, record.fields.to_vec())));
            }
        }
    }
    all
}

fn store(fleet: &Fleet, node: &str) -> PathBuf {
    fleet.tree.node_dir(division(node)).join("guantong.db")
}

async fn change(fleet: &Fleet, node: &str, sql: &str) -> u64 {
    let mut conn = SqliteConnectOptions::new().filename(store(fleet, node)).connect().await.unwrap();
    let done = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    done.rows_affected()
}

async fn stop(fleet: &mut Fleet, node: &str) {
    fleet.tree.stop(division(node)).await.unwrap();
}

/// Starts a node again, and waits until it has said that something is wrong with its records.
async fn noticed(fleet: &mut Fleet, node: &str) {
    fleet.tree.start(division(node)).await.unwrap();
    until("the node notices", async || {
        let status = fleet.cli(node, &["status"]).await;
        status.code == 3 && status.out.contains(NOTICED)
    })
    .await;
}

/// Waits until all links of the tree are verified equal, asked at the top.
async fn verified(fleet: &Fleet) {
    let said = found("all links are equal", async || {
        let said = fleet.cli(PREFECTURE, &["verify", "--tree"]).await;
        (said.code == 0).then_some(said)
    })
    .await;
    said.shows(&["equal 一致", "3 of 3 links are equal"]);
}

/// What a node's audit log has of links that were repaired.
async fn audit(fleet: &Fleet, node: &str) -> Done {
    fleet.cli(node, &["audit", "show", "--limit", "1000"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_vanished_from_a_file_is_noticed_brought_back_and_proven_equal() {
    let mut fleet = tree().await;
    verified(&fleet).await;
    for (node, both_ends) in [(TOWNSHIP, [TOWNSHIP, COUNTY]), (COUNTY, [COUNTY, PREFECTURE])] {
        let before = everything(&fleet).await;
        stop(&mut fleet, node).await;
        let lost = format!("DELETE FROM record WHERE id = '2' AND home = {}", division(TOWNSHIP));
        assert_eq!(change(&fleet, node, &lost).await, 1);
        noticed(&mut fleet, node).await;
        until("it is back", async || fleet.record(node, &name(TOWNSHIP, "2")).await.is_some()).await;
        verified(&fleet).await;
        for end in both_ends {
            audit(&fleet, end).await.exits(0).shows(&["link_repaired", "link_verified"]);
        }
        for node in NODES {
            fleet.cli(node, &["recount"]).await.exits(0);
        }
        let after = everything(&fleet).await;
        if node == COUNTY {
            assert_eq!(after, before);
            continue;
        }
        // What never left the township is in nobody's hands.
        let of_it = (TOWNSHIP, name(TOWNSHIP, "2"));
        let differs: Vec<_> = before.iter().filter(|(key, was)| after.get(*key) != Some(*was)).collect();
        assert!(differs.iter().all(|(key, _)| **key == of_it), "{differs:?}");
        let case: v1::Case = fleet.shown(TOWNSHIP, &of_it.1).await.unwrap();
        assert_eq!((case.title(), case.risk(), case.parties.len()), ("甲", v1::CaseRisk::Red, 0));
        // Said again, so that what follows compares with a whole record.
        let party = v1::Party { name: "当事人".to_owned(), ..v1::Party::default() };
        let again = v1::Case { parties: vec![party], ..v1::Case::default() };
        fleet.write(TOWNSHIP, &of_it.1, &again).await.unwrap();
        fleet.equal().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_was_altered_in_a_file_is_noticed_and_put_right() {
    let mut fleet = tree().await;
    let before = everything(&fleet).await;
    stop(&mut fleet, COUNTY).await;
    // 甲 to 乙, under the same stamp: of the two the greater bytes stand, everywhere.
    let altered = format!(
        "UPDATE record SET state = unhex(replace(hex(state), 'E794B2', 'E4B999')) WHERE id = '3' AND home = {}",
        division(NEIGHBOUR)
    );
    assert_eq!(change(&fleet, COUNTY, &altered).await, 1);
    noticed(&mut fleet, COUNTY).await;
    verified(&fleet).await;
    until("it is as it was", async || everything(&fleet).await == before).await;
    audit(&fleet, NEIGHBOUR).await.exits(0).shows(&["link_repaired", "link_verified"]);
    let fork = fleet.cli(COUNTY, &["status"]).await;
    fork.exits(3).shows(&["one stamp came with two contents"]);
}

/// A disk that takes everything but this record: both ends go on saying that they differ until it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_brought_back_is_said_to_differ_until_it_is() {
    let mut fleet = tree().await;
    let before = everything(&fleet).await;
    stop(&mut fleet, COUNTY).await;
    let lost = format!("DELETE FROM record WHERE id = '1' AND home = {}", division(TOWNSHIP));
    assert_eq!(change(&fleet, COUNTY, &lost).await, 1);
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON record WHEN NEW.id = '1'
        BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    change(&fleet, COUNTY, refuse).await;
    noticed(&mut fleet, COUNTY).await;
    for end in [COUNTY, TOWNSHIP] {
        let peer = if end == COUNTY { TOWNSHIP } else { COUNTY };
        let said = found("the ends are said to differ", async || {
            let said = fleet.cli(end, &["verify", "--link", peer]).await;
            (said.code == 3 && said.out.contains(" records differ 条不一致")).then_some(said)
        })
        .await;
        said.shows(&["220822101000 → 220822000000", "0 of 1 links are equal"]);
        let link = fleet.link(end, peer).await.unwrap();
        assert_eq!(link.equality.unwrap().state(), v1::EqualityState::Differs);
    }
    // The other township has nothing to do with it.
    until("its link is equal", async || fleet.cli(NEIGHBOUR, &["verify"]).await.code == 0).await;
    stop(&mut fleet, COUNTY).await;
    change(&fleet, COUNTY, "DROP TRIGGER refuse").await;
    fleet.tree.start(division(COUNTY)).await.unwrap();
    verified(&fleet).await;
    until("it is as it was", async || everything(&fleet).await == before).await;
}
