//! Workbooks of all sorts of programs, beside what another reader makes of them, and workbooks that nobody would write.

use std::io::Write as _;

use calamine::{Data, ExcelDateTime, ExcelDateTimeType, Reader as _, Xlsx};
use rust_xlsxwriter::{ExcelDateTime as Moment, Format, Formula, Workbook};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

const MAIN: &str = r#"<workbook><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>"#;
const RELATED: &str = r#"<Relationships><Relationship Id="r1" Type="t/worksheet" Target="worksheets/sheet1.xml"/></Relationships>"#;
const SHEET: &str = "xl/worksheets/sheet1.xml";

/// A workbook of these parts, beside those that all have unless they stand here, too.
fn zipped(parts: &[(&str, &str)]) -> Vec<u8> {
    let all = [("xl/workbook.xml", MAIN), ("xl/_rels/workbook.xml.rels", RELATED)];
    let missing = all.iter().filter(|(name, _)| parts.iter().all(|(part, _)| part != name));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in missing.chain(parts) {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn read(parts: &[(&str, &str)]) -> Result<Vec<Line>, FormError> {
    first_sheet(zipped(parts))
}

fn sheet(rows: &str) -> String {
    format!("<worksheet><sheetData>{rows}</sheetData></worksheet>")
}

#[test]
fn cells_are_as_they_would_have_been_typed() {
    let strings =
        "<sst><si><t>指标</t></si><si><r><t>数 </t></r><r><t>值</t></r><rPh><t>shu</t></rPh></si></sst>";
    let styles = r#"<styleSheet><numFmts><numFmt numFmtId="170" formatCode="yyyy&quot;年&quot;m"/>
        <numFmt numFmtId="171" formatCode="[Red]0.0&quot;户 d&quot;\m"/></numFmts><cellStyleXfs><xf numFmtId="14"/></cellStyleXfs>
        <cellXfs><xf numFmtId="0"/><xf numFmtId="170"/><xf numFmtId="171"/><xf numFmtId="57"/></cellXfs></styleSheet>"#;
    let rows = r#"<row r="3"><c r="B3" t="s"><v>0</v></c><c t="s"><v> 1 </v></c><c r="BM3"><v>9</v></c></row>
        <row><c t="inlineStr"><is><t>a &amp; b</t></is></c><c t="str"><f>1</f><v>97.12%</v></c></row>
        <row r="9"><c r="A9" s="1"><v>46296</v></c><c r="B9" s="3"><v>46297.5</v></c><c r="C9" s="2"><v>46296.10</v></c>
        <c r="D9" t="b"><v>1</v></c><c r="E9" t="e"><v>#N/A</v></c><c r="F9" t="s"><v>7</v></c><c r="G9"/>
        <c r="H9"><v>0.30000000000000004</v></c><c r="I9" t="d"><v>2026-10-01</v></c></row>"#;
    let lines = read(&[("xl/sharedStrings.xml", strings), ("xl/styles.xml", styles), (SHEET, &sheet(rows))]);
    let found: Vec<(usize, String)> =
        lines.unwrap().into_iter().map(|(line, cells)| (line, cells.join("|"))).collect();
    let expected = [
        (3, "|指标|数 值".to_owned()),
        (4, "a & b|97.12%".to_owned()),
        (9, "2026-10|2026-10-02|46296.1|||||0.3|2026-10-01".to_owned()),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_first_worksheet_is_found_wherever_it_lies() {
    let whole = r#"<Relationships><Relationship Id="x" Type="t/officeDocument" Target="/a/main.xml"/></Relationships>"#;
    let main = r#"<x:workbook><x:sheets><x:sheet rel:id="c"/><x:sheet rel:id="s"/></x:sheets></x:workbook>"#;
    let related = r#"<Relationships><Relationship Id="c" Type="t/chartsheet" Target="c.xml"/>
        <Relationship Id="s" Type="t/worksheet" Target="/b/s.xml"/></Relationships>"#;
    let rows = sheet(r#"<x:row r="1"><x:c r="A1" t="s"><x:v>0</x:v></x:c></x:row>"#);
    let parts = [
        ("_rels/.rels", whole),
        ("a/main.xml", main),
        ("a/_rels/main.xml.rels", related),
        ("a/sharedStrings.xml", "<sst><si><t>是</t></si></sst>"),
        ("b/s.xml", &rows),
    ];
    assert_eq!(read(&parts).unwrap(), [(1, vec!["是".to_owned()])]);
    assert!(matches!(read(&[("xl/workbook.xml", "<workbook/>")]), Err(FormError::NoHeaders)));
}

/// What another reader finds, days aside.
fn another(bytes: &[u8]) -> Vec<Line> {
    let mut book: Xlsx<_> = calamine::open_workbook_from_rs(Cursor::new(bytes)).unwrap();
    let name = book.sheet_names()[0].clone();
    let range = book.worksheet_range(&name).unwrap();
    let (top, left) = range.start().unwrap();
    let mut lines: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (row, column, cell) in range.used_cells() {
        let text = match cell {
            Data::DateTime(moment) => day(moment.as_f64(), false).unwrap(),
            Data::Float(number) => plain(*number),
            other => other.to_string(),
        };
        let line = lines.entry(row + top as usize + 1).or_default();
        line.resize(column + left as usize, String::new());
        line.push(text);
    }
    lines.into_iter().collect()
}

#[test]
fn two_readers_find_the_same() {
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    let month = Format::new().set_num_format("yyyy-mm");
    for row in [0, 1, 5, 300] {
        sheet.write(row, 0, format!("指标<{row}>&\"x\"")).unwrap();
        sheet.write(row, 2, f64::from(row) / 7.0 - 3.0).unwrap();
        let moment = Moment::from_ymd(2000 + row as u16, 1 + (row % 12) as u8, 1).unwrap();
        sheet.write_with_format(row, 3, &moment, &month).unwrap();
        sheet.write(row, 30, Formula::new("=1").set_result("97.12%")).unwrap();
    }
    let bytes = book.save_to_buffer().unwrap();
    assert_eq!(first_sheet(bytes.clone()).unwrap(), another(&bytes));
}

#[test]
fn every_day_is_the_one_that_spreadsheets_mean() {
    for number in (1..60).chain(61..80_000) {
        for from_1904 in [false, true] {
            let moment = ExcelDateTime::new(f64::from(number) + 0.25, ExcelDateTimeType::DateTime, from_1904);
            let (year, month, of_month, ..) = moment.to_ymd_hms_milli();
            let full = format!("{year:04}-{month:02}-{of_month:02}");
            let found = day(f64::from(number) + 0.25, from_1904).unwrap();
            assert_eq!(found, full.strip_suffix("-01").unwrap_or(&full), "{number}");
        }
    }
    assert_eq!((day(0.5, false), day(-1.0, false), day(f64::MAX, true)), (None, None, None));
}

/// 20,000 lines of nine columns, each with a text of its own.
#[test]
fn the_largest_form_is_read() {
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    for row in 0..20_000 {
        for column in 0..9 {
            sheet.write(row, column, format!("{row} {column}")).unwrap();
        }
    }
    let bytes = book.save_to_buffer().unwrap();
    let lines = first_sheet(bytes).unwrap();
    assert_eq!((lines.len(), lines[19_999].1[8].as_str()), (20_000, "19999 8"));
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let many = |what: &str, times: usize| what.repeat(times);
    let unpacked = |parts: &[(&str, &str)]| {
        let bytes = zipped(parts);
        assert!(bytes.len() < 1024 * 1024, "a small file: {}", bytes.len());
        let refused = first_sheet(bytes).unwrap_err();
        assert!(matches!(refused, FormError::Unpacked), "{refused}");
    };
    let blank = many(" ", 40 << 20);
    unpacked(&[(SHEET, &sheet(&blank))]);
    unpacked(&[("xl/sharedStrings.xml", &format!("<sst><si><t>{blank}"))]);
    unpacked(&[("xl/workbook.xml", &format!("<workbook {blank}"))]);
    unpacked(&[(SHEET, &sheet(&many("<c/>", 2_000_000)))]);
    unpacked(&[("xl/sharedStrings.xml", &many("<si/>", 900_000))]);
    unpacked(&[("xl/styles.xml", &many("<xf/>", 2_000_000))]);
    let related = many(r#"<Relationship Id="" Target=""/>"#, 100_000);
    unpacked(&[("xl/_rels/workbook.xml.rels", &related)]);
    // A text that all cells share.
    let long = format!("<sst><si><t>{}</t></si></sst>", many("长", 20_000));
    let rows: String = (0..20_000).map(|_| r#"<row><c t="s"><v>0</v></c></row>"#).collect();
    unpacked(&[("xl/sharedStrings.xml", &long), (SHEET, &sheet(&rows))]);
    // Cells of which each is far to the right.
    let rows: String = (1..=15_000).map(|row| format!(r#"<row><c r="BL{row}"><v>1</v></c></row>"#)).collect();
    unpacked(&[(SHEET, &sheet(&rows))]);
    let rows: String = (1..=20_001).map(|row| format!(r#"<row><c r="A{row}"><v>1</v></c></row>"#)).collect();
    assert!(matches!(read(&[(SHEET, &sheet(&rows))]), Err(FormError::TooLarge)));
}

/// The library that read workbooks before reserved room for as many texts as a file claims to hold.
#[test]
fn what_a_file_claims_to_hold_counts_for_nothing() {
    let strings = r#"<sst count="1" uniqueCount="99999999999999999"><si><t>指标</t></si></sst>"#;
    let rows = r#"<dimension ref="ZZZ99:A1"/><row r="4294967295"><c t="s" s="4294967295"><v>0</v></c></row>"#;
    let styles = r#"<styleSheet><cellXfs count="99999999999999999"><xf numFmtId="99999999999"/></cellXfs></styleSheet>"#;
    let parts = [("xl/sharedStrings.xml", strings), ("xl/styles.xml", styles), (SHEET, &sheet(rows))];
    assert_eq!(read(&parts).unwrap(), [(u32::MAX as usize, vec!["指标".to_owned()])]);
    for place in ["", "A", "1", "AAAA1", "1A", "A99999999999", "é1"] {
        let rows = format!(r#"<row><c r="{place}"><v>1</v></c></row>"#);
        assert!(matches!(read(&[(SHEET, &sheet(&rows))]), Err(FormError::Workbook(_))), "{place}");
    }
}
