//! Numbers as people state them, and what may lie behind them: a number says no more than its digits do. `98.6 %` stands
//! for everything from 98.55 % to 98.65 %, `约1.2万` for 11,500 to 12,500, `16000余` for 16,000 and more.
//!
//! Everything is whole numbers: no rounding of ours may ever contradict a stated figure. It must never guess: a number
//! that could be read in two ways is an error.

use crate::ledger::half_width;

/// One is so many units. Half of the twelfth decimal of a percentage is still a whole unit.
const ONE: i128 = 2 * 10_i128.pow(14);
/// Digits that a number may have, and decimals among them.
const DIGITS_MAX: usize = 15;
const DECIMALS_MAX: usize = 12;
/// The greatest number, so that no product overflows.
const GREATEST: i128 = 10_i128.pow(15) * ONE;

/// How exact a number was stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// As stated.
    Eq,
    /// At least.
    Ge,
    /// About: to its last digit that is not zero.
    Approx,
}

impl Op {
    /// How people write it.
    pub fn sign(self) -> &'static str {
        match self {
            Op::Eq => "=",
            Op::Ge => "≥",
            Op::Approx => "≈",
        }
    }
}

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// It has something beside digits, or commas in odd places.
    #[error("it is not a number such as 7762, 7,762, 1.2万 or 97.12% (不是可识别的数字)")]
    Form,
    /// It is too long to be worked with exactly.
    #[error("it has more than 15 digits, or more than 12 decimals (数字过长)")]
    TooLong,
    /// A count has a fraction that nothing explains.
    #[error("a count is a whole number (计数应为整数)")]
    Fraction,
    /// A rate without a percent sign is above 1.
    #[error(
        "a rate is written with %, such as 97.12%, or as a ratio from 0 to 1, such as 0.9712 (比率请写百分号，或写 0 到 1 之间的小数)"
    )]
    RateUnit,
    /// A percent sign on a count.
    #[error("a count has no percent sign (计数不应带百分号)")]
    Percent,
}

/// A stated number: everything that it may stand for, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    low: i128,
    /// `None`: anything above.
    high: Option<i128>,
}

/// Why a rate cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impossible {
    /// The part is larger than the whole.
    PartAboveWhole,
    /// The rate lies outside what its counts allow.
    OutsideCounts,
    /// No part of the whole, and no whole of the part, gives the rate.
    NoSuchCount,
}

/// A number in digits: its value times ten to the power of `decimals`.
struct Digits {
    value: i128,
    decimals: usize,
    /// Zeros at the end.
    zeros: usize,
}

impl Stated {
    /// A count as it is written: `7762`, `7,762`, `1.2万`, `约4000`, `16000余`, with or without a measure word.
    ///
    /// # Errors
    /// It is no number, too long, a percentage, or not whole.
    pub fn count(text: &str, op: Op) -> Result<Stated, NumberError> {
        let (text, op) = signs(text, op);
        let text = text.trim_end_matches(['件', '个', '人', '名', '户', '起', '处', '路', '台', '次', ' ']);
        if text.ends_with(['%', '‰']) {
            return Err(NumberError::Percent);
        }
        let (text, times) = match text.strip_suffix('万') {
            Some(rest) => (rest, 10_000),
            None => text.strip_suffix('亿').map_or((text, 1), |rest| (rest, 100_000_000)),
        };
        let digits = Digits::read(text)?;
        // A whole number of ones is exact; 1.2万 is as exact as its digits.
        let exact = times == 1 && op == Op::Eq;
        if times == 1 && digits.value % 10_i128.pow(digits.decimals as u32) != 0 {
            return Err(NumberError::Fraction);
        }
        digits.stated(op, times * ONE, exact)
    }

    /// A rate as it is written: `97.12%`, or `0.9712`; with `percent`, a bare number is a percentage.
    ///
    /// # Errors
    /// It is no number, too long, or could be read in two ways.
    pub fn rate(text: &str, op: Op, percent: bool) -> Result<Stated, NumberError> {
        let (text, op) = signs(text, op);
        let (text, unit) = match (text.strip_suffix('%'), text.strip_suffix('‰')) {
            (Some(rest), _) => (rest, ONE / 100),
            (_, Some(rest)) => (rest, ONE / 1_000),
            _ if percent => (text.as_str(), ONE / 100),
            _ => (text.as_str(), ONE),
        };
        let digits = Digits::read(text.trim_end())?;
        if unit == ONE && digits.value > 10_i128.pow(digits.decimals as u32) {
            return Err(NumberError::RateUnit);
        }
        digits.stated(op, unit, false)
    }

    /// A number that was counted.
    pub fn exact(count: i64) -> Stated {
        let value = i128::from(count) * ONE;
        Stated { low: value, high: Some(value) }
    }

    /// Whether it may stand for this count.
    pub fn allows_count(&self, count: i64) -> bool {
        let value = i128::from(count) * ONE;
        self.low <= value && self.high.is_none_or(|high| value <= high)
    }

    /// Whether it, a rate, may stand for the quotient of two exact counts.
    pub fn allows_ratio(&self, numerator: i64, denominator: i64) -> bool {
        if denominator <= 0 {
            return false;
        }
        let (numerator, denominator) = (i128::from(numerator) * ONE, i128::from(denominator));
        self.low.saturating_mul(denominator) <= numerator
            && self.high.is_none_or(|high| numerator <= high.saturating_mul(denominator))
    }

    /// Whether some value of this one is at most some value of `other`.
    pub fn may_be_at_most(&self, other: &Stated) -> bool {
        other.high.is_none_or(|high| self.low <= high)
    }

