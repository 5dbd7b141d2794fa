//! What a report says, independent of how it looks: sheets of tables, and which of their columns make a picture.

mod sheets;

use guantong_proto::v1;

use super::cell::{Cell, moment};

/// A report, sheet by sheet.
#[derive(Clone, Debug)]
pub(super) struct Book {
    /// 通榆县社会治理运行月报.
    pub(super) title: String,
    /// Period, as of, number of the report.
    pub(super) facts: String,
    /// The resource name, for whoever wants it again.
    pub(super) name: String,
    pub(super) sheets: Vec<Sheet>,
}

/// One sheet of a workbook, one section of a page.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    pub(super) name: &'static str,
    pub(super) landscape: bool,
    /// Sentences before everything else.
    pub(super) intro: Vec<String>,
    pub(super) parts: Vec<Part>,
}

/// What stands below each other.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Table(Table),
    Chart(Chart),
    /// Where a printed sheet goes on on a new page.
    PageBreak,
}

/// One table.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// What stands instead of rows where there are none.
    pub(super) empty: &'static str,
}

/// One column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) header: String,
    /// In characters of half width.
    pub(super) width: f64,
}

/// A picture of some columns of a table.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) shape: Shape,
    pub(super) title: String,
    /// The table's title.
    pub(super) source: String,
    /// The column with the names of the points.
    pub(super) names: usize,
    /// The columns with their values.
    pub(super) values: Vec<usize>,
    /// Values are parts of a whole.
    pub(super) percent: bool,
}

/// How a picture shows its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Over time.
    Lines,
    /// Below each other, the first at the top.
    Bars,
}

impl Sheet {
    pub(super) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.parts.iter().filter_map(|part| match part {
            Part::Table(table) => Some(table),
            _ => None,
        })
    }
}

impl Table {
    pub(super) fn new(title: impl Into<String>, columns: &[(&str, f64)]) -> Table {
        let columns =
            columns.iter().map(|(header, width)| Column { header: (*header).to_owned(), width: *width });
        Table { title: title.into(), columns: columns.collect(), rows: Vec::new(), empty: "无" }
    }
}

impl Book {
    /// The content of a report.
    pub(super) fn of(report: &v1::Report) -> Book {
        let title = format!("{}社会治理运行{}", report.display_name, kind_of(&report.period));
        let facts = format!(
            "报告期：{}{}　　数据截至：{}　　签发：{}　　编号：{}",
            report.period_label,
            if report.period_closed { "" } else { "（未结束）" },
            moment(report.as_of_time.as_ref()),
            moment(report.issue_time.as_ref()),
            report.name.rsplit('/').next().unwrap_or_default(),
        );
        Book { title, facts, name: report.name.clone(), sheets: sheets::all(report) }
    }

    /// The table that a chart shows.
    pub(super) fn source(&self, chart: &Chart) -> Option<&Table> {
        self.sheets.iter().flat_map(Sheet::tables).find(|table| table.title == chart.source)
    }
}

/// What a report of such a period is called.
fn kind_of(period: &str) -> &'static str {
    match period.len() {
        4 => "年报",
        10 => "日报",
        7 if period.contains('Q') => "季报",
        7 if period.contains('H') => "半年报",
        7 => "月报",
        _ => "报告",
    }
}

/// How wide a text is, in characters of half width.
pub(super) fn width(text: &str) -> f64 {
    text.chars().map(|c| if c.is_ascii() { 1.0 } else { 2.0 }).sum()
}
