//! Whole ledgers, good and bad, in both encodings and languages.

use std::collections::BTreeMap;
use std::io::Cursor;

use encoding_rs::GB18030;
use guantong_gateway::division::Division;
use guantong_proto::v1;
use guantong_proto::v1::{ImportRow, RowProblem};
use proptest::prelude::*;
use prost_reflect::prost::Message;

use super::*;

mod round_trip;

fn options() -> Options {
    Options { crs: Some(Crs::Cgcs2000), ..Options::new("综治台账") }
}

fn open(kind: &str, bytes: impl AsRef<[u8]>, options: Options) -> Ledger<Cursor<Vec<u8>>> {
    Ledger::open(kind, Cursor::new(bytes.as_ref().to_vec()), options).unwrap()
}

/// Good rows and problems.
fn read(kind: &str, bytes: impl AsRef<[u8]>, options: Options) -> (Vec<ImportRow>, Vec<RowProblem>) {
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for outcome in open(kind, bytes, options) {
        match outcome.unwrap() {
            Outcome::Row(row) => rows.push(row),
            Outcome::Bad(found) => problems.extend(found),
        }
    }
    (rows, problems)
}

/// The problems of a one-row ledger: column and reason.
fn problems(kind: &str, headers: &str, row: &str) -> Vec<(String, String)> {
    let (rows, problems) = read(kind, format!("{headers}\n{row}\n"), options());
    assert!(rows.is_empty() != problems.is_empty());
    assert!(problems.iter().all(|problem| problem.line == 2));
    problems.into_iter().map(|problem| (problem.field, problem.reason)).collect()
}

const GRIDS: &str = "\
网格编码,所属区划,网格名称,网格类型,网格状态,户数,网格长,联系电话,网格长人数,启用日期,经度,纬度
220822101001001,220822101001,第一网格,综合网格,启用,\"1,203\",某甲,0436-1000001,1,2024年1月5日,123.08,44.81
220822101002001,220822101002,第二网格,微,在用,,,,0,,,
";

#[test]
fn a_chinese_ledger_of_grids() {
    let (rows, problems) = read("grid", GRIDS, options());
    assert_eq!(problems, []);
    let first = v1::Grid::decode(&*rows[0].fields).unwrap();
    assert_eq!(
        first,
        v1::Grid {
            grid_code: Some("220822101001001".into()),
            division: Some("220822101001".into()),
            display_name: Some("第一网格".into()),
            grid_type: Some(v1::GridType::Comprehensive as i32),
            state: Some(v1::ActiveState::Active as i32),
            valid_from: Some(v1::Date { year: 2024, month: 1, day: 5 }),
            centroid: Some(v1::LngLat { longitude: 123.08, latitude: 44.81 }),
            households: Some(1203),
            staffing: Some(v1::Staffing { chiefs: Some(1), ..Default::default() }),
            contact: Some(v1::Contact { name: "某甲".into(), telephone: "0436-1000001".into() }),
            ..Default::default()
        }
    );
    assert_eq!(
        (rows[0].key.as_str(), rows[0].home.as_str(), rows[0].line),
        ("220822101001001", "220822101000", 2)
    );
    assert!(rows[0].cleared.is_empty());
    assert_eq!(rows[1].cleared, [7, 10, 11, 14], "columns that are there and empty");
    let second = v1::Grid::decode(&*rows[1].fields).unwrap();
    assert_eq!(second.staffing.unwrap().chiefs, Some(0), "nought is a value");
}

