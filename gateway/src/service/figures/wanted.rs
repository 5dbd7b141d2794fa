//! Which cells and numbers a query needs: no cell is read twice, and none that is not needed for an answer, beside
//! those of siblings that lie between.

use std::collections::BTreeSet;

use super::{Query, classes, code};
use crate::aggregate::Cell;
use crate::division::Division;
use crate::measure::{Code, Count, Formula};
use crate::period::{Cover, Day, Month};
use crate::store::{TallyPeriods, TallyRange};

/// The last month that there is, as a cell's period.
const LAST_MONTH: u32 = 219_912;
/// So many divisions are read one by one; more of them as the stretch around them.
const SINGLE_MAX: usize = 3;

pub(super) struct Wanted {
    /// What is read.
    pub(super) ranges: Vec<TallyRange>,
    /// The numbers that are needed, ascending.
    pub(super) codes: Vec<Code>,
    /// The village units with an active grid are needed.
    pub(super) villages: bool,
}

/// Whether the cell of a division is a township's.
pub(super) fn is_township(division: Division) -> bool {
    Cell { division, period: Cell::ALL }.is_township()
}

/// The cells that are needed of each division.
#[derive(Default)]
struct Periods {
    all: bool,
    listed: BTreeSet<u32>,
    /// Every month after this one.
    after: Option<Month>,
}

impl Wanted {
    pub(super) fn of(query: &Query, today: Day) -> Wanted {
        let mut codes: BTreeSet<Code> = BTreeSet::from([Code::total(Count::Snapshots)]);
        for measure in &query.measures {
            for count in measure.formula.counts() {
                for class in classes(measure, query.dimension) {
                    let part = query.dimension.zip(class).map(|(d, class)| (d, class.number));
                    codes.insert(code(count, part));
                }
            }
        }
        let periods = Periods::of(query, today);
        let covered = |m: &&crate::measure::Measure| m.formula.counts().contains(&Count::VillagesCovered);
        let villages = query.measures.iter().any(covered) && periods.all;
        Wanted {
            ranges: periods.ranges(&query.divisions, villages),
            codes: codes.into_iter().collect(),
            villages,
        }
    }
}

impl Periods {
    fn of(query: &Query, today: Day) -> Periods {
        let mut periods = Periods::default();
        for measure in &query.measures {
            for period in &query.periods {
                let last = period.last().min(today);
                match measure.formula {
                    formula if formula.is_flow() => periods.flow(period.first(), last),
                    Formula::Balance { .. } => periods.balance(last, period.first()),
                    _ if period.last() < today => {
                        periods.listed.insert(Cell::days(last.month()));
                    }
                    _ => periods.all = true,
                }
            }
        }
        periods
    }

    fn flow(&mut self, first: Day, last: Day) {
        let cover = Cover::of(first, last);
        self.listed.extend(cover.months.iter().map(|month| Cell::month(*month)));
        for part in &cover.parts {
            // The month itself says how often it was revised.
            self.listed.extend([Cell::days(part.month), Cell::month(part.month)]);
        }
    }

    /// All that ever came, without what came after the last day.
    fn balance(&mut self, last: Day, first: Day) {
        self.all = true;
        if last < last.month().last() {
            self.listed.insert(Cell::days(last.month()));
        }
        self.after = Some(self.after.map_or(last.month(), |after| after.min(last.month())));
        let cover = Cover::of(first, last);
        self.listed
            .extend(cover.months.into_iter().chain(cover.parts.iter().map(|p| p.month)).map(Cell::month));
    }

    fn ranges(mut self, divisions: &[Division], villages: bool) -> Vec<TallyRange> {
        let mut ranges = Vec::new();
        if let Some(after) = self.after {
            self.listed.retain(|period| *period > LAST_MONTH || *period <= after.number());
        }
        for townships in [false, true] {
            let of: Vec<Division> =
                divisions.iter().copied().filter(|d| is_township(*d) == townships).collect();
            let everywhere = scopes(if townships && villages { divisions.to_vec() } else { of.clone() });
            let mut read = |scope: Division, periods| ranges.push(TallyRange { townships, periods, scope });
            if self.all {
                everywhere.iter().for_each(|scope| read(*scope, TallyPeriods::Listed(vec![Cell::ALL])));
            }
            for scope in scopes(of) {
                read(scope, TallyPeriods::Listed(self.listed.iter().copied().collect()));
                if let Some(next) = self.after.and_then(|after| after.plus(1)) {
                    read(scope, TallyPeriods::Between(next.number(), LAST_MONTH));
                }
            }
        }
        ranges
    }
}

/// Stretches that hold all the divisions and do not overlap.
pub(super) fn scopes(mut divisions: Vec<Division>) -> Vec<Division> {
    divisions.sort_unstable();
    // A division comes directly before all that it contains.
    let mut outer: Vec<Division> = Vec::new();
    for division in divisions {
        if !outer.last().is_some_and(|last| last.contains(division)) {
            outer.push(division);
        }
    }
    let (Some(first), Some(last)) = (outer.first(), outer.last()) else { return outer };
    let around = first.enclosing().find(|d| d.contains(*last));
    match around {
        Some(around) if outer.len() > SINGLE_MAX => vec![around],
        _ => outer,
    }
}
