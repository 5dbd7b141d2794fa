//! Networks with no line between them, on real processes: a township and its county exchange by files that the command
//! line writes and reads, both ways, and then one way only.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use guantong::demo::tree::NodeSpec;
use guantong::identity::Subject;
use guantong::identity::pki::Validity;
use guantong_proto::v1;
use guantong_tests::harness::{Done, Fleet, Stray, division, run, until, write};
use serde_json::Value;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";

/// A county that is served, and a township beside it that never dials.
struct Apart {
    fleet: Fleet,
    township: Stray,
    dir: std::path::PathBuf,
}

impl Apart {
    async fn start(line: &str) -> Apart {
        let fleet = Fleet::start([NodeSpec::top(division(COUNTY))]).await;
        let dir = fleet.issue("township", Subject::Node(division(TOWNSHIP)), Validity::days(30));
        let config =
            format!("division = \"{TOWNSHIP}\"\n[parent]\ndivision = \"{COUNTY}\"\nline = \"{line}\"");
        let township = Stray::serve(&dir, &config);
        let mut apart = Apart { fleet, township, dir };
        apart.township.client().await;
        let card = apart.path("county.card");
        apart.county(&["bundle", "card", &card]).await.exits(0).shows(&["220822000000"]);
        apart.below(&["bundle", "accept", &card]).await.exits(0).shows(&["220822000000"]);
        apart
    }

    fn path(&self, name: &str) -> String {
        self.fleet.path(name).to_str().unwrap().to_owned()
    }

    async fn county(&self, args: &[&str]) -> Done {
        self.fleet.cli(COUNTY, args).await
    }

    async fn below(&self, args: &[&str]) -> Done {
        let socket = self.dir.join("sock");
        let mut all = args.to_vec();
        all.extend(["--socket", socket.to_str().unwrap()]);
        run(&all).await
    }

    async fn write(&mut self, id: &str) -> String {
        let name = format!("divisions/220822101000/grids/{id}");
        let grid = v1::Grid { display_name: Some("第一网格".into()), ..v1::Grid::default() };
        write(&self.township.client().await, &name, &grid).await.unwrap();
        name
    }

    /// The township's link to its parent, as `status` shows it.
    async fn link(&self) -> Value {
        let status = self.below(&["status", "--json"]).await.json();
        status["links"]
            .as_array()
            .unwrap()
            .iter()
            .find(|link| link["peer_is_parent"] == true)
            .unwrap()
            .clone()
    }
}

