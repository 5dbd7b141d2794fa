//! Known texts are planted in every personal and every text field at a township of a real tree, by the interface and by
//! ledgers, and searched for byte by byte in whatever the nodes keep and give away: stores with their unused bytes and
//! logs, the nodes' logs at their most talkative, traces, exports, figures, reports, files of subscribers. Where they
//! may be follows from the contract's rules. Then a case is sealed, and in the end everything is erased.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guantong::demo::tree::NodeSpec;
use guantong::identity::Subject;
use guantong::identity::pki::Validity;
use guantong_gateway::division::Tier;
use guantong_gateway::schema::effective_tier;
use guantong_proto::rules::{Field, Kind};
use guantong_proto::v1;
use guantong_tests::harness::collector::Collector;
use guantong_tests::harness::{Fleet, Stray, division, run, until, write};
use prost_reflect::{DescriptorPool, Kind as Type};

const TOWNSHIP: &str = "220822101";
const COUNTY: &str = "220822";
const PREFECTURE: &str = "2208";
const PROVINCE: &str = "22";
const TIERS: [&str; 4] = [TOWNSHIP, COUNTY, PREFECTURE, PROVINCE];
/// For a node to hold what it may and nothing else; less than the limit of `until`, to say what is wrong.
const SETTLED_MAX: Duration = Duration::from_secs(50);
const KINDS: [&str; 3] = ["grid", "case", "camera"];
const CAMERA: &str = "22082200001310000001";

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

/// A text that was planted, and where.
struct Planted {
    record: String,
    field: &'static str,
    rule: &'static Field,
    text: String,
    /// The highest tier that the case was handed to: its file may be there, too.
    handed_to: Tier,
}

#[derive(Default)]
struct Garden {
    planted: Vec<Planted>,
    /// The record that is planted in, and how far it was handed.
    record: String,
    handed_to: Option<Tier>,
}

impl Garden {
    /// What is planted from now on is in this record.
    fn enter(&mut self, kind: &'static str, id: &str, handed_to: Tier) -> String {
        let home = division(TOWNSHIP);
        self.record = format!("divisions/{home}/{kind}s/{id}");
        self.handed_to = Some(handed_to);
        self.record.clone()
    }

    /// A text like no other, of digits only where it must look like a number.
    fn plant(&mut self, kind: &'static str, field: &'static str, digits: bool) -> String {
        let serial = self.planted.len() + 1;
        let text = if digits { format!("1397463{serial:04}") } else { format!("zqx{serial:04}Planted") };
        let rule = Kind::by_name(kind).unwrap().field_by_name(field).unwrap();
        let (record, handed_to) = (self.record.clone(), self.handed_to.unwrap());
        self.planted.push(Planted { record, field, rule, text: text.clone(), handed_to });
        text
    }

    fn contact(&mut self, kind: &'static str, field: &'static str) -> v1::Contact {
        v1::Contact { name: self.plant(kind, field, false), telephone: self.plant(kind, field, true) }
    }

    fn reference(&mut self, kind: &'static str) -> Vec<v1::ExternalRef> {
        let number = self.plant(kind, "external_refs", false);
        vec![v1::ExternalRef { id: format!("office:{number}"), system: "office".into(), number, stamp: 0 }]
    }

    fn grid(&mut self) -> v1::Grid {
        v1::Grid {
            grid_code: Some("220822101000001".into()),
            division: Some(division(TOWNSHIP).to_string()),
            display_name: Some(self.plant("grid", "display_name", false)),
            contact: Some(self.contact("grid", "contact")),
            external_refs: self.reference("grid"),
            ..v1::Grid::default()
        }
    }

    fn camera(&mut self) -> v1::Camera {
        let filing = v1::Filing { number: self.plant("camera", "filing", false), ..v1::Filing::default() };
        v1::Camera {
            device_id: Some(CAMERA.into()),
            division: Some(division(TOWNSHIP).to_string()),
            ownership: Some(v1::CameraOwnership::Social.into()),
            display_name: Some(self.plant("camera", "display_name", false)),
            address: Some(self.plant("camera", "address", false)),
            pole_code: Some(self.plant("camera", "pole_code", false)),
            management_unit: Some(self.plant("camera", "management_unit", false)),
            maintenance_unit: Some(self.plant("camera", "maintenance_unit", false)),
            contact: Some(self.contact("camera", "contact")),
            filing: Some(filing),
            external_refs: self.reference("camera"),
            ..v1::Camera::default()
        }
    }

    /// What is known of a case when it comes.
    fn reported(&mut self) -> v1::Case {
        let party = v1::Party {
            role: v1::PartyRole::Applicant.into(),
            name: self.plant("case", "parties", false),
            telephone: self.plant("case", "parties", true),
        };
        v1::Case {
            case_kind: Some(v1::CaseKind::Dispute.into()),
            category: Some("neighbours".into()),
            division: Some(division(TOWNSHIP).to_string()),
            received_on: Some(v1::Date { year: 2026, month: 3, day: 1 }),
            title: Some(self.plant("case", "title", false)),
            narrative: Some(self.plant("case", "narrative", false)),
            address: Some(self.plant("case", "address", false)),
            parties: vec![party],
            external_refs: self.reference("case"),
            lifecycle: Some(v1::Lifecycle {
                state: v1::CaseState::Reported.into(),
                holder: division(TOWNSHIP).to_string(),
                ..v1::Lifecycle::default()
            }),
            ..v1::Case::default()
        }
    }

