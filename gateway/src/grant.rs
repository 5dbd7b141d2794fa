//! What a caller may see and write: a scope, kinds of records, how much of them, and in the name of which units it
//! handles cases. A partner has what an operator granted to it; operators have everything that the node holds.
//!
//! It judges and does nothing else: who calls is the certificate's to say, and what is written is judged by `access`
//! and the checks of local writes beside this.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use guantong_proto::rules;

use crate::division::Division;
use crate::pace::Pace;
use crate::record::audience::Audience;
use crate::schema::KindId;

/// How far a grant goes. Each level has what the ones before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Sums over divisions, never a record.
    Aggregates,
    /// Records are read.
    Read,
    /// Records are written.
    Write,
}

/// Kinds of records, one bit for each by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kinds(u64);

impl Kinds {
    /// Every kind, those of later programs too.
    pub const ALL: Kinds = Kinds(u64::MAX);

    /// These and no others. Kinds have numbers below 64.
    pub fn of(kinds: impl IntoIterator<Item = KindId>) -> Kinds {
        Kinds(kinds.into_iter().filter(|k| k.0 < 64).fold(0, |bits, kind| bits | 1 << kind.0))
    }

    /// As they are stored.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From what is stored.
    pub const fn from_bits(bits: u64) -> Kinds {
        Kinds(bits)
    }

    /// Whether a kind is among them.
    pub const fn contains(self, kind: KindId) -> bool {
        self.0 == u64::MAX || kind.0 < 64 && self.0 >> kind.0 & 1 == 1
    }
}

/// Units of divisions 部门 in whose name a caller handles cases. Files cases and changes their fields without any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Units {
    /// Every unit, and the divisions themselves.
    All,
    /// Those with these codes, ascending, each once.
    Named(Arc<[Box<str>]>),
}

impl Units {
    /// The code that stands for all of them.
    pub const ALL: &'static str = "*";

    /// Those with these codes; among them `*`: all.
    pub fn of<'c>(codes: impl IntoIterator<Item = &'c str>) -> Units {
        let mut named: Vec<Box<str>> = codes.into_iter().map(Box::from).collect();
        if named.iter().any(|code| **code == *Units::ALL) {
            return Units::All;
        }
        named.sort_unstable();
        named.dedup();
        Units::Named(named.into())
    }

    /// Their codes; `*` for all.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        let (all, named): (_, &[Box<str>]) = match self {
            Units::All => (Some(Units::ALL), &[]),
            Units::Named(named) => (None, named),
        };
        all.into_iter().chain(named.iter().map(|code| &**code))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Units::Named(named) if named.is_empty())
    }

    /// Whether a unit is among them.
    pub fn contains(&self, unit: &str) -> bool {
        match self {
            Units::All => true,
            Units::Named(named) => named.binary_search_by(|code| (**code).cmp(unit)).is_ok(),
        }
    }
}

/// How often a partner may call. Written as `50/s`, `600/min` or `2000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    requests: u32,
    period: Period,
}

/// A period of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

/// What is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// The number of requests.
    #[error(
        "a rate has 1 to {max} requests; without a rate a partner calls as often as it likes (次数须为1至{max})",
        max = Rate::REQUESTS_MAX
    )]
    Requests,
    /// The period, or no form of a rate at all.
    #[error(
        "write a rate as a number and s, min or h, such as 50/s, 600/min or 2000/h (频率写作 50/s、600/min 或 2000/h)"
    )]
    Form,
}

impl Rate {
    /// The most requests in a period.
    pub const REQUESTS_MAX: u32 = 100_000;

    /// So many requests in each period, and as many at once.
    ///
    /// # Errors
    /// [`RateError::Requests`].
    pub fn new(requests: u32, period: Period) -> Result<Rate, RateError> {
        let allowed = (1..=Rate::REQUESTS_MAX).contains(&requests);
        if allowed { Ok(Rate { requests, period }) } else { Err(RateError::Requests) }
    }

    /// How many requests.
    pub const fn requests(self) -> u32 {
        self.requests
    }

    /// In which time.
    pub const fn period(self) -> Period {
        self.period
    }