#[test]
fn encodings_line_ends_and_separators_change_nothing() {
    let expected = read("grid", GRIDS, options());
    let (gb, _, _) = GB18030.encode(GRIDS);
    let semicolons = GRIDS.replace("\"1,203\"", "1203").replace(',', ";");
    for bytes in
        [gb.to_vec(), format!("\u{feff}{}", GRIDS.replace('\n', "\r\n")).into_bytes(), semicolons.into()]
    {
        assert_eq!(read("grid", bytes, options()), expected);
    }
    let english = GRIDS.lines().skip(1).fold(
        "grid_code\tdivision\tdisplay_name\tgrid_type\tstate\thouseholds\tcontact.name\tcontact.telephone\tstaffing.chiefs\tvalid_from\tcentroid.longitude\tcentroid.latitude\n".to_owned(),
        |text, line| text + &line.replace("\"1,203\"", "1203").replace(',', "\t").replace("综合网格", "GRID_TYPE_COMPREHENSIVE") + "\n",
    );
    assert_eq!(read("grid", english, options()), expected);
}

#[test]
fn cases_are_known_by_their_sources_number() {
    let text = "编号,事件类型,类别,来源,所属区划,受理日期,标题,状态,承办部门,当事人,当事人电话,是否成功,办结日期\n\
        2026-0001,纠纷,邻里纠纷,网格员,220822101003,2026/3/1 8:30,界墙,办理中,派出所,甲、乙,1001、1002,,\n\
        2026-0002,矛盾纠纷,欠薪,12345,220822101,20260302,工钱,结案,,丙,1003；1004,是,2026-03-20\n";
    let (rows, problems) = read("case", text, Options::new("综治台账"));
    assert_eq!(problems, []);
    let case = v1::Case::decode(&*rows[0].fields).unwrap();
    assert_eq!((rows[0].key.as_str(), rows[0].home.as_str()), ("2026-0001", "220822101000"));
    let reference = case.external_refs[0].clone();
    assert_eq!(
        (reference.id.as_str(), reference.number.as_str(), reference.stamp),
        ("综治台账:2026-0001", "2026-0001", 0)
    );
    assert_eq!(case.category.as_deref(), Some("neighbours"));
    let lifecycle = case.lifecycle.unwrap();
    assert_eq!((lifecycle.state(), lifecycle.unit.as_str()), (v1::CaseState::Accepted, "police"));
    assert_eq!(lifecycle.holder, "220822101000", "held where it was born");
    let parties: Vec<_> = case.parties.iter().map(|p| (p.name.as_str(), p.telephone.as_str())).collect();
    assert_eq!(parties, [("甲", "1001"), ("乙", "1002")]);
    let case = v1::Case::decode(&*rows[1].fields).unwrap();
    assert_eq!(case.parties[0].telephone, "1003；1004", "one person with two numbers");
    assert_eq!(case.outcome.unwrap().succeeded, Some(true));
    assert_eq!(rows[0].cleared, [20]);

    let view = KindView::for_ledger("case").unwrap();
    assert_eq!(record_id(view, "综治台账", "2026-0001").as_deref(), Ok("综治台账-2026-0001"));
    assert_eq!(record_id(view, "a", "1/2"), Err(RecordIdError { limit_bytes: 126 }));
    assert!(record_id(view, "a", &"1".repeat(127)).is_err());
    assert_eq!(record_id(KindView::for_ledger("grid").unwrap(), "a", "22").as_deref(), Ok("22"));
}

const CAMERA: &str = "设备编码,所属区划,权属类型,保密属性,经度,纬度,设备状态,检测时间";

fn camera_row(serial: u32, division: &str, rest: &str) -> String {
    format!("2208220000131000{serial:04},{division},{rest}")
}

