//! Administrative divisions: the 12-digit code, its tier, and what contains what.
//!
//! A code reads `PP CC AA TTT VVV`: province, prefecture, county, township, village; zeros at the end mean
//! "all of it". Everything here follows from the digits alone, so that two nodes with different tables agree
//! on scope, audience and release. It must never look a code up: whether a code exists is asked of
//! [`Divisions`], and answers differ between nodes.

mod table;

pub use table::{DivisionEntry, Divisions};

use std::fmt;
use std::str::FromStr;

/// A prefecture that has townships directly below it, without counties; the first four digits.
const WITHOUT_COUNTIES: [u64; 3] = [4419, 4420, 4604];

/// The level of a division. Ordered by height: a village is the least, a province the greatest.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Village or residents' committee, 12 significant digits. Never a home, a writer or a node.
    Village,
    /// Township, town or subdistrict, 9 significant digits.
    Township,
    /// County, district or county-level city, 6 significant digits.
    County,
    /// Prefecture or prefecture-level city, 4 significant digits.
    Prefecture,
    /// Province, autonomous region or municipality, 2 significant digits.
    Province,
}

impl Tier {
    /// Every tier, from the lowest.
    pub const ALL: [Tier; 5] =
        [Tier::Village, Tier::Township, Tier::County, Tier::Prefecture, Tier::Province];

