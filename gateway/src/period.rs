//! Days, months and the periods that figures are asked for: their text forms, what lies before them and a year before
//! them, and how they are put together from whole months and single days.
//!
//! All days are Beijing days. A period begins with its first day and ends before the day after its last one. Time comes
//! in as an argument; nothing here reads a clock.

use std::fmt;
use std::str::FromStr;

use guantong_proto::v1;

use crate::calendar::{YEARS, civil};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod text;

pub use text::PeriodError;

const DAY_SECONDS: i64 = 86_400;
/// Beijing is eight hours ahead of UTC, all year.
const BEIJING_SECONDS: i64 = 8 * 3_600;

/// A day in Beijing, from 1900-01-01 to 2199-12-31.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// The first day that there is.
    pub const FIRST: Day = Day(-25_567);
    /// The last day that there is.
    pub const LAST: Day = Day(84_005);

    /// The day that it is in Beijing at a moment, Unix milliseconds.
    pub fn of_ms(unix_ms: u64) -> Day {
        let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX / 2);
        Day::of_seconds(seconds).unwrap_or(Day::LAST)
    }

    /// The day that it is in Beijing at a moment, Unix seconds; `None` beyond the years that there are.
    pub fn of_seconds(unix_seconds: i64) -> Option<Day> {
        let days = unix_seconds.checked_add(BEIJING_SECONDS)?.div_euclid(DAY_SECONDS);
        Day::checked(i32::try_from(days).ok()?)
    }

    /// The day of a date; `None` if the calendar has no such day.
    pub fn of_date(date: &v1::Date) -> Option<Day> {
        Day::of(date.year, u32::try_from(date.month).ok()?, u32::try_from(date.day).ok()?)
    }

    /// A day of the calendar: month 1 to 12, day 1 to 31.
    pub fn of(year: i32, month: u32, day: u32) -> Option<Day> {
        let month = Month::of(year, month)?;
        (1..=month.days()).contains(&day).then(|| Day(month.first().0 + day as i32 - 1))
    }

    /// The day of a number such as 20261021.
    pub fn of_number(number: u32) -> Option<Day> {
        Day::of(i32::try_from(number / 10_000).ok()?, number / 100 % 100, number % 100)
    }

    /// The day as a number that sorts by time: 20261021.
    pub fn number(self) -> u32 {
        self.month().number() * 100 + self.of_month()
    }

    /// The month that it lies in.
    pub fn month(self) -> Month {
        let (year, month, _) = civil(self.0.into());
        Month::raw(year, month)
    }

    /// Its number in the month, 1 to 31.
    pub fn of_month(self) -> u32 {
        civil(self.0.into()).2
    }

    /// So many days later, or earlier; the last or the first day that there is, if that is nearer.
    pub fn plus(self, days: i32) -> Day {
        Day(self.0.saturating_add(days).clamp(Day::FIRST.0, Day::LAST.0))
    }

    /// How many days later it is than `other`.
    pub fn since(self, other: Day) -> i32 {
        self.0 - other.0
    }

    fn checked(days: i32) -> Option<Day> {
        (Day::FIRST.0..=Day::LAST.0).contains(&days).then_some(Day(days))
    }

    /// The same day a year before; of 29 February the 28th.
    fn year_before(self) -> Option<Day> {
        let month = self.month().plus(-12)?;
        Day::of(month.year(), month.of_year(), self.of_month().min(month.days()))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.into());
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Days since 1970-01-01 of the first day of a month.
fn days_to(year: i32, month: u32) -> i32 {
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let of_year = (153 * shifted_month + 2) / 5;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    (era * 146_097 + of_era - 719_468) as i32
}

/// A month of the calendar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i32);

impl Month {
    /// The first month that there is.
    pub const FIRST: Month = Month(1_900 * 12);

    fn raw(year: i32, month: u32) -> Month {
        Month(year * 12 + month as i32 - 1)
    }

    /// A month: 1 to 12.
    pub fn of(year: i32, month: u32) -> Option<Month> {
        (YEARS.contains(&year) && (1..=12).contains(&month)).then(|| Month::raw(year, month))
    }

