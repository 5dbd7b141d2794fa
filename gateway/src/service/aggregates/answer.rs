//! Says figures: values with their comparisons and ranks.

use std::collections::{BTreeMap, HashMap, HashSet};

use guantong_proto::v1;

use super::super::figures::{self, Figure, Missed, Query};
use super::super::warnings;
use super::ask::Asked;
use crate::division::Division;
use crate::engine::Shared;
use crate::measure::{Value, ranks};
use crate::period::Period;
use crate::store::StoreError;

/// A figure's place: division, measure, class.
type Place = (Division, &'static str, Option<u16>);

fn place(figure: &Figure) -> Place {
    (figure.division, figure.measure.name, figure.class.map(|c| c.number))
}

/// The figures that were asked for, in the order of divisions, measures, classes and periods.
pub(super) async fn figures(
    shared: &Shared,
    asked: &Asked,
    now_ms: u64,
) -> Result<Vec<v1::Figure>, StoreError> {
    let shown: HashSet<Period> = asked.query.periods.iter().copied().collect();
    let all = figures::figures(shared, &with_earlier(asked), now_ms).await?;
    let values: HashMap<(Place, Period), Value> = if !asked.year_on_year && !asked.period_on_period {
        HashMap::new()
    } else {
        all.iter().map(|f| ((place(f), f.period), f.value)).collect()
    };
    let divisions = shared.divisions();
    let thresholds = shared.thresholds();
    let ranked = if asked.rank { rank(&all) } else { HashMap::new() };
    let earlier = |figure: &Figure, wanted: bool, period: Option<Period>| {
        let found = period.filter(|_| wanted).and_then(|p| values.get(&(place(figure), p)));
        found.copied().unwrap_or_default()
    };
    let say = |figure: &Figure| {
        let year_before = earlier(figure, asked.year_on_year, figure.period.year_before());
        let previous = earlier(figure, asked.period_on_period, figure.period.previous());
        let (numerator, denominator) = match figure.value {
            Value::Rate { numerator, denominator } => (Some(numerator), Some(denominator)),
            Value::Number(_) | Value::Unknown => (None, None),
        };
        v1::Figure {
            division: figure.division.to_string(),
            display_name: divisions.name(figure.division).unwrap_or_default().to_owned(),
            measure: figure.measure.name.into(),
            class_name: figure.class.map(|c| c.name.to_owned()).unwrap_or_default(),
            period: figure.period.to_string(),
            period_closed: figure.period.is_closed(now_ms),
            value: figure.value.number(),
            numerator,
            denominator,
            basis: figure.measure.formula.basis().0.into(),
            revision: figure.revision,
            year_before_value: year_before.number(),
            year_on_year_change: figure.value.change_from(year_before),
            previous_value: previous.number(),
            period_on_period_change: figure.value.change_from(previous),
            rank: ranked.get(&(place(figure), figure.period)).copied(),
            color: warnings::judge(&thresholds, figure).map_or(v1::Color::Unspecified, |j| j.color).into(),
        }
    };
    Ok(all.iter().filter(|f| shown.contains(&f.period)).map(say).collect())
}

/// Who took no snapshot of the days that these figures, and those they are compared with, stand for.
pub(super) async fn missed(shared: &Shared, asked: &Asked, now_ms: u64) -> Result<Missed, StoreError> {
    figures::missed(shared, &with_earlier(asked), now_ms).await
}

/// The query with the periods to compare with.
fn with_earlier(asked: &Asked) -> Query {
    let mut query = asked.query.clone();
    let mut known: HashSet<Period> = query.periods.iter().copied().collect();
    for period in &asked.query.periods {
        let year_before = period.year_before().filter(|_| asked.year_on_year);
        let previous = period.previous().filter(|_| asked.period_on_period);
        query.periods.extend([year_before, previous].into_iter().flatten().filter(|p| known.insert(*p)));
    }
    query
}

/// The rank of each figure among those of the same measure, class and period.
fn rank(all: &[Figure]) -> HashMap<(Place, Period), u32> {
    let mut siblings: BTreeMap<_, Vec<&Figure>> = BTreeMap::new();
    for figure in all {
        let (_, measure, class) = place(figure);
        let period = (figure.period.first(), figure.period.last());
        siblings.entry((measure, class, period)).or_default().push(figure);
    }
    let mut ranked = HashMap::new();
    for figures in siblings.into_values() {
        let values: Vec<Value> = figures.iter().map(|f| f.value).collect();
        let found = figures.iter().zip(ranks(&values));
        ranked.extend(found.filter_map(|(f, rank)| Some(((place(f), f.period), rank?))));
    }
    ranked
}
