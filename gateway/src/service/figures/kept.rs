//! The numbers that were read, added up by division and period.

use std::collections::{BTreeMap, HashMap};

use super::wanted::Wanted;
use super::{Period, Villages};
use crate::aggregate::{Cell, Entries, Malformed};
use crate::division::Division;
use crate::measure::{Code, Count, Dimension};
use crate::period::{Cover, Day, Month};
use crate::store::{StoreError, TallyRow};

/// Numbers in the order of the wanted codes.
type Numbers = Vec<i64>;

/// What was read of one division.
#[derive(Default)]
pub(super) struct Of<'a> {
    codes: &'a [Code],
    /// By a cell's period; of single days by the day's number.
    sums: BTreeMap<u32, Numbers>,
    revisions: BTreeMap<Month, u64>,
    /// Active grids by village unit.
    villages: HashMap<Division, i64>,
}

/// Adds up what was read: a township's cell for the township itself, a county's for every division around it.
pub(super) fn sum<'a>(
    wanted: &'a Wanted,
    divisions: &[Division],
    rows: &[TallyRow],
) -> Result<HashMap<Division, Of<'a>>, StoreError> {
    let empty = || Of { codes: &wanted.codes, ..Of::default() };
    let mut kept: HashMap<Division, Of<'a>> = divisions.iter().map(|d| (*d, empty())).collect();
    for row in rows {
        for division in row.cell.division.enclosing() {
            let Some(of) = kept.get_mut(&division) else { continue };
            let taken =
                if division == row.cell.division || !row.cell.is_township() { of.take(row) } else { Ok(()) };
            let villages = wanted.villages && row.cell.is_township() && row.cell.period == Cell::ALL;
            let taken = taken.and_then(|()| if villages { of.take_villages(row) } else { Ok(()) });
            taken.map_err(|e| StoreError::Corrupt(e.to_string()))?;
        }
    }
    Ok(kept)
}

impl Of<'_> {
    fn take(&mut self, row: &TallyRow) -> Result<(), Malformed> {
        let period = row.cell.period;
        let single_days = Month::of_number(period / 100).is_some() && Month::of_number(period).is_none();
        if let Some(month) = Month::of_number(period) {
            *self.revisions.entry(month).or_default() += row.revision;
        }
        let codes = self.codes;
        let Some(last) = codes.last() else { return Ok(()) };
        let mut at = 0;
        for entry in Entries::of(&row.numbers) {
            let (key, number) = entry?;
            let (code, day) =
                if single_days { ((key >> 5) as u32, (key & 31) as u32) } else { (key as u32, 0) };
            let code = Code::of_number(code);
            if code > *last {
                break;
            }
            while codes.get(at).is_some_and(|wanted| *wanted < code) {
                at += 1;
            }
            if codes.get(at) == Some(&code) {
                let numbers = self.sums.entry(period + day).or_insert_with(|| vec![0; codes.len()]);
                if let Some(sum) = numbers.get_mut(at) {
                    *sum += number;
                }
            }
        }
        Ok(())
    }

    fn take_villages(&mut self, row: &TallyRow) -> Result<(), Malformed> {
        for entry in Entries::of(&row.numbers) {
            let (key, number) = entry?;
            let code = Code::of_number(key as u32);
            if let (Some(Count::VillageGrids), Some((Dimension::Village, village))) =
                (code.count(), code.class())
                && let Some(village) = Division::from_code(row.cell.division.code() + u64::from(village))
            {
                *self.villages.entry(village).or_default() += number;
            }
        }
        Ok(())
    }

    fn number(&self, period: u32, code: Code) -> i64 {
        let Ok(at) = self.codes.binary_search(&code) else { return 0 };
        self.sums.get(&period).and_then(|numbers| numbers.get(at)).copied().unwrap_or(0)
    }

    /// How many there are now, or of all days.
    pub(super) fn now(&self, code: Code) -> i64 {
        self.number(Cell::ALL, code)
    }

    /// The number of one day.
    pub(super) fn on(&self, code: Code, day: Day) -> i64 {
        self.number(day.number(), code)
    }

    /// A flow from one day to another, both included.
    pub(super) fn between(&self, code: Code, first: Day, last: Day) -> i64 {
        let cover = Cover::of(first, last);
        let months: i64 = cover.months.iter().map(|m| self.number(Cell::month(*m), code)).sum();
        let of_part = |part: &crate::period::PartMonth| {
            (part.first..=part.last).map(|day| self.number(Cell::days(part.month) + day, code)).sum::<i64>()
        };
        months + cover.parts.iter().map(of_part).sum::<i64>()
    }

    /// A flow from the beginning up to a day: all of it without what came later.
    pub(super) fn up_to(&self, code: Code, last: Day) -> i64 {
        let month = last.month();
        let rest: i64 =
            (last.of_month() + 1..=month.days()).map(|day| self.number(Cell::days(month) + day, code)).sum();
        let Ok(at) = self.codes.binary_search(&code) else { return 0 };
        let after = Cell::month(month) + 1..Cell::days(Month::FIRST);
        let later: i64 = self.sums.range(after).filter_map(|(_, numbers)| numbers.get(at)).sum();
        self.now(code) - rest - later
    }

    /// How often the months of a period were changed after they were over.
    pub(super) fn revision(&self, period: &Period) -> u64 {
        self.revisions
            .range(period.first().month()..=period.last().month())
            .map(|(_, revision)| revision)
            .sum()
    }

    /// The village units of those listed; `None`: there is no list.
    pub(super) fn villages(&self, listed: impl Iterator<Item = Division>) -> Option<Villages> {
        let mut villages = Villages { all: 0, covered: 0 };
        for village in listed {
            villages.all += 1;
            villages.covered += i64::from(self.villages.get(&village).is_some_and(|grids| *grids > 0));
        }
        (villages.all > 0).then_some(villages)
    }
}
