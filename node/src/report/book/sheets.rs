//! The sheets of a report: 总览, 区划排名, 环比同比, 完整性, 说明.

use guantong_gateway::threshold::{color_label, millionths_text};
use guantong_proto::v1;

use super::super::cell::{Cell, Quotient, moment, value_text};
use super::{Chart, Column, Part, Shape, Sheet, Table};

/// The table that the chart over time shows.
const TREND: &str = "逐月走势";

pub(super) fn all(report: &v1::Report) -> Vec<Sheet> {
    vec![overview(report), ranking(report), changes(report), completeness(report), notes(report)]
}

fn overview(report: &v1::Report) -> Sheet {
    let mut figures = Table::new(
        "主要指标",
        &[
            ("类别", 9.0),
            ("指标", 25.0),
            ("单位", 7.0),
            ("本期", 13.0),
            ("环比", 11.0),
            ("同比", 11.0),
            ("状态", 8.0),
        ],
    );
    let mut group = "";
    for figure in &report.figures {
        let first = if figure.group == group { "" } else { figure.group.as_str() };
        group = &figure.group;
        let (now, before, year) = values(figure);
        figures.rows.push(vec![
            Cell::text(first),
            Cell::text(&figure.label),
            Cell::text(&figure.unit),
            Cell::value(now),
            Cell::change(now, before),
            Cell::change(now, year),
            Cell::Color(figure.color()),
        ]);
    }
    let mut parts = vec![Part::Table(figures), Part::Table(warnings(report)), Part::PageBreak];
    parts.extend(trend_chart(report).map(Part::Chart));
    parts.extend(report.breakdowns.iter().flat_map(breakdown));
    if matches!(parts.last(), Some(Part::PageBreak)) {
        parts.pop();
    }
    Sheet { name: "总览", landscape: false, intro: vec![headline(report)], parts }
}

/// A measure by a dimension, in numbers and as a picture.
fn breakdown(breakdown: &v1::ReportBreakdown) -> Vec<Part> {
    let title = format!("{}（按{}）", breakdown.label, breakdown.dimension_label);
    let columns = [
        ("序号", 9.0),
        (breakdown.dimension_label.as_str(), 25.0),
        ("单位", 7.0),
        ("本期", 13.0),
        ("占比", 11.0),
    ];
    let mut table = Table::new(&title, &columns);
    let all: i64 = breakdown.rows.iter().map(|row| row.value).sum();
    for (at, row) in breakdown.rows.iter().enumerate() {
        let share = Quotient::new(row.value.into(), all.into());
        table.rows.push(vec![
            Cell::Rank(at as i32 + 1),
            Cell::text(&row.label),
            Cell::text(&breakdown.unit),
            Cell::Count(row.value),
            share.map_or(Cell::Empty, Cell::Rate),
        ]);
    }
    let chart = Chart {
        shape: Shape::Bars,
        title: title.clone(),
        source: title,
        names: 1,
        values: vec![3],
        percent: false,
    };
    let drawn = (table.rows.len() > 1).then_some(Part::Chart(chart));
    [Part::Table(table)].into_iter().chain(drawn).collect()
}

/// The report in a few sentences.
fn headline(report: &v1::Report) -> String {
    let mut text = format!("{}，", report.period_label);
    let ranked: Vec<&str> = report.rankings.iter().map(|ranking| ranking.measure.as_str()).collect();
    let key = report.figures.iter().filter(|figure| ranked.contains(&figure.measure.as_str()));
    let mut told = Vec::new();
    for figure in key.filter(|figure| Cell::value(figure.value.as_ref()) != Cell::Empty).take(5) {
        let (now, before, _) = values(figure);
        let unit = if figure.unit == "%" { "" } else { &figure.unit };
        let mut clause = format!("{}{}{unit}", figure.label, value_text(now));
        let change = Cell::difference(now, before);
        if change != Cell::Empty {
            clause.push_str(&format!("（比上期{}）", change.words()));
        }
        told.push(clause);
    }
    text.push_str(if told.is_empty() { "没有可报告的指标" } else { "" });
    text.push_str(&told.join("，"));
    text.push('。');
    let below = report.statuses.get(1..).unwrap_or_default();
    if !below.is_empty() {
        let count = |readiness| below.iter().filter(|status| status.readiness() == readiness).count();
        let submitted = count(v1::Readiness::Submitted);
        let not_linked = count(v1::Readiness::NotLinked);
        text.push_str(&format!(
            "所辖{}个区划中，{submitted}个已报送，{}个未报送，{not_linked}个未联通。",
            below.len(),
            below.len() - submitted - not_linked
        ));
    }
    if !report.warnings.is_empty() {
        let count = |color| report.warnings.iter().filter(|warning| warning.color() == color).count();
        let colors = [v1::Color::Red, v1::Color::Yellow, v1::Color::Blue].map(|color| (color, count(color)));
        let each = colors.iter().filter(|(_, count)| *count > 0);
        let each: Vec<String> =
            each.map(|(color, count)| format!("{}{count}", color_label(*color))).collect();
        text.push_str(&format!("预警{}项（{}）。", report.warnings.len(), each.join("、")));
    }
    text
}

