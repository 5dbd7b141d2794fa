//! Forms that counties and townships have written, and what cannot be in them.

use std::path::Path;

use guantong_gateway::division::Division;
use guantong_gateway::measure::Value;

use super::form::Row;
use super::*;

/// What counties published about themselves; it comes with the program.
const PUBLISHED: &str = include_str!("../../../deploy/demo/figures.csv");

fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn rows(content: impl AsRef<[u8]>) -> Vec<Row> {
    let (_folder, path) = file("figures", content);
    read(&path).unwrap()
}

/// Lines that say something, and what is found in all.
fn findings(content: &str, recorded: &dyn Fn(&Statement) -> Option<Value>) -> Vec<Finding> {
    let division = Division::parse("220822101").ok();
    let mut found = Vec::new();
    let mut statements = Vec::new();
    for row in rows(content) {
        match state(&row, division, "2026-10".parse().ok()) {
            Ok(statement) => statements.push(statement),
            Err(finding) => found.push(finding),
        }
    }
    found.extend(judge(&statements, recorded));
    found
}

fn lines(content: &str) -> Vec<(Kind, usize)> {
    findings(content, &|_| None).iter().map(|finding| (finding.kind, finding.line)).collect()
}

#[test]
fn what_counties_published_can_be_except_what_is_named() {
    let found = findings(PUBLISHED, &|_| None);
    assert!(found.iter().all(|finding| finding.kind == Kind::LeftOut), "{found:#?}");
    let left_out: Vec<usize> = found.iter().map(|finding| finding.line).collect();
    assert_eq!(left_out.len(), 15, "units, members of both kinds, rural cases, new and built cameras, poles");
    // The same county, with the rate that another one published.
    let wrong = PUBLISHED
        .replace("rates,success,eq,98.6,percent", "rates,success,eq,97.12,percent")
        .replace("cases,dispute_rural,eq,1673", "cases,dispute_succeeded,eq,2155");
    let found = findings(&wrong, &|_| None);
    let cannot: Vec<&Finding> = found.iter().filter(|finding| finding.kind == Kind::CannotBe).collect();
    assert_eq!(cannot.len(), 1, "{found:#?}");
    assert!(cannot[0].detail.contains("2155 / 2185 = 98.63%"), "{}", cannot[0].detail);
}

#[test]
fn a_rate_is_judged_beside_the_counts_of_its_own_line() {
    let form = "指标,数值,分子,分母\n\
        调处成功率,97.12%,\"7,762\",\"7,792\"\n\
        调处成功率,99.61%,7762,7792\n\
        on_time_rate,101%,,\n\
        在线率,99%,101,100\n\
        联网率,90%,,7\n";
    let found = lines(form);
    assert_eq!(
        found,
        [
            (Kind::CannotBe, 2),
            (Kind::CannotBe, 3),
            (Kind::CannotBe, 4),
            (Kind::CannotBe, 5),
            (Kind::CannotBe, 6)
        ]
    );
    let twice = findings(form, &|_| None);
    assert!(twice[1].detail.contains("in line 2"), "the same rate twice: {twice:#?}");
}

#[test]
fn a_success_rate_may_be_of_what_was_received_or_concluded() {
    let form = |rate: &str| {
        format!(
            "measure,value\ncases_succeeded,90\ncases_concluded,95\ncases_received,100\nsuccess_rate,{rate}\n"
        )
    };
    assert_eq!(lines(&form("94.7%")), []);
    assert_eq!(lines(&form("90.0%")), []);
    assert_eq!(lines(&form("92%")), [(Kind::CannotBe, 5)]);
}

#[test]
fn parts_are_at_most_their_wholes() {
    let form = "division,measure,class,value\n\
        220822101,cameras,,100\n\
        220822101,cameras,public,60\n\
        220822101,cameras,social,50\n\
        220822101,cameras,face,101\n\
        220822101,cameras_online,,约100\n\
        220822101,cameras_connected,,120余\n\
        220822,cameras,,90\n";
    assert_eq!(
        lines(form),
        [(Kind::CannotBe, 2), (Kind::CannotBe, 4), (Kind::CannotBe, 5), (Kind::CannotBe, 7)]
    );
}

