//! Where counts are kept: cells of a division and a period, each with the numbers of all codes, packed.
//!
//! A record is counted at its home and at the county around it (at the prefecture where there is none). What lies above
//! is the sum of its counties when it is asked for: there are few of them, and no cell is written by everyone.

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

/// So many lines are gathered before they are joined for the first time.
const LINES_MAX: usize = 1 << 16;

/// A number for a division: its key sorts by division, month, code and day.
#[derive(Clone, Copy, Debug)]
struct Line {
    key: u128,
    division: Division,
    amount: i64,
}

const AS_OF_BITS: u32 = 1;
const DAY_BITS: u32 = 5;
const CODE_BITS: u32 = 32;
/// Months as 202610; 0: at no day.
const MONTH_BITS: u32 = 32;

impl Line {
    /// The part of the key that a moment has.
    fn moment(when: When) -> u128 {
        let (day, as_of) = match when {
            When::Undated => return 0,
            When::On(day) => (day, 0),
            When::AsOf(day) => (day, 1),
        };
        let number = day.number();
        let month = u128::from(number / 100) << (AS_OF_BITS + DAY_BITS + CODE_BITS);
        month | u128::from(number % 100) << AS_OF_BITS | as_of
    }

    fn new(division: Division, code: Code, moment: u128, amount: i64) -> Line {
        let place = u128::from(division.code()) << (AS_OF_BITS + DAY_BITS + CODE_BITS + MONTH_BITS);
        let key = place | moment | u128::from(code.number()) << (AS_OF_BITS + DAY_BITS);
        Line { key, division, amount }
    }

    fn is_as_of(&self) -> bool {
        self.key & 1 == 1
    }

    fn day_of_month(&self) -> u32 {
        (self.key >> AS_OF_BITS) as u32 & ((1 << DAY_BITS) - 1)
    }

    fn code(&self) -> Code {
        Code::of_number((self.key >> (AS_OF_BITS + DAY_BITS)) as u32)
    }

    fn month(&self) -> u32 {
        (self.key >> (AS_OF_BITS + DAY_BITS + CODE_BITS)) as u32
    }
}

/// Sorts lines and joins those of one key; nothing stays of those that come to 0.
fn join(lines: &mut Vec<Line>) {
    lines.sort_unstable_by_key(|line| line.key);
    add_up(lines, |line| line.key, |line| &mut line.amount);
}

/// Joins neighbours of one key; nothing stays of those that come to 0.
fn add_up<T, K: PartialEq>(items: &mut Vec<T>, key: impl Fn(&T) -> K, amount: impl Fn(&mut T) -> &mut i64) {
    items.dedup_by(|later, first| {
        let same = key(later) == key(first);
        if same {
            *amount(first) += *amount(later);
        }
        same
    });
    items.retain_mut(|item| *amount(item) != 0);
}

/// Gathers what the records of a transaction add. Lines that are sorted once take a fraction of the time of numbers
/// that are looked up one by one, and a case adds fifty.
#[derive(Default, Debug)]
pub struct Sheet {
    lines: Vec<Line>,
    /// So many were left when they were last joined.
    joined: usize,
}

impl Sheet {
    /// Adds a contribution of a record of `home`, times `sign`.
    pub fn add(&mut self, contribution: &Contribution, home: Division, sign: i64) {
        let county = home.county();
        let mut last = (When::Undated, 0);
        for addend in &contribution.addends {
            if addend.when != last.0 {
                last = (addend.when, Line::moment(addend.when));
            }
            let amount = sign * addend.amount;
            self.lines.push(Line::new(home, addend.code, last.1, amount));
            if county != home {
                self.lines.push(Line::new(county, addend.code, last.1, amount));
            }
        }
        if let Some(village) = contribution.village {
            let number = (village.code() % 1_000) as u16;
            let code = Code::part(Count::VillageGrids, Dimension::Village, number);
            self.lines.push(Line::new(village.home(), code, 0, sign));
        }
        if self.lines.len() >= LINES_MAX.max(2 * self.joined) {
            join(&mut self.lines);
            self.joined = self.lines.len();
        }
    }

    /// The changes of all cells inside `own`, in the order of the cells. `today` says which months are over.
    pub fn into_changes(mut self, own: Division, today: Day) -> Vec<TallyChange> {
        self.lines.retain(|line| own.contains(line.division));
        join(&mut self.lines);
        let mut changes = Vec::new();
        for of_division in self.lines.chunk_by(|a, b| a.division == b.division) {
            let mut all = Vec::with_capacity(of_division.len());
            for of_month in of_division.chunk_by(|a, b| a.month() == b.month()) {
                let flows = flows(of_month);
                all.extend_from_slice(&flows);
                push_month(&mut changes, of_month, flows, today);
            }
            all.sort_unstable_by_key(|(key, _)| *key);
            push(&mut changes, of_division, Cell::ALL, false, all);
        }
        changes.sort_unstable_by_key(|change| change.cell);
        changes
    }
}

/// What counts over all days of a month, by code.
fn flows(of_month: &[Line]) -> Vec<(u64, i64)> {
    let flows = of_month.iter().filter(|line| !line.is_as_of());
    flows.map(|line| (u64::from(line.code().number()), line.amount)).collect()
}

/// The cells of a month and of its days; without a month there are none.
fn push_month(changes: &mut Vec<TallyChange>, of_month: &[Line], flows: Vec<(u64, i64)>, today: Day) {
    let Some(month) = of_month.first().and_then(|line| Month::of_number(line.month())) else { return };
    let days = of_month.iter().map(|line| (day_key(line.code(), line.day_of_month()), line.amount));
    push(changes, of_month, Cell::days(month), false, days.collect());
    push(changes, of_month, Cell::month(month), month.last() < today, flows);
}

/// Adds the change of a cell of the lines' division, if there is any. The keys are in order.
fn push(
    changes: &mut Vec<TallyChange>,
    lines: &[Line],
    period: u32,
    restates: bool,
    mut adds: Vec<(u64, i64)>,
) {
    let Some(line) = lines.first() else { return };
    add_up(&mut adds, |(key, _)| *key, |(_, amount)| amount);
    if !adds.is_empty() {
        changes.push(TallyChange { cell: Cell { division: line.division, period }, restates, adds });
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
