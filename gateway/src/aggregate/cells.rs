//! Where counts are kept: cells of a division and a period, each with the numbers of all codes, packed.
//!
//! A record is counted at its home and at the county around it (at the prefecture where there is none). What lies above
//! is the sum of its counties when it is asked for: there are few of them, and no cell is written by everyone.

use std::collections::{BTreeMap, HashMap};

use super::{Contribution, When};
use crate::division::{Division, Tier};
use crate::measure::{Code, Count, Dimension};
use crate::period::{Day, Month};
use crate::record::raw::put_varint;

/// A division and a period whose numbers stand together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// A township, or a county or what stands for it.
    pub division: Division,
    /// See [`Cell::ALL`], [`Cell::month`] and [`Cell::days`].
    pub period: u32,
}

impl Cell {
    /// The period of what there is now, and of flows of all days.
    pub const ALL: u32 = 0;

    /// The period of a month's sums.
    pub fn month(month: Month) -> u32 {
        month.number()
    }

    /// The period of a month's single days.
    pub fn days(month: Month) -> u32 {
        month.number() * 100
    }

    /// Whether it is a township's; otherwise it holds a county, or the records of a division above.
    pub fn is_township(&self) -> bool {
        self.division.tier() < Tier::County
    }
}

/// A change of one cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TallyChange {
    /// Which.
    pub cell: Cell,
    /// It changes the flows of a month that was over already.
    pub restates: bool,
    /// By how much each number changes, by ascending key, none of them 0.
    pub adds: Vec<(u64, i64)>,
}

/// The key of a code's number on one day of a month, in a cell of days. In other cells the code is the key.
pub fn day_key(code: Code, of_month: u32) -> u64 {
    u64::from(code.number()) << 5 | u64::from(of_month)
}

/// Gathers what the records of a transaction add, joined at their homes.
#[derive(Default, Debug)]
pub struct Sheet {
    sums: HashMap<(Division, When, Code), i64>,
}

impl Sheet {
    /// Adds a contribution of a record of `home`, times `sign`.
    pub fn add(&mut self, contribution: &Contribution, home: Division, sign: i64) {
        for addend in &contribution.addends {
            *self.sums.entry((home, addend.when, addend.code)).or_default() += sign * addend.amount;
        }
        if let Some(village) = contribution.village {
            let number = (village.code() % 1_000) as u16;
            let code = Code::part(Count::VillageGrids, Dimension::Village, number);
            *self.sums.entry((village.home(), When::Undated, code)).or_default() += sign;
        }
    }

    /// The changes of all cells inside `own`, in the order of the cells. `today` says which months are over.
    pub fn into_changes(self, own: Division, today: Day) -> Vec<TallyChange> {
        let mut cells: BTreeMap<Cell, (bool, BTreeMap<u64, i64>)> = BTreeMap::new();
        for ((home, when, code), amount) in self.sums {
            if amount == 0 {
                continue;
            }
            let mut add = |division, period, key, restates| {
                let cell = cells.entry(Cell { division, period }).or_default();
                cell.0 |= restates;
                *cell.1.entry(key).or_default() += amount;
            };
            let village = code.count() == Some(Count::VillageGrids);
            let county = Some(home.county()).filter(|county| *county != home && !village);
            for division in [Some(home), county].into_iter().flatten().filter(|d| own.contains(*d)) {
                let key = u64::from(code.number());
                match when {
                    When::Undated => add(division, Cell::ALL, key, false),
                    When::On(day) => {
                        let month = day.month();
                        add(division, Cell::ALL, key, false);
                        add(division, Cell::month(month), key, month.last() < today);
                        add(division, Cell::days(month), day_key(code, day.of_month()), false);
                    }
                    When::AsOf(day) => {
                        add(division, Cell::days(day.month()), day_key(code, day.of_month()), false);
                    }
                }
            }
        }
        let change = |(cell, (restates, adds)): (Cell, (bool, BTreeMap<u64, i64>))| TallyChange {
            cell,
            restates,
            adds: adds.into_iter().filter(|(_, amount)| *amount != 0).collect(),
        };
        cells.into_iter().map(change).filter(|change| !change.adds.is_empty()).collect()
    }
}

/// A packed cell that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the kept counts of a division cannot be read")]
pub struct Malformed;

/// Packs numbers by ascending key; those that are 0 are left out. Each is the difference of its key from the one before
/// and the number, zigzag, both as varints.
pub fn pack(entries: impl IntoIterator<Item = (u64, i64)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = 0;
    for (key, number) in entries.into_iter().filter(|(_, number)| *number != 0) {
        put_varint(&mut out, key - last);
        put_varint(&mut out, (number << 1 ^ number >> 63) as u64);
        last = key;
    }
    out
}

/// The numbers of a packed cell, by ascending key.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    last: u64,
}

impl<'a> Entries<'a> {
    /// Of a packed cell.
    pub fn of(packed: &'a [u8]) -> Entries<'a> {
        Entries { rest: packed, last: 0 }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Malformed)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn entry(&mut self) -> Result<(u64, i64), Malformed> {
        self.last = self.last.checked_add(self.varint()?).ok_or(Malformed)?;
        let zigzag = self.varint()?;
        Ok((self.last, (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)))
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<(u64, i64), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

/// A packed cell with changes added to it.
pub fn merge_packed(packed: &[u8], adds: &[(u64, i64)]) -> Result<Vec<u8>, Malformed> {
    let mut merged: Vec<(u64, i64)> = Vec::with_capacity(adds.len() + packed.len() / 3);
    let mut adds = adds.iter().copied().peekable();
    for entry in Entries::of(packed) {
        let (key, mut number) = entry?;
        while let Some(before) = adds.next_if(|(k, _)| *k < key) {
            merged.push(before);
        }
        if let Some((_, amount)) = adds.next_if(|(k, _)| *k == key) {
            number += amount;
        }
        merged.push((key, number));
    }
    merged.extend(adds);
    Ok(pack(merged))
}
