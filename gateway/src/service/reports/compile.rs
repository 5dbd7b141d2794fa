//! Puts a report together: which measures it tells, compares, ranks and draws. All totals come from one question, so
//! that they fit together.

use guantong_proto::v1;
use tonic::Status;

use super::super::figures::{Figure, Query, figures, missed};
use super::super::submissions::statuses;
use super::super::{status, view, warnings};
use crate::division::Division;
use crate::engine::Shared;
use crate::measure::{Dimension, Measure, ranks};
use crate::period::Period;
use crate::threshold::Thresholds;

/// What a report tells of the division, by group.
const TOLD: [(&str, &[&str]); 4] = [
    ("网格", &["grids", "grid_coverage", "staff"]),
    (
        "事件",
        &[
            "cases_received",
            "cases_accepted",
            "cases_concluded",
            "cases_succeeded",
            "cases_escalated",
            "cases_returned",
            "cases_open",
            "cases_overdue",
            "success_rate",
            "on_time_rate",
        ],
    ),
    ("视频", &["cameras", "online_rate", "sound_rate", "connected_rate", "filing_rate"]),
    ("档案", &["records", "complete_record_rate"]),
];
/// What the divisions below are ranked by: more is better in each.
const RANKED: [&str; 5] =
    ["cases_received", "success_rate", "on_time_rate", "online_rate", "complete_record_rate"];
/// What is followed month by month.
const FOLLOWED: [&str; 3] = ["cases_received", "cases_concluded", "success_rate"];
/// So many months, that of the report and the same month a year before included.
const MONTHS: i32 = 13;
/// What is told by a dimension.
const PARTED: (&str, Dimension) = ("cases_received", Dimension::Category);

/// The report of a division and a period as of now, without a name.
pub(super) async fn report(
    shared: &Shared,
    division: Division,
    period: &Period,
) -> Result<v1::Report, Status> {
    let now_ms = (shared.environment.now_ms)();
    let divisions = shared.divisions();
    let below = divisions.children(division).into_iter().map(|(child, _)| child);
    let below: Vec<Division> = below.filter(|child| *child == child.home()).collect();
    let thresholds = shared.thresholds();
    let query = Query {
        divisions: std::iter::once(division).chain(below.iter().copied()).collect(),
        measures: measures(&thresholds),
        dimension: None,
        periods: periods(period),
    };
    let found = figures(shared, &query, now_ms).await.map_err(|e| status::of_store(&e))?;
    let all = All { figures: &found, period, thresholds: &thresholds };
    let told = [Some(*period), period.previous(), period.year_before()];
    let told = Query { periods: told.into_iter().flatten().collect(), ..query };
    let missed = missed(shared, &told, now_ms).await.map_err(|e| status::of_store(&e))?;
    let judged = found.iter().filter(|figure| figure.period == *period);
    Ok(v1::Report {
        name: String::new(),
        division: division.to_string(),
        display_name: divisions.full_name(division),
        period: period.to_string(),
        period_label: period.label(),
        issue_time: None,
        issued_by: String::new(),
        as_of_time: Some(view::timestamp(now_ms)),
        period_closed: period.is_closed(now_ms),
        figures: all.told(division),
        rankings: all.rankings(shared, &below),
        trends: all.trends(division),
        breakdowns: vec![breakdown(shared, division, period, now_ms).await?],
        statuses: statuses(shared, division, period, now_ms).await?,
        warnings: warnings::of_figures(shared, judged),
        missed_snapshots: view::missed(shared, &missed),
        missed_snapshot_count: missed.count as u64,
    })
}

/// Every measure that a report needs, those with a threshold included.
fn measures(thresholds: &Thresholds) -> Vec<&'static Measure> {
    let told = TOLD.iter().flat_map(|(_, names)| names.iter().copied());
    let mut found: Vec<&'static Measure> = Vec::new();
    for name in told.chain(RANKED).chain(FOLLOWED).chain(thresholds.measures()) {
        let measure = Measure::named(name).filter(|m| !found.iter().any(|known| known.name == m.name));
        found.extend(measure);
    }
    found
}

/// The period, what it is compared with, and the months up to its end.
fn periods(period: &Period) -> Vec<Period> {
    let mut periods = vec![*period];
    let others = [period.previous(), period.year_before()].into_iter().flatten().chain(months(period));
    for other in others {
        if !periods.contains(&other) {
            periods.push(other);
        }
    }
    periods
}

/// The months up to the one that a period ends in, oldest first.
fn months(period: &Period) -> Vec<Period> {
    let end = period.last().month();
    (0..MONTHS).rev().filter_map(|before| end.plus(-before)).map(Period::month).collect()
}