fn owed(link: &Value) -> u64 {
    ["urgent_backlog", "normal_backlog", "bulk_backlog"].iter().map(|lane| link[lane].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_township_without_a_line_exchanges_with_its_county_by_files_both_ways() {
    let mut apart = Apart::start("bundle").await;
    let name = apart.write("220822101000001").await;
    let (up, down) = (apart.path("up.bundle"), apart.path("down.bundle"));
    let made = apart.below(&["bundle", "export", "--for", COUNTY, &up, "--json"]).await.exits(0).json();
    assert_eq!((made["number"].as_u64(), made["receiver"].as_str()), (Some(1), Some("220822000000")));
    apart.below(&["bundle", "show", &up]).await.exits(0).shows(&["220822101000", "220822000000", "1"]);
    let link = apart.link().await;
    assert_eq!(link["bundles"]["sent_number"], 1);
    assert_eq!(link["bundles"]["confirmed_number"], 0);
    assert!(owed(&link) > 0);

    let taken = apart.county(&["bundle", "import", &up, "--receipt", &down, "--json"]).await.exits(0).json();
    assert_eq!(taken["bundle"]["sender"], "220822101000");
    assert!(apart.fleet.record(COUNTY, &name).await.is_some());
    let again = apart.county(&["bundle", "import", &up]).await.exits(0);
    again.shows(&["taken in before"]);
    let done = apart.below(&["bundle", "import", &down, "--json"]).await.exits(0).json();
    assert!(done["bundle"]["delivered_count"].as_u64().unwrap() > 0, "{done}");
    let link = apart.link().await;
    assert_eq!(link["bundles"]["confirmed_number"], 1);
    apart.below(&["status"]).await.shows(&["confirmed 已确认 #1"]);

    // Down again: what the county writes of a case reaches the township, which has no line either.
    let case = "divisions/220822101000/cases/1";
    let written = v1::Case { title: Some("测试".into()), case_kind: Some(1), ..v1::Case::default() };
    write(&apart.township.client().await, case, &written).await.unwrap();
    apart.below(&["bundle", "export", "--for", COUNTY, &up]).await.exits(0);
    apart.county(&["bundle", "import", &up]).await.exits(0);
    let risk = v1::Case { risk: Some(v1::CaseRisk::Red.into()), ..v1::Case::default() };
    apart.fleet.write(COUNTY, case, &risk).await.unwrap();
    apart.county(&["bundle", "export", "--for", TOWNSHIP, &down]).await.exits(0);
    apart.below(&["bundle", "import", &down]).await.exits(0);
    let shown = apart.below(&["get", case, "--json"]).await.exits(0);
    assert!(shown.out.contains("CASE_RISK_RED"), "{shown:?}");
    let up = apart.path("up-2.bundle");
    apart.below(&["bundle", "export", "--for", COUNTY, &up]).await.exits(0);
    apart.county(&["bundle", "import", &up]).await.exits(0);
    until("the county's log says so", async || {
        let log = apart.county(&["audit", "show", "--json"]).await;
        log.out.contains("bundle_taken") && log.out.contains("bundle_made")
    })
    .await;
}

#[tokio::test]
async fn damaged_files_and_those_for_others_change_nothing_and_say_why() {
    let mut apart = Apart::start("bundle").await;
    let name = apart.write("220822101000001").await;
    let up = apart.path("up.bundle");
    apart.below(&["bundle", "export", "--for", COUNTY, &up]).await.exits(0);
    let whole = std::fs::read(&up).unwrap();
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    let altered = apart.fleet.file("altered.bundle", altered);
    apart.county(&["bundle", "import", &altered]).await.exits(1).says(&["数据包签名无效"]);
    let cut = apart.fleet.file("cut.bundle", &whole[..whole.len() - 10]);
    apart.county(&["bundle", "import", &cut]).await.exits(1).says(&["cut short"]);
    apart.below(&["bundle", "show", &cut]).await.exits(1).says(&["cut short"]);
    apart.below(&["bundle", "import", &up]).await.exits(1).says(&["this node made the bundle itself"]);
    let card = apart.fleet.file("no.card", "GTCARD1\nnonsense");
    apart.county(&["bundle", "accept", &card]).await.exits(1).says(&["not a card"]);
    assert!(apart.fleet.record(COUNTY, &name).await.is_none());
    let missing = apart.path("nowhere/up.bundle");
    apart.below(&["bundle", "export", "--for", COUNTY, &missing]).await.exits(1);
    assert!(!Path::new(&missing).exists());
    apart.below(&["bundle", "export", "--for", "2208", &up]).await.exits(1).says(&["neither"]);
    assert_eq!(std::fs::read(&up).unwrap(), whole, "what was there stays");
    apart.county(&["bundle", "import", &up]).await.exits(0);
}

#[tokio::test]
async fn a_one_way_line_is_shown_as_sent_and_never_as_confirmed() {
    let mut apart = Apart::start("one-way").await;
    let name = apart.write("220822101000001").await;
    for n in 1..=2 {
        let up = apart.path(&format!("up-{n}.bundle"));
        apart.below(&["bundle", "export", "--for", COUNTY, &up]).await.exits(0);
        apart.county(&["bundle", "import", &up]).await.exits(0);
    }
    assert!(apart.fleet.record(COUNTY, &name).await.is_some());
    let link = apart.link().await;
    assert_eq!(
        (link["bundles"]["one_way"].as_bool(), link["bundles"]["sent_number"].as_u64()),
        (Some(true), Some(2))
    );
    assert_eq!(link["bundles"]["confirmed_number"], 0);
    assert!(owed(&link) > 0, "each bundle is full");
    apart.below(&["status"]).await.shows(&["sent, unconfirmed 已发未确认 #2"]);
    let down = apart.path("down.bundle");
    apart.county(&["bundle", "export", "--for", TOWNSHIP, &down]).await.exits(1).says(&["only sends"]);
    apart.county(&["status"]).await.shows(&["receives only 单向接收 #2"]);
}
