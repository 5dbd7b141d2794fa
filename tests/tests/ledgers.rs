//! Ledgers through the real command line while the node serves: both encodings, both languages, good rows and bad ones,
//! the same ledger twice, an old one, a full one, and back out again.

#![allow(clippy::unwrap_used, clippy::panic)]

use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_tests::harness::{Done, Fleet, division, until};
use serde_json::Value;

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";

const GRIDS: &str = "\
网格编码,所属区划,网格名称,网格类型,网格状态,户数,网格长,联系电话,网格长人数,启用日期,经度,纬度
220822101000001,220822101000,第一网格,综合网格,启用,\"1,203\",某甲,0436-1000001,1,2024年1月5日,123.08,44.81
220822101000002,220822101000,第二网格,微,在用,88,,,0,,,
220822101000003,220822101000,第三网格,专属网格,启用,301,某丙,0436-1000003,1,2024-01-05,123.10,44.83
";

async fn county_and_township() -> Fleet {
    let county = division(COUNTY);
    Fleet::start([NodeSpec::top(county), NodeSpec::below(county, division(TOWNSHIP))]).await
}

async fn import(fleet: &Fleet, node: &str, kind: &str, file: &str, more: &[&str]) -> Done {
    let mut args = vec!["import", "--kind", kind, file, "--source", "office", "--json"];
    args.extend(more);
    fleet.cli(node, &args).await
}

/// Counts of a summary that must be as said; all others must be nought.
#[track_caller]
fn counts(done: Done, code: i32, expected: &[(&str, u64)]) -> Value {
    let summary = done.exits(code).json();
    for key in ["created", "changed", "unchanged", "conflicts", "held", "bad", "secret"] {
        let wanted = expected.iter().find(|(name, _)| *name == key).map_or(0, |(_, count)| *count);
        assert_eq!(summary[key], wanted, "{key} of {summary:#}");
    }
    summary
}

