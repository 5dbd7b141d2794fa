//! A county's month, with names that are hostile to tables.

use guantong_proto::v1;

fn value(numerator: i64) -> Option<v1::ReportValue> {
    Some(v1::ReportValue { numerator, denominator: None, revision: 1 })
}

fn rate(numerator: i64, denominator: i64) -> Option<v1::ReportValue> {
    Some(v1::ReportValue { numerator, denominator: Some(denominator), revision: 1 })
}

const NAMES: [&str; 16] = [
    "开通镇",
    "瞻榆镇",
    "双岗镇",
    "兴隆山镇",
    "边昭镇",
    "鸿兴镇",
    "新华镇",
    "乌兰花镇",
    "新发乡",
    "新兴乡",
    "向海蒙古族乡",
    "包拉温都蒙古族乡",
    "团结乡",
    "十花道乡",
    "八面乡",
    "苏公坨乡",
];

fn figures() -> Vec<v1::ReportFigure> {
    let figure = |measure: &str,
                  label: &str,
                  unit: &str,
                  group: &str,
                  values: [Option<v1::ReportValue>; 3],
                  color: v1::Color| {
        let [value, previous_value, year_before_value] = values;
        v1::ReportFigure {
            measure: measure.into(),
            label: label.into(),
            unit: unit.into(),
            group: group.into(),
            definition: format!("{label}的口径：按记录的业务日期计入，作废和重复的不计。"),
            value,
            previous_value,
            year_before_value,
            color: color.into(),
        }
    };
    let (none, green, blue, yellow, red) =
        (v1::Color::Unspecified, v1::Color::Green, v1::Color::Blue, v1::Color::Yellow, v1::Color::Red);
    vec![
        figure("grids_active", "网格数", "个", "网格", [value(1058), value(1058), value(1041)], none),
        figure(
            "grid_coverage",
            "网格覆盖率",
            "%",
            "网格",
            [rate(180, 182), rate(180, 182), rate(175, 182)],
            green,
        ),
        figure("staff", "网格员", "人", "队伍", [value(1895), value(1890), value(1804)], none),
        figure("cases_received", "受理事件", "件", "事件", [value(1312), value(1247), value(1402)], none),
        figure("cases_concluded", "办结事件", "件", "事件", [value(1268), value(1251), value(1377)], none),
        figure("cases_escalated", "上报事件", "件", "事件", [value(41), value(38), None], none),
        figure("cases_overdue", "逾期事件", "件", "事件", [value(27), value(12), value(19)], red),
        figure(
            "success_rate",
            "调处成功率",
            "%",
            "事件",
            [rate(2154, 2185), rate(2101, 2140), rate(2050, 2120)],
            blue,
        ),
        figure(
            "on_time_rate",
            "按期办结率",
            "%",
            "事件",
            [rate(1187, 1268), rate(1203, 1251), rate(1299, 1377)],
            yellow,
        ),
        figure("cameras", "视频监控点位", "个", "视频", [value(18394), value(18370), value(16021)], none),
        figure("online_rate", "在线率", "%", "视频", [rate(17612, 18394), rate(17590, 18370), None], green),
        figure("sound_rate", "完好率", "%", "视频", [rate(0, 0), None, None], none),
    ]
}

fn rankings() -> Vec<v1::ReportRanking> {
    let (green, red) = (v1::Color::Green, v1::Color::Red);
    let ranked = |measure: &str, label: &str, unit: &str, of: &dyn Fn(i64) -> Option<v1::ReportValue>| {
        v1::ReportRanking {
            measure: measure.into(),
            label: label.into(),
            unit: unit.into(),
            divisions: NAMES
                .iter()
                .enumerate()
                .map(|(at, name)| v1::RankedDivision {
                    division: format!("220822{:03}000", 100 + at),
                    display_name: if at == 15 { "<b>&\"苏公坨乡".into() } else { (*name).into() },
                    value: of(at as i64),
                    rank: if at == 15 { 0 } else { at as i32 + 1 },
                    color: if at > 12 { red.into() } else { green.into() },
                })
                .collect(),
        }
    };
    vec![
        ranked("cases_received", "受理事件", "件", &|at| value(160 - at * 7)),
        ranked("success_rate", "调处成功率", "%", &|at| {
            if at == 15 { rate(0, 0) } else { rate(200 - at * 3, 203) }
        }),
        ranked("on_time_rate", "按期办结率", "%", &|at| rate(97 - at, 100)),
        ranked("online_rate", "在线率", "%", &|at| rate(990 - at * 11, 1000)),
    ]
}