    /// The Chinese name, for people.
    pub const fn label(self) -> &'static str {
        match self {
            Tier::Village => "村级",
            Tier::Township => "乡级",
            Tier::County => "县级",
            Tier::Prefecture => "地级",
            Tier::Province => "省级",
        }
    }

    /// The English name in lower case, for configuration, metrics and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Village => "village",
            Tier::Township => "township",
            Tier::County => "county",
            Tier::Prefecture => "prefecture",
            Tier::Province => "province",
        }
    }

    /// How many codes one division of this tier takes up, itself included.
    const fn span(self) -> u64 {
        match self {
            Tier::Village => 1,
            Tier::Township => 1_000,
            Tier::County => 1_000_000,
            Tier::Prefecture => 100_000_000,
            Tier::Province => 10_000_000_000,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a code is not a division. None of these repeats the input, which may be anything at all.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DivisionError {
    /// A character that is not one of `0` to `9`, such as a space or a full-width digit.
    #[error("a division code is written with the digits 0 to 9 only (区划代码只能由数字 0-9 组成)")]
    NotDigits,
    /// Not one of the five lengths; holds the number of digits found.
    #[error("a division code has 2, 4, 6, 9 or 12 digits, not {0} (区划代码应为 2、4、6、9 或 12 位)")]
    Length(usize),
    /// The first digit is zero, or a number has more or fewer than 12 digits.
    #[error("a division code begins with its province, 10 or more (区划代码应以省级代码开头)")]
    NoProvince,
    /// Something below the prefecture is named, but the prefecture's digits are `00`.
    #[error("the division code goes below a prefecture, but has 00 for it (区划代码缺少地级代码)")]
    NoPrefecture,
    /// A village is named, but the township's digits are `000`.
    #[error("the division code names a village, but has 000 for its township (村级代码缺少乡级代码)")]
    NoTownship,
}

/// An administrative division: a code of 12 digits, checked for form but not for existence.
///
/// The order is the order of the codes: a division comes directly before all that it contains.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Division(u64);

impl Division {
    /// Reads a code of 2, 4, 6, 9 or 12 ASCII digits; the missing ones are zeros. Nothing is trimmed.
    ///
    /// # Errors
    /// Says which rule of the form is broken; see [`DivisionError`].
    pub fn parse(text: &str) -> Result<Division, DivisionError> {
        let bytes = text.as_bytes();
        if !bytes.iter().all(u8::is_ascii_digit) {
            return Err(DivisionError::NotDigits);
        }
        let tier = match bytes.len() {
            2 => Tier::Province,
            4 => Tier::Prefecture,
            6 => Tier::County,
            9 => Tier::Township,
            12 => Tier::Village,
            found => return Err(DivisionError::Length(found)),
        };
        let digits = bytes.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        Division::check(digits * tier.span())
    }

    /// The division of a 12-digit number; `None` if the number does not have the form of one.
    pub const fn from_code(code: u64) -> Option<Division> {
        match Division::check(code) {
            Ok(division) => Some(division),
            Err(_) => None,
        }
    }

    const fn check(code: u64) -> Result<Division, DivisionError> {
        if code < 100_000_000_000 || code > 999_999_999_999 {
            return Err(DivisionError::NoProvince);
        }
        let below_province = code % Tier::Province.span();
        if below_province != 0 && below_province < Tier::Prefecture.span() {
            return Err(DivisionError::NoPrefecture);
        }
        let below_county = code % Tier::County.span();
        if below_county != 0 && below_county < Tier::Township.span() {
            return Err(DivisionError::NoTownship);
        }
        Ok(Division(code))
    }

    /// The code as a number of exactly 12 digits.
    pub const fn code(self) -> u64 {
        self.0
    }

    /// The tier, from the significant digits: `441900000000` is a prefecture, although it is also listed as a
    /// county.
    pub const fn tier(self) -> Tier {
        if self.0.is_multiple_of(Tier::Province.span()) {
            Tier::Province
        } else if self.0.is_multiple_of(Tier::Prefecture.span()) {
            Tier::Prefecture
        } else if self.0.is_multiple_of(Tier::County.span()) {
            Tier::County
        } else if self.0.is_multiple_of(Tier::Township.span()) {
            Tier::Township
        } else {
            Tier::Village
        }
    }

    /// The greatest code of the scope: the scope is exactly the codes from [`code`](Self::code) to this one.
    pub const fn last_code(self) -> u64 {
        self.0 + self.tier().span() - 1
    }

    /// Whether `other` is this division or lies inside it.
    pub const fn contains(self, other: Division) -> bool {
        self.0 <= other.0 && other.0 <= self.last_code()
    }

    /// Whether `other` lies inside this division and is not the division itself.
    pub const fn strictly_contains(self, other: Division) -> bool {
        self.0 < other.0 && other.0 <= self.last_code()
    }

    /// Whether one of the two contains the other.
    pub const fn meets(self, other: Division) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The division of `tier` around this one. Where that tier is missing it is the next one above; a
    /// division that is already at `tier` or higher stays as it is.
    pub const fn truncate(self, tier: Tier) -> Division {
        Division(self.0 - self.0 % tier.span())
    }

    /// The county, or the prefecture where there is no county. A prefecture or province is returned as it is.
    pub const fn county(self) -> Division {
        self.truncate(Tier::County)
    }

    /// Where a record about this division is born: a village's township, otherwise the division itself.
    pub const fn home(self) -> Division {
        self.truncate(Tier::Township)
    }

    /// The smallest division that strictly contains this one; `None` for a province.
    pub fn above(self) -> Option<Division> {
        Tier::ALL.into_iter().map(|tier| self.truncate(tier)).find(|around| *around != self)
    }

    /// This division and every one around it, from the inside out. Missing tiers are skipped,
    /// pseudo-prefectures are not: by their digits they are divisions like any other.
    pub fn enclosing(self) -> impl Iterator<Item = Division> + Clone {
        std::iter::successors(Some(self), |division| division.above())
    }

    /// Whether there is a county tier here: false for a township or village whose county digits are `00`, and
    /// for the three prefectures known to have no counties (Dongguan, Zhongshan, Danzhou).
    pub fn has_county_tier(self) -> bool {
        match self.tier() {
            Tier::Village | Tier::Township => self.county().tier() == Tier::County,
            Tier::Prefecture => !WITHOUT_COUNTIES.contains(&(self.0 / Tier::Prefecture.span())),
            Tier::County | Tier::Province => true,
        }
    }

    /// Whether this is a prefecture by its digits only: `01` and `02` in the four municipalities, and `90`
    /// (counties directly under a province). It has no government, and people do not name it.
    pub const fn is_pseudo_prefecture(self) -> bool {
        let prefix = self.0 / Tier::Prefecture.span();
        matches!(self.tier(), Tier::Prefecture)
            && (prefix % 100 == 90 || matches!(prefix, 1101 | 1102 | 1201 | 1202 | 3101 | 3102 | 5001 | 5002))
    }
}

impl fmt::Display for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Division {
    type Err = DivisionError;

    fn from_str(text: &str) -> Result<Division, DivisionError> {
        Division::parse(text)
    }
}

impl TryFrom<u64> for Division {
    type Error = DivisionError;

    fn try_from(code: u64) -> Result<Division, DivisionError> {
        Division::check(code)
    }
}

#[cfg(test)]
mod tests;
