//! What operators and partners bring as files: ledgers in any encoding, forms with stated figures, configuration.

use std::io::Cursor;

use encoding_rs::GB18030;
use guantong::config::Config;
use guantong::ledger::{Crs, Ledger, Options, describe, json_to_fields, record_to_json};
use guantong::stated::{Op, Stated, rate_can_be};

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