    /// The month of a number such as 202610.
    pub fn of_number(number: u32) -> Option<Month> {
        Month::of(i32::try_from(number / 100).ok()?, number % 100)
    }

    /// The month as a number that sorts by time: 202610.
    pub fn number(self) -> u32 {
        self.year() as u32 * 100 + self.of_year()
    }

    /// Its year.
    pub fn year(self) -> i32 {
        self.0.div_euclid(12)
    }

    /// Its number in the year, 1 to 12.
    pub fn of_year(self) -> u32 {
        self.0.rem_euclid(12) as u32 + 1
    }

    /// So many months later, or earlier; `None` beyond the years that there are.
    pub fn plus(self, months: i32) -> Option<Month> {
        let month = Month(self.0.checked_add(months)?);
        YEARS.contains(&month.year()).then_some(month)
    }

    /// Its first day.
    pub fn first(self) -> Day {
        Day(days_to(self.year(), self.of_year()))
    }

    /// Its last day.
    pub fn last(self) -> Day {
        Day(Month(self.0 + 1).first().0 - 1)
    }

    /// How many days it has.
    pub fn days(self) -> u32 {
        self.last().since(self.first()) as u32 + 1
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.of_year())
    }
}

impl fmt::Debug for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a period is, so that what lies before it can be told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Shape {
    Day,
    /// So many months that begin where the calendar has such a stretch: 1, 3, 6 or 12.
    Months(u32),
    /// From 1 January to the end of a month.
    ToMonth,
    /// From 1 January to a day.
    ToDay,
    Range,
    /// From a day on, without an end.
    Since,
}

/// A stretch of days that a figure is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    shape: Shape,
    first: Day,
    last: Day,
}

/// The parts that a period may be cut into.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// By day.
    Day,
    /// By month.
    Month,
    /// By quarter.
    Quarter,
    /// By half-year.
    Half,
    /// By year.
    Year,
}

/// A part of a month: its first and last day, 1 to 31.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartMonth {
    /// Which month.
    pub month: Month,
    /// The first day of it.
    pub first: u32,
    /// The last day of it.
    pub last: u32,
}

/// A stretch of days as whole months and parts of months: what sums by month and by day are read for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cover {
    /// The whole months, ascending.
    pub months: Vec<Month>,
    /// The parts of months at its ends, at most two.
    pub parts: Vec<PartMonth>,
}

impl Cover {
    /// Of the days from `first` to `last`, both included; of nothing if `last` comes before.
    pub fn of(first: Day, last: Day) -> Cover {
        let mut cover = Cover::default();
        let mut from = first;
        while from <= last {
            let month = from.month();
            let until = month.last().min(last);
            if from == month.first() && until == month.last() {
                cover.months.push(month);
            } else {
                cover.parts.push(PartMonth { month, first: from.of_month(), last: until.of_month() });
            }
            if until == Day::LAST {
                break;
            }
            from = until.plus(1);
        }
        cover
    }
}

impl Period {
    /// One day.
    pub fn day(day: Day) -> Period {
        Period { shape: Shape::Day, first: day, last: day }
    }

    /// One month.
    pub fn month(month: Month) -> Period {
        Period { shape: Shape::Months(1), first: month.first(), last: month.last() }
    }

    /// The quarter that a month lies in.
    pub fn quarter(month: Month) -> Period {
        Period::months(month, 3)
    }

    /// The half-year that a month lies in.
    pub fn half(month: Month) -> Period {
        Period::months(month, 6)
    }

    /// The year that a month lies in.
    pub fn year(month: Month) -> Period {
        Period::months(month, 12)
    }

    fn months(month: Month, count: u32) -> Period {
        let begin = Month(month.0 - month.0.rem_euclid(count as i32));
        let last = Month(begin.0 + count as i32 - 1).last();
        Period { shape: Shape::Months(count), first: begin.first(), last }
    }

    /// From 1 January to the end of a month.
    pub fn year_to_month(month: Month) -> Period {
        Period { shape: Shape::ToMonth, first: Month::raw(month.year(), 1).first(), last: month.last() }
    }

