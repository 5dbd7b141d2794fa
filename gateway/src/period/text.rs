//! How periods are written: for programs and command lines, and in Chinese for people.

use std::fmt;

use super::{Day, Month, Period, Shape};

/// Every text form, for messages.
const FORMS: &str = "2026-10-21, 2026-10, 2026-Q4, 2026-H2, 2026, 2026-10~ytd, 2026-10-21~ytd, \
                     2026-01-01..2026-03-31, 2026-01-01..";
/// What follows the end of a year to date.
const TO_DATE: &str = "~ytd";

/// A text that is no period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// Not one of the forms, or no day of the calendar.
    #[error("`{0}` is not a period; write it as one of {FORMS} (统计周期格式有误)")]
    Form(String),
    /// The last day comes before the first.
    #[error("the period ends on {last}, before it begins on {first} (统计周期的结束日期早于开始日期)")]
    Reversed {
        /// Its first day.
        first: Day,
        /// Its last day.
        last: Day,
    },
}

pub(super) fn parse(text: &str) -> Result<Period, PeriodError> {
    let form = || PeriodError::Form(text.chars().take(40).collect());
    if let Some((first, last)) = text.split_once("..") {
        let first = day(first).ok_or_else(form)?;
        if last.is_empty() {
            return Ok(Period::since(first));
        }
        let last = day(last).ok_or_else(form)?;
        return Period::range(first, last).ok_or(PeriodError::Reversed { first, last });
    }
    if let Some(end) = text.strip_suffix(TO_DATE) {
        let to_month = month(end).map(Period::year_to_month);
        return to_month.or_else(|| day(end).map(Period::year_to_day)).ok_or_else(form);
    }
    if let Some((of, part)) = text.split_once("-Q") {
        let quarter = number(part, 1).filter(|q| (1..=4).contains(q));
        return begin(of, quarter, 3).map(Period::quarter).ok_or_else(form);
    }
    if let Some((of, part)) = text.split_once("-H") {
        let half = number(part, 1).filter(|h| (1..=2).contains(h));
        return begin(of, half, 6).map(Period::half).ok_or_else(form);
    }
    let whole_year = || begin(text, Some(1), 12).map(Period::year);
    let found = day(text).map(Period::day).or_else(|| month(text).map(Period::month)).or_else(whole_year);
    found.ok_or_else(form)
}

/// The first month of the n-th stretch of so many months of a year.
fn begin(year: &str, nth: Option<u32>, months: u32) -> Option<Month> {
    Month::of(number(year, 4)? as i32, (nth? - 1) * months + 1)
}

fn month(text: &str) -> Option<Month> {
    let (year, month) = text.split_once('-')?;
    Month::of(number(year, 4)? as i32, number(month, 2)?)
}

fn day(text: &str) -> Option<Day> {
    let (of, day) = text.rsplit_once('-')?;
    let month = month(of)?;
    Day::of(month.year(), month.of_year(), number(day, 2)?)
}

/// A number of exactly so many ASCII digits.
fn number(text: &str, digits: usize) -> Option<u32> {
    let fits = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let month = self.first.month();
        let year = month.year();
        match self.shape {
            Shape::Day => write!(f, "{}", self.first),
            Shape::Months(1) => write!(f, "{month}"),
            Shape::Months(3) => write!(f, "{year:04}-Q{}", month.of_year().div_ceil(3)),
            Shape::Months(6) => write!(f, "{year:04}-H{}", month.of_year().div_ceil(6)),
            Shape::Months(_) => write!(f, "{year:04}"),
            Shape::ToMonth => write!(f, "{}{TO_DATE}", self.last.month()),
            Shape::ToDay => write!(f, "{}{TO_DATE}", self.last),
            Shape::Range => write!(f, "{}..{}", self.first, self.last),
            Shape::Since => write!(f, "{}..", self.first),
        }
    }
}

impl Period {
    /// In Chinese, for people: 2026年10月, 2026年第四季度, 2026年1—10月.
    pub fn label(&self) -> String {
        let (month, end) = (self.first.month(), self.last.month());
        let year = month.year();
        let date = |d: Day| format!("{}年{}月{}日", d.month().year(), d.month().of_year(), d.of_month());
        match self.shape {
            Shape::Day => date(self.first),
            Shape::Months(1) => format!("{year}年{}月", month.of_year()),
            Shape::Months(3) => {
                let name = ["一", "二", "三", "四"].get(month.of_year() as usize / 3).unwrap_or(&"");
                format!("{year}年第{name}季度")
            }
            Shape::Months(6) => format!("{year}年{}", if month.of_year() == 1 { "上半年" } else { "下半年" }),
            Shape::Months(_) => format!("{year}年"),
            Shape::ToMonth if end.of_year() == 1 => format!("{year}年1月"),
            Shape::ToMonth => format!("{year}年1—{}月", end.of_year()),
            Shape::ToDay | Shape::Range => format!("{}至{}", date(self.first), date(self.last)),
            Shape::Since => format!("{}以来", date(self.first)),
        }
    }
}
