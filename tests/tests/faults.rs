//! What goes wrong around a node: a full disk, a wrong clock, a configuration with a slip of the pen, two processes on
//! one store. The node says what is wrong, nothing is half done, and it goes on once it is put right.

#![allow(clippy::unwrap_used, clippy::panic)]

use guantong::demo::tree::NodeSpec;
use guantong::identity::Subject;
use guantong::identity::pki::{Request, Validity};
use guantong_proto::v1;
use guantong_tests::harness::clock::Clock;
use guantong_tests::harness::{self, Fleet, division, found, land, run, until};

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";

async fn county_and_township() -> Fleet {
    let county = division(COUNTY);
    Fleet::start([NodeSpec::top(county), NodeSpec::below(county, division(TOWNSHIP))]).await
}

fn name(id: u32) -> String {
    format!("divisions/220822101000/cases/{id}")
}

fn case(narrative: &str) -> v1::Case {
    v1::Case { case_kind: Some(1), narrative: Some(narrative.to_owned()), ..v1::Case::default() }
}

/// Writes large cases until the node's store is full, and gives the number that went in.
async fn fill(fleet: &Fleet, node: &str) -> u32 {
    let long = "长".repeat(10_000);
    for id in 0..10_000 {
        match fleet.write(node, &name(id), &case(&long)).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
                assert!(status.message().contains("the store has reached its limit"), "{status:?}");
                return id;
            }
        }
    }
    panic!("the store is never full")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_and_loses_nothing() {
    let mut fleet = county_and_township().await;
    let township = division(TOWNSHIP);
    fleet.tree.stop(township).await.unwrap();
    fleet.tree.set_environment(township, "GUANTONG_STORE_MAX_MIB", Some("2")).unwrap();
    fleet.tree.start(township).await.unwrap();
    fleet.linked(township).await;
    let before = fleet.status(COUNTY).await.record_count;
    let written = fill(&fleet, TOWNSHIP).await;
    assert!(written > 10, "{written} cases of 30 KB should fit into 2 MiB");
    let (another, narrative) = (name(70_000), format!("narrative={}", "长".repeat(10_000)));
    fleet.cli(TOWNSHIP, &["set", &another, &narrative]).await.exits(1).says(&["full", "nothing was lost"]);
    let count = async |node| {
        let listed = fleet.cli(node, &["export", "--kind", "case", "--format", "jsonl"]).await.exits(0);
        listed.out.lines().count()
    };
    assert_eq!(count(TOWNSHIP).await, written as usize, "reading goes on, and nothing is half written");
    assert!(fleet.record(TOWNSHIP, &name(written)).await.is_none());

    fleet.tree.stop(township).await.unwrap();
    fleet.tree.set_environment(township, "GUANTONG_STORE_MAX_MIB", None).unwrap();
    fleet.tree.start(township).await.unwrap();
    fleet.write(TOWNSHIP, &name(written), &case("短")).await.unwrap();
    until("all of them are at the county", async || {
        fleet.status(COUNTY).await.record_count > before + u64::from(written)
    })
    .await;
    fleet.equal().await;
}

/// A parent whose disk is full takes nothing more; its children keep what they owe, say why, and deliver it later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_parent_is_waited_for() {
    let mut fleet = county_and_township().await;
    let county = division(COUNTY);
    fleet.tree.stop(county).await.unwrap();
    fleet.tree.set_environment(county, "GUANTONG_STORE_MAX_MIB", Some("2")).unwrap();
    fleet.tree.start(county).await.unwrap();
    fleet.linked(division(TOWNSHIP)).await;
    let long = "长".repeat(10_000);
    for id in 0..100 {
        fleet.write(TOWNSHIP, &name(id), &case(&long)).await.unwrap();
    }
    let link = found("the link says that the parent is full", async || {
        let link = fleet.link(TOWNSHIP, COUNTY).await.unwrap();
        link.last_error.contains("full").then_some(link)
    })
    .await;
    assert!(link.normal_backlog + link.urgent_backlog + link.bulk_backlog > 0, "{link:?}");
    let shown = fleet.cli(TOWNSHIP, &["status"]).await;
    assert!(shown.out.contains("the store has reached its limit"), "{shown:?}");

    fleet.tree.stop(county).await.unwrap();
    fleet.tree.set_environment(county, "GUANTONG_STORE_MAX_MIB", None).unwrap();
    fleet.tree.start(county).await.unwrap();
    until("everything has arrived", async || fleet.record(COUNTY, &name(99)).await.is_some()).await;
    fleet.equal().await;
}

