//! What operators and partners bring as files: ledgers in any encoding, forms with stated figures, configuration.

use std::io::Cursor;

use encoding_rs::GB18030;
use guantong::backup::{Backup, Writing};
use guantong::check;
use guantong::config::Config;
use guantong::ledger::{Crs, Ledger, Options, describe, json_to_fields, record_to_json};
use guantong::stated::{Op, Stated, rate_can_be};

use guantong::cli::audit::is_intact;
use guantong_gateway::audit::{Chain, Event, Note};
use guantong_gateway::division::Division;
use guantong_gateway::measure::Value;
use guantong_proto::v1;

use super::runner::{fuzz, turn};

const GRIDS: &str = "\
网格编码,所属区划,网格名称,网格类型,网格状态,户数,网格长,联系电话,网格长人数,启用日期,经度,纬度
220822101001001,220822101001,第一网格,综合网格,启用,\"1,203\",某甲,0436-1000001,1,2024年1月5日,123.08,44.81
220822101002001,220822101002,第二网格,微,在用,,,,0,,,
";
const BOUNDARIES: &str = "\
grid_code,division,boundary
220822101001001,220822101001,\"{\"\"type\"\":\"\"Polygon\"\",\"\"coordinates\"\":[[[123,44],[123.1,44],[123.1,44.1],[123,44]]]}\"
";
const CASES: &str = "\
编号,事件类型,事件类别,风险等级,发生地区划,受理日期,标题,当事人
1,矛盾纠纷,邻里纠纷,红,220822101001,2026-10-01,某事,甲
";
const CAMERAS: &str = "\
设备编码,所属区划,权属类型,点位类别,功能类型,经度,纬度,联网,设备状态,检测时间
22082200001321000001,220822101001,公共,一类,人脸,123.08,44.81,是,在线,2026-10-01 10:00:00
";

#[test]
fn ledgers() {
    let turn = turn();
    let ledgers = [("grid", GRIDS), ("grid", BOUNDARIES), ("case", CASES), ("camera", CAMERAS)];
    let utf8 = ledgers.iter().map(|(_, text)| text.as_bytes().to_vec());
    let gb18030 = ledgers.iter().map(|(_, text)| GB18030.encode(text).0.into_owned());
    let samples: Vec<Vec<u8>> = utf8.chain(gb18030).collect();
    fuzz(&turn, "ledgers", &samples, |input| {
        for kind in ["grid", "case", "camera", "division"] {
            let options = Options { crs: Some(Crs::Gcj02), ..Options::new("台账") };
            let Ok(ledger) = Ledger::open(kind, Cursor::new(input), options) else { continue };
            let rows = ledger.take_while(Result::is_ok).count();
            assert!(rows <= input.len());
        }
    });
}

/// The input is a record's fields, and then JSON.
#[test]
fn fields_and_json() {
    let turn = turn();
    let json =
        br#"{"name":"divisions/220822101000/grids/1","gridCode":"220822101001001","contact":{"name":"a"}}"#;
    let fields = b"\x12\x0f220822101001001\x1a\x0c220822101001\x30\x01\x4a\x02{}\x72\x04\x0a\x02ab".to_vec();
    fuzz(&turn, "json", &[json.to_vec(), fields], |input| {
        for kind in ["grid", "case", "camera", "division"] {
            let _ = describe(kind, input);
            let _ = record_to_json(kind, "divisions/220822101000/grids/1", input);
            if let Ok(json) = serde_json::from_slice(input) {
                let _ = json_to_fields(kind, &json);
            }
        }
    });
}

/// The input is a form in any of its formats: it is read and judged, by itself and beside what is recorded.
#[test]
fn forms_of_stated_figures() {
    let turn = turn();
    let csv = "区划代码,报告期,指标,类别,关系,数值,单位,分子,分母\n220822,2026-10,受理,,=,\"1,312\",,,\n\
               220822101,,调处成功率,,约,97.12,percent,7762,7792\n,,cameras,public,ge,1.2万,,,\n";
    let json = r#"{"figures": [{"measure": "cameras", "value": 1}, {"指标": "grids", "数值": "约1,312"}]}"#;
    let many = format!("measure,value\n{}", "cameras,9\n".repeat(1_100));
    let samples = [
        csv.as_bytes().to_vec(),
        GB18030.encode(csv).0.into_owned(),
        json.as_bytes().to_vec(),
        many.into_bytes(),
        workbook(false),
        workbook(true),
    ];
    let division = Division::parse("220822101").ok();
    fuzz(&turn, "forms", &samples, |input| {
        let Ok(rows) = check::of_bytes(input.to_vec()) else { return };
        let statements: Vec<_> =
            rows.iter().filter_map(|row| check::state(row, division, "2026-10".parse().ok()).ok()).collect();
        for recorded in [Value::Number(1), Value::Rate { numerator: 7, denominator: 0 }, Value::Unknown] {
            for finding in check::judge(&statements, &|_| Some(recorded)) {
                assert!(rows.iter().any(|row| row.line == finding.line), "{finding:?}");
            }
        }
    });
}

/// A workbook with cells of every sort; stored as it is, so that changes reach its XML, or packed.
fn workbook(packed: bool) -> Vec<u8> {
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    let month = rust_xlsxwriter::Format::new().set_num_format("yyyy-mm");
    for (column, text) in ["报告期", "指标", "数值", "分母"].into_iter().enumerate() {
        sheet.write(2, column as u16, text).unwrap();
    }
    for row in 3..9 {
        sheet.write_with_format(row, 0, 46_296, &month).unwrap();
        sheet.write(row, 1, "cameras <&>").unwrap();
        sheet.write(row, 2, f64::from(row) * 1.1).unwrap();
        sheet.write(row, 3, rust_xlsxwriter::Formula::new("=1").set_result("97.12%")).unwrap();
    }
    let bytes = book.save_to_buffer().unwrap();
    if packed { bytes } else { unpacked(bytes) }
}

