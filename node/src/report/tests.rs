//! A report in each format: what people find in it, and what must never be in it.

use std::io::Cursor;

use calamine::{Data, Reader as _, Xlsx};
use proptest::prelude::*;

use super::cell::{Cell, Quotient};
use super::*;

mod sample;

use sample::sample;

fn text(format: Format) -> String {
    String::from_utf8(render(&sample(), format).unwrap()).unwrap()
}

#[test]
fn the_workbook_has_a_sheet_for_each_part_and_numbers_as_numbers() {
    let bytes = render(&sample(), Format::Xlsx).unwrap();
    let mut workbook: Xlsx<_> = calamine::open_workbook_from_rs(Cursor::new(bytes)).unwrap();
    assert_eq!(workbook.sheet_names(), ["总览", "区划排名", "环比同比", "完整性", "说明"]);
    let overview = workbook.worksheet_range("总览").unwrap();
    let title = overview.get_value((0, 0)).unwrap().to_string();
    assert_eq!(title, "吉林省白城市通榆县社会治理运行月报");
    let row = overview.rows().find(|row| row[1] == *"调处成功率").unwrap();
    let Data::Float(rate) = row[3] else { unreachable!("{row:?}") };
    assert!((rate - 2154.0 / 2185.0).abs() < 1e-12, "the rate itself, and not its rounding");
    assert_eq!(row[6].to_string(), "蓝");
    let received = overview.rows().find(|row| row[1] == *"受理事件").unwrap();
    assert_eq!(received[3], Data::Float(1312.0));
    let changes = workbook.worksheet_range("环比同比").unwrap();
    let row = changes.rows().find(|row| row[0] == *"上报事件").unwrap();
    assert_eq!((row[6].to_string(), row[8].to_string()), ("—".into(), "—".into()), "no year before");
    let ranking = workbook.worksheet_range("区划排名").unwrap();
    let last = ranking.rows().find(|row| row[0].to_string().contains("苏公坨")).unwrap();
    assert_eq!(last[2].to_string(), "—", "without a rank");
}

#[test]
fn the_page_stands_alone_and_shows_names_as_they_are() {
    let page = text(Format::Html);
    for part in ["2026年10月", "98.58%", "+5.2%", "已联通，未报送", "逐月走势", "比上期+0.40个百分点"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains("&lt;b&gt;&amp;&quot;苏公坨乡") && !page.contains("<b>"), "no markup from names");
    for foreign in ["http://", "https://", "<script", "src=", "@import"] {
        let found = page.replace("http://www.w3.org/2000/svg", "").contains(foreign);
        assert!(!found, "{foreign}");
    }
    assert_eq!(page.matches("<svg").count(), 4, "months, categories, and two rankings");
}

#[test]
fn divisions_whose_holdings_are_in_no_stock_are_named() {
    let whole = Format::Html;
    assert!(!text(whole).contains("缺少当日快照"));
    let mut report = sample();
    report.missed_snapshots = vec![v1::MissedSnapshot {
        division: "220822101000".into(),
        display_name: "瞻榆镇".into(),
        day: "2026-09-30".into(),
    }];
    report.missed_snapshot_count = 4;
    let page = String::from_utf8(render(&report, whole).unwrap()).unwrap();
    for part in ["缺少当日快照的区划，其存量未计入（另有3项未列出）", "2026-09-30", "瞻榆镇"]
    {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn the_table_can_be_read_by_programs() {
    let table = text(Format::Csv);
    assert!(table.starts_with('\u{feff}'), "spreadsheet programs need the mark");
    let mut reader = ::csv::Reader::from_reader(table.trim_start_matches('\u{feff}').as_bytes());
    let rows: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 12 + 4 * 16);
    let rate = rows.iter().find(|row| &row[3] == "success_rate").unwrap();
    let cells: Vec<&str> = rate.iter().take(13).collect();
    let name = "吉林省白城市通榆县";
    assert_eq!(
        cells,
        [
            "220822000000",
            name,
            "2026-10",
            "success_rate",
            "调处成功率",
            "%",
            "98.58%",
            "2154",
            "2185",
            "+0.4%",
            "+1.9%",
            "",
            "蓝"
        ]
    );
    let empty = rows.iter().find(|row| &row[3] == "sound_rate").unwrap();
    assert_eq!((&empty[6], &empty[8]), ("", "0"));
}

#[test]
fn a_report_without_divisions_below_and_without_figures_is_printed_too() {
    let bare = v1::Report { display_name: "开通镇".into(), period: "2026".into(), ..Default::default() };
    for format in [Format::Xlsx, Format::Csv, Format::Html] {
        assert!(!render(&bare, format).unwrap().is_empty(), "{format:?}");
    }
    let page = String::from_utf8(render(&bare, Format::Html).unwrap()).unwrap();
    assert!(page.contains("开通镇社会治理运行年报") && page.contains("没有下级区划"));
}

#[test]
fn figures_are_written_for_people() {
    let value = |numerator, denominator| v1::ReportValue { numerator, denominator, revision: 0 };
    let words = |cell: Cell| cell.words();
    assert_eq!(words(Cell::value(Some(&value(1_234_567, None)))), "1,234,567");
    assert_eq!(words(Cell::value(Some(&value(1, Some(3))))), "33.33%");
    assert_eq!(words(Cell::value(Some(&value(0, Some(0))))), "—");
    assert_eq!(words(Cell::value(None)), "—");
    let (ten, eight, none) = (value(10, None), value(8, None), value(0, None));
    assert_eq!(words(Cell::change(Some(&ten), Some(&eight))), "+25.0%");
    assert_eq!(words(Cell::change(Some(&eight), Some(&ten))), "-20.0%");
    assert_eq!(words(Cell::change(Some(&ten), Some(&none))), "—", "nothing to compare with");
    assert_eq!(words(Cell::difference(Some(&eight), Some(&ten))), "-2");
    let (high, low) = (value(9, Some(10)), value(17_999, Some(20_000)));
    assert_eq!(words(Cell::difference(Some(&high), Some(&low))), "+0.01个百分点");
    assert_eq!(words(Cell::change(Some(&low), Some(&high))), "0.0%", "what rounds to zero has no sign");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What is written is never further from the quotient than half of its last digit.
    #[test]
    fn rates_are_rounded_to_the_nearest(numerator in 0i64..10_000_000, denominator in 1i64..10_000_000) {
        let rate = Quotient::new(numerator.into(), denominator.into()).unwrap();
        let text = Cell::Rate(rate).words().replace([',', '%'], "");
        let hundredths: i128 = text.replace('.', "").parse().unwrap();
        let (numerator, denominator) = (i128::from(numerator), i128::from(denominator));
        prop_assert!((hundredths * denominator - numerator * 10_000).abs() * 2 <= denominator);
    }

    /// Any names and numbers make a workbook, a page and a table.
    #[test]
    fn whatever_the_names_are_it_is_printed(name in "\\PC{0,300}", number: i64, of in 0i64..1_000) {
        let mut report = sample();
        report.display_name.clone_from(&name);
        report.figures[0].label.clone_from(&name);
        report.figures[0].value = Some(v1::ReportValue { numerator: number / 4, denominator: Some(of), revision: 0 });
        report.rankings[0].divisions[0].display_name = name;
        for format in [Format::Xlsx, Format::Csv, Format::Html] {
            prop_assert!(render(&report, format).is_ok());
        }
    }
}