/// All totals of a report.
struct All<'a> {
    figures: &'a [Figure],
    period: &'a Period,
    thresholds: &'a Thresholds,
}

impl All<'_> {
    fn get(&self, division: Division, measure: &str, period: Option<Period>) -> Option<&Figure> {
        let period = period?;
        self.figures
            .iter()
            .find(|f| f.division == division && f.measure.name == measure && f.period == period)
    }

    fn color(&self, figure: Option<&Figure>) -> v1::Color {
        let judged = figure.and_then(|figure| warnings::judge(self.thresholds, figure));
        judged.map_or(v1::Color::Unspecified, |judged| judged.color)
    }

    fn told(&self, division: Division) -> Vec<v1::ReportFigure> {
        let each = TOLD.iter().flat_map(|(group, names)| names.iter().map(move |name| (*group, *name)));
        let measures = each.filter_map(|(group, name)| Some((group, Measure::named(name)?)));
        let figure = |(group, measure): (&str, &'static Measure)| {
            let get = |period| self.get(division, measure.name, period);
            let now = get(Some(*self.period));
            let basis = measure.formula.basis().1;
            let basis = if basis.is_empty() { String::new() } else { format!("；占比基数：{basis}") };
            v1::ReportFigure {
                measure: measure.name.into(),
                label: measure.label.into(),
                unit: measure.unit.into(),
                group: group.into(),
                definition: format!("{}{basis}", measure.meaning_label),
                value: now.and_then(warnings::value),
                previous_value: get(self.period.previous()).and_then(warnings::value),
                year_before_value: get(self.period.year_before()).and_then(warnings::value),
                color: self.color(now).into(),
            }
        };
        measures.map(figure).collect()
    }

    fn rankings(&self, shared: &Shared, below: &[Division]) -> Vec<v1::ReportRanking> {
        let divisions = shared.divisions();
        let ranking = |measure: &'static Measure| {
            let found: Vec<&Figure> =
                below.iter().filter_map(|one| self.get(*one, measure.name, Some(*self.period))).collect();
            let values: Vec<_> = found.iter().map(|figure| figure.value).collect();
            let places = found.iter().zip(ranks(&values)).map(|(figure, rank)| v1::RankedDivision {
                division: figure.division.to_string(),
                display_name: divisions.name(figure.division).unwrap_or_default().to_owned(),
                value: warnings::value(figure),
                rank: rank.map_or(0, |rank| i32::try_from(rank).unwrap_or(i32::MAX)),
                color: self.color(Some(figure)).into(),
            });
            let mut places: Vec<v1::RankedDivision> = places.collect();
            // Those without a rank come last.
            places.sort_by_key(|place| if place.rank == 0 { i32::MAX } else { place.rank });
            v1::ReportRanking {
                measure: measure.name.into(),
                label: measure.label.into(),
                unit: measure.unit.into(),
                divisions: places,
            }
        };
        RANKED.iter().filter_map(|name| Measure::named(name)).map(ranking).collect()
    }

    fn trends(&self, division: Division) -> Vec<v1::ReportTrend> {
        let trend = |measure: &'static Measure| v1::ReportTrend {
            measure: measure.name.into(),
            label: measure.label.into(),
            unit: measure.unit.into(),
            points: months(self.period)
                .into_iter()
                .map(|month| v1::TrendPoint {
                    period: month.to_string(),
                    value: self.get(division, measure.name, Some(month)).and_then(warnings::value),
                })
                .collect(),
        };
        FOLLOWED.iter().filter_map(|name| Measure::named(name)).map(trend).collect()
    }
}

async fn breakdown(
    shared: &Shared,
    division: Division,
    period: &Period,
    now_ms: u64,
) -> Result<v1::ReportBreakdown, Status> {
    let (name, dimension) = PARTED;
    let Some(measure) = Measure::named(name) else { return Ok(v1::ReportBreakdown::default()) };
    let query = Query {
        divisions: vec![division],
        measures: vec![measure],
        dimension: Some(dimension),
        periods: vec![*period],
    };
    let found = figures(shared, &query, now_ms).await.map_err(|e| status::of_store(&e))?;
    let row = |figure: &Figure| {
        let class = figure.class?;
        let value = warnings::value(figure)?.numerator;
        let row = v1::BreakdownRow { class: class.name.into(), label: class.label.into(), value };
        (value != 0).then_some(row)
    };
    let mut rows: Vec<v1::BreakdownRow> = found.iter().filter_map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.value));
    Ok(v1::ReportBreakdown {
        measure: measure.name.into(),
        label: measure.label.into(),
        unit: measure.unit.into(),
        dimension_label: dimension.label().into(),
        rows,
    })
}
