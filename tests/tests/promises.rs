//! What the program promises, kept by real nodes over mutual TLS: records go up and corrections come down, a case is
//! handed over with its file, conflicts are listed and settled, a township gets a node of its own, and a node that is
//! killed in the middle of a transfer loses nothing.

#![allow(clippy::unwrap_used, clippy::panic)]

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Fleet, division, found, until};

const PROVINCE: &str = "22";
const PREFECTURE: &str = "2208";
const COUNTY: &str = "220822";
const BORN: &str = "220822101";
const OTHER: &str = "220822102";
const BYSTANDER: &str = "220822103";
const NEW: &str = "220822104";

async fn four_tiers() -> Fleet {
    let [province, prefecture, county] = [PROVINCE, PREFECTURE, COUNTY].map(division);
    let township = |code| NodeSpec::below(county, division(code));
    Fleet::start([
        NodeSpec::top(province),
        NodeSpec::below(province, prefecture),
        NodeSpec::below(prefecture, county),
        township(BORN).cuttable(),
        township(OTHER),
        township(BYSTANDER),
    ])
    .await
}

async fn case(fleet: &Fleet, node: &str, name: &str) -> Option<v1::Case> {
    fleet.shown(node, name).await
}

/// Registers a case as a township's own system would, with everything that a file has.
async fn register(fleet: &Fleet, node: &str, home: &str, id: &str) -> String {
    let home = division(home).to_string();
    let name = format!("divisions/{home}/cases/{id}");
    let fields = serde_json::json!({
        "case_kind": "CASE_KIND_DISPUTE",
        "category": "neighbours",
        "division": home,
        "received_on": { "year": 2026, "month": 3, "day": 1 },
        "title": "界墙纠纷",
        "narrative": "两家界墙位置有争议",
        "parties": [{ "role": "PARTY_ROLE_APPLICANT", "name": "张甲", "telephone": "0436-1000001" }],
        "lifecycle": { "state": "CASE_STATE_REPORTED", "holder": home },
    });
    let file = fleet.file(&format!("{id}.json"), fields.to_string());
    fleet.cli(node, &["set", &name, "--create", "--from", &file]).await.exits(0);
    fleet.cli(node, &["move", &name, "accept"]).await.exits(0);
    name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_move_through_four_tiers() {
    let mut fleet = four_tiers().await;
    let name = register(&fleet, BORN, BORN, "1").await;
    upward(&fleet, &name).await;
    downward(&fleet, &name).await;
    handed_over(&fleet, &name).await;
    conflicts(&mut fleet).await;
    acting_for_a_township(&mut fleet).await;
    fleet.equal().await;
}

/// Each tier gets what it may hold, and nothing else.
async fn upward(fleet: &Fleet, name: &str) {
    let accepted =
        |case: &v1::Case| case.lifecycle.as_ref().map(v1::Lifecycle::state) == Some(v1::CaseState::Accepted);
    let top = found("the province has the case as it was accepted", async || {
        case(fleet, PROVINCE, name).await.filter(accepted)
    })
    .await;
    assert_eq!(top.category.as_deref(), Some("neighbours"));
    assert_eq!((top.title, top.parties.len()), (None, 0), "file fields stay where the case is worked on");
    let county = case(fleet, COUNTY, name).await.unwrap();
    assert_eq!(county.title.as_deref(), Some("界墙纠纷"));
    assert!(county.parties.is_empty(), "the parties stay at the township");
    assert!(case(fleet, OTHER, name).await.is_none());
}

/// The county corrects a field, and the township sees it.
async fn downward(fleet: &Fleet, name: &str) {
    fleet.cli(COUNTY, &["set", name, "title=界墙位置纠纷"]).await.exits(0);
    until("the correction is at the township", async || {
        case(fleet, BORN, name).await.unwrap().title() == "界墙位置纠纷"
    })
    .await;
    let record = fleet.record(BORN, name).await.unwrap();
    assert!(record.conflicting_fields.is_empty(), "a correction of what was seen is no conflict");
}

/// Another township takes the case over with its file, works on it and concludes it.
async fn handed_over(fleet: &Fleet, name: &str) {
    let illegal = fleet.cli(BORN, &["move", name, "verify"]).await.exits(1);
    illegal.says(&["the state does not allow it", "Possible now", "transfer", "conclude"]);
    fleet.cli(BORN, &["move", name, "transfer", "--to", OTHER, "--reason", "beyond_means"]).await.exits(0);
    until("the file is at the other township", async || {
        case(fleet, OTHER, name).await.is_some_and(|case| case.parties.len() == 1)
    })
    .await;
    fleet.cli(OTHER, &["move", name, "accept"]).await.exits(0);
    let conclude = ["move", name, "conclude", "--succeeded", "true", "--method", "peoples"];
    fleet.cli(OTHER, &conclude).await.exits(0);
    for node in [BORN, COUNTY, PROVINCE] {
        until(&format!("{node} sees the conclusion"), async || {
            let case = case(fleet, node, name).await.unwrap();
            let lifecycle = case.lifecycle.clone().unwrap();
            lifecycle.state() == v1::CaseState::Concluded
                && lifecycle.holder == division(OTHER).to_string()
                && case.outcome.is_some_and(|outcome| outcome.succeeded == Some(true))
        })
        .await;
    }
    assert!(case(fleet, BYSTANDER, name).await.is_none(), "nobody else gets it");
    let county = case(fleet, COUNTY, name).await.unwrap();
    assert_eq!(county.parties.len(), 1, "the county lies between the two: the file passes through it");
    assert_eq!(case(fleet, PROVINCE, name).await.unwrap().parties.len(), 0);
}

/// Both sides of a cut line write; afterwards both values are listed at all tiers, and one decision settles it.
async fn conflicts(fleet: &mut Fleet) {
    let name = register(fleet, BORN, BORN, "2").await;
    until("the county has the case", async || case(fleet, COUNTY, &name).await.is_some()).await;
    fleet.tree.cut(division(BORN));
    until("both ends know that the line is cut", async || {
        let ends = [(BORN, COUNTY), (COUNTY, BORN)];
        let mut down = 0;
        for (node, peer) in ends {
            down += usize::from(!fleet.link(node, peer).await.unwrap().connected);
        }
        down == 2
    })
    .await;
    fleet.cli(BORN, &["set", &name, "risk=green"]).await.exits(0);
    fleet.cli(COUNTY, &["set", &name, "risk=red"]).await.exits(0);
    fleet.cli(BORN, &["conflicts", "list"]).await.exits(0);
    fleet.tree.mend(division(BORN));

    let conflict = format!("{name}/conflicts/risk");
    for node in [BORN, COUNTY, PROVINCE] {
        let listed = found(&format!("{node} lists the conflict"), async || {
            let listed = fleet.cli(node, &["conflicts", "list", "--json"]).await;
            (listed.code == 3).then_some(listed)
        })
        .await;
        let listed = listed.json()["conflicts"].clone();
        assert_eq!((listed.as_array().unwrap().len(), listed[0]["name"].as_str()), (1, Some(&*conflict)));
    }
    let shown = fleet.cli(COUNTY, &["conflicts", "show", &conflict, "--json"]).await.exits(0).json();
    let values = shown["values"].as_array().unwrap();
    let risks: Vec<&str> = values.iter().map(|value| value["value"].as_str().unwrap()).collect();
    assert_eq!(risks, ["CASE_RISK_RED", "CASE_RISK_GREEN"], "the higher tier's is shown meanwhile: {shown}");
    let writers: Vec<_> = values.iter().map(|value| value["writer_division"].as_str().unwrap()).collect();
    assert_eq!(writers, [division(COUNTY).to_string(), division(BORN).to_string()]);
    assert!(case(fleet, BORN, &name).await.unwrap().risk() == v1::CaseRisk::Red);

    fleet.cli(COUNTY, &["conflicts", "resolve", &conflict, "--keep", "1", "--json"]).await.exits(0);
    for node in [BORN, COUNTY, PROVINCE] {
        until(&format!("it is settled at {node}"), async || {
            fleet.cli(node, &["conflicts", "list"]).await.code == 0
                && case(fleet, node, &name).await.unwrap().risk() == v1::CaseRisk::Green
        })
        .await;
        let history = fleet.cli(node, &["conflicts", "list", "--resolved", "--json"]).await.exits(0).json();
        assert_eq!(
            history["conflicts"][0]["name"].as_str(),
            Some(&*conflict),
            "kept in the history: {history}"
        );
    }
    let again = fleet.cli(COUNTY, &["conflicts", "resolve", &conflict, "--keep", "0"]).await;
    assert_ne!(again.code, 0, "what is settled cannot be settled again: {again:?}");
}

/// The county acts for a township until it has a node; then that gets everything, and the county forgets what it may
/// not hold.
async fn acting_for_a_township(fleet: &mut Fleet) {
    let name = register(fleet, COUNTY, NEW, "3").await;
    let record = fleet.record(COUNTY, &name).await.unwrap();
    let writer = &record.origins.iter().find(|origin| origin.field > 1).unwrap().writer_division;
    assert_eq!(*writer, division(NEW).to_string(), "written as the home");
    assert_eq!(case(fleet, COUNTY, &name).await.unwrap().parties.len(), 1);
    fleet.tree.add(NodeSpec::below(division(COUNTY), division(NEW))).await.unwrap();
    fleet.tree.start(division(NEW)).await.unwrap();
    until("the new node has its case", async || {
        case(fleet, NEW, &name).await.is_some_and(|case| case.parties.len() == 1)
    })
    .await;
    until("the county has forgotten the parties", async || {
        case(fleet, COUNTY, &name).await.unwrap().parties.is_empty()
    })
    .await;
    assert_eq!(case(fleet, COUNTY, &name).await.unwrap().title.as_deref(), Some("界墙纠纷"));
    assert_eq!(case(fleet, NEW, &name).await.unwrap().parties.len(), 1);
    let refused = fleet.cli(COUNTY, &["set", &name, "title=甲", "--as", NEW]).await.exits(1);
    refused.says(&["cannot write as", "220822104000"]);
    fleet.cli(NEW, &["set", &name, "title=界墙"]).await.exits(0);
    until("what the new node writes comes up", async || {
        case(fleet, COUNTY, &name).await.unwrap().title() == "界墙"
    })
    .await;
}

/// Rows of the transfer that is interrupted: enough for it to take a while.
const ROWS: usize = 8_000;

fn cameras() -> String {
    let mut text = String::from("设备编码,所属区划,权属类型,点位类别,功能类型,点位名称,安装地址,管理单位\n");
    for n in 0..ROWS {
        text +=
            &format!("2208221010132{n:07},220822101000,社会,三类,车辆,测试点位{n},测试路{n}号,测试单位\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_in_a_transfer_loses_nothing() {
    let [prefecture, county, township] = [PREFECTURE, COUNTY, BORN].map(division);
    let mut fleet = Fleet::start([
        NodeSpec::top(prefecture),
        NodeSpec::below(prefecture, county),
        NodeSpec::below(county, township),
    ])
    .await;
    let count = async |node: &str| fleet.status(node).await.record_count;
    let before = [(COUNTY, count(COUNTY).await), (PREFECTURE, count(PREFECTURE).await)];
    let ledger = fleet.file("cameras.csv", cameras());
    let socket = fleet.tree.socket_path(township);
    let importing = tokio::spawn(async move {
        let args = ["import", "--kind", "camera", &*ledger, "--source", "police", "--json", "--socket"];
        let mut args = args.map(str::to_owned).to_vec();
        args.push(socket.to_str().unwrap().to_owned());
        guantong_tests::harness::run(&args).await
    });
    until("the transfer has begun", async || fleet.status(COUNTY).await.record_count > before[0].1 + 100)
        .await;
    fleet.tree.kill(county).await.unwrap();
    let at_top = fleet.status(PREFECTURE).await.record_count;
    assert!(at_top < before[1].1 + ROWS as u64, "everything was there before the kill: {at_top}");
    let summary = importing.await.unwrap().exits(0).json();
    assert_eq!(summary["created"], ROWS, "the township works on without its parent: {summary}");
    shows_what_is_wrong(&fleet).await;

    fleet.tree.start(county).await.unwrap();
    for (node, before) in before {
        // What nodes say of themselves comes on top.
        until(&format!("all cameras are at {node}"), async || {
            fleet.status(node).await.record_count >= before + ROWS as u64
        })
        .await;
    }
    fleet.equal().await;
    let link = fleet.link(BORN, COUNTY).await.unwrap();
    assert!(link.connected && link.attempt_count == 0 && link.next_attempt_time.is_none(), "{link:?}");
    let all = fleet.cli(BORN, &["status"]).await.exits(0);
    assert!(all.out.contains("up 已连接"), "{all:?}");
}

/// While the parent is down: how often it was tried, why in vain, when it is tried again, what is waiting.
async fn shows_what_is_wrong(fleet: &Fleet) {
    let link = found("attempts are counted", async || {
        let link = fleet.link(BORN, COUNTY).await.unwrap();
        let tried = link.attempt_count >= 2 && link.next_attempt_time.is_some();
        (tried && link.last_error.contains("nothing listens")).then_some(link)
    })
    .await;
    assert!(!link.connected && link.bulk_backlog > 0 && link.oldest_owed_time.is_some(), "{link:?}");
    let (failed, next) = (link.last_error_time.unwrap(), link.next_attempt_time.unwrap());
    assert!(next.seconds - failed.seconds <= 60, "no wait is longer than a minute: {failed:?} {next:?}");
    let shown = fleet.cli(BORN, &["status"]).await.exits(3);
    for part in ["down 已断开", "attempts 次尝试", "oldest to send"] {
        assert!(shown.out.contains(part), "«{part}» is not shown: {shown:?}");
    }
    assert!(fleet.status(PREFECTURE).await.links.iter().all(|link| !link.connected));
}

/// Every node says what it is; the top lists them all, and sees who has fallen silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_top_knows_its_fleet_and_to_when_everything_is_in() {
    let [prefecture, county, township] = [PREFECTURE, COUNTY, BORN].map(division);
    let fleet = Fleet::start([
        NodeSpec::top(prefecture),
        NodeSpec::below(prefecture, county),
        NodeSpec::below(county, township),
    ])
    .await;
    let nodes = async || {
        let listed = fleet.cli(PREFECTURE, &["status", "--fleet", "--json"]).await.json();
        let nodes = listed["nodes"].as_array().unwrap().clone();
        nodes.into_iter().map(|n| n["division"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("all three are listed", async || {
        nodes().await == [prefecture, county, township].map(|d| d.to_string())
    })
    .await;
    let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    fleet
        .write(
            BORN,
            &format!("divisions/{township}/cases/1"),
            &v1::Case { case_kind: Some(1), ..Default::default() },
        )
        .await
        .unwrap();
    let through = async || {
        let complete = fleet.status(PREFECTURE).await.completeness.unwrap();
        complete.complete_through_time.map_or(0, |at| at.seconds)
    };
    until("the prefecture knows that everything is in", async || through().await > moment as i64).await;
    let shown = fleet.cli(PREFECTURE, &["status"]).await;
    assert!(shown.out.contains("complete to 数据完整至 2"), "{shown:?}");
}
