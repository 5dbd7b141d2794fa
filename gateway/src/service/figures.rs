//! Figures out of kept counts: the one place that answers what a measure came to in a division and a period. Reports,
//! thresholds, exports and streams all ask here. It reads no records: what it costs depends on divisions and periods
//! only.

use std::collections::BTreeMap;

use crate::aggregate::{Cell, Entries};
use crate::division::Division;
use crate::engine::Shared;
use crate::measure::{Class, Code, Dimension, Formula, Measure, Term, UNLISTED, Value};
use crate::period::{Day, Period};
use crate::store::{StoreError, TallyPeriods, TallyRange};

mod kept;
mod missed;
mod wanted;

use kept::Of;
pub use missed::{Missed, missed};
use wanted::{Wanted, is_township};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Query {
    /// Of these divisions, each inside the node's own.
    pub divisions: Vec<Division>,
    /// These measures.
    pub measures: Vec<&'static Measure>,
    /// Each class of it on its own; `None`: totals. Measures that are not kept by it give nothing.
    pub dimension: Option<Dimension>,
    /// In these periods.
    pub periods: Vec<Period>,
}

/// What a measure came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// In which division.
    pub division: Division,
    /// Which measure.
    pub measure: &'static Measure,
    /// Its part in this class; `None`: the total.
    pub class: Option<Class>,
    /// In which period.
    pub period: Period,
    /// How much; a rate has its numerator and denominator.
    pub value: Value,
    /// How often flows of the months of the period were changed after they were over, added over counties and months.
    /// It only rises. 0 for stocks.
    pub revision: u64,
}

/// Answers a query, in the order of divisions, measures, classes and periods. `now_ms` says which periods are over:
/// of one that is not, flows count up to today, and stocks are those of now.
pub async fn figures(shared: &Shared, query: &Query, now_ms: u64) -> Result<Vec<Figure>, StoreError> {
    let today = Day::of_ms(now_ms);
    let wanted = Wanted::of(query, today);
    let rows = shared.store.tallies(&wanted.ranges).await?;
    let kept = kept::sum(&wanted, &query.divisions, &rows)?;
    let divisions = shared.divisions();
    let mut figures = Vec::new();
    for division in &query.divisions {
        let Some(kept) = kept.get(division) else { continue };
        let villages = wanted.villages.then(|| kept.villages(divisions.villages_in(*division)));
        let at = At { kept, division: *division, villages: villages.flatten(), today };
        for measure in &query.measures {
            for class in classes(measure, query.dimension) {
                let figure = |period: &Period| at.figure(measure, query.dimension, class, period);
                let some: Vec<Figure> = query.periods.iter().map(figure).collect();
                // What has no class is named only where there is such a thing.
                if class.is_none_or(|c| c.number != UNLISTED) || !some.iter().all(is_nothing) {
                    figures.extend(some);
                }
            }
        }
    }
    Ok(figures)
}

/// Everything that is kept of a division without regard to days: how many there are now, and flows of all days.
pub(super) async fn kept_now(shared: &Shared, division: Division) -> Result<Vec<(Code, i64)>, StoreError> {
    let periods = TallyPeriods::Listed(vec![Cell::ALL]);
    let range = TallyRange { townships: is_township(division), periods, scope: division };
    let mut sums: BTreeMap<Code, i64> = BTreeMap::new();
    for row in shared.store.tallies(&[range]).await? {
        for entry in Entries::of(&row.numbers) {
            let (key, number) = entry.map_err(|e| StoreError::Corrupt(e.to_string()))?;
            *sums.entry(Code::of_number(key as u32)).or_default() += number;
        }
    }
    Ok(sums.into_iter().filter(|(_, number)| *number != 0).collect())
}

fn is_nothing(figure: &Figure) -> bool {
    matches!(figure.value, Value::Number(0) | Value::Unknown | Value::Rate { numerator: 0, denominator: 0 })
}

/// The classes that a measure is given by: one `None` for the total.
fn classes(measure: &Measure, dimension: Option<Dimension>) -> Vec<Option<Class>> {
    match dimension {
        None => vec![None],
        Some(d) if measure.dimensions().contains(&d) => d.classes().into_iter().map(Some).collect(),
        Some(_) => Vec::new(),
    }
}

/// The village units of a division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Villages {
    /// In the list that is loaded.
    all: i64,
    /// Those of them with an active grid.
    covered: i64,
}

/// One division of an answer.
struct At<'a> {
    kept: &'a Of<'a>,
    division: Division,
    /// Now; `None`: no list is loaded.
    villages: Option<Villages>,
    today: Day,
}

/// A count's part in one class; `None`: its total.
type Part = Option<(Dimension, u16)>;

impl At<'_> {
    fn figure(
        &self,
        measure: &'static Measure,
        dimension: Option<Dimension>,
        class: Option<Class>,
        period: &Period,
    ) -> Figure {
        let part = dimension.zip(class).map(|(dimension, class)| (dimension, class.number));
        let dated = measure.formula.counts().iter().all(|count| count.is_flow());
        Figure {
            division: self.division,
            measure,
            class,
            period: *period,
            value: self.value(measure.formula, part, period),
            revision: if dated { self.kept.revision(period) } else { 0 },
        }
    }

    fn value(&self, formula: Formula, part: Part, period: &Period) -> Value {
        let last = period.last().min(self.today);
        match formula {
            Formula::Flow(terms) => Value::Number(self.flow(terms, part, period)),
            Formula::Stock(terms) => self.stock(terms, part, period).map_or(Value::Unknown, Value::Number),
            Formula::Balance { came, went } => {
                let up_to = |count| self.kept.up_to(code(count, part), last);
                Value::Number(up_to(came) - up_to(went))
            }
            Formula::Rate { numerator, denominator, flow: true, .. } => Value::Rate {
                numerator: self.flow(numerator, part, period),
                denominator: self.flow(denominator, part, period),
            },
            Formula::Rate { numerator, denominator, flow: false, .. } => {
                let parts = self.stock(numerator, part, period).zip(self.stock(denominator, part, period));
                parts
                    .map_or(Value::Unknown, |(numerator, denominator)| Value::Rate { numerator, denominator })
            }
        }
    }

    fn flow(&self, terms: &[Term], part: Part, period: &Period) -> i64 {
        let (first, last) = (period.first(), period.last().min(self.today));
        let one = |(sign, count): &Term| sign * self.kept.between(code(*count, part), first, last);
        terms.iter().map(one).sum()
    }

    /// How many there were when the period ended, or are now; `None`: nobody knows.
    fn stock(&self, terms: &[Term], part: Part, period: &Period) -> Option<i64> {
        use crate::measure::Count::{Snapshots, Villages, VillagesCovered};
        let past = period.last() < self.today;
        if past && self.kept.on(Code::total(Snapshots), period.last()) == 0 {
            return None;
        }
        let on = |count| self.kept.on(code(count, part), period.last());
        let one = |(sign, count): &Term| {
            let number = match count {
                Villages | VillagesCovered if past && on(Villages) == 0 => return None,
                VillagesCovered if !past => self.villages?.covered,
                Villages if !past => self.villages?.all,
                count if past => on(*count),
                count => self.kept.now(code(*count, part)),
            };
            Some(sign * number)
        };
        terms.iter().map(one).sum()
    }
}

fn code(count: crate::measure::Count, part: Part) -> Code {
    part.map_or(Code::total(count), |(dimension, class)| Code::part(count, dimension, class))
}
