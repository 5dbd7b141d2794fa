//! What a snapshot adds: how many of everything there were on past days. A snapshot's record is one month of one
//! division; each entry is a day, and holds the counts of the records whose home the division is.

use std::collections::BTreeMap;
use std::ops::Range;

use guantong_proto::rules::fields::snapshot as f;
use guantong_proto::v1;
use prost::Message;

use super::facets::inner;
use super::{Cell, Contribution, Entries, Facets, Malformed, When, day_key};
use crate::division::Division;
use crate::measure::{Code, Count};
use crate::period::{Day, Period};
use crate::record::{FieldNumber, raw};

pub(super) const FIELDS: &[FieldNumber] = &[f::DAYS, guantong_proto::rules::fields::DELETED];

/// Counts by code.
pub type Counts = Vec<(Code, i64)>;

pub(super) fn count(facets: &Facets<'_>, out: &mut Contribution) {
    let Some(value) = facets.value(f::DAYS) else { return };
    for entry in raw::payloads(&value).filter_map(raw::Payload::bytes) {
        let Some(day) = inner(entry, 1).and_then(day_of_id) else { continue };
        let Ok(day_counts) = v1::SnapshotDay::decode(entry) else { continue };
        out.add(When::AsOf(day), Code::total(Count::Snapshots), 1);
        for (code, amount) in day_counts.codes.iter().zip(&day_counts.amounts) {
            let code = Code::of_number(*code);
            // Flows are counted from the records themselves, and what is not known here from nothing.
            if code.count().is_some_and(|count| !count.is_flow() && count != Count::Snapshots) {
                out.add(When::AsOf(day), code, i64::try_from(*amount).unwrap_or(0));
            }
        }
    }
}

fn day_of_id(id: &[u8]) -> Option<Day> {
    let period: Period = std::str::from_utf8(id).ok()?.parse().ok()?;
    (period == Period::day(period.first())).then_some(period.first())
}

/// The entry of one day, without its stamp.
pub fn entry(day: Day, counts: &Counts) -> v1::SnapshotDay {
    let positive = || counts.iter().filter(|(_, amount)| *amount > 0);
    v1::SnapshotDay {
        id: day.to_string(),
        codes: positive().map(|(code, _)| code.number()).collect(),
        amounts: positive().map(|(_, amount)| *amount as u64).collect(),
        stamp: 0,
    }
}

/// How many of everything there are at each home, gathered from the kept cells of a whole node.
#[derive(Debug)]
pub struct Stocks {
    day: Day,
    homes: BTreeMap<Division, Stock>,
}

/// How many of everything one home has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// By code.
    counts: BTreeMap<Code, i64>,
    /// Active grids by village unit.
    villages: BTreeMap<Division, i64>,
    /// Snapshots of each day of the month that are known already; place 0 is no day.
    taken: [i64; 32],
}

impl Stocks {
    /// Nothing yet. `day` is the one that the snapshots are to be of.
    pub fn before(day: Day) -> Stocks {
        Stocks { day, homes: BTreeMap::new() }
    }

    /// The periods of the cells that are needed.
    pub fn periods(&self) -> Vec<u32> {
        vec![Cell::ALL, Cell::days(self.day.month())]
    }

    /// Takes in a cell of one of those periods.
    pub fn take(&mut self, cell: Cell, numbers: &[u8]) -> Result<(), Malformed> {
        let stock = self.homes.entry(cell.division).or_default();
        let no_day = day_key(Code::total(Count::Snapshots), 0);
        for entry in Entries::of(numbers) {
            let (key, number) = entry?;
            if cell.period != Cell::ALL {
                let day = key.checked_sub(no_day).and_then(|day| usize::try_from(day).ok());
                if let Some(taken) = day.and_then(|day| stock.taken.get_mut(day)) {
                    *taken += number;
                }
                continue;
            }
            let code = Code::of_number(key as u32);
            match (code.count(), code.class()) {
                (Some(Count::VillageGrids), Some((_, village))) => {
                    let village = Division::from_code(cell.division.code() + u64::from(village));
                    village.into_iter().for_each(|v| *stock.villages.entry(v).or_default() += number);
                }
                (Some(count), _) if !count.is_flow() => *stock.counts.entry(code).or_default() += number,
                _ => {}
            }
        }
        Ok(())
    }

    /// A home of which something is known, though it may hold no record.
    pub fn know(&mut self, home: Division) {
        self.homes.entry(home).or_default();
    }

    /// What each home has by itself: a county's cell holds its townships too, which are taken out.
    pub fn into_homes(mut self) -> BTreeMap<Division, Stock> {
        let townships: Vec<(Division, Stock)> = self
            .homes
            .iter()
            .filter(|(d, _)| **d != d.county())
            .map(|(d, stock)| (*d, stock.clone()))
            .collect();
        for (township, stock) in townships {
            let Some(county) = self.homes.get_mut(&township.county()) else { continue };
            for (county, township) in county.taken.iter_mut().zip(stock.taken) {
                *county -= township;
            }
            for (code, number) in stock.counts {
                *county.counts.entry(code).or_default() -= number;
            }
        }
        self.homes
    }
}

impl Stock {
    /// Whether there is a snapshot of one of these days of the month.
    pub fn taken_in(&self, days: Range<u32>) -> bool {
        days.filter_map(|day| self.taken.get(day as usize)).any(|taken| *taken > 0)
    }

    /// Whether there is anything now.
    pub fn is_something(&self) -> bool {
        self.counts.values().any(|number| *number > 0)
    }

    /// Its counts, with the village units of `listed`; empty if there is nothing to say.
    pub fn counts(&self, listed: impl Iterator<Item = Division>) -> Counts {
        let (mut all, mut covered) = (0, 0);
        for village in listed {
            all += 1;
            covered += i64::from(self.villages.get(&village).is_some_and(|grids| *grids > 0));
        }
        let villages = [(Code::total(Count::VillagesCovered), covered), (Code::total(Count::Villages), all)];
        let mut counts: Counts = self.counts.iter().map(|(code, number)| (*code, *number)).collect();
        counts.extend(villages);
        counts.retain(|(_, number)| *number > 0);
        counts.sort_unstable();
        counts
    }
}