    /// What its holder adds.
    fn handled(&mut self) -> v1::Case {
        let note = v1::CaseNote {
            id: "note-1".into(),
            text: self.plant("case", "notes", false),
            ..v1::CaseNote::default()
        };
        v1::Case {
            mediator: Some(self.contact("case", "mediator")),
            reply: Some(v1::Reply { text: self.plant("case", "reply", false), ..v1::Reply::default() }),
            notes: vec![note],
            ..v1::Case::default()
        }
    }
}

impl Planted {
    /// Whether a node of this tier may hold it.
    fn may_be_at(&self, tier: Tier, sealed: bool) -> bool {
        let within = tier <= effective_tier(self.rule.release, division(TOWNSHIP));
        within || self.rule.file && !sealed && tier <= self.handed_to
    }
}

fn occurs(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Everything in a folder and the folders inside it, whose names end so; without an ending, all.
fn contents(folder: &Path, endings: &[&str]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if endings.is_empty() || endings.iter().any(|ending| name.ends_with(ending)) {
                // Sockets cannot be read; files of the store may go while they are looked at.
                all.extend(std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    all
}

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
        let bytes = contents(&self.folder(node), &[".sqlite", ".db", "-wal", "-shm", "-journal"]);
        assert!(occurs(&bytes, "SQLite format 3"), "the store is there");
        self.found(&bytes)
    }

    fn found(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let texts = self.garden.planted.iter().map(|planted| &*planted.text);
        texts.filter(|text| occurs(bytes, text)).collect()
    }

    fn allowed(&self, node: &str, sealed: bool) -> BTreeSet<&str> {
        let tier = division(node).tier();
        let may = |p: &&Planted| p.may_be_at(tier, sealed && p.record.ends_with("/handed"));
        self.garden.planted.iter().filter(may).map(|planted| &*planted.text).collect()
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

    let records: BTreeSet<&str> = scene.garden.planted.iter().map(|planted| &*planted.record).collect();
    for record in records {
        let mut fields: Vec<&str> =
            scene.garden.planted.iter().filter(|p| p.record == record).map(|p| p.field).collect();
        fields.dedup();
        let mut erase = vec!["erase", record, "--reason", "test", "--yes"];
        fields.iter().for_each(|field| erase.extend(["--field", field]));
        let done = scene.fleet.cli(COUNTY, &erase).await.exits(0);
        done.shows(&["here: purged", "parent", "child", "delivered", "backups"]);
    }
    scene.stores_hold("erased", |_| BTreeSet::new()).await;
    for node in TIERS {
        scene.outputs(node, "erased", &BTreeSet::new()).await;
    }
    // Spans leave a node some seconds later, in their order: with those of the erasures all earlier ones have come.
    until("traces of the erasures come", async || occurs(&scene.collector.bytes(), "EraseRecord")).await;
    scene.nothing_is_told();
}

/// A bundle is sealed for its receiver: who carries it reads nothing in it, and it brings up only what a line would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_tells_its_carrier_nothing_and_brings_up_only_what_may_go_up() {
    let fleet = Fleet::start([NodeSpec::top(division(COUNTY))]).await;
    let dir = fleet.issue("township", Subject::Node(division(TOWNSHIP)), Validity::days(30));
    let config = format!("division = \"{TOWNSHIP}\"\n[parent]\ndivision = \"{COUNTY}\"\nline = \"bundle\"");
    let mut township = Stray::serve(&dir, &config);
    let client = township.client().await;
    let mut garden = Garden::default();
    let grid = garden.enter("grid", "220822101000001", Tier::Township);
    write(&client, &grid, &garden.grid()).await.unwrap();
    let camera = garden.enter("camera", CAMERA, Tier::Township);
    write(&client, &camera, &garden.camera()).await.unwrap();
    let case = garden.enter("case", "kept", Tier::Township);
    write(&client, &case, &garden.reported()).await.unwrap();

    let [card, up, down] = ["card", "up", "down"].map(|name| fleet.path(name).to_str().unwrap().to_owned());
    let socket = dir.join("sock").to_str().unwrap().to_owned();
    let below = async |args: &[&str]| run(&[args, &["--socket", &socket]].concat()).await.exits(0);
    fleet.cli(COUNTY, &["bundle", "card", &card]).await.exits(0);
    below(&["bundle", "accept", &card]).await;
    below(&["bundle", "export", "--for", COUNTY, &up]).await;
    fleet.cli(COUNTY, &["bundle", "import", &up, "--receipt", &down]).await.exits(0);
    below(&["bundle", "import", &down]).await;
    let found = |bytes: &[u8]| -> BTreeSet<&str> {
        let texts = garden.planted.iter().map(|planted| &*planted.text);
        texts.filter(|text| occurs(bytes, text)).collect()
    };
    for bundle in [&up, &down] {
        assert_eq!(found(&std::fs::read(bundle).unwrap()), BTreeSet::new(), "{bundle}");
    }
    let may_be_above = garden.planted.iter().filter(|planted| planted.may_be_at(Tier::County, false));
    let store = contents(&fleet.tree.node_dir(division(COUNTY)), &[".sqlite", ".db", "-wal", "-shm"]);
    assert_eq!(found(&store), may_be_above.map(|planted| &*planted.text).collect(), "the county's store");
}