fn trends() -> Vec<v1::ReportTrend> {
    let months: Vec<String> =
        (0..13).map(|m| format!("{}-{:02}", 2025 + (m + 9) / 12, (m + 9) % 12 + 1)).collect();
    let trend = |measure: &str, label: &str, unit: &str, of: &dyn Fn(i64) -> Option<v1::ReportValue>| {
        v1::ReportTrend {
            measure: measure.into(),
            label: label.into(),
            unit: unit.into(),
            points: months
                .iter()
                .enumerate()
                .map(|(at, month)| v1::TrendPoint { period: month.clone(), value: of(at as i64) })
                .collect(),
        }
    };
    vec![
        trend("cases_received", "受理事件", "件", &|at| value(1100 + (at * 131) % 350)),
        trend("cases_concluded", "办结事件", "件", &|at| value(1080 + (at * 117) % 330)),
        trend("success_rate", "调处成功率", "%", &|at| rate(960 + at * 2, 1000)),
    ]
}

fn breakdown() -> v1::ReportBreakdown {
    let classes = [
        "邻里",
        "婚姻家庭",
        "土地",
        "债务合同",
        "劳动争议",
        "拖欠工资",
        "物业",
        "安全隐患",
        "道路交通事故",
        "其他",
    ];
    v1::ReportBreakdown {
        measure: "cases_received".into(),
        label: "受理事件".into(),
        unit: "件".into(),
        dimension_label: "类别".into(),
        rows: classes
            .iter()
            .enumerate()
            .map(|(at, label)| v1::BreakdownRow {
                class: at.to_string(),
                label: (*label).into(),
                value: 300 - at as i64 * 27,
            })
            .collect(),
    }
}

fn statuses() -> Vec<v1::SubmissionStatus> {
    let readiness = |at: usize| match at {
        3 => v1::Readiness::NotLinked,
        5 | 9 => v1::Readiness::NotSubmitted,
        11 => v1::Readiness::Withdrawn,
        _ => v1::Readiness::Submitted,
    };
    let mut statuses = vec![v1::SubmissionStatus {
        division: "220822000000".into(),
        display_name: "吉林省白城市通榆县".into(),
        readiness: v1::Readiness::NotSubmitted.into(),
        ..Default::default()
    }];
    statuses.extend(NAMES.iter().enumerate().map(|(at, name)| v1::SubmissionStatus {
        division: format!("220822{:03}000", 100 + at),
        display_name: (*name).into(),
        readiness: readiness(at).into(),
        change_time: Some(prost_types::Timestamp { seconds: 1_793_500_000 + at as i64 * 3_600, nanos: 0 }),
        submitted_by: "综治中心".into(),
        complete_through_time: Some(prost_types::Timestamp { seconds: 1_793_599_000, nanos: 0 }),
    }));
    statuses
}

fn warnings() -> Vec<v1::ReportWarning> {
    let (yellow, red) = (v1::Color::Yellow, v1::Color::Red);
    let warning = |division: &str, label: &str, unit: &str, value, color: v1::Color, bound, lower: bool| {
        v1::ReportWarning {
            division: "220822103000".into(),
            display_name: division.into(),
            measure: "m".into(),
            label: label.into(),
            unit: unit.into(),
            value,
            color: color.into(),
            bound_millionths: bound,
            threshold_division: "220822000000".into(),
            threshold_display_name: "通榆县".into(),
            direction: if lower {
                v1::ThresholdDirection::LowerIsBetter
            } else {
                v1::ThresholdDirection::HigherIsBetter
            }
            .into(),
        }
    };
    vec![
        warning("通榆县", "逾期事件", "件", value(27), red, 20_000_000, true),
        warning("兴隆山镇", "按期办结率", "%", rate(94, 100), yellow, 950_000, false),
    ]
}

/// The report.
pub(in crate::report) fn sample() -> v1::Report {
    v1::Report {
        name: "divisions/220822000000/reports/2026-10-1".into(),
        division: "220822000000".into(),
        display_name: "吉林省白城市通榆县".into(),
        period: "2026-10".into(),
        period_label: "2026年10月".into(),
        period_closed: true,
        issue_time: Some(prost_types::Timestamp { seconds: 1_793_600_000, nanos: 0 }),
        issued_by: "li.wei".into(),
        as_of_time: Some(prost_types::Timestamp { seconds: 1_793_599_000, nanos: 0 }),
        figures: figures(),
        rankings: rankings(),
        trends: trends(),
        breakdowns: vec![breakdown()],
        missed_snapshots: Vec::new(),
        missed_snapshot_count: 0,
        statuses: statuses(),
        warnings: warnings(),
    }
}