#[test]
fn the_home_of_a_camera_follows_its_ownership() {
    let rows = [
        camera_row(1, "220822101003", "公共,0,123.1,44.8,在线,2026-11-20 12:00"),
        camera_row(2, "220822101003", "社会,,123.1,44.8,,"),
        camera_row(3, "", "公共,否,123.1,44.8,,2026-11-20"),
        camera_row(4, "441900003", "公共,0,113.7,23.0,,"),
    ];
    let (rows, problems) = read("camera", format!("{CAMERA}\n{}\n", rows.join("\n")), options());
    assert_eq!(problems, []);
    let homes: Vec<&str> = rows.iter().map(|row| row.home.as_str()).collect();
    assert_eq!(homes, ["220822000000", "220822101000", "220822000000", "441900000000"]);
    let status = v1::Camera::decode(&*rows[0].fields).unwrap().status.unwrap();
    assert_eq!(status.observe_time.unwrap().seconds, 1_795_147_200, "noon in Beijing");
    assert!(v1::Camera::decode(&*rows[2].fields).unwrap().status.is_none(), "a time without an observation");
}

#[test]
fn secret_rows_are_counted_and_never_come_back() {
    let rows = [
        camera_row(1, "220822101003", "公共,1,,,,"),
        camera_row(2, "220822101003", "公共,0,,,,"),
        camera_row(3, "not even a division", "x,涉密,,,,"),
        camera_row(4, "220822101003", "公共,大概,,,,"),
    ];
    let mut ledger = open("camera", format!("{CAMERA}\n{}\n", rows.join("\n")), options());
    let outcomes: Vec<Outcome> = ledger.by_ref().map(Result::unwrap).collect();
    assert_eq!(ledger.counts(), &Counts { rows: 4, good: 1, bad: 1, secret_lines: vec![2, 4] });
    let Outcome::Bad(problems) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!((problems[0].line, problems[0].field.as_str()), (5, "保密属性"));
}

#[test]
fn everything_wrong_with_a_row_is_said_at_once() {
    let found = problems(
        "grid",
        "网格编码,所属区划,网格类型,户数,状态,启用日期,经度,纬度",
        "22082210100100,开通镇,巨网格,-3,停用,昨天,44.8,123.1",
    );
    let columns: Vec<&str> = found.iter().map(|(column, _)| column.as_str()).collect();
    assert_eq!(columns, ["网格编码", "所属区划", "网格类型", "户数", "启用日期", "经度", "valid_to"]);
    for (at, words) in [(0, "15"), (2, "综合网格、"), (3, "负数"), (5, "swapped"), (6, "停用日期")]
    {
        assert!(found[at].1.contains(words), "{:?}", found[at]);
    }
    assert!(found.iter().all(|(_, reason)| !reason.contains("巨网格") && !reason.contains("开通镇")));
}

#[test]
fn each_kind_of_bad_row_is_explained() {
    let big = "长".repeat(30_000);
    for (kind, headers, row, column, words) in [
        ("grid", "网格编码,户数", ",1", "网格编码", "must not be empty"),
        ("grid", "网格编码,户数", "220822101001001,1,2", "", "3 cells"),
        ("grid", "网格编码,户数", "220822101001001", "", "1 cells"),
        ("grid", "网格编码,网格名称", &format!("220822101001001,{big}"), "网格名称", "65536 bytes"),
        ("grid", "网格编码,边界", "220822101001001,x", "边界", "GeoJSON"),
        ("grid", "网格编码,启用日期,停用日期", "220822101001001,2026-1-2,2026-1-1", "停用日期", "earlier"),
        ("camera", "设备编码,所属区划,权属", "22082200001180000001,220822,公共", "设备编码", "131"),
        ("camera", "设备编码,所属区划", "22082200001310000001,220822", "ownership", "权属"),
        ("camera", "设备编码,权属", "22082200001310000001,社会", "division", "所属区划"),
        ("camera", "设备编码,权属,经度,纬度", "22082200001310000001,公共,123.1,", "经度", "go together"),
        ("camera", "设备编码,权属,状态,检测时间", "22082200001310000001,公共,在线,", "状态", "观测时间"),
        ("case", "编号,标题", "1,x", "division", "所属区划"),
        ("case", "编号,所属区划", "1/2,220822101", "编号", "without blanks"),
        (
            "case",
            "编号,所属区划,当事人,当事人电话",
            "1,220822101,甲、乙,1、2、3",
            "当事人",
            "different numbers",
        ),
        ("division", "区划代码,名称", "220000,吉林省", "区划代码", "province"),
    ] {
        let found = problems(kind, headers, row);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, column, "{found:?}");
        assert!(found[0].1.contains(words), "{found:?}");
    }
}

