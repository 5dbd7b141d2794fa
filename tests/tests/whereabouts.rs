//! Where a record is, and how far its erasure has come, asked over real processes of four tiers while a line between two
//! of them is cut, or a node is down.

#![allow(clippy::unwrap_used, clippy::panic)]

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Done, Fleet, division, found};
use serde_json::Value;

const PROVINCE: &str = "22";
const PREFECTURE: &str = "2208";
const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
const NAME: &str = "divisions/220822101000/cases/1";

async fn four_tiers() -> Fleet {
    let [province, prefecture, county, township] = [PROVINCE, PREFECTURE, COUNTY, TOWNSHIP].map(division);
    Fleet::start([
        NodeSpec::top(province),
        NodeSpec::below(province, prefecture),
        NodeSpec::below(prefecture, county).cuttable(),
        NodeSpec::below(county, township),
    ])
    .await
}

/// What the command says at a node, once it says that it is so.
async fn located(fleet: &Fleet, node: &str, state: &str) -> Value {
    let what = format!("{node} says {state}");
    found(&what, async || {
        let said = fleet.cli(node, &["where", NAME, "--json"]).await;
        let said = if said.out.is_empty() { None } else { Some(said.json()) };
        said.filter(|said| said["state"] == state)
    })
    .await
}

fn of<'v>(said: &'v Value, list: &str, key: &str, division: &str) -> &'v Value {
    let listed = said[list].as_array().unwrap();
    listed.iter().find(|one| one[key] == division).unwrap_or_else(|| panic!("no {division} in {said:#}"))
}

fn link<'v>(said: &'v Value, child: &str) -> &'v Value {
    of(said, "links", "child_division", child)
}

fn place<'v>(said: &'v Value, node: &str) -> &'v Value {
    of(said, "places", "division", node)
}

