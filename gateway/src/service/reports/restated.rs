//! What was restated: a report as it was issued, against the same report as it would be issued now.

use std::collections::BTreeMap;

use guantong_proto::v1;

use crate::period::Period;

/// A figure's place in a report: division, measure, class, period.
type Place = (String, String, String, String);

/// A figure as people know it.
#[derive(Clone, Debug)]
struct Told {
    place: Place,
    display_name: String,
    label: String,
    unit: String,
    value: Option<v1::ReportValue>,
}

/// Figures that are others now, in the order of the report.
pub(super) fn compare(before: &v1::Report, after: &v1::Report) -> v1::DiffReportResponse {
    let (issued, now) = (told(before), told(after));
    let known: BTreeMap<&Place, &Told> = now.iter().map(|told| (&told.place, told)).collect();
    let was: BTreeMap<&Place, &Told> = issued.iter().map(|told| (&told.place, told)).collect();
    // A class or division that has appeared since has no place in the report.
    let fresh = now.iter().filter(|told| !was.contains_key(&told.place));
    let pairs =
        issued.iter().map(|told| (told, told.value, known.get(&told.place).and_then(|now| now.value)));
    let pairs = pairs.chain(fresh.map(|told| (told, None, told.value)));
    let mut compared_count = 0;
    let mut restatements = Vec::new();
    for (told, before, after) in pairs {
        compared_count += 1;
        if counts(before) != counts(after) {
            let (division, measure, _, period) = told.place.clone();
            restatements.push(v1::Restatement {
                division,
                display_name: told.display_name.clone(),
                measure,
                label: told.label.clone(),
                unit: told.unit.clone(),
                period,
                before,
                after,
            });
        }
    }
    v1::DiffReportResponse { restatements, compared_count, as_of_time: after.as_of_time }
}

/// What a figure says: how often it was changed on the way is not part of that.
fn counts(value: Option<v1::ReportValue>) -> Option<(i64, Option<i64>)> {
    value.map(|value| (value.numerator, value.denominator))
}

/// Every figure of a report, each once.
fn told(report: &v1::Report) -> Vec<Told> {
    let mut all = Vec::new();
    let mut tell =
        |division: &str, name: &str, measure: (&str, &str, &str), class: &str, period: &str, value| {
            let place = (division.to_owned(), measure.0.to_owned(), class.to_owned(), period.to_owned());
            let (display_name, label, unit) = (name.to_owned(), measure.1.to_owned(), measure.2.to_owned());
            all.push(Told { place, display_name, label, unit, value });
        };
    let own = (&*report.division, &*report.display_name);
    let period: Option<Period> = report.period.parse().ok();
    let previous = period.and_then(|p| p.previous()).map(|p| p.to_string());
    let year_before = period.and_then(|p| p.year_before()).map(|p| p.to_string());
    for figure in &report.figures {
        let measure = (&*figure.measure, &*figure.label, &*figure.unit);
        tell(own.0, own.1, measure, "", &report.period, figure.value);
        if let Some(previous) = &previous {
            tell(own.0, own.1, measure, "", previous, figure.previous_value);
        }
        if let Some(year_before) = &year_before {
            tell(own.0, own.1, measure, "", year_before, figure.year_before_value);
        }
    }
    for ranking in &report.rankings {
        let measure = (&*ranking.measure, &*ranking.label, &*ranking.unit);
        for place in &ranking.divisions {
            tell(&place.division, &place.display_name, measure, "", &report.period, place.value);
        }
    }
    for trend in &report.trends {
        let measure = (&*trend.measure, &*trend.label, &*trend.unit);
        for point in &trend.points {
            tell(own.0, own.1, measure, "", &point.period, point.value);
        }
    }
    for breakdown in &report.breakdowns {
        for row in &breakdown.rows {
            let label = format!("{}（{}）", breakdown.label, row.label);
            let measure = (&*breakdown.measure, &*label, &*breakdown.unit);
            let value = v1::ReportValue { numerator: row.value, denominator: None, revision: 0 };
            tell(own.0, own.1, measure, &row.class, &report.period, Some(value));
        }
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|told| seen.insert(told.place.clone()));
    all
}
