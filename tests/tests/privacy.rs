//! Known texts are planted in every personal and every text field at a township of a real tree, by the interface and by
//! ledgers, and searched for byte by byte in whatever the nodes keep and give away: stores with their unused bytes and
//! logs, the nodes' logs at their most talkative, traces, exports, figures, reports, files of subscribers, bundles, and
//! what nodes say of themselves. Where they may be follows from the contract's rules. Then a case is sealed, and in the end
//! everything is erased.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use guantong::demo::tree::NodeSpec;
use guantong::identity::Subject;
use guantong::identity::pki::Validity;
use guantong_gateway::division::Tier;
use guantong_proto::rules::Kind;
use guantong_proto::v1;
use guantong_tests::harness::collector::Collector;
use guantong_tests::harness::garden::{CAMERA, Garden, STORE, TOWNSHIP, contents, occurs};
use guantong_tests::harness::{Done, Fleet, Stray, division, run, until, write};
use prost_reflect::{DescriptorPool, Kind as Type};

const COUNTY: &str = "220822";
const PREFECTURE: &str = "2208";
const PROVINCE: &str = "22";
const TIERS: [&str; 4] = [TOWNSHIP, COUNTY, PREFECTURE, PROVINCE];
/// For a node to hold what it may and nothing else; less than the limit of `until`, to say what is wrong.
const SETTLED_MAX: Duration = Duration::from_secs(50);
const KINDS: [&str; 3] = ["grid", "case", "camera"];

/// Texts that say nothing of anyone: codes, divisions, names of records, and what goes with them.
const CODES: &[(&str, &str)] = &[
    ("grid", "grid_code"),
    ("grid", "division"),
    ("grid", "boundary"),
    ("case", "category"),
    ("case", "division"),
    ("case", "grid_code"),
    ("case", "lifecycle"),
    ("case", "supervision"),
    ("case", "steps"),
    ("case", "duplicate_of"),
    ("case", "reopened_from"),
    ("camera", "device_id"),
    ("camera", "division"),
];
/// Marks of erasures hold an id alone.
const MARKS: &str = "erased";

struct Scene {
    fleet: Fleet,
    collector: Collector,
    garden: Garden,
}

/// Four tiers that log and trace all that they can.
async fn scene() -> Scene {
    let collector = Collector::start().await;
    let [township, county, prefecture, province] = TIERS.map(division);
    let talkative = |spec: NodeSpec| {
        spec.environment("GUANTONG_LOG__LEVEL", "trace")
            .environment("GUANTONG_TELEMETRY__OTLP_ENDPOINT", collector.address())
    };
    let fleet = Fleet::start([
        talkative(NodeSpec::top(province)),
        talkative(NodeSpec::below(province, prefecture)),
        talkative(NodeSpec::below(prefecture, county)),
        talkative(NodeSpec::below(county, township)),
    ])
    .await;
    Scene { fleet, collector, garden: Garden::default() }
}

impl Scene {
    /// Plants by the interface and by ledgers.
    async fn plant(&mut self) {
        let (fleet, garden) = (&self.fleet, &mut self.garden);
        let name = garden.enter("grid", "220822101000001", Tier::Township);
        fleet.write(TOWNSHIP, &name, &garden.grid()).await.unwrap();
        let name = garden.enter("camera", CAMERA, Tier::Township);
        fleet.write(TOWNSHIP, &name, &garden.camera()).await.unwrap();
        for (id, handed_to) in [("kept", Tier::Township), ("handed", Tier::Prefecture)] {
            let name = garden.enter("case", id, handed_to);
            fleet.write(TOWNSHIP, &name, &garden.reported()).await.unwrap();
            fleet.cli(TOWNSHIP, &["move", &name, "accept"]).await.exits(0);
            fleet.write(TOWNSHIP, &name, &garden.handled()).await.unwrap();
        }
        garden.enter("grid", "220822101000002", Tier::Township);
        let [title, chief, telephone] = [("display_name", false), ("contact", false), ("contact", true)]
            .map(|(field, digits)| garden.plant("grid", field, digits));
        let ledger = format!(
            "网格编码,所属区划,网格名称,网格长,联系电话\n220822101000002,220822101000,{title},{chief},{telephone}\n"
        );
        import(fleet, "grid", &ledger).await;
        garden.enter("case", "2026-0001", Tier::Township);
        let [title, party] = ["title", "parties"].map(|field| garden.plant("case", field, false));
        let ledger = format!(
            "编号,事件类型,类别,来源,所属区划,受理日期,标题,状态,当事人\n\
             2026-0001,纠纷,邻里纠纷,网格员,220822101,2026/3/1,{title},办理中,{party}\n"
        );
        import(fleet, "case", &ledger).await;
        // The program gives cases of ledgers names of its own.
        let request = v1::ListRecordsRequest {
            parent: format!("divisions/{}", division(TOWNSHIP)),
            kind: "case".into(),
            ..v1::ListRecordsRequest::default()
        };
        let cases = fleet.client(TOWNSHIP).records().list_records(request).await.unwrap().into_inner();
        let imported = cases.records.into_iter().find(|case| occurs(&case.fields, &title)).unwrap();
        let planted = garden.planted.iter_mut().filter(|planted| planted.record == garden.record);
        planted.for_each(|planted| planted.record.clone_from(&imported.name));
    }

