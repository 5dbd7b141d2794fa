//! Past days of stocks are sums of the snapshots that were taken. Who took some before and took none on such a day is
//! named here, since what it held then is in no figure. Nothing is ever filled in for it, and a division that nobody
//! counted before is not named: it may have had nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Query;
use super::wanted::{is_township, scopes};
use crate::aggregate::snapshot::Stocks;
use crate::aggregate::{Cell, Entries, day_key};
use crate::division::Division;
use crate::engine::Shared;
use crate::measure::{Code, Count};
use crate::period::{Day, Month};
use crate::store::{Span, StoreError, TallyPeriods, TallyRange};

/// Divisions and days that are named.
const NAMED_MAX: usize = 200;

/// Who has no snapshot of days that were asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// By day and division, the first `NAMED_MAX`.
    pub named: Vec<(Day, Division)>,
    /// How many there are in all.
    pub count: usize,
}

/// Who took no snapshot of the days that a query asks stocks of. In the common case, that everyone did, this reads one
/// number for each county and month, and which divisions ever took one.
pub async fn missed(shared: &Shared, query: &Query, now_ms: u64) -> Result<Missed, StoreError> {
    let days = past_days(query, Day::of_ms(now_ms));
    let Some(kind) = shared.schema.kind_named("snapshot").filter(|_| !days.is_empty()) else {
        return Ok(Missed::default());
    };
    let mut missed: BTreeSet<(Day, Division)> = BTreeSet::new();
    for scope in scopes(query.divisions.clone()) {
        let months: BTreeSet<Month> = days.iter().map(|day| day.month()).collect();
        let taken = Taken::read(shared, scope, &months).await?;
        let spans = shared.store.spans(kind.id, scope, &taken.places).await?;
        for month in months {
            let short: Vec<Day> = days
                .iter()
                .copied()
                .filter(|day| day.month() == month && taken.is_short(*day, &spans))
                .collect();
            if !short.is_empty() {
                let stocks = stocks(shared, scope, month).await?;
                missed.extend(named(&short, &spans, stocks));
            }
        }
    }
    // What lies between the divisions that were asked about was not asked about.
    missed.retain(|(_, division)| query.divisions.iter().any(|asked| asked.contains(*division)));
    Ok(Missed { count: missed.len(), named: missed.into_iter().take(NAMED_MAX).collect() })
}

/// The days that stocks are asked of and that are over.
fn past_days(query: &Query, today: Day) -> BTreeSet<Day> {
    if !query.measures.iter().any(|measure| measure.formula.is_of_snapshots()) {
        return BTreeSet::new();
    }
    query.periods.iter().map(|period| period.last()).filter(|day| *day < today).collect()
}

/// How many snapshots there are.
struct Taken {
    /// Counties and what stands for them.
    places: Vec<Division>,
    /// By county and day; `None`: the county was not asked about, only a township of it.
    counts: Option<BTreeMap<(Division, Day), i64>>,
}

impl Taken {
    async fn read(shared: &Shared, scope: Division, months: &BTreeSet<Month>) -> Result<Taken, StoreError> {
        if is_township(scope) {
            return Ok(Taken { places: vec![scope.county()], counts: None });
        }
        let mut periods = vec![Cell::ALL];
        periods.extend(months.iter().map(|month| Cell::days(*month)));
        let range = TallyRange { townships: false, periods: TallyPeriods::Listed(periods), scope };
        let (mut places, mut counts) = (BTreeSet::new(), BTreeMap::new());
        for row in shared.store.tallies(&[range]).await? {
            places.insert(row.cell.division);
            let Some(month) = months.iter().find(|month| Cell::days(**month) == row.cell.period) else {
                continue;
            };
            let first = day_key(Code::total(Count::Snapshots), 0);
            for entry in Entries::of(&row.numbers) {
                let (key, number) = entry.map_err(|e| StoreError::Corrupt(e.to_string()))?;
                let day = key.checked_sub(first).and_then(|day| u32::try_from(day).ok());
                if let Some(day) = day.filter(|day| (1..=month.days()).contains(day)) {
                    let day = month.first().plus(day as i32 - 1);
                    *counts.entry((row.cell.division, day)).or_default() += number;
                }
            }
        }
        Ok(Taken { places: places.into_iter().collect(), counts: Some(counts) })
    }

    /// Whether some county has fewer snapshots of a day than divisions that may have taken one.
    fn is_short(&self, day: Day, spans: &[Span]) -> bool {
        let Some(counts) = &self.counts else { return true };
        let month = day.month().to_string();
        let mut expected: BTreeMap<Division, i64> = BTreeMap::new();
        for span in spans.iter().filter(|span| span.first <= month) {
            *expected.entry(span.home.county()).or_default() += 1;
        }
        let taken = |place: &Division| counts.get(&(*place, day)).copied().unwrap_or(0);
        expected.iter().any(|(place, expected)| taken(place) < *expected)
    }
}

/// Everything that is known of a month's snapshots and of what there is now.
async fn stocks(shared: &Shared, scope: Division, month: Month) -> Result<Stocks, StoreError> {
    let mut stocks = Stocks::before(month.first());
    let range = |townships, scope| TallyRange {
        townships,
        periods: TallyPeriods::Listed(vec![Cell::ALL, Cell::days(month)]),
        scope,
    };
    let around = if is_township(scope) { scope.county() } else { scope };
    for row in shared.store.tallies(&[range(false, around), range(true, around)]).await? {
        stocks.take(row.cell, &row.numbers).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    }
    Ok(stocks)
}

/// Those of some days of one month that are missing: their division took a snapshot before, and it did so later too or
/// holds something now.
fn named(days: &[Day], spans: &[Span], stocks: Stocks) -> Vec<(Day, Division)> {
    let homes = stocks.into_homes();
    let mut missing = Vec::new();
    for span in spans {
        let stock = homes.get(&span.home).cloned().unwrap_or_default();
        for day in days {
            let month = day.month().to_string();
            let number = day.of_month();
            let before = span.first < month || stock.taken_in(1..number);
            let after = span.last > month || stock.taken_in(number + 1..32) || stock.is_something();
            if before && after && !stock.taken_in(number..number + 1) {
                missing.push((*day, span.home));
            }
        }
    }
    missing
}
