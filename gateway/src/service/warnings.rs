//! Warnings 预警: which figures have crossed the threshold that counts for their division. Answers, reports and the
//! node's status all ask here.

use guantong_proto::v1;

use super::figures::{Figure, Query, figures};
use crate::division::Division;
use crate::engine::Shared;
use crate::measure::{Measure, Value};
use crate::period::{Day, Period};
use crate::store::StoreError;
use crate::threshold::{Bounds, Thresholds, color_label, millionths_text};

/// Warnings that a status lists.
const LISTED_MAX: usize = 50;

/// The state of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) color: v1::Color,
    /// Whose threshold it is.
    home: Division,
    bounds: Bounds,
}

/// The state of a figure against the threshold that counts; `None`: none applies, or there is no figure. A number of
/// things that happened is judged by month: how many are too many depends on how long one looks.
pub(super) fn judge(thresholds: &Thresholds, figure: &Figure) -> Option<Judged> {
    let month = Period::month(figure.period.first().month());
    let counted = figure.measure.formula.is_flow() && !figure.measure.is_rate();
    if figure.class.is_some() || counted && figure.period != month {
        return None;
    }
    let (home, bounds) = thresholds.nearest(figure.measure.name, figure.division)?;
    let (numerator, denominator) = match figure.value {
        Value::Number(number) => (number, 1),
        Value::Rate { numerator, denominator } => (numerator, denominator),
        Value::Unknown => return None,
    };
    let color = bounds.color(numerator, denominator);
    (color != v1::Color::Unspecified).then_some(Judged { color, home, bounds: *bounds })
}

/// The thresholds that figures have crossed, the worst first.
pub(super) fn of_figures<'f>(
    shared: &Shared,
    figures: impl IntoIterator<Item = &'f Figure>,
) -> Vec<v1::ReportWarning> {
    let (thresholds, divisions) = (shared.thresholds(), shared.divisions());
    let name = |division| divisions.name(division).unwrap_or_default().to_owned();
    let warn = |figure: &Figure| {
        let Judged { color, home, bounds } = judge(&thresholds, figure)?;
        let bound_millionths = bounds.bound_millionths(color)?;
        let direction = match bounds.higher_is_better() {
            true => v1::ThresholdDirection::HigherIsBetter,
            false => v1::ThresholdDirection::LowerIsBetter,
        };
        Some(v1::ReportWarning {
            division: figure.division.to_string(),
            display_name: name(figure.division),
            measure: figure.measure.name.into(),
            label: figure.measure.label.into(),
            unit: figure.measure.unit.into(),
            value: value(figure),
            color: color.into(),
            bound_millionths,
            threshold_division: home.to_string(),
            threshold_display_name: name(home),
            direction: direction.into(),
        })
    };
    let mut warnings: Vec<v1::ReportWarning> = figures.into_iter().filter_map(warn).collect();
    warnings.sort_by_key(|warning| std::cmp::Reverse(warning.color));
    warnings
}

/// A figure's counts; `None`: it cannot be told.
pub(super) fn value(figure: &Figure) -> Option<v1::ReportValue> {
    let (numerator, denominator) = match figure.value {
        Value::Number(number) => (number, None),
        Value::Rate { numerator, denominator } => (numerator, Some(denominator)),
        Value::Unknown => return None,
    };
    Some(v1::ReportValue { numerator, denominator, revision: figure.revision })
}

/// What the node's status says of its own division and those directly below, in the month that is running.
pub(super) async fn of_now(shared: &Shared) -> Result<Vec<String>, StoreError> {
    let thresholds = shared.thresholds();
    let measures: Vec<&'static Measure> = thresholds.measures().filter_map(Measure::named).collect();
    if measures.is_empty() {
        return Ok(Vec::new());
    }
    let now_ms = (shared.environment.now_ms)();
    let period = Period::month(Day::of_ms(now_ms).month());
    let own = shared.own();
    let known = shared.divisions();
    let below =
        known.children(own).into_iter().map(|(child, _)| child).filter(|child| *child == child.home());
    let divisions = std::iter::once(own).chain(below).collect();
    let query = Query { divisions, measures, dimension: None, periods: vec![period] };
    let found = figures(shared, &query, now_ms).await?;
    let warnings = of_figures(shared, &found);
    let more = warnings.len().saturating_sub(LISTED_MAX);
    let mut texts: Vec<String> = warnings.iter().take(LISTED_MAX).map(words).collect();
    if more > 0 {
        texts.push(format!("and {more} more thresholds are crossed (另有{more}项预警)"));
    }
    Ok(texts)
}

fn words(warning: &v1::ReportWarning) -> String {
    let color = warning.color();
    let rate = warning.unit == "%";
    let value = warning.value.unwrap_or_default();
    let figure = match value.denominator {
        Some(denominator) => format!("{}/{denominator}", value.numerator),
        None => value.numerator.to_string(),
    };
    let beyond = match warning.direction() {
        v1::ThresholdDirection::LowerIsBetter => "above",
        _ => "below",
    };
    format!(
        "{}: {} {} {figure} is {beyond} {} ({}预警: {}{}，{}设定)",
        color.as_str_name().trim_start_matches("COLOR_").to_lowercase(),
        warning.division,
        warning.measure,
        millionths_text(warning.bound_millionths, rate),
        color_label(color),
        warning.display_name,
        warning.label,
        warning.threshold_display_name,
    )
}