    /// The case goes up to the prefecture, is concluded there, and ends.
    async fn hand_on(&self) {
        let name = format!("divisions/{}/cases/handed", division(TOWNSHIP));
        for (from, to) in [(TOWNSHIP, COUNTY), (COUNTY, PREFECTURE)] {
            let escalate = ["move", &name, "escalate", "--to", to, "--reason", "beyond_means"];
            self.fleet.cli(from, &escalate).await.exits(0);
            until(&format!("the case is at {to}"), async || {
                let case = self.fleet.shown::<v1::Case>(to, &name).await;
                case.is_some_and(|case| !case.parties.is_empty())
            })
            .await;
            self.fleet.cli(to, &["move", &name, "accept"]).await.exits(0);
        }
        let conclude = ["move", &name, "conclude", "--succeeded", "true", "--method", "peoples"];
        self.fleet.cli(PREFECTURE, &conclude).await.exits(0);
        self.fleet.cli(PREFECTURE, &["move", &name, "verify"]).await.exits(0);
    }

    fn folder(&self, node: &str) -> PathBuf {
        self.fleet.tree.node_dir(division(node))
    }

    /// What is found in a node's store, its unused bytes and its log included.
    fn stored(&self, node: &str) -> BTreeSet<&str> {
        let bytes = contents(&self.folder(node), &STORE);
        assert!(occurs(&bytes, "SQLite format 3"), "the store is there");
        self.found(&bytes)
    }

    fn found(&self, bytes: &[u8]) -> BTreeSet<&str> {
        self.garden.found(bytes)
    }

    fn allowed(&self, node: &str, sealed: bool) -> BTreeSet<&str> {
        self.garden.allowed(division(node).tier(), |record| sealed && record.ends_with("/handed"))
    }

    /// Waits until each node's store holds what it may, all of it and nothing else.
    async fn stores_hold(&self, what: &str, expected: impl Fn(&str) -> BTreeSet<String>) {
        for node in TIERS {
            let expected = expected(node);
            let stored = || owned(self.stored(node));
            let settled = until(what, async || stored() == expected);
            if tokio::time::timeout(SETTLED_MAX, settled).await.is_err() {
                let found = stored();
                let too_much: Vec<String> = found.difference(&expected).map(|t| self.place(t)).collect();
                let missing: Vec<String> = expected.difference(&found).map(|t| self.place(t)).collect();
                panic!("{node}, {what}: too much {too_much:#?}, missing {missing:#?}");
            }
        }
    }

    fn place(&self, text: &str) -> String {
        let planted = self.garden.planted.iter().find(|planted| planted.text == text).unwrap();
        format!("{} of {}", planted.field, planted.record)
    }

