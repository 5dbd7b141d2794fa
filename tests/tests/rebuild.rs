//! Nodes that lost their stores: emptied ones of every tier are filled again by their neighbours and say what cannot come
//! back; a damaged file is noticed and named, nothing more is written to it, and one command sets it aside.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Done, Fleet, division, found, run, until};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};

const PROVINCE: &str = "22";
const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";
const NEIGHBOUR: &str = "220822102";

/// Province, county and two townships: a tier is missing, as it may be.
async fn tree() -> Fleet {
    let [province, county, township, neighbour] = [PROVINCE, COUNTY, TOWNSHIP, NEIGHBOUR].map(division);
    Fleet::start([
        NodeSpec::top(province),
        NodeSpec::below(province, county),
        NodeSpec::below(county, township),
        NodeSpec::below(county, neighbour),
    ])
    .await
}

fn name(home: &str, id: &str) -> String {
    format!("divisions/{}/cases/{id}", division(home))
}

/// A case with a field for each way up: to the province, to the county, and none.
fn case(title: &str) -> v1::Case {
    let party = v1::Party { name: "当事人".to_owned(), ..v1::Party::default() };
    v1::Case {
        case_kind: Some(1),
        title: Some(title.to_owned()),
        risk: Some(v1::CaseRisk::Red.into()),
        parties: vec![party],
        ..v1::Case::default()
    }
}

fn store(fleet: &Fleet, node: &str) -> PathBuf {
    fleet.tree.node_dir(division(node)).join("guantong.db")
}

/// Two cases of each township and one of the county itself, everywhere they may be.
async fn fill(fleet: &Fleet) {
    for home in [TOWNSHIP, NEIGHBOUR] {
        for id in ["1", "2"] {
            fleet.write(home, &name(home, id), &case("甲")).await.unwrap();
        }
    }
    fleet.write(COUNTY, &name(COUNTY, "1"), &case("县")).await.unwrap();
    fleet.equal().await;
}

/// Of a grant that was given before a node lost its store.
const BEFORE: &str = "partner-of-before";

async fn grant(fleet: &Fleet, node: &str) {
    let scope = division(node).to_string();
    fleet
        .cli(node, &["grant", "set", BEFORE, "--scope", &scope, "--level", "write", "--kind", "case"])
        .await
        .exits(0);
    let audit = fleet.cli(node, &["audit", "show", "--limit", "1000"]).await.out;
    assert!(audit.contains(BEFORE), "{audit}");
}

/// Stops a node and takes its store away, as a new disk would.
async fn empty(fleet: &mut Fleet, node: &str) {
    fleet.tree.stop(division(node)).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", store(fleet, node).display()));
    }
    fleet.tree.start(division(node)).await.unwrap();
}

/// Waits until a node has been filled again and knows what it lost.
async fn recovered(fleet: &Fleet, node: &str) -> v1::Recovery {
    fleet.equal().await;
    found(&format!("{node} has recovered"), async || {
        fleet.status(node).await.recovery.filter(|r| r.end_time.is_some() && !r.losses.is_empty())
    })
    .await
}