    /// Whether the two may stand for the same number.
    pub fn may_equal(&self, other: &Stated) -> bool {
        self.may_be_at_most(other) && other.may_be_at_most(self)
    }

    /// The sum of two.
    pub fn plus(&self, other: &Stated) -> Stated {
        let high = self.high.zip(other.high).map(|(a, b)| a.saturating_add(b));
        Stated { low: self.low.saturating_add(other.low), high }
    }

    /// The least and the greatest whole number that it may stand for; `None` for the greatest: no end.
    pub fn counts(&self) -> (i128, Option<i128>) {
        let low = self.low.div_euclid(ONE) + i128::from(self.low.rem_euclid(ONE) != 0);
        (low, self.high.map(|high| high.div_euclid(ONE)))
    }
}

/// Marks of "at least" and "about" in the text itself.
fn signs(text: &str, op: Op) -> (String, Op) {
    let text = half_width(text.trim()).trim().to_owned();
    for (sign, op) in [
        (">=", Op::Ge),
        ("≥", Op::Ge),
        ("不少于", Op::Ge),
        ("超过", Op::Ge),
        ("约", Op::Approx),
        ("≈", Op::Approx),
    ] {
        if let Some(rest) = text.strip_prefix(sign) {
            return (rest.trim().to_owned(), op);
        }
    }
    // The word stands before or after a measure word: 16000余件, 16000件以上, 1.6万余件.
    for sign in ["以上", "余", "多"] {
        if let Some((before, after)) = text.split_once(sign)
            && after.chars().count() <= 1
        {
            return (format!("{}{after}", before.trim()), Op::Ge);
        }
    }
    (text, op)
}

impl Digits {
    fn read(text: &str) -> Result<Digits, NumberError> {
        let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        let mut groups = whole.split(',');
        let first = groups.next().unwrap_or_default();
        let grouped = whole.contains(',');
        let fine = !first.is_empty()
            && (!grouped || first.len() <= 3)
            && groups.all(|group| group.len() == 3)
            && !(decimals.is_empty() && text.contains('.'));
        let digits: String = whole.chars().filter(|c| *c != ',').chain(decimals.chars()).collect();
        if !fine || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NumberError::Form);
        }
        if digits.len() > DIGITS_MAX || decimals.len() > DECIMALS_MAX {
            return Err(NumberError::TooLong);
        }
        let value = digits.parse().map_err(|_| NumberError::Form)?;
        let zeros = digits.len() - digits.trim_end_matches('0').len();
        Ok(Digits { value, decimals: decimals.len(), zeros: if value == 0 { 0 } else { zeros } })
    }

    /// What the digits stand for, where one is `unit`.
    fn stated(&self, op: Op, unit: i128, exact: bool) -> Result<Stated, NumberError> {
        let last = 10_i128.pow(self.decimals as u32);
        let scaled = |value: i128| value.checked_mul(unit).map(|product| product / last);
        let value = scaled(self.value).filter(|value| *value <= GREATEST).ok_or(NumberError::TooLong)?;
        let digit = match op {
            Op::Approx => 10_i128.pow(self.zeros as u32),
            _ => 1,
        };
        let half = if exact { 0 } else { scaled(digit).ok_or(NumberError::TooLong)? / 2 };
        Ok(match op {
            Op::Ge => Stated { low: value, high: None },
            _ => Stated { low: (value - half).max(0), high: Some(value + half) },
        })
    }
}

/// Whether a rate can be, beside what is stated of its part and its whole.
///
/// # Errors
/// Why it cannot.
pub fn rate_can_be(rate: &Stated, part: Option<&Stated>, whole: Option<&Stated>) -> Result<(), Impossible> {
    // A part is never above its whole, whatever is stated of either.
    if rate.low > ONE || part.zip(whole).is_some_and(|(part, whole)| !part.may_be_at_most(whole)) {
        return Err(Impossible::PartAboveWhole);
    }
    match (part, whole) {
        (Some(part), Some(whole)) => {
            let ((part_low, part_high), (whole_low, whole_high)) = (part.counts(), whole.counts());
            let part_high = match (part_high, whole_high) {
                (Some(part), Some(whole)) => Some(part.min(whole)),
                (part, whole) => part.or(whole),
            };
            let high_enough = part_high.is_none_or(|part| rate.low * whole_low.max(1) <= part * ONE);
            let low_enough = whole_high
                .zip(rate.high)
                .is_none_or(|(whole, high)| whole > 0 && part_low * ONE <= high * whole);
            if high_enough && low_enough { Ok(()) } else { Err(Impossible::OutsideCounts) }
        }
        (None, Some(whole)) => some_count(whole, |whole| {
            let least = (rate.low * whole + ONE - 1).div_euclid(ONE);
            whole > 0 && least <= whole && rate.high.is_none_or(|high| least * ONE <= high * whole)
        }),
        (Some(part), None) => some_count(part, |part| match (part, rate.high) {
            (0, _) => rate.low == 0,
            // The least whole that makes the rate low enough must not make it too low.
            (part, Some(0)) => part == 0,
            (part, high) => {
                let least = high.map_or(part, |high| (part * ONE + high - 1).div_euclid(high)).max(part);
                rate.low * least <= part * ONE
            }
        }),
        (None, None) => Ok(()),
    }
}

/// Whether a stated count may be one that fits. Where it may be many, some of them fits any rate that can be.
fn some_count(count: &Stated, fits: impl Fn(i128) -> bool) -> Result<(), Impossible> {
    const TRIED_MAX: i128 = 10_000;
    match count.counts() {
        (low, Some(high)) if high - low < TRIED_MAX => {
            if (low..=high).any(fits) {
                Ok(())
            } else {
                Err(Impossible::NoSuchCount)
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