    /// What a node gives away: exports, a subscriber's files and backups hold what the node may hold, figures and reports
    /// nothing.
    async fn outputs(&self, node: &str, round: &str, expected: &BTreeSet<&str>) {
        let mut records = Vec::new();
        for kind in KINDS {
            let export = ["export", "--kind", kind, "--format", "jsonl"];
            records.extend(self.fleet.cli(node, &export).await.exits(0).out.into_bytes());
        }
        assert_eq!(&self.found(&records), expected, "{node}, {round}: exports");
        let folder = self.fleet.path(&format!("{node}-{round}"));
        let to = folder.to_str().unwrap();
        let name = format!("feed-{round}");
        let feed = ["subscribe", &name, "--once", "--personal-data", "--to", to, "--format", "jsonl"];
        self.fleet.cli(node, &feed).await.exits(0);
        assert_eq!(&self.found(&contents(&folder, &[])), expected, "{node}, {round}: a subscriber's files");
        let backup = self.fleet.path(&format!("{node}-{round}.backup"));
        self.fleet.cli(node, &["backup", backup.to_str().unwrap()]).await.exits(0);
        assert_eq!(&self.found(&std::fs::read(backup).unwrap()), expected, "{node}, {round}: backups");
        let figures = ["aggregates", "cases_received", "grids", "--period", "2026-03", "--export", "csv"];
        let figures = self.fleet.cli(node, &figures).await.out;
        let report = self.fleet.path(&format!("{node}-{round}-report"));
        std::fs::create_dir_all(&report).unwrap();
        let page = report.join("r.html");
        let made = ["report", "--period", "2026-03", "--format", "html", "--out", page.to_str().unwrap()];
        let made = self.fleet.cli(node, &made).await;
        let all = [figures.as_bytes(), made.out.as_bytes(), &contents(&report, &[])].concat();
        assert!(figures.contains("2026"), "{figures}");
        assert_eq!(self.found(&all), BTreeSet::new(), "{node}, {round}: figures and reports");
        self.measured(node, round).await;
    }

    /// What a node says of itself and of its records, for people and for programs that watch it, holds none of it: its
    /// state, its links, where a record is and what was erased, its audit log.
    async fn measured(&self, node: &str, round: &str) {
        let case = format!("divisions/{}/cases/handed", division(TOWNSHIP));
        let log = self.fleet.path(&format!("{node}-{round}.jsonl"));
        let mut said = Vec::new();
        for asked in [
            &["status", "--json"][..],
            &["verify", "--json"],
            &["where", &case, "--json"],
            &["erase", &case, "--progress", "--json"],
            &["audit", "export", log.to_str().unwrap()],
        ] {
            let Done { out, err, .. } = self.fleet.cli(node, asked).await;
            assert!(!out.is_empty(), "{asked:?}: {err}");
            said.extend([out.into_bytes(), err.into_bytes()].concat());
        }
        let log = std::fs::read(log).unwrap();
        assert!(occurs(&log, "backup") || occurs(&log, "link_up"), "the log is one");
        assert_eq!(self.found(&[said, log].concat()), BTreeSet::new(), "{node}, {round}: what is measured");
    }

    /// Logs and traces never hold any of it, at any tier.
    fn nothing_is_told(&self) {
        for node in TIERS {
            let log = contents(&self.folder(node), &["node.log"]);
            assert!(occurs(&log, "TRACE"), "the log of {node} is at its most talkative");
            assert_eq!(self.found(&log), BTreeSet::new(), "the log of {node}");
        }
        assert_eq!(self.found(&self.collector.bytes()), BTreeSet::new(), "traces");
    }
}

async fn import(fleet: &Fleet, kind: &str, ledger: &str) {
    let file = fleet.file("ledger.csv", ledger);
    let import = ["import", "--kind", kind, &file, "--source", "office", "--crs", "cgcs2000"];
    fleet.cli(TOWNSHIP, &import).await.exits(0);
}

fn owned(texts: BTreeSet<&str>) -> BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// Whether a field holds text somewhere.
fn has_text(of: &Type) -> bool {
    match of {
        Type::String => true,
        Type::Message(message) => message.fields().any(|field| has_text(&field.kind())),
        _ => false,
    }
}