/// A clock that is a day ahead does not win: what it stamped waits, with the reason, and goes once the clock is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_is_noticed_and_put_right() {
    let Some(wrong) = land::later("+1d") else { return };
    let mut fleet = county_and_township().await;
    let township = division(TOWNSHIP);
    fleet.write(TOWNSHIP, &name(1), &case("甲")).await.unwrap();
    fleet.equal().await;
    fleet.tree.stop(township).await.unwrap();
    for (variable, value) in wrong {
        fleet.tree.set_environment(township, variable, Some(value)).unwrap();
    }
    fleet.tree.start(township).await.unwrap();
    fleet.linked(township).await;
    fleet
        .write(TOWNSHIP, &name(1), &v1::Case { narrative: Some("乙".into()), ..Default::default() })
        .await
        .unwrap();
    fleet.write(TOWNSHIP, &name(2), &case("丙")).await.unwrap();
    let refused = found("what was refused is shown", async || {
        let listed = fleet.cli(TOWNSHIP, &["quarantine", "list", "--json"]).await.json();
        let listed = listed["quarantined"].as_array().unwrap().clone();
        (listed.len() >= 2).then_some(listed)
    })
    .await;
    assert!(refused.iter().all(|q| q["reason"].as_str().unwrap().contains("FUTURE_STAMP")), "{refused:?}");
    let offset = fleet.link(COUNTY, TOWNSHIP).await.unwrap().clock_offset_ms;
    assert!((offset - 86_400_000).abs() < 60_000, "the county sees how wrong the clock is: {offset} ms");
    assert_eq!(fleet.shown::<v1::Case>(COUNTY, &name(1)).await.unwrap().narrative(), "甲");

    fleet.tree.stop(township).await.unwrap();
    for (variable, _) in wrong {
        fleet.tree.set_environment(township, variable, None).unwrap();
    }
    fleet.tree.start(township).await.unwrap();
    for (id, narrative) in [(1, "乙"), (2, "丙")] {
        until(&format!("case {id} has arrived"), async || {
            fleet.shown::<v1::Case>(COUNTY, &name(id)).await.is_some_and(|case| case.narrative() == narrative)
        })
        .await;
    }
    until("nothing is in quarantine", async || fleet.status(TOWNSHIP).await.quarantined_count == 0).await;
    fleet.equal().await;
    let conflicts = fleet.status(COUNTY).await.conflict_count;
    assert_eq!(conflicts, 0, "the same value stamped again is no conflict");
}