async fn has(fleet: &Fleet, node: &str, home: &str, id: &str) -> v1::Case {
    let shown = fleet.shown(node, &name(home, id)).await;
    shown.unwrap_or_else(|| panic!("{node} has no {}", name(home, id)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_township_is_filled_by_its_county_and_says_what_is_lost() {
    let mut fleet = tree().await;
    fill(&fleet).await;
    grant(&fleet, TOWNSHIP).await;
    empty(&mut fleet, TOWNSHIP).await;
    let recovery = recovered(&fleet, TOWNSHIP).await;
    assert_eq!(recovery.cause(), v1::RecoveryCause::Emptied);
    for id in ["1", "2"] {
        let case = has(&fleet, TOWNSHIP, TOWNSHIP, id).await;
        assert_eq!((case.title(), case.risk()), ("甲", v1::CaseRisk::Red), "what the county may hold");
        assert!(case.parties.is_empty(), "what it may not");
    }
    let loss = recovery.losses.iter().find(|loss| loss.kind == "case" && loss.field_name == "parties");
    assert_eq!(loss.unwrap().record_count, Some(2), "{:?}", recovery.losses);
    assert!(!recovery.losses.iter().any(|loss| loss.field_name == "risk"), "{:?}", recovery.losses);
    let shown = fleet.cli(TOWNSHIP, &["status"]).await;
    shown.shows(&["recovered 已恢复", "began empty", "cannot come back", "parties 当事人"]);
    let audit = fleet.cli(TOWNSHIP, &["audit", "show", "--limit", "1000"]).await.out;
    assert!(!audit.contains(BEFORE), "the log begins anew: {audit}");
    fleet.cli(TOWNSHIP, &["status"]).await.shows(&["the audit log of before", "此前的审计日志"]);
    // It works on, and nothing of it is taken for the node's former self.
    fleet.write(TOWNSHIP, &name(TOWNSHIP, "3"), &case("乙")).await.unwrap();
    until("the province has it", async || {
        let shown = fleet.shown::<v1::Case>(PROVINCE, &name(TOWNSHIP, "3")).await;
        shown.is_some_and(|case| case.risk() == v1::CaseRisk::Red)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_county_is_filled_from_above_and_below() {
    let mut fleet = tree().await;
    fill(&fleet).await;
    grant(&fleet, COUNTY).await;
    empty(&mut fleet, COUNTY).await;
    let recovery = recovered(&fleet, COUNTY).await;
    assert_eq!(recovery.cause(), v1::RecoveryCause::Emptied);
    for home in [TOWNSHIP, NEIGHBOUR] {
        for id in ["1", "2"] {
            let case = has(&fleet, COUNTY, home, id).await;
            assert_eq!((case.title(), case.risk()), ("甲", v1::CaseRisk::Red), "the townships had all of it");
        }
    }
    let own = has(&fleet, COUNTY, COUNTY, "1").await;
    assert_eq!(
        (own.title(), own.risk()),
        ("", v1::CaseRisk::Red),
        "of its own only what the province may hold"
    );
    let loss = recovery.losses.iter().find(|loss| loss.kind == "case" && loss.field_name == "title");
    assert_eq!(loss.unwrap().record_count, Some(1), "{:?}", recovery.losses);
    assert!(!fleet.cli(COUNTY, &["grant", "list"]).await.exits(0).out.contains(BEFORE), "nobody else had it");
    fleet.cli(COUNTY, &["status"]).await.shows(&[
        "grants, invitations, subscriptions",
        "give grants anew",
        "请重新授权",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_province_is_filled_by_its_children() {
    let mut fleet = tree().await;
    fill(&fleet).await;
    // Written above: lost with the province, and given back by those below.
    let risk = v1::Case { risk: Some(v1::CaseRisk::Blue.into()), ..v1::Case::default() };
    fleet.write(PROVINCE, &name(TOWNSHIP, "1"), &risk).await.unwrap();
    fleet.equal().await;
    let shown = has(&fleet, PROVINCE, TOWNSHIP, "1").await.risk();
    empty(&mut fleet, PROVINCE).await;
    let recovery = recovered(&fleet, PROVINCE).await;
    assert_eq!(has(&fleet, PROVINCE, TOWNSHIP, "1").await.risk(), shown);
    assert_eq!(has(&fleet, PROVINCE, COUNTY, "1").await.risk(), v1::CaseRisk::Red);
    assert!(recovery.losses.iter().any(|loss| loss.kind == "threshold" && loss.field_name.is_empty()));
    fleet.cli(PROVINCE, &["status"]).await.shows(&["recovered 已恢复", "of this division itself"]);
}

/// Writes over the first page of a table or index.
async fn damage(path: &PathBuf, of: &str) {
    let mut conn = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let row = sqlx::query("SELECT rootpage FROM sqlite_schema WHERE name = ?").bind(of);
    let page: i64 = row.fetch_one(&mut conn).await.unwrap().get(0);
    conn.close().await.unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let at = (page as usize - 1) * 4096;
    bytes[at..at + 4096].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

async fn rebuild(fleet: &Fleet, node: &str, more: &[&str]) -> Done {
    let config = fleet.tree.config_path(division(node));
    let mut args = vec!["rebuild", "--config", config.to_str().unwrap(), "--json"];
    args.extend(more);
    run(&args).await
}

/// A township with something that it could not send yet.
async fn with_something_unsent() -> Fleet {
    let mut fleet = tree().await;
    fill(&fleet).await;
    let township = division(TOWNSHIP);
    fleet.tree.stop(township).await.unwrap();
    fleet.tree.set_environment(township, "GUANTONG_PARENT__ADDRESS", Some("127.0.0.1:9")).unwrap();
    fleet.tree.start(township).await.unwrap();
    fleet.write(TOWNSHIP, &name(TOWNSHIP, "unsent"), &case("未报")).await.unwrap();
    fleet.tree.stop(township).await.unwrap();
    fleet
}

/// Damage is noticed while the node runs, nothing more is written, and what nobody else has is saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_named_set_aside_and_filled_again() {
    let mut fleet = with_something_unsent().await;
    let township = division(TOWNSHIP);
    rebuild(&fleet, TOWNSHIP, &[]).await.exits(1).says(&["is sound", "nothing was changed"]);
    // Where nobody looks for long.
    damage(&store(&fleet, TOWNSHIP), "resolution").await;
    fleet.tree.start(township).await.unwrap();
    until("the damage is named", async || {
        let status = fleet.cli(TOWNSHIP, &["status"]).await;
        status.code == 3
            && ["damaged", "guantong restore", "guantong rebuild"].iter().all(|w| status.out.contains(w))
    })
    .await;
    let refused = fleet.write(TOWNSHIP, &name(TOWNSHIP, "4"), &case("丁")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::DataLoss, "{refused:?}");
    let file = fleet.path("no.backup").to_str().unwrap().to_owned();
    fleet.cli(TOWNSHIP, &["backup", &file]).await.exits(1).says(&["damaged"]);
    rebuild(&fleet, TOWNSHIP, &[]).await.exits(1).says(&["a node runs"]);
    fleet.tree.stop(township).await.unwrap();
    // Where the node looks at once.
    damage(&store(&fleet, TOWNSHIP), "record_name").await;
    let refused = fleet.tree.start(township).await.unwrap_err().to_string();
    assert!(refused.contains("file is damaged") && refused.contains("guantong rebuild"), "{refused}");

    let before = std::fs::read(store(&fleet, TOWNSHIP)).unwrap();
    let rebuilt = rebuild(&fleet, TOWNSHIP, &[]).await.exits(0).json();
    assert!(rebuilt["saved_whole"].as_u64().unwrap() >= 1, "{rebuilt}");
    assert!(rebuilt["saved_in_part"].as_u64().unwrap() >= 2, "parties stay at the township: {rebuilt}");
    let former = PathBuf::from(rebuilt["former_store"].as_str().unwrap());
    assert_eq!(std::fs::read(former).unwrap(), before, "the damaged file is kept as it was");
    fleet.tree.set_environment(township, "GUANTONG_PARENT__ADDRESS", None).unwrap();
    fleet.tree.start(township).await.unwrap();
    until("what was not sent has arrived", async || {
        fleet.shown::<v1::Case>(COUNTY, &name(TOWNSHIP, "unsent")).await.is_some()
    })
    .await;
    fleet.equal().await;
    for id in ["1", "2"] {
        let case = has(&fleet, TOWNSHIP, TOWNSHIP, id).await;
        assert_eq!((case.title(), case.risk(), case.parties.len()), ("甲", v1::CaseRisk::Red, 1));
    }
    fleet.cli(TOWNSHIP, &["recount"]).await.exits(0);
    let audit = fleet.cli(TOWNSHIP, &["audit", "show", "--limit", "1000"]).await.out;
    assert!(audit.contains("store_rebuilt"), "{audit}");
}

/// A file that does not even begin as a database is named at the start, and set aside; what is unreadable is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_beginning_is_gone_is_refused_and_set_aside() {
    let mut fleet = tree().await;
    fill(&fleet).await;
    fleet.tree.stop(division(TOWNSHIP)).await.unwrap();
    let path = store(&fleet, TOWNSHIP);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..200].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let refused = fleet.tree.start(division(TOWNSHIP)).await.unwrap_err().to_string();
    assert!(
        refused.contains("its beginning is damaged") && refused.contains("guantong rebuild"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was done to it");
    let rebuilt = rebuild(&fleet, TOWNSHIP, &[]).await.exits(3).json();
    assert_eq!((&rebuilt["saved_whole"], &rebuilt["unreadable"]), (&0.into(), &1.into()), "{rebuilt}");
    fleet.tree.start(division(TOWNSHIP)).await.unwrap();
    recovered(&fleet, TOWNSHIP).await;
    assert_eq!(has(&fleet, TOWNSHIP, TOWNSHIP, "2").await.title(), "甲");
}

/// A disk changed what the log held that SQLite keeps beside its file. SQLite alone would take it for less than it was, and
/// say nothing: the node says it, and touches nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_named_and_set_aside() {
    let mut fleet = tree().await;
    fill(&fleet).await;
    let township = division(TOWNSHIP);
    fleet.tree.kill(township).await.unwrap();
    let path = store(&fleet, TOWNSHIP);
    let log = path.with_file_name("guantong.db-wal");
    let (file, whole) = (std::fs::read(&path).unwrap(), std::fs::read(&log).unwrap());
    assert!(whole.len() > 100_000, "{}", whole.len());
    let config = fleet.tree.config_path(township).to_str().unwrap().to_owned();
    for (at, said) in [(100, "the beginning of its log"), (whole.len() / 2, " of its log")] {
        let mut damaged = whole.clone();
        damaged[at - 100..at].fill(0xa5);
        std::fs::write(&log, &damaged).unwrap();
        run(&["serve", "--check", "--config", &config]).await.exits(1).says(&[
            said,
            "guantong rebuild",
            "数据文件已损坏",
        ]);
        let refused = fleet.tree.start(township).await.unwrap_err().to_string();
        assert!(refused.contains(said) && refused.contains("guantong rebuild"), "{refused}");
        assert!(
            std::fs::read(&log).unwrap() == damaged && std::fs::read(&path).unwrap() == file,
            "untouched"
        );
    }
    let damaged = std::fs::read(&log).unwrap();
    let rebuilt = rebuild(&fleet, TOWNSHIP, &[]).await.exits(0).json();
    assert!(rebuilt["damage"].as_str().unwrap().contains("of its log"), "{rebuilt}");
    let former = PathBuf::from(rebuilt["former_store"].as_str().unwrap());
    let former_log = PathBuf::from(format!("{}-wal", former.display()));
    assert!(std::fs::read(&former).unwrap() == file && std::fs::read(former_log).unwrap() == damaged);
    fleet.tree.start(township).await.unwrap();
    recovered(&fleet, TOWNSHIP).await;
    assert_eq!(has(&fleet, TOWNSHIP, TOWNSHIP, "2").await.title(), "甲");
    // What a kill alone leaves is no damage.
    fleet.tree.kill(township).await.unwrap();
    fleet.tree.start(township).await.unwrap();
    fleet.equal().await;
}