fn warnings(report: &v1::Report) -> Table {
    let columns = [
        ("等级", 9.0),
        ("区划与指标", 25.0),
        ("单位", 7.0),
        ("本期", 13.0),
        ("界值", 11.0),
        ("设定区划", 11.0),
    ];
    let mut table = Table::new("预警", &columns);
    for warning in &report.warnings {
        let beyond = match warning.direction() {
            v1::ThresholdDirection::LowerIsBetter => "≤",
            _ => "≥",
        };
        table.rows.push(vec![
            Cell::Color(warning.color()),
            Cell::text(format!("{}　{}", warning.display_name, warning.label)),
            Cell::text(&warning.unit),
            Cell::value(warning.value.as_ref()),
            Cell::text(format!("{beyond}{}", millionths_text(warning.bound_millionths, warning.unit == "%"))),
            Cell::text(&warning.threshold_display_name),
        ]);
    }
    table.empty = "没有超过界值的指标";
    table
}

fn ranking(report: &v1::Report) -> Sheet {
    let mut table = Table::new("所辖区划", &[("区划", 22.0)]);
    for ranking in &report.rankings {
        let header = if ranking.unit == "%" {
            ranking.label.clone()
        } else {
            format!("{}（{}）", ranking.label, ranking.unit)
        };
        table.columns.push(Column { header, width: 14.0 });
        table.columns.push(Column { header: "排名".to_owned(), width: 6.5 });
    }
    for (code, name) in divisions(report) {
        let mut row = vec![Cell::text(name)];
        for ranking in &report.rankings {
            let place = ranking.divisions.iter().find(|place| place.division == code);
            let color = place.map_or(v1::Color::Unspecified, |place| place.color());
            row.push(Cell::value(place.and_then(|place| place.value.as_ref())).colored(color));
            row.push(place.map_or(Cell::Empty, |place| Cell::Rank(place.rank)));
        }
        table.rows.push(row);
    }
    table.empty = "没有下级区划";
    let ranked = report.rankings.iter().enumerate().filter(|_| table.rows.len() > 1);
    // One picture of a count and one of a rate say the most.
    let count = ranked.clone().find(|(_, ranking)| ranking.unit != "%");
    let rate = ranked.clone().find(|(_, ranking)| ranking.unit == "%");
    let charts = [count, rate].into_iter().flatten().map(|(at, ranking)| {
        Part::Chart(Chart {
            shape: Shape::Bars,
            title: ranking.label.clone(),
            source: table.title.clone(),
            names: 0,
            values: vec![1 + 2 * at],
            percent: ranking.unit == "%",
        })
    });
    let mut parts: Vec<Part> = charts.flat_map(|chart| [Part::PageBreak, chart]).collect();
    parts.insert(0, Part::Table(table));
    let intro = vec!["并列者同名次；比率没有分母的区划不参加排名。".to_owned()];
    Sheet { name: "区划排名", landscape: true, intro, parts }
}

/// All divisions that are ranked, by the place in the first ranking.
fn divisions(report: &v1::Report) -> Vec<(&str, &str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for place in report.rankings.iter().flat_map(|ranking| &ranking.divisions) {
        if !found.iter().any(|(code, _)| *code == place.division) {
            found.push((&place.division, &place.display_name));
        }
    }
    found
}

fn changes(report: &v1::Report) -> Sheet {
    let mut table = Table::new(
        "与上期、上年同期比较",
        &[
            ("指标", 25.0),
            ("单位", 7.0),
            ("本期", 12.0),
            ("上期", 12.0),
            ("增减", 15.0),
            ("环比", 10.0),
            ("上年同期", 12.0),
            ("增减", 15.0),
            ("同比", 10.0),
        ],
    );
    for figure in &report.figures {
        let (now, before, year) = values(figure);
        table.rows.push(vec![
            Cell::text(&figure.label),
            Cell::text(&figure.unit),
            Cell::value(now),
            Cell::value(before),
            Cell::difference(now, before),
            Cell::change(now, before),
            Cell::value(year),
            Cell::difference(now, year),
            Cell::change(now, year),
        ]);
    }
    let parts = vec![Part::Table(table), Part::PageBreak, Part::Table(trends(report))];
    Sheet { name: "环比同比", landscape: true, intro: Vec::new(), parts }
}