    /// As it is counted.
    pub fn pace(self) -> Pace {
        let seconds = match self.period {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3_600,
        };
        Pace::new(self.requests, Duration::from_secs(seconds) / self.requests)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.period {
            Period::Second => "s",
            Period::Minute => "min",
            Period::Hour => "h",
        };
        write!(f, "{}/{period}", self.requests)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        let (requests, period) = text.trim().split_once('/').ok_or(RateError::Form)?;
        let period = match period.trim() {
            "s" => Period::Second,
            "min" => Period::Minute,
            "h" => Period::Hour,
            _ => return Err(RateError::Form),
        };
        let requests = requests.trim();
        if requests.is_empty() || !requests.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(RateError::Form);
        }
        Rate::new(requests.parse().map_err(|_| RateError::Requests)?, period)
    }
}

/// Whom a write is made for, where that limits what it may do with cases. Operators and ledgers have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// The partner's name.
    pub partner: Box<str>,
    /// It acts for divisions inside this one.
    pub scope: Division,
    /// In the name of these units of them.
    pub units: Units,
}

impl Mandate {
    /// Whether it acts for a unit of a division.
    pub fn acts_for(&self, division: Division, unit: &str) -> bool {
        self.scope.contains(division) && self.units.contains(unit)
    }
}

/// What a caller may see and write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Records that concern this division or one inside it.
    pub scope: Division,
    /// Of these kinds.
    pub kinds: Kinds,
    /// How far.
    pub level: Level,
    /// Fields that say something about a person, too.
    pub personal: bool,
    /// In whose name cases are handled.
    pub units: Units,
    /// How often it calls; `None`: as often as it likes.
    pub rate: Option<Rate>,
}

impl Grant {
    /// What operators of a node may: everything that it holds.
    pub const fn everything(own: Division) -> Grant {
        let (kinds, units) = (Kinds::ALL, Units::All);
        Grant { scope: own, kinds, level: Level::Write, personal: true, units, rate: None }
    }

    /// Whether all that a node holds is seen and written, whatever is done with cases.
    pub fn is_whole(&self, own: Division) -> bool {
        let all = self.kinds == Kinds::ALL && self.personal;
        all && self.level == Level::Write && self.scope.contains(own)
    }

    /// Whether sums of a division may be asked for.
    pub const fn may_aggregate(&self, division: Division) -> bool {
        self.scope.contains(division)
    }

    /// Whether records of a kind may be read that were born in `home`.
    pub fn may_read(&self, kind: KindId, home: Division) -> bool {
        self.level >= Level::Read && self.kinds.contains(kind) && self.scope.contains(home)
    }

    /// Whether records of a kind may be written that were born in `home`, or are to be.
    pub fn may_write(&self, kind: KindId, home: Division) -> bool {
        self.level >= Level::Write && self.may_read(kind, home)
    }

    /// Whether a record may be read: one that was handed to the scope belongs to it like one that was born there.
    pub fn may_read_record(&self, kind: KindId, audience: &Audience) -> bool {
        self.level >= Level::Read && self.kinds.contains(kind) && audience.concerns(self.scope)
    }

    /// Whether a record may be written. One that only reaches the scope from above may not.
    pub fn may_write_record(&self, kind: KindId, audience: &Audience) -> bool {
        self.level >= Level::Write && self.kinds.contains(kind) && audience.has_at_or_below(self.scope)
    }

    /// Whether a field of a record that may be read is shown, and may be written where the record may.
    pub const fn shows(&self, field: &rules::Field) -> bool {
        self.personal || !field.personal
    }
}