async fn shown(fleet: &Fleet, node: &str) -> Done {
    fleet.cli(node, &["where", NAME]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_behind_a_cut_line_is_found_where_it_waits() {
    let mut fleet = four_tiers().await;
    let case = v1::Case { case_kind: Some(1), narrative: Some("邻里纠纷".into()), ..v1::Case::default() };
    fleet.write(TOWNSHIP, NAME, &case).await.unwrap();
    for node in [TOWNSHIP, PROVINCE] {
        located(&fleet, node, "LOCATE_STATE_EVERYWHERE").await;
    }
    fleet.tree.cut(division(COUNTY));
    let risk = v1::Case { risk: Some(v1::CaseRisk::Red.into()), ..v1::Case::default() };
    fleet.write(TOWNSHIP, NAME, &risk).await.unwrap();

    // The township says where it waits, in which lane, and since when the line is down.
    let said = found("the county says that its line is down", async || {
        let said = located(&fleet, TOWNSHIP, "LOCATE_STATE_ON_ITS_WAY").await;
        let end = &link(&said, "220822000000")["child"];
        (end["linked"] == false && end["waiting_lane"] == "LANE_URGENT").then_some(said)
    })
    .await;
    let upper = link(&said, "220822000000");
    assert_eq!(upper["state"], "RECORD_LINK_STATE_UNKNOWN");
    assert!(upper["child"]["waiting_since_time"].is_string() && upper["child"]["link_time"].is_string());
    assert_eq!(link(&said, "220822101000")["state"], "RECORD_LINK_STATE_SAME");
    assert_eq!(place(&said, "220800000000")["answer"], "NODE_ANSWER_NOT_LINKED");
    shown(&fleet, TOWNSHIP).await.exits(3).shows(&[
        "在途",
        "链路中断",
        "待发",
        "urgent 紧急",
        "220800000000",
    ]);

    // The province cannot know of it, and says through which link it could not ask.
    let said = located(&fleet, PROVINCE, "LOCATE_STATE_UNKNOWN").await;
    assert_eq!(place(&said, "220822000000")["answer"], "NODE_ANSWER_NOT_LINKED");
    assert_eq!(link(&said, "220800000000")["state"], "RECORD_LINK_STATE_SAME");
    assert_eq!(link(&said, "220822000000")["state"], "RECORD_LINK_STATE_UNKNOWN");
    shown(&fleet, PROVINCE).await.exits(3).shows(&["could not be asked 未能查询", "220822000000"]);

    fleet.tree.mend(division(COUNTY));
    for node in [TOWNSHIP, COUNTY, PREFECTURE, PROVINCE] {
        let said = located(&fleet, node, "LOCATE_STATE_EVERYWHERE").await;
        let held: Vec<bool> = said["places"].as_array().unwrap().iter().map(|p| p["held"] == true).collect();
        assert_eq!(held, [true; 4], "{said:#}");
        assert!(place(&said, "220000000000")["top"] == true);
    }
    let done = shown(&fleet, PROVINCE).await.exits(0);
    done.shows(&["已全部到达", "narrative", "按规定不上行"]);
    fleet
        .cli(COUNTY, &["where", "divisions/220822101000/cases/none"])
        .await
        .exits(1)
        .says(&["no divisions/"]);
}

/// What is said at a node about the erasure, once it is this far.
async fn erased(fleet: &Fleet, node: &str, spread: &str) -> Value {
    found(&format!("{node} says {spread}"), async || {
        let said = fleet.cli(node, &["erase", NAME, "--progress", "--json"]).await;
        let said = if said.out.is_empty() { None } else { Some(said.json()) };
        said.filter(|said| said["spread"] == spread)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tier_says_what_it_purged_and_a_node_that_is_down_when_it_is_back() {
    let mut fleet = four_tiers().await;
    let party = v1::Party { name: "张甲".into(), ..v1::Party::default() };
    let (title, parties) = (Some("邻里纠纷".into()), vec![party]);
    let case = v1::Case { case_kind: Some(1), title, parties, ..v1::Case::default() };
    fleet.write(TOWNSHIP, NAME, &case).await.unwrap();
    located(&fleet, PROVINCE, "LOCATE_STATE_EVERYWHERE").await;
    fleet.cli(COUNTY, &["erase", NAME, "--progress"]).await.exits(3).shows(&["nothing of it was erased"]);
    let backup = fleet.path("county.backup");
    fleet.cli(COUNTY, &["backup", backup.to_str().unwrap()]).await.exits(0);
    found("the county's log has the backup", async || {
        let said = fleet.cli(COUNTY, &["erase", NAME, "--progress"]).await.out;
        said.contains("220822000000: backups 备份: 1 made").then_some(())
    })
    .await;
    fleet.tree.kill(division(PREFECTURE)).await.unwrap();
    found("the county knows that the prefecture is down", async || {
        let link = fleet.link(COUNTY, PREFECTURE).await;
        link.filter(|link| !link.connected)
    })
    .await;

    let erase = ["erase", NAME, "--field", "title", "--field", "parties", "--reason", "test", "--yes"];
    fleet.cli(TOWNSHIP, &erase).await.exits(3).shows(&[
        "here: purged 2 values",
        "not every node has purged it yet 尚未全部清除",
        "220800000000 could not be asked 未能查询 since 自",
        "220800000000 is still owed it 待送达",
        "220822000000: backups 备份: 1 made",
        "exported files",
    ]);
    let said = erased(&fleet, TOWNSHIP, "ERASURE_SPREAD_ON_ITS_WAY").await;
    let purged = |said: &Value, node: &str| place(said, node)["purged"]["value_count"].as_u64();
    for (node, values) in [("220822101000", 2), ("220822000000", 1)] {
        assert_eq!(place(&said, node)["state"], "ERASURE_PLACE_STATE_PURGED");
        assert_eq!(purged(&said, node), Some(values), "the party was never above the township");
    }
    let down = place(&said, "220800000000");
    assert_eq!(down["answer"], "NODE_ANSWER_NOT_LINKED");
    assert!(down["since_time"].is_string() && down["reason"].is_string(), "{down:#}");
    // From above nobody knows of it yet, and it is said who could not be asked.
    let said = erased(&fleet, PROVINCE, "ERASURE_SPREAD_UNKNOWN").await;
    assert_eq!(place(&said, "220800000000")["answer"], "NODE_ANSWER_NOT_LINKED");

    fleet.tree.start(division(PREFECTURE)).await.unwrap();
    for node in [TOWNSHIP, COUNTY, PREFECTURE, PROVINCE] {
        let said = erased(&fleet, node, "ERASURE_SPREAD_EVERYWHERE").await;
        let states: Vec<bool> = said["places"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["state"] == "ERASURE_PLACE_STATE_PURGED")
            .collect();
        assert_eq!(states, [true; 4], "{said:#}");
        assert!(place(&said, "220800000000")["purge_time"].is_string());
    }
    let done = fleet.cli(PROVINCE, &["erase", NAME, "--progress"]).await.exits(0);
    done.shows(&["every node has purged it 各级均已清除", "220822101000", "220822000000: backups"]);
}