#[test]
fn stated_totals_are_compared_with_recorded_ones() {
    let form = "measure,value,op\ncases_received,120,\ncases_concluded,约120,\nonline_rate,98.6%,\ncameras,16000,ge\ngrids,5,\n";
    let recorded = |statement: &Statement| match statement.subject.measure.name {
        "cases_received" => Some(Value::Number(119)),
        "cases_concluded" => Some(Value::Number(119)),
        "online_rate" => Some(Value::Rate { numerator: 2154, denominator: 2185 }),
        "cameras" => Some(Value::Number(15_999)),
        _ => Some(Value::Unknown),
    };
    let found = findings(form, &recorded);
    let found: Vec<_> = found.iter().map(|finding| (finding.kind, finding.line)).collect();
    assert_eq!(found, [(Kind::Differs, 2), (Kind::Differs, 5)]);
}

/// Each line beside each other one would be a hundred million pairs.
#[test]
fn lines_that_no_form_has_so_many_of_are_left_out() {
    let about =
        |division: &str, lines: usize, value: &str| format!("{division},cameras,,{value}\n").repeat(lines);
    let form = format!(
        "division,measure,class,value\n{}{}{}",
        about("220822", 10, "8"),
        about("220822101", 3_000, "9"),
        "220822,cameras,public,10\n"
    );
    let found = lines(&form);
    let count = |kind| found.iter().filter(|(of, _)| *of == kind).count();
    assert_eq!(count(Kind::LeftOut), 2_000);
    // The inner ones beside the first four of those around them, and the last line.
    assert_eq!(count(Kind::CannotBe), 1_000 * 4 + 4);
    assert!(lines(&"measure,value\ncameras,1件".replace("件", &"件".repeat(50_000))).is_empty());
    let json = format!("[{}0]", "0,".repeat(700_000));
    let refused = of_bytes(json.into_bytes()).unwrap_err().to_string();
    assert!(refused.contains("part it"), "{refused}");
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    let form = "measure,value,op,division\n\
        cases_received,many,,\n\
        drones,3,,\n\
        success_rate,97,,\n\
        cases_received,3,lt,\n\
        cases_received,3,,22\u{0}x\n";
    let form = form.replace('\u{0}', "");
    let kinds = lines(&form);
    assert_eq!(
        kinds,
        [
            (Kind::Unreadable, 2),
            (Kind::LeftOut, 3),
            (Kind::Unreadable, 4),
            (Kind::Unreadable, 5),
            (Kind::Unreadable, 6)
        ]
    );
}

#[test]
fn every_form_of_file_says_the_same() {
    let csv = "说明,,\n区划代码,指标,数值\n220822101,受理,1\n220822101,事件登记数,\"1,312\"\n";
    let expected: Vec<(String, String)> =
        vec![("受理".into(), "1".into()), ("事件登记数".into(), "1,312".into())];
    let told = |rows: Vec<Row>| rows.into_iter().map(|row| (row.measure, row.value)).collect::<Vec<_>>();
    assert_eq!(told(rows(csv)), expected);
    let (gb, _, _) = encoding_rs::GB18030.encode(csv);
    assert_eq!(told(rows(&gb)), expected);
    let json = r#"{"figures": [{"measure": "受理", "value": 1}, {"指标": "事件登记数", "数值": "1,312"}]}"#;
    assert_eq!(told(rows(json)), expected);
    let mut workbook = rust_xlsxwriter::Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write(0, 0, "说明").unwrap();
    sheet.write(2, 1, "指标").unwrap();
    sheet.write(2, 3, "数值").unwrap();
    sheet.write(3, 1, "受理").unwrap();
    sheet.write(3, 3, 1).unwrap();
    sheet.write(4, 1, "事件登记数").unwrap();
    sheet.write(4, 3, "1,312").unwrap();
    sheet.write(6, 1, "success_rate").unwrap();
    sheet.write(6, 3, 0.9712).unwrap();
    let mut found = told(rows(workbook.save_to_buffer().unwrap()));
    assert_eq!(found.pop(), Some(("success_rate".into(), "0.9712".into())));
    assert_eq!(found, expected);
}

#[test]
fn what_is_no_form_is_refused() {
    let refused = |content: &[u8]| {
        let (_folder, path) = file("x", content);
        read(&path).unwrap_err().to_string()
    };
    assert!(refused(b"a,b\n1,2\n").contains("headers"));
    assert!(refused(b"PK\x03\x04nothing").contains("workbook"));
    assert!(refused(b"[1]").contains("JSON"));
    assert!(refused(b"{\"x\": 1}").contains("JSON"));
    assert!(read(Path::new("no-such-file")).is_err());
}
