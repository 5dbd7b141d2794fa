//! Where a record is, asked over real processes of four tiers while a line between two of them is cut.

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