#[test]
fn a_caller_may_name_what_rows_do_not_say() {
    let home = Division::parse("220822101").unwrap();
    let given = Options { home: Some(home), observed_ms: Some(1_700_000_000_000), ..options() };
    let (rows, problems) = read("case", "编号,标题\n1,x\n", given.clone());
    assert_eq!((rows[0].home.as_str(), problems.len()), ("220822101000", 0));
    let (rows, _) = read("camera", "设备编码,状态\n22082200001310000001,离线\n", given);
    let status = v1::Camera::decode(&*rows[0].fields).unwrap().status.unwrap();
    assert_eq!(status.observe_time.unwrap().seconds, 1_700_000_000);
    let ledger = open("camera", "设备编码,状态\n", options());
    assert_eq!(ledger.layout().left_out[0].header, "状态");
}

#[test]
fn a_row_that_comes_twice_names_the_first_line() {
    let text = "网格编码,户数\n220822101001001,1\n220822101001002,1\n\n２２０８２２１０１００１００１,2\n";
    let (rows, problems) = read("grid", text, options());
    assert_eq!((rows.len(), problems.len()), (2, 1));
    assert_eq!((problems[0].line, problems[0].field.as_str()), (5, "网格编码"));
    assert!(problems[0].reason.contains("line 2"), "{}", problems[0].reason);
}

#[test]
fn divisions_from_published_tables_come_in_as_they_are() {
    let text = "code,name,streetCode\n211381001001,\"蓬莱社区\",211381001\n419001000,街道,\n110101,东城区,\n";
    let mut ledger = open("division", text, Options::new("nbs"));
    assert_eq!(ledger.layout().left_out[0].header, "streetCode");
    let rows: Vec<ImportRow> = ledger
        .by_ref()
        .map(|outcome| match outcome.unwrap() {
            Outcome::Row(row) => row,
            Outcome::Bad(problems) => panic!("{problems:?}"),
        })
        .collect();
    let keys: Vec<_> = rows.iter().map(|row| (row.key.as_str(), row.home.as_str())).collect();
    let expected = [
        ("211381001001", "211381001000"),
        ("419001000000", "410000000000"),
        ("110101000000", "110000000000"),
    ];
    assert_eq!(keys, expected);
    assert_eq!(v1::Division::decode(&*rows[0].fields).unwrap().display_name.as_deref(), Some("蓬莱社区"));
}

#[test]
fn coordinates_are_moved_to_cgcs2000() {
    let text =
        "设备编码,权属,所属区划,经度,纬度\n22082200001310000001,公共,220822,116.410244499,39.916404281\n";
    let point = |crs| {
        let (rows, _) = read("camera", text, Options { crs: Some(crs), ..Options::new("a") });
        v1::Camera::decode(&*rows[0].fields).unwrap().location.unwrap()
    };
    assert_eq!(point(Crs::Wgs84), v1::LngLat { longitude: 116.410244499, latitude: 39.916404281 });
    assert_eq!(point(Crs::Gcj02), v1::LngLat { longitude: 116.404, latitude: 39.915 });
}