/// Whether a text can be a partner's name: 1 to 63 of the characters a-z 0-9 . - _, a letter or digit first.
pub fn is_partner_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::schema::{Kind, Schema};
    use proptest::prelude::*;

    fn division(code: &str) -> Division {
        Division::parse(code).unwrap()
    }

    fn kind(schema: &Schema, name: &str) -> Kind {
        schema.kind_named(name).unwrap().clone()
    }

    const CASE: KindId = KindId(2);
    const CAMERA: KindId = KindId(3);

    #[test]
    fn a_grant_covers_its_scope_its_kinds_and_its_level() {
        let grant = Grant {
            scope: division("220822"),
            kinds: Kinds::of([CASE]),
            level: Level::Read,
            personal: false,
            units: Units::of([]),
            rate: None,
        };
        let (inside, outside) = (division("220822101"), division("220821101"));
        assert!(grant.may_read(CASE, inside) && !grant.may_read(CASE, outside));
        assert!(!grant.may_read(CAMERA, inside), "another kind");
        assert!(!grant.may_write(CASE, inside), "it reads only");
        assert!(grant.may_aggregate(inside) && !grant.may_aggregate(division("2208")));
        let sums = Grant { level: Level::Aggregates, ..grant.clone() };
        assert!(!sums.may_read(CASE, inside) && sums.may_aggregate(inside));
        assert!(Grant { level: Level::Write, ..grant }.may_write(CASE, inside));
    }

    #[test]
    fn personal_fields_are_shown_to_whom_they_are_granted() {
        let schema = Schema::current();
        let case = kind(&schema, "case");
        let (parties, title) = (case.field_named("parties").unwrap(), case.field_named("title").unwrap());
        let grant = Grant { personal: false, ..Grant::everything(division("22")) };
        assert!(!grant.shows(parties) && grant.shows(title));
        assert!(Grant::everything(division("22")).shows(parties));
    }

    #[test]
    fn what_reaches_a_scope_from_above_is_read_there_and_not_written() {
        let schema = Schema::current();
        let divisions = kind(&schema, "division");
        let audience = Audience::of_home(&divisions, division("2208"));
        let grant = Grant::everything(division("220822"));
        assert!(grant.may_read_record(divisions.id, &audience));
        assert!(!grant.may_write_record(divisions.id, &audience));
    }

    #[test]
    fn names_are_those_of_certificates() {
        for name in ["hotline-12345", "a", "0.b_c"] {
            assert!(is_partner_name(name), "{name}");
        }
        for name in ["", "-a", "A", "热线", "a b", "a/b", &"a".repeat(64)] {
            assert!(!is_partner_name(name), "{name}");
        }
    }

    #[test]
    fn units_are_named_one_by_one_or_all_at_once() {
        let some = Units::of(["police", "court", "police"]);
        assert_eq!(some.codes().collect::<Vec<_>>(), ["court", "police"]);
        assert!(some.contains("court") && !some.contains("division") && !some.contains(""));
        assert!(Units::of([]).is_empty() && !Units::of([]).contains("court"));
        let all = Units::of(["court", "*"]);
        assert!(all == Units::All && all.contains("division") && all.contains("以后的部门"));
        assert_eq!(Units::of(all.codes()), all);
        let mandate = Mandate { partner: "court".into(), scope: division("220822"), units: some };
        assert!(mandate.acts_for(division("220822101"), "court"));
        assert!(!mandate.acts_for(division("220822101"), "division"));
        assert!(!mandate.acts_for(division("2208"), "court"), "its scope ends below");
    }

    #[test]
    fn a_rate_that_is_none_says_how_one_is_written() {
        for text in ["", "50", "50/d", "50 per s", "-1/s", "+5/s", "/s", "1.5/s", "50/S", "五/s"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Form), "{text}");
        }
        for text in ["0/s", "100001/min", "99999999999999999999/h"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Requests), "{text}");
        }
        assert_eq!(" 50 / s ".parse(), Rate::new(50, Period::Second));
    }

    proptest! {
        #[test]
        fn a_rate_is_read_as_it_is_written(requests in 1..=Rate::REQUESTS_MAX, period in 0..3_usize) {
            let period = [Period::Second, Period::Minute, Period::Hour][period];
            let rate = Rate::new(requests, period);
            prop_assert_eq!(rate.map(|rate| rate.to_string().parse()), Ok(rate));
        }

        #[test]
        fn kinds_are_what_they_were_made_of(numbers in proptest::collection::btree_set(0u32..63, 0..10), asked in 0u32..80) {
            let kinds = Kinds::of(numbers.iter().map(|n| KindId(*n)));
            prop_assert_eq!(kinds.contains(KindId(asked)), numbers.contains(&asked));
            prop_assert_eq!(Kinds::from_bits(kinds.bits()), kinds);
            prop_assert!(Kinds::ALL.contains(KindId(asked)));
        }
    }
}