/// The same workbook without compression.
fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut to = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for at in 0..from.len() {
        let mut part = from.by_index(at).unwrap();
        to.start_file(part.name().unwrap().into_owned(), stored).unwrap();
        std::io::copy(&mut part, &mut to).unwrap();
    }
    to.finish().unwrap().into_inner()
}

/// The input is a backup. One that is not byte for byte what was written is never put back.
#[test]
fn backups() {
    let turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let [made, changed] = ["made", "changed"].map(|name| folder.path().join(name));
    let store = vec![7; 300];
    let said = v1::BackupManifest {
        division: "220822101000".into(),
        store_format: 18,
        create_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 5 }),
        copy_bytes: store.len() as u64,
        copy_hash: blake3::hash(&store).as_bytes().to_vec().into(),
        ..v1::BackupManifest::default()
    };
    let beyond = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    let senseless = v1::BackupManifest { create_time: Some(beyond), ..said.clone() };
    for said in [senseless, said] {
        let mut writing = Writing::begin(&made, true).unwrap();
        writing.write(&store).unwrap();
        let _ = writing.finish(&said);
    }
    let whole = std::fs::read(&made).unwrap();
    let head = whole.iter().position(|byte| *byte == 0).unwrap();
    fuzz(&turn, "backups", std::slice::from_ref(&whole), |input| {
        std::fs::write(&changed, input).unwrap();
        let copied = Backup::open(&changed).and_then(|mut backup| backup.copy(&mut std::io::sink(), |_| ()));
        // What stands behind the last line of its head says nothing.
        if copied.is_ok() {
            assert!(input[..head] == whole[..head] && input[4096..] == whole[4096..]);
        }
    });
}

/// The input is an export of the audit log. As long as a checkpoint stands in it, nothing that it covers can be changed
/// unseen.
#[test]
fn exports_of_the_audit_log() {
    let turn = turn();
    let own = Division::parse("220822101").unwrap();
    let mut chain = Chain::new(own, 0);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut entries = String::new();
    for number in 1..6 {
        let row = chain.add(number * 1_000, &Note::from(Event::StampForked));
        let entry = serde_json::json!({ "hash": row.hash.to_string(), "line": row.line });
        entries.push_str(&format!("{entry}\n"));
    }
    let signed = super::trust::signed(own, chain.head());
    let checkpoint = serde_json::json!({ "checkpoint": {
        "kept_by": "parent", "division": own.to_string(), "slot": 0, "epoch": "0000000000000007", "number": 5,
        "hash": chain.head().hash.to_string(), "time_ms": signed.checkpoint.time_ms,
        "signature": hex(&signed.signature), "certificates": hex(&signed.certificates),
    } })
    .to_string();
    let of = serde_json::json!({ "chain": { "division": own.to_string(), "slot": 0, "entries": 5 } });
    let export = format!("{checkpoint}\n{of}\n{entries}");
    assert!(is_intact(export.as_bytes()).unwrap(), "what is not changed is intact");
    fuzz(&turn, "exports", &[export.into_bytes()], |input| {
        if !is_intact(input).unwrap_or(false) {
            return;
        }
        let text = String::from_utf8_lossy(input);
        if text.lines().any(|line| line == checkpoint) {
            let said = |text: &str| -> Vec<String> {
                let lines =
                    text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
                lines.filter_map(|line| Some(line.get("line")?.as_str()?.to_owned())).collect()
            };
            assert_eq!(said(&text), said(&entries));
        }
    });
}

#[test]
fn stated_figures() {
    let turn = turn();
    let samples = ["7,762", "97.12%", "约 3 万", "≥ 99.9 %", "1.5亿", "-0", "１２３", "三百"];
    let samples = samples.map(|text| text.as_bytes().to_vec());
    fuzz(&turn, "figures", &samples, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        for op in [Op::Eq, Op::Ge, Op::Approx] {
            let count = Stated::count(text, op);
            for percent in [false, true] {
                let Ok(rate) = Stated::rate(text, op, percent) else { continue };
                let _ = (rate.allows_count(i64::MAX), rate.allows_ratio(i64::MIN, i64::MAX));
                if let Ok(count) = &count {
                    let _ = rate_can_be(&rate, Some(count), Some(&count.plus(count)));
                    let _ = (count.may_be_at_most(&rate), count.may_equal(&rate), count.counts());
                }
            }
        }
    });
}

#[test]
fn configuration() {
    let turn = turn();
    let whole = "division = \"220822101\"\ndata_dir = \"/d\"\nlisten = \"0.0.0.0:7000\"\ndrift_ms = 300000\n\
                 [parent]\ndivision = \"220822\"\naddress = \"a:7000\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n\
                 authority = \"a\"\nrevocation_list = \"r\"\n[log]\nlevel = \"info\"\nformat = \"json\"\n\
                 [telemetry]\notlp_endpoint = \"http://127.0.0.1:1\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guantong.toml");
    fuzz(&turn, "configuration", &[whole.as_bytes().to_vec(), b"division = \"22\"".to_vec()], |input| {
        std::fs::write(&file, input).unwrap();
        match Config::load(&file) {
            Ok(config) => assert!(!config.socket().as_os_str().is_empty()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}