/// Every field of the contract that holds text, or says something about a person, is planted in, or known to hold codes.
fn nothing_is_left_out(garden: &Garden) {
    let pool = DescriptorPool::decode(guantong_proto::FILE_DESCRIPTOR_SET).unwrap();
    for kind in KINDS.map(|kind| Kind::by_name(kind).unwrap()) {
        let message = pool.get_message_by_name(kind.message).unwrap();
        for field in kind.fields.iter().filter(|field| field.name != MARKS) {
            let text = has_text(&message.get_field(field.number).unwrap().kind());
            let coded = CODES.contains(&(kind.name, field.name));
            let collection = format!("/{}/", kind.collection);
            let planted =
                garden.planted.iter().any(|p| p.field == field.name && p.record.contains(&collection));
            assert!(!coded || !field.personal, "{}.{} says something about a person", kind.name, field.name);
            assert_eq!(planted, (text || field.personal) && !coded, "{}.{}", kind.name, field.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planted_at_a_township_is_found_only_where_the_contract_lets_it_be() {
    let mut scene = scene().await;
    scene.plant().await;
    nothing_is_left_out(&scene.garden);
    scene.hand_on().await;
    scene.fleet.equal().await;
    scene.stores_hold("handed on", |node| owned(scene.allowed(node, false))).await;
    for node in TIERS {
        scene.outputs(node, "handed", &scene.allowed(node, false)).await;
    }
    until("traces come", async || occurs(&scene.collector.bytes(), "guantong")).await;

    let case = format!("divisions/{}/cases/handed", division(TOWNSHIP));
    let sealed = v1::Case { sealed: Some(true), ..v1::Case::default() };
    scene.fleet.write(COUNTY, &case, &sealed).await.unwrap();
    scene.stores_hold("sealed", |node| owned(scene.allowed(node, true))).await;
    scene.outputs(PREFECTURE, "sealed", &scene.allowed(PREFECTURE, true)).await;

    for (record, fields) in scene.garden.beds() {
        let mut erase = vec!["erase", record, "--reason", "test", "--yes"];
        fields.iter().for_each(|field| erase.extend(["--field", field]));
        // It waits for all that it can ask, and names every tier and the backups that were made.
        let said = scene.fleet.cli(COUNTY, &erase).await.exits(0);
        let said = said.shows(&["here: purged", "every node has purged it", "backups 备份: 1 made"]);
        let tiers = TIERS.map(|node| division(node).to_string());
        said.shows(&["feed-handed", &tiers[0], &tiers[1], &tiers[2], &tiers[3]]);
    }
    scene.stores_hold("erased", |_| BTreeSet::new()).await;
    for node in TIERS {
        scene.outputs(node, "erased", &BTreeSet::new()).await;
    }
    // Spans leave a node some seconds later, in their order: with those of the erasures all earlier ones have come.
    until("traces of the erasures come", async || occurs(&scene.collector.bytes(), "EraseRecord")).await;
    scene.nothing_is_told();
}

/// Three tiers with no line between them: a township and a county that are served beside the prefecture.
struct Apart {
    fleet: Fleet,
    below: Vec<(&'static str, PathBuf, Stray)>,
    garden: Garden,
    files: Vec<String>,
}

impl Apart {
    async fn start() -> Apart {
        let fleet = Fleet::start([NodeSpec::top(division(PREFECTURE))]).await;
        let mut below = Vec::new();
        for (node, parent) in [(COUNTY, PREFECTURE), (TOWNSHIP, COUNTY)] {
            let dir = fleet.issue(node, Subject::Node(division(node)), Validity::days(30));
            let config =
                format!("division = \"{node}\"\n[parent]\ndivision = \"{parent}\"\nline = \"bundle\"");
            let mut served = Stray::serve(&dir, &config);
            served.client().await;
            below.push((node, dir, served));
        }
        let apart = Apart { fleet, below, garden: Garden::default(), files: Vec::new() };
        for (node, parent) in [(COUNTY, PREFECTURE), (TOWNSHIP, COUNTY)] {
            let card = apart.path(&format!("{parent}.card"));
            apart.cli(parent, &["bundle", "card", &card]).await.exits(0);
            apart.cli(node, &["bundle", "accept", &card]).await.exits(0);
        }
        apart
    }

    fn path(&self, name: &str) -> String {
        self.fleet.path(name).to_str().unwrap().to_owned()
    }

    fn dir(&self, node: &str) -> PathBuf {
        let served = self.below.iter().find(|below| below.0 == node);
        served.map_or_else(|| self.fleet.tree.node_dir(division(node)), |below| below.1.clone())
    }

    async fn cli(&self, node: &str, args: &[&str]) -> Done {
        if node == PREFECTURE {
            return self.fleet.cli(node, args).await;
        }
        run(&[args, &["--socket", self.dir(node).join("sock").to_str().unwrap()]].concat()).await
    }

    /// Makes a bundle of one node for another, and keeps it to be searched.
    async fn made(&mut self, from: &str, to: &str) -> String {
        let file = self.path(&format!("{}.bundle", self.files.len()));
        self.cli(from, &["bundle", "export", "--for", to, &file]).await.exits(0);
        self.files.push(file.clone());
        file
    }

    /// Carries what one node owes another, and the receipt back.
    async fn carry(&mut self, from: &str, to: &str) {
        let file = self.made(from, to).await;
        let receipt = self.path(&format!("{}.bundle", self.files.len()));
        self.cli(to, &["bundle", "import", &file, "--receipt", &receipt]).await.exits(0);
        self.cli(from, &["bundle", "import", &receipt]).await.exits(0);
        self.files.push(receipt);
    }

    /// Waits until a node's store holds this and nothing else: unused bytes are cleared a little later.
    async fn holds(&self, node: &str, what: &str, expected: BTreeSet<&str>) {
        until(&format!("{node}, {what}"), async || {
            self.garden.found(&contents(&self.dir(node), &STORE)) == expected
        })
        .await;
    }
}

const APART: [&str; 3] = [TOWNSHIP, COUNTY, PREFECTURE];

/// Bundles are sealed for their receivers: who carries one reads nothing in it, and it brings up only what a line would.
/// What is erased goes with bundles, too, and one that was made before brings nothing back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_tell_their_carrier_nothing_bring_up_what_may_go_up_and_carry_erasures() {
    let mut apart = Apart::start().await;
    let grid = apart.garden.enter("grid", "220822101000001", Tier::Township);
    let grid = (grid, apart.garden.grid());
    let camera = apart.garden.enter("camera", CAMERA, Tier::Township);
    let camera = (camera, apart.garden.camera());
    let handed = apart.garden.enter("case", "handed", Tier::County);
    let (reported, handled) = (apart.garden.reported(), apart.garden.handled());
    let client = apart.below[1].2.client().await;
    write(&client, &grid.0, &grid.1).await.unwrap();
    write(&client, &camera.0, &camera.1).await.unwrap();
    write(&client, &handed, &reported).await.unwrap();
    apart.cli(TOWNSHIP, &["move", &handed, "accept"]).await.exits(0);
    write(&client, &handed, &handled).await.unwrap();
    let escalate = ["move", &handed, "escalate", "--to", COUNTY, "--reason", "beyond_means"];
    apart.cli(TOWNSHIP, &escalate).await.exits(0);
    apart.carry(TOWNSHIP, COUNTY).await;
    apart.carry(COUNTY, PREFECTURE).await;
    for node in APART {
        let allowed = apart.garden.allowed(division(node).tier(), |_| false);
        assert!(!allowed.is_empty());
        apart.holds(node, "what may be there", allowed).await;
    }

    // A bundle that is on its way while everything is erased.
    apart.garden.enter("grid", "220822101000001", Tier::Township);
    let later = v1::Grid { contact: Some(apart.garden.contact("grid", "contact")), ..v1::Grid::default() };
    write(&client, &grid.0, &later).await.unwrap();
    let late = apart.made(TOWNSHIP, COUNTY).await;
    let beds: Vec<(String, Vec<String>)> = apart
        .garden
        .beds()
        .into_iter()
        .map(|(record, fields)| (record.to_owned(), fields.into_iter().map(str::to_owned).collect()))
        .collect();
    for (record, fields) in &beds {
        let mut erase = vec!["erase", record, "--reason", "test", "--yes"];
        fields.iter().for_each(|field| erase.extend(["--field", field]));
        apart.cli(COUNTY, &erase).await.exits(3).shows(&[
            "here: purged",
            "人工摆渡",
            "bundles for 离线数据包 220800000000",
            "bundles for 离线数据包 220822101000",
        ]);
    }
    apart.cli(COUNTY, &["bundle", "import", &late]).await.exits(0);
    apart.carry(COUNTY, TOWNSHIP).await;
    apart.carry(COUNTY, PREFECTURE).await;
    for node in APART {
        apart.holds(node, "erased", BTreeSet::new()).await;
    }
    let said = apart.cli(COUNTY, &["erase", &handed, "--progress", "--json"]).await.exits(3).json();
    let told: Vec<&str> =
        said["places"].as_array().unwrap().iter().filter_map(|p| p["told"].as_str()).collect();
    assert_eq!(told.iter().filter(|told| **told == "ERASURE_STATE_DELIVERED").count(), 2, "{said:#}");
    assert!(apart.files.len() > 8);
    for file in &apart.files {
        assert_eq!(apart.garden.found(&std::fs::read(file).unwrap()), BTreeSet::new(), "{file}");
    }
}