/// Month by month, one measure a column.
fn trends(report: &v1::Report) -> Table {
    let mut table = Table::new(TREND, &[("月份", 25.0)]);
    for trend in &report.trends {
        let header = if trend.unit == "%" {
            trend.label.clone()
        } else {
            format!("{}（{}）", trend.label, trend.unit)
        };
        table.columns.push(Column { header, width: 12.0 });
    }
    let months = report.trends.first().map(|trend| trend.points.as_slice()).unwrap_or_default();
    for month in months {
        let mut row = vec![Cell::text(&month.period)];
        for trend in &report.trends {
            let point = trend.points.iter().find(|point| point.period == month.period);
            row.push(Cell::value(point.and_then(|point| point.value.as_ref())));
        }
        table.rows.push(row);
    }
    table
}

fn trend_chart(report: &v1::Report) -> Option<Chart> {
    let counts = report.trends.iter().enumerate().filter(|(_, trend)| trend.unit != "%");
    let values: Vec<usize> = counts.map(|(at, _)| at + 1).take(3).collect();
    let points = report.trends.first().map_or(0, |trend| trend.points.len());
    (points > 1 && !values.is_empty()).then(|| Chart {
        shape: Shape::Lines,
        title: TREND.to_owned(),
        source: TREND.to_owned(),
        names: 0,
        values,
        percent: false,
    })
}

fn completeness(report: &v1::Report) -> Sheet {
    let mut table = Table::new(
        "报送与数据完整性",
        &[
            ("区划代码", 16.0),
            ("区划", 24.0),
            ("报送状态", 18.0),
            ("报送单位", 20.0),
            ("报送时间", 18.0),
            ("数据完整至", 18.0),
        ],
    );
    for status in &report.statuses {
        let (readiness, by) = match status.readiness() {
            v1::Readiness::NotLinked => ("未联通", ""),
            v1::Readiness::NotSubmitted => ("已联通，未报送", ""),
            v1::Readiness::Submitted => ("已报送", status.submitted_by.as_str()),
            v1::Readiness::Withdrawn => ("已撤回", status.submitted_by.as_str()),
            v1::Readiness::Unspecified => ("不详", ""),
        };
        table.rows.push(vec![
            Cell::text(&status.division),
            Cell::text(&status.display_name),
            Cell::text(readiness),
            Cell::text(by),
            Cell::text(moment(status.change_time.as_ref())),
            Cell::text(moment(status.complete_through_time.as_ref())),
        ]);
    }
    let intro = format!(
        "下列区划的数据截至{}。“未联通”的区划从未接入节点；“已联通，未报送”的区划有数据上传，但尚未声明本期完整。“数据完整至”为该区划各节点数据全部到达的时刻，空白表示没有节点或尚未声明。",
        moment(report.as_of_time.as_ref())
    );
    let mut parts = vec![Part::Table(table)];
    parts.extend(missed(report).map(Part::Table));
    Sheet { name: "完整性", landscape: false, intro: vec![intro], parts }
}

/// Whose holdings are in no stock of a past day, where there are such divisions.
fn missed(report: &v1::Report) -> Option<Table> {
    if report.missed_snapshot_count == 0 {
        return None;
    }
    let more = match report.missed_snapshot_count.saturating_sub(report.missed_snapshots.len() as u64) {
        0 => String::new(),
        more => format!("（另有{more}项未列出）"),
    };
    let title = format!("缺少当日快照的区划，其存量未计入{more}");
    let mut table = Table::new(title, &[("日期", 16.0), ("区划代码", 16.0), ("区划", 40.0)]);
    for missed in &report.missed_snapshots {
        table.rows.push([&missed.day, &missed.division, &missed.display_name].map(Cell::text).into());
    }
    Some(table)
}

fn notes(report: &v1::Report) -> Sheet {
    let mut table = Table::new("指标口径", &[("指标", 25.0), ("代码", 24.0), ("口径", 45.0)]);
    for figure in &report.figures {
        let row = [&figure.label, &figure.measure, &figure.definition];
        table.rows.push(row.map(Cell::text).into());
    }
    let intro = vec![
        "时间按北京时间；报告期含首日零时，不含末日次日零时。".to_owned(),
        "环比＝（本期－上期）÷上期，同比＝（本期－上年同期）÷上年同期；对比期为零或没有数据时不计算。比率的增减以百分点计。"
            .to_owned(),
        "存量指标为报告期末的数；流量指标按记录的业务日期计入报告期，晚到的数据会使已结束的报告期重新计数。往期存量取自该日快照，没有快照的显示“—”。".to_owned(),
        "本报告的数据自签发起不再变动；签发后的修订用 guantong report diff 查看。".to_owned(),
    ];
    Sheet { name: "说明", landscape: false, intro, parts: vec![Part::Table(table)] }
}

type Value<'a> = Option<&'a v1::ReportValue>;

/// Now, before, a year before.
fn values(figure: &v1::ReportFigure) -> (Value<'_>, Value<'_>, Value<'_>) {
    (figure.value.as_ref(), figure.previous_value.as_ref(), figure.year_before_value.as_ref())
}