#[test]
fn bad_ledgers_are_refused_as_a_whole() {
    let refused = |kind: &str, bytes: &[u8], source: &str| {
        Ledger::open(kind, Cursor::new(bytes.to_vec()), Options::new(source)).err().unwrap().to_string()
    };
    for (kind, bytes, source, words) in [
        ("grid", &b""[..], "a", "empty"),
        ("grid", "名称,户数\n".as_bytes(), "a", "grid_code"),
        ("grid", "网格编码\n1".as_bytes(), "a b", "source"),
        ("node", b"x\n", "a", "grid, case, camera, division"),
        ("grid", b"PK\x03\x04xx", "a", "Excel"),
        ("grid", b"grid_code\n\xff\xff\n", "a", "line 2, byte 10"),
        ("grid", "网格编码,网格编号\n".as_bytes(), "a", "both mean"),
    ] {
        let error = refused(kind, bytes, source);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_thousand_bad_rows_come_back_with_their_reasons_and_the_rest_goes_in() {
    let mut text = "网格编码,户数,网格长身份证号,网格长\r\n".to_owned();
    for row in 0..2_000 {
        let households = if row % 2 == 0 { "many" } else { "12" };
        text += &format!("2208221010{:02}{:03},{households},SECRET,=cmd|x\r\n", row / 1_000, row % 1_000);
    }
    let (rows, found) = read("grid", &text, options());
    assert_eq!((rows.len(), found.len()), (1_000, 1_000));

    let mut by_line: BTreeMap<u64, Vec<RowProblem>> = BTreeMap::new();
    for problem in found {
        by_line.entry(problem.line).or_default().push(problem);
    }
    let mut rejects = Vec::new();
    assert_eq!(write_rejects(Cursor::new(text.as_bytes()), &by_line, &mut rejects).unwrap(), 1_000);
    let rejects = String::from_utf8(rejects).unwrap();
    assert!(
        rejects
            .starts_with("\u{feff}网格编码,户数,网格长,行号,原因\r\n220822101000000,many,'=cmd|x,2,户数: ")
    );
    assert!(!rejects.contains("SECRET"), "columns out of bounds are not copied");

    // Put right, the file goes in as it is.
    let (rows, problems) = read("grid", rejects.replace("many", "7"), options());
    assert_eq!((rows.len(), problems.len()), (1_000, 0));
    assert_eq!(v1::Grid::decode(&*rows[0].fields).unwrap().contact.unwrap().name, "=cmd|x");
}

proptest! {
    /// Whatever a file holds, reading it ends, with rows or with reasons.
    #[test]
    fn no_file_is_too_strange(head in 0..4usize, tail in prop::collection::vec(any::<u8>(), 0..200), cells in "[\\PC,\"\n]{0,200}") {
        let kinds = ["grid", "case", "camera", "division"];
        let view = KindView::for_ledger(kinds[head]).unwrap();
        let headers: Vec<&str> = view.columns().iter().map(|column| column.chinese.as_str()).collect();
        let width = headers.len();
        let row = cells.repeat(width).chars().take(400).collect::<String>();
        for bytes in [tail, format!("{}\n{cells}\n{row}\n", headers.join(",")).into_bytes()] {
            if let Ok(ledger) = Ledger::open(kinds[head], Cursor::new(bytes), options()) {
                for outcome in ledger {
                    match outcome {
                        Ok(Outcome::Row(row)) => prop_assert!(describe(kinds[head], &row.fields).is_ok()),
                        Ok(Outcome::Bad(problems)) => prop_assert!(!problems.is_empty()),
                        Err(error) => prop_assert!(matches!(error, LedgerError::OpenQuote { .. }), "{error}"),
                    }
                }
            }
        }
    }
}

#[test]
fn records_are_told_to_people_in_their_words() {
    let text = GRIDS.replace("某甲", "某\u{1b}甲");
    let (rows, _) = read("grid", text, options());
    let mut fields = rows[0].fields.to_vec();
    fields.extend([0xf8, 0x3f, 1]);
    let lines = describe("grid", &fields).unwrap();
    for line in [
        ("网格类型", "综合网格"),
        ("网格长姓名", "某 甲"),
        ("启用日期", "2024-01-05"),
        ("本版本未知的字段", "1"),
    ] {
        assert!(lines.contains(&(line.0.to_owned(), line.1.to_owned())), "{lines:?}");
    }
}
