//! Where counts are kept: cells of a division and a period, each with the numbers of all codes, packed.
//!
//! A record is counted at its home and at the county around it (at the prefecture where there is none). What lies above
//! is the sum of its counties when it is asked for: there are few of them, and no cell is written by everyone.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

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

/// Hashes keys of a few numbers: they are many, and the standard hasher would take longer than the counting.
#[derive(Clone, Copy, Default, Debug)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_i32(&mut self, number: i32) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
}

/// Numbers by division, code and day.
type Sums = HashMap<(Division, Code, When), i64, BuildHasherDefault<Quick>>;

/// Gathers what the records of a transaction add, joined at their homes.
#[derive(Default, Debug)]
pub struct Sheet {
    sums: Sums,
}

impl Sheet {
    /// Adds a contribution of a record of `home`, times `sign`.
    pub fn add(&mut self, contribution: &Contribution, home: Division, sign: i64) {
        for addend in &contribution.addends {
            *self.sums.entry((home, addend.code, addend.when)).or_default() += sign * addend.amount;
        }
        if let Some(village) = contribution.village {
            let number = (village.code() % 1_000) as u16;
            let code = Code::part(Count::VillageGrids, Dimension::Village, number);
            *self.sums.entry((village.home(), code, When::Undated)).or_default() += sign;
        }
    }

    /// The changes of all cells inside `own`, in the order of the cells. `today` says which months are over.
    pub fn into_changes(self, own: Division, today: Day) -> Vec<TallyChange> {
        let mut counties = Sums::default();
        for ((home, code, when), amount) in &self.sums {
            let county = home.county();
            if county != *home && code.count() != Some(Count::VillageGrids) {
                *counties.entry((county, *code, *when)).or_default() += amount;
            }
        }
        // What is of the county itself stands in the same cells.
        let mut homes = self.sums;
        for (key, amount) in counties {
            *homes.entry(key).or_default() += amount;
        }
        let mut sums: Vec<_> =
            homes.into_iter().filter(|(key, amount)| *amount != 0 && own.contains(key.0)).collect();
        sums.sort_unstable_by_key(|(key, _)| *key);
        let mut cells = Cells { changes: HashMap::default(), today };
        for ((division, code, when), amount) in sums {
            cells.add(division, code, when, amount);
        }
        cells.into_changes()
    }
}

/// Whether a cell is restated, and what is added to it.
type Filled = (bool, Vec<(u64, i64)>);

/// Cells being filled, in the order of divisions, codes and days: so the keys of each cell come in order.
struct Cells {
    changes: HashMap<Cell, Filled, BuildHasherDefault<Quick>>,
    today: Day,
}

impl Cells {
    fn add(&mut self, division: Division, code: Code, when: When, amount: i64) {
        let key = u64::from(code.number());
        match when {
            When::Undated => self.put(division, Cell::ALL, key, amount, false),
            When::On(day) => {
                let month = day.month();
                self.put(division, Cell::ALL, key, amount, false);
                self.put(division, Cell::month(month), key, amount, month.last() < self.today);
                self.put(division, Cell::days(month), day_key(code, day.of_month()), amount, false);
            }
            When::AsOf(day) => {
                self.put(division, Cell::days(day.month()), day_key(code, day.of_month()), amount, false);
            }
        }
    }

    fn put(&mut self, division: Division, period: u32, key: u64, amount: i64, restates: bool) {
        let (restated, adds) = self.changes.entry(Cell { division, period }).or_default();
        *restated |= restates;
        match adds.last_mut() {
            Some((last, sum)) if *last == key => *sum += amount,
            _ => adds.push((key, amount)),
        }
    }

    fn into_changes(self) -> Vec<TallyChange> {
        let mut changes: Vec<TallyChange> = Vec::with_capacity(self.changes.len());
        for (cell, (restates, mut adds)) in self.changes {
            // A day both of its own and of a snapshot comes twice: no count has both, but nothing here relies on it.
            if !adds.is_sorted_by(|a, b| a.0 < b.0) {
                adds.sort_unstable();
                adds.dedup_by(|later, first| {
                    let same = later.0 == first.0;
                    first.1 += if same { later.1 } else { 0 };
                    same
                });
            }
            adds.retain(|(_, amount)| *amount != 0);
            if !adds.is_empty() {
                changes.push(TallyChange { cell, restates, adds });
            }
        }
        changes.sort_unstable_by_key(|change| change.cell);
        changes
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