fn grid_name(serial: u32) -> String {
    format!("divisions/220822101000/grids/220822101000{serial:03}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grids_and_cases() {
    let fleet = county_and_township().await;
    the_same_ledger_in_every_form(&fleet).await;
    an_old_ledger_reverts_nothing(&fleet).await;
    rows_that_vanished(&fleet).await;
    cases(&fleet).await;
    fleet.equal().await;
}

/// Twice, in another encoding and in another language it is the same ledger: nothing changes.
async fn the_same_ledger_in_every_form(fleet: &Fleet) {
    let crs = ["--crs", "cgcs2000"];
    let utf8 = fleet.file("grids.csv", GRIDS);
    counts(import(fleet, TOWNSHIP, "grid", &utf8, &crs).await, 0, &[("created", 3)]);
    let before = fleet.record(TOWNSHIP, &grid_name(1)).await.unwrap();
    let (gb, _, _) = encoding_rs::GB18030.encode(GRIDS);
    let gb = fleet.file("grids-gb.csv", gb);
    let english = GRIDS.lines().skip(1).fold(
        "grid_code,division,display_name,grid_type,state,households,contact.name,contact.telephone,staffing.chiefs,valid_from,centroid.longitude,centroid.latitude\n"
            .to_owned(),
        |text, line| text + line + "\n",
    );
    let english = fleet.file("grids-en.csv", english);
    for file in [&utf8, &gb, &english] {
        counts(import(fleet, TOWNSHIP, "grid", file, &crs).await, 0, &[("unchanged", 3)]);
    }
    let after = fleet.record(TOWNSHIP, &grid_name(1)).await.unwrap();
    assert_eq!(before.etag, after.etag, "nothing was written");
    let got = fleet.cli(TOWNSHIP, &["get", &grid_name(1), "--json"]).await.exits(0).json();
    assert_eq!(got["fields"]["display_name"], "第一网格");
    assert_eq!((&got["fields"]["households"], &got["kind"]), (&Value::from(1203), &Value::from("grid")));
    until("the county has them", async || {
        fleet.shown::<v1::Grid>(COUNTY, &grid_name(3)).await.is_some_and(|grid| grid.residents.is_none())
    })
    .await;
    let contact = fleet.shown::<v1::Grid>(COUNTY, &grid_name(1)).await.unwrap().contact.unwrap();
    assert_eq!(contact.name, "某甲", "the county may hold the chief's name");
}

/// What was corrected in the node stays, until the ledger itself says something new; then both stand side by side.
async fn an_old_ledger_reverts_nothing(fleet: &Fleet) {
    let crs = ["--crs", "cgcs2000"];
    let name = grid_name(2);
    fleet.cli(TOWNSHIP, &["set", &name, "display_name=东街网格"]).await.exits(0);
    let old = fleet.file("old.csv", GRIDS);
    counts(import(fleet, TOWNSHIP, "grid", &old, &crs).await, 0, &[("unchanged", 3)]);
    let display = async |fleet: &Fleet| fleet.shown::<v1::Grid>(TOWNSHIP, &name).await.unwrap().display_name;
    assert_eq!(display(fleet).await.as_deref(), Some("东街网格"));
    let new = fleet.file("new.csv", GRIDS.replace("第二网格", "西街网格").replace(",88,", ",90,"));
    let done = import(fleet, TOWNSHIP, "grid", &new, &crs).await.exits(3);
    let summary = done.json();
    assert_eq!((&summary["conflicts"], &summary["unchanged"]), (&1.into(), &2.into()), "{summary:#}");
    let conflict = format!("{name}/conflicts/display_name");
    let shown = fleet.cli(TOWNSHIP, &["conflicts", "show", &conflict, "--json"]).await.exits(0).json();
    let mut values: Vec<&str> =
        shown["values"].as_array().unwrap().iter().map(|value| value["value"].as_str().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, ["东街网格", "西街网格"]);
    assert_eq!(fleet.shown::<v1::Grid>(TOWNSHIP, &name).await.unwrap().households, Some(90));
    let value = "\"南街网格\"";
    fleet.cli(TOWNSHIP, &["conflicts", "resolve", &conflict, "--value", value]).await.exits(0);
    counts(import(fleet, TOWNSHIP, "grid", &new, &crs).await, 0, &[("unchanged", 3)]);
    assert_eq!(display(fleet).await.as_deref(), Some("南街网格"), "a settled conflict stays settled");
    until("it is settled at the county", async || {
        fleet.shown::<v1::Grid>(COUNTY, &name).await.unwrap().display_name() == "南街网格"
    })
    .await;
    assert_eq!(fleet.status(COUNTY).await.conflict_count, 0);
}

/// A full ledger lists what is missing in it, and deletes nothing.
async fn rows_that_vanished(fleet: &Fleet) {
    let without: String =
        GRIDS.lines().filter(|line| !line.contains("第三网格")).map(|line| line.to_owned() + "\n").collect();
    let without = without.replace("第二网格", "西街网格").replace(",88,", ",90,");
    let file = fleet.file("full.csv", without);
    let partial = import(fleet, TOWNSHIP, "grid", &file, &["--crs", "cgcs2000"]).await;
    assert_eq!(counts(partial, 0, &[("unchanged", 2)])["vanished"], Value::Array(Vec::new()));
    let full = import(fleet, TOWNSHIP, "grid", &file, &["--crs", "cgcs2000", "--full"]).await;
    let summary = counts(full, 3, &[("unchanged", 2)]);
    assert_eq!(summary["vanished"], serde_json::json!([grid_name(3)]));
    assert!(fleet.record(TOWNSHIP, &grid_name(3)).await.is_some(), "it is for a person to decide");
    fleet.cli(TOWNSHIP, &["set", &grid_name(3), "deleted=true"]).await.exits(0);
    let listed = fleet.cli(TOWNSHIP, &["export", "--kind", "grid", "--format", "jsonl"]).await.exits(0);
    assert_eq!(listed.out.lines().count(), 2, "{listed:?}");
    let all = fleet.cli(TOWNSHIP, &["export", "--kind", "grid", "--format", "jsonl", "--deleted"]).await;
    assert_eq!(all.out.lines().count(), 3);
}

/// Cases are known by the source's number; a column about people that is nobody's business is named and left out.
async fn cases(fleet: &Fleet) {
    let text = "编号,事件类型,类别,来源,所属区划,受理日期,标题,状态,当事人,身份证号,民族,是否成功,办结日期\n\
        2026-0001,纠纷,邻里纠纷,网格员,220822101,2026/3/1,界墙,办理中,甲,220822190001010000,某族,,\n\
        2026-0002,矛盾纠纷,欠薪,12345,220822101,20260302,工钱,结案,丙,220822190001010001,某族,是,2026-03-20\n";
    let file = fleet.file("cases.csv", text);
    let summary = counts(import(fleet, TOWNSHIP, "case", &file, &[]).await, 0, &[("created", 2)]);
    let left_out: Vec<&str> =
        summary["left_out"].as_array().unwrap().iter().map(|c| c["header"].as_str().unwrap()).collect();
    assert_eq!(left_out, ["身份证号", "民族"]);
    counts(import(fleet, TOWNSHIP, "case", &file, &[]).await, 0, &[("unchanged", 2)]);
    let listed = fleet.cli(TOWNSHIP, &["export", "--kind", "case", "--format", "jsonl"]).await.exits(0).out;
    assert!(!listed.contains("2208221900") && !listed.contains("某族"), "{listed}");
    let ended = listed.lines().find(|line| line.contains("CASE_STATE_VERIFIED")).unwrap();
    let ended: Value = serde_json::from_str(ended).unwrap();
    assert_eq!(ended["fields"]["outcome"]["succeeded"], true);
    until("the county counts them", async || {
        let tallies = fleet.cli(COUNTY, &["tallies", TOWNSHIP, "--json"]).await.exits(0).json();
        let all = tallies["tallies"].as_array().unwrap().iter();
        all.filter(|t| t["measure"] == "cases_received" && t["value"] == 2).count() > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_ledgers() {
    let fleet = county_and_township().await;
    ledgers_that_cannot_be_read(&fleet).await;
    a_thousand_bad_rows(&fleet).await;
    unknown_villages(&fleet).await;
    secret_cameras(&fleet).await;
    fleet.equal().await;
}

/// Nothing of them goes in, and the message says what to do.
async fn ledgers_that_cannot_be_read(fleet: &Fleet) {
    let refused = async |kind: &str, content: &[u8], says: &[&str]| {
        let file = fleet.file("bad.csv", content);
        import(fleet, TOWNSHIP, kind, &file, &[]).await.exits(1).says(says);
    };
    let no_code = GRIDS.replacen("网格编码", "编码", 1);
    refused("grid", no_code.as_bytes(), &["line 1", "`grid_code` is missing", "网格编码", "所属区划"]).await;
    refused("grid", GRIDS.as_bytes(), &["--crs cgcs2000, wgs84, gcj02 or bd09", "never guessed"]).await;
    let mut broken = b"\xe7\xbd\x91\xe6\xa0\xbc\xe7\xbc\x96\xe7\xa0\x81\n220822101000001\n".to_vec();
    broken.extend(b"\xff\xff\xff\n");
    refused("grid", &broken, &["line 3", "byte", "UTF-8"]).await;
    refused("grid", b"", &["empty"]).await;
    refused("grid", b"PK\x03\x04rest of a workbook", &["not a CSV table"]).await;
    let open_quote = format!("网格编码,网格名称\n\"220822101000001,{}\n", "x,\n".repeat(2_000));
    refused("grid", open_quote.as_bytes(), &["line 2", "quotation mark"]).await;
    let missing = import(fleet, TOWNSHIP, "grid", "nowhere.csv", &[]).await;
    missing.exits(1).says(&["cannot read nowhere.csv"]);
    let grids = fleet.cli(TOWNSHIP, &["export", "--kind", "grid", "--format", "jsonl"]).await.exits(0);
    assert_eq!(grids.out, "", "nothing went in");
    assert!(fleet.record(TOWNSHIP, &grid_name(1)).await.is_none());
}

/// Bad rows among good ones: the good go in, the bad come back with line and reason, and once corrected they go in too.
async fn a_thousand_bad_rows(fleet: &Fleet) {
    let mut text = String::from("设备编码,所属区划,权属类型,录像保存天数\n");
    for n in 0..1_500 {
        let days = if n % 3 == 0 { "30" } else { "很多" };
        text += &format!("2208221010132{n:07},220822101000,社会,{days}\n");
    }
    let file = fleet.file("rows.csv", text);
    let rejects = fleet.path("rejects.csv");
    let to_rejects = ["--rejects", rejects.to_str().unwrap()];
    let done = import(fleet, TOWNSHIP, "camera", &file, &to_rejects).await;
    let summary = counts(done, 3, &[("created", 500), ("bad", 1_000)]);
    let problem = &summary["problems"][0];
    assert_eq!((&problem["line"], &problem["field"]), (&3.into(), &"录像保存天数".into()));
    assert!(problem["reason"].as_str().unwrap().contains("whole number"), "{problem}");
    let back = std::fs::read_to_string(&rejects).unwrap();
    let mut lines = back.trim_start_matches('\u{feff}').lines();
    let header = lines.next().unwrap();
    assert!(["行号", "原因", "设备编码"].iter().all(|name| header.contains(name)), "{header}");
    assert_eq!(lines.clone().count(), 1_000);
    assert!(lines.all(|row| row.contains("应为整数")), "each row has its reason");

    // Corrected, the file that came back is a ledger.
    let corrected = fleet.file("corrected.csv", back.replace("很多", "60"));
    let done = import(fleet, TOWNSHIP, "camera", &corrected, &[]).await;
    counts(done, 0, &[("created", 1_000)]);
    until("all of them are at the county", async || {
        let tallies = fleet.cli(COUNTY, &["tallies", COUNTY, "--json"]).await.exits(0).json();
        let all = tallies["tallies"].as_array().unwrap().iter();
        all.filter(|t| t["measure"] == "cameras" && t["class"] == "ownership=social" && t["value"] == 1_500)
            .count()
            == 1
    })
    .await;
}

/// A row of a village that nobody knows waits, with its reason, until the village is imported above.
async fn unknown_villages(fleet: &Fleet) {
    let text = "网格编码,网格名称\n220822101201001,东村网格\n";
    let file = fleet.file("village.csv", text);
    let more = ["--source", "villages"];
    let args = ["import", "--kind", "grid", &file, "--json", more[0], more[1]];
    counts(fleet.cli(TOWNSHIP, &args).await, 3, &[("held", 1)]);
    let name = "divisions/220822101000/grids/220822101201001";
    assert!(fleet.record(TOWNSHIP, name).await.is_none());
    assert_eq!(fleet.status(TOWNSHIP).await.held_count, 1);
    let held = fleet.cli(TOWNSHIP, &["quarantine", "list", "--json"]).await.exits(3).json();
    assert!(held["quarantined"][0]["record"].as_str().unwrap().contains("220822101201001"), "{held}");
    let reason = held["quarantined"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("220822101201") && reason.contains("divisions import"), "{reason}");
    let villages = fleet.file("villages.csv", "code,name\n220822101201,东村村委会\n");
    fleet.cli(COUNTY, &["divisions", "import", &villages, "--json"]).await.exits(0);
    until("the row goes in by itself", async || fleet.record(TOWNSHIP, name).await.is_some()).await;
    until("and reaches the county", async || fleet.record(COUNTY, name).await.is_some()).await;
    until("nothing is held any more", async || fleet.status(TOWNSHIP).await.held_count == 0).await;
    counts(fleet.cli(TOWNSHIP, &args).await, 0, &[("unchanged", 1)]);
}

/// Secret rows are counted and stay outside; the county's cameras and the township's go to their homes.
async fn secret_cameras(fleet: &Fleet) {
    let text = "设备编码,所属区划,权属类型,点位类别,功能类型,点位名称,保密属性,经度,纬度\n\
        22082200001320000001,220822101000,公共,一类,人脸、车辆,路口一,0,123.08,44.81\n\
        22082200001320000002,220822101000,公共,一类,车辆,路口二,1,123.09,44.82\n\
        22082200001320000003,220822101000,公共,二类,车辆,路口三,0,123.10,44.83\n";
    let file = fleet.file("cameras.csv", text);
    let done = import(fleet, COUNTY, "camera", &file, &["--crs", "gcj02"]).await;
    counts(done, 0, &[("created", 2), ("secret", 1)]);
    let name = |n: u32| format!("divisions/220822000000/cameras/2208220000132{n:07}");
    assert!(fleet.record(COUNTY, &name(2)).await.is_none(), "a secret row is not stored");
    let camera = fleet.shown::<v1::Camera>(COUNTY, &name(1)).await.unwrap();
    let location = camera.location.unwrap();
    assert!((location.longitude - 123.08).abs() > 0.001, "gcj02 is turned into cgcs2000: {location:?}");
    assert!(camera.coarse_location.is_some());
    let wrong = import(fleet, TOWNSHIP, "camera", &file, &["--crs", "gcj02"]).await.exits(3).json();
    assert_eq!((&wrong["created"], &wrong["bad"]), (&0.into(), &2.into()), "public cameras are the county's");
}

/// What one node exports, another imports, and exports again as the same bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_come_back_in() {
    let one = Fleet::start([NodeSpec::top(division(TOWNSHIP))]).await;
    let other = Fleet::start([NodeSpec::top(division(TOWNSHIP))]).await;
    let cameras = "设备编码,所属区划,权属类型,点位类别,功能类型,点位名称,状态,观测时间,经度,纬度\n\
        22082210101320000001,220822101000,社会,三类,车辆、人员,\"店,一\",在线,2026-03-01 08:00,123.08,44.81\n\
        22082210101320000002,220822101000,社会,其他,,=二,离线,2026-03-01 09:00:01,,\n";
    for (kind, ledger) in [("grid", GRIDS), ("camera", cameras)] {
        let file = one.file("in.csv", ledger);
        import(&one, TOWNSHIP, kind, &file, &["--crs", "cgcs2000"]).await.exits(0);
        for labels in ["chinese", "english"] {
            let out = one.path(&format!("{kind}-{labels}.csv"));
            let out = out.to_str().unwrap();
            let args = ["export", "--kind", kind, "--labels", labels, "--out", out];
            one.cli(TOWNSHIP, &args).await.exits(0);
            let back = import(&other, TOWNSHIP, kind, out, &["--crs", "cgcs2000"]).await.exits(0).json();
            assert_eq!(back["bad"], 0, "{back:#}");
            assert_eq!(
                back["left_out"].as_array().unwrap().iter().filter(|c| c["header"] == "name").count(),
                0
            );
            let again = other.path(&format!("{kind}-{labels}.csv"));
            let again = again.to_str().unwrap();
            let args = ["export", "--kind", kind, "--labels", labels, "--out", again];
            other.cli(TOWNSHIP, &args).await.exits(0);
            let [first, second] = [out, again].map(|file| std::fs::read_to_string(file).unwrap());
            assert_eq!(first, second, "{kind}, {labels}");
            assert!(first.lines().count() > 2);
        }
    }
}
