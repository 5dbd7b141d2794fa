//! One figure a line, with all that a program needs to calculate with it: what it counts, and both counts of a rate.

use guantong_gateway::threshold::color_label;
use guantong_proto::v1;

use super::RenderError;
use super::cell::{Cell, moment};

/// Spreadsheet programs take a table for UTF-8 only with this before it.
const MARK: &str = "\u{feff}";

const HEADERS: [&str; 14] = [
    "区划代码",
    "区划",
    "期间",
    "指标代码",
    "指标",
    "单位",
    "数值",
    "分子",
    "分母",
    "环比",
    "同比",
    "排名",
    "状态",
    "数据截至",
];

pub(super) fn render(report: &v1::Report) -> Result<Vec<u8>, RenderError> {
    let mut out = ::csv::Writer::from_writer(MARK.as_bytes().to_vec());
    out.write_record(HEADERS)?;
    let as_of = moment(report.as_of_time.as_ref());
    for figure in &report.figures {
        let (now, before, year) =
            (figure.value.as_ref(), figure.previous_value.as_ref(), figure.year_before_value.as_ref());
        let what = [&report.division, &report.display_name, &figure.measure, &figure.label, &figure.unit];
        let changes = [Cell::change(now, before), Cell::change(now, year)];
        line(&mut out, report, what, now, &changes, Cell::Empty, figure.color(), &as_of)?;
    }
    for ranking in &report.rankings {
        for place in &ranking.divisions {
            let what =
                [&place.division, &place.display_name, &ranking.measure, &ranking.label, &ranking.unit];
            let rank = Cell::Rank(place.rank);
            line(&mut out, report, what, place.value.as_ref(), &[], rank, place.color(), &as_of)?;
        }
    }
    out.into_inner().map_err(|error| RenderError::Table(error.into_error().into()))
}

#[allow(clippy::too_many_arguments)]
fn line(
    out: &mut ::csv::Writer<Vec<u8>>,
    report: &v1::Report,
    [division, name, measure, label, unit]: [&String; 5],
    value: Option<&v1::ReportValue>,
    changes: &[Cell],
    rank: Cell,
    color: v1::Color,
    as_of: &str,
) -> Result<(), RenderError> {
    let plain = |cell: Option<&Cell>| cell.and_then(Cell::plain).unwrap_or_default();
    let count = |count: Option<i64>| count.map(|count| count.to_string()).unwrap_or_default();
    let rate = value.filter(|value| value.denominator.is_some());
    out.write_record([
        division,
        name,
        &report.period,
        measure,
        label,
        unit,
        &plain(Some(&Cell::value(value))),
        &count(rate.map(|rate| rate.numerator)),
        &count(rate.and_then(|rate| rate.denominator)),
        &plain(changes.first()),
        &plain(changes.get(1)),
        &plain(Some(&rank)),
        color_label(color),
        as_of,
    ])?;
    Ok(())
}