/// What a parent whose clock was behind refused goes by itself once that clock is set, although both run on and nobody
/// writes anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_behind_is_put_right_while_the_nodes_run() {
    let mut fleet = county_and_township().await;
    let county = division(COUNTY);
    let Some(clock) = Clock::new(fleet.path("clock")) else { return };
    clock.set("-1d");
    fleet.tree.stop(county).await.unwrap();
    for (variable, value) in clock.variables() {
        fleet.tree.set_environment(county, variable, Some(value)).unwrap();
    }
    fleet.tree.start(county).await.unwrap();
    fleet.linked(division(TOWNSHIP)).await;
    fleet.write(TOWNSHIP, &name(1), &case("甲")).await.unwrap();
    until("it is refused", async || fleet.status(TOWNSHIP).await.quarantined_count > 0).await;
    clock.set("+0");
    until("it has arrived", async || fleet.record(COUNTY, &name(1)).await.is_some()).await;
    until("nothing is in quarantine", async || fleet.status(TOWNSHIP).await.quarantined_count == 0).await;
    fleet.equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_with_what_is_its_own_or_not_at_all() {
    let mut fleet = county_and_township().await;
    let county = division(COUNTY);
    let config = fleet.tree.config_path(county).to_str().unwrap().to_owned();
    let second = run(&["serve", "--config", &config]).await;
    second.exits(1).says(&["another guantong is running on this store"]);
    assert!(fleet.link(TOWNSHIP, COUNTY).await.unwrap().connected, "the first goes on");

    // SIGTERM in the middle of things: all that was confirmed is there, and the exit status says so.
    let client = fleet.client(TOWNSHIP);
    let writing = tokio::spawn(async move {
        let mut confirmed = 0;
        while harness::write(&client, &name(confirmed), &case("甲")).await.is_ok() {
            confirmed += 1;
        }
        confirmed
    });
    until("it is at work", async || fleet.record(COUNTY, &name(20)).await.is_some()).await;
    fleet.tree.stop(division(TOWNSHIP)).await.unwrap();
    let confirmed = writing.await.unwrap();
    fleet.tree.start(division(TOWNSHIP)).await.unwrap();
    for id in 0..confirmed {
        assert!(fleet.record(TOWNSHIP, &name(id)).await.is_some(), "{id} of {confirmed} is lost");
    }
    fleet.equal().await;
    fleet.tree.stop(division(TOWNSHIP)).await.unwrap();

    slips_of_the_pen(&fleet).await;
    another_divisions_store(&fleet).await;
}

/// Each wrong key is named, with what to write instead.
async fn slips_of_the_pen(fleet: &Fleet) {
    let text = std::fs::read_to_string(fleet.tree.config_path(division(TOWNSHIP))).unwrap();
    for (from, to, says) in [
        ("division", "colour = 1\ndivision", &["colour", "there is no such key", "division"][..]),
        ("\"220822101000\"", "\"220822101001\"", &["division", "village"]),
        ("\"220822101000\"", "\"22082210\"", &["division"]),
        (
            "division = \"220822000000\"",
            "division = \"220881000000\"",
            &["parent.division", "does not lie inside"],
        ),
        ("127.0.0.1:", "127.0.0.1;", &["parent.address", "host:port"]),
    ] {
        let config = fleet.file("wrong.toml", text.replacen(from, to, 1));
        run(&["serve", "--config", &config]).await.exits(1).says(says);
    }
    run(&["serve", "--config", "nowhere.toml"]).await.exits(1).says(&["nowhere.toml"]);
}

/// A store keeps its division for ever.
async fn another_divisions_store(fleet: &Fleet) {
    let (own, other) = (fleet.tree.node_dir(division(TOWNSHIP)), fleet.path("other"));
    harness::copy_files(&own, &other);
    let request = Request::new(Subject::node(division("220822102")).unwrap(), Validity::days(1));
    fleet.tree.authority().issue(&request, &other, true).unwrap();
    let config = harness::stray_config(&other, "division = \"220822102\"");
    let refused = run(&["serve", "--config", config.to_str().unwrap()]).await;
    refused.exits(1).says(&["the store belongs to division 220822101000", "220822102000"]);
}

/// Whoever stops says so, and is not taken for a broken line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_says_so_to_its_parent_and_to_its_children() {
    let mut fleet = county_and_township().await;
    let (county, township) = (division(COUNTY), division(TOWNSHIP));
    fleet.tree.stop(township).await.unwrap();
    until("the county has heard it", async || {
        fleet.link(COUNTY, TOWNSHIP).await.is_some_and(|link| !link.connected)
    })
    .await;
    let link = fleet.link(COUNTY, TOWNSHIP).await.unwrap();
    assert_eq!(link.last_error, "the node stops", "{link:?}");
    fleet.tree.start(township).await.unwrap();
    fleet.linked(township).await;
    fleet.tree.stop(county).await.unwrap();
    // What the county said stands only until the next attempt, which may fail at once.
    until("the township has lost it", async || {
        fleet.link(TOWNSHIP, COUNTY).await.is_some_and(|link| !link.connected)
    })
    .await;
}