    /// From 1 January to a day.
    pub fn year_to_day(day: Day) -> Period {
        Period { shape: Shape::ToDay, first: Month::raw(day.month().year(), 1).first(), last: day }
    }

    /// From one day to another, both included; `None` if it would end before it begins.
    pub fn range(first: Day, last: Day) -> Option<Period> {
        (first <= last).then_some(Period { shape: Shape::Range, first, last })
    }

    /// From a day on.
    pub fn since(first: Day) -> Period {
        Period { shape: Shape::Since, first, last: Day::LAST }
    }

    /// Whether it is a day, month, quarter, half or year of the calendar, as figures are submitted for.
    pub fn is_of_calendar(&self) -> bool {
        matches!(self.shape, Shape::Day | Shape::Months(_))
    }

    /// Its first day.
    pub fn first(&self) -> Day {
        self.first
    }

    /// Its last day; of a period without an end the last day that there is.
    pub fn last(&self) -> Day {
        self.last
    }

    /// Whether a day lies in it.
    pub fn contains(&self, day: Day) -> bool {
        self.first <= day && day <= self.last
    }

    /// Whether its last day is over at a moment, Unix milliseconds.
    pub fn is_closed(&self, now_ms: u64) -> bool {
        self.last < Day::of_ms(now_ms)
    }

    /// The period of the same kind directly before it (环比). A year to date and a period without an end have none.
    pub fn previous(&self) -> Option<Period> {
        let days = self.last.since(self.first) + 1;
        match self.shape {
            Shape::Day if self.first > Day::FIRST => Some(Period::day(self.first.plus(-1))),
            Shape::Months(count) => {
                self.first.month().plus(-(count as i32)).map(|m| Period::months(m, count))
            }
            Shape::Range if self.first.since(Day::FIRST) >= days => {
                Period::range(self.first.plus(-days), self.first.plus(-1))
            }
            Shape::Day | Shape::ToMonth | Shape::ToDay | Shape::Range | Shape::Since => None,
        }
    }

    /// The same period a year before it (同比). A period without an end has none.
    pub fn year_before(&self) -> Option<Period> {
        let month = || self.last.month().plus(-12);
        match self.shape {
            Shape::Day => self.first.year_before().map(Period::day),
            Shape::Months(count) => month().map(|m| Period::months(m, count)),
            Shape::ToMonth => month().map(Period::year_to_month),
            Shape::ToDay => self.last.year_before().map(Period::year_to_day),
            Shape::Range => Period::range(self.first.year_before()?, self.last.year_before()?),
            Shape::Since => None,
        }
    }

    /// The period cut where the calendar cuts it: whole days, months … of it, and at its ends what is left. One without
    /// an end is cut up to `today`.
    pub fn split(&self, step: Step, today: Day) -> Vec<Period> {
        let last = if self.shape == Shape::Since { today.min(self.last) } else { self.last };
        let mut parts = Vec::new();
        let mut from = self.first;
        while from <= last {
            let month = from.month();
            let whole = match step {
                Step::Day => Period::day(from),
                Step::Month => Period::month(month),
                Step::Quarter => Period::quarter(month),
                Step::Half => Period::half(month),
                Step::Year => Period::year(month),
            };
            let until = whole.last.min(last);
            let part = if whole.first == from && whole.last == until {
                Some(whole)
            } else {
                Period::range(from, until)
            };
            parts.extend(part);
            if until == Day::LAST {
                break;
            }
            from = until.plus(1);
        }
        parts
    }

    /// How many parts `split` gives, about; never fewer.
    pub fn part_count(&self, step: Step, today: Day) -> usize {
        let last = if self.shape == Shape::Since { today.min(self.last) } else { self.last };
        let days = last.since(self.first).max(0) as usize;
        let each = match step {
            Step::Day => 1,
            Step::Month => 28,
            Step::Quarter => 90,
            Step::Half => 181,
            Step::Year => 365,
        };
        days / each + 2
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Period, PeriodError> {
        text::parse(text)
    }
}
