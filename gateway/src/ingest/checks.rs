//! The rules of local writes that depend on values and on state: whether codes, dates, counts and places make sense,
//! who holds a case, whose a camera is. Judged is what is written, beside what the record shows otherwise.
//!
//! Links are never judged by these: what one node may hold, all may. A message names the field and what to do, and
//! repeats codes at most, never what was written about a person. Nothing here reads a clock or changes anything.

use bytes::Bytes;
use guantong_proto::rules::{Policy, fields};
use guantong_proto::v1;
use prost::Message;

use crate::calendar;
use crate::casework::First;
use crate::division::{Division, Divisions};
use crate::record::{FieldNumber, Record, view};
use crate::schema::Kind;

mod camera;
mod case;
mod division;
mod grid;
mod submission;
mod threshold;
mod values;

/// West, east, south and north end of what coordinates may name, in degrees.
const WEST_EAST: std::ops::RangeInclusive<f64> = 73.0..=136.0;
const SOUTH_NORTH: std::ops::RangeInclusive<f64> = 3.0..=54.0;

/// A write to be judged.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The record's kind.
    pub kind: &'a Kind,
    /// Where the record was born.
    pub home: Division,
    /// The record's id.
    pub id: &'a str,
    /// The record until now; empty: it is new.
    pub before: &'a Record,
    /// The record with what is written.
    pub after: &'a Record,
    /// The fields that are written. A lifecycle that a move made is not among them: it is judged already.
    pub written: &'a [FieldNumber],
    /// In whose name.
    pub writer: Division,
    /// The node's own division.
    pub own: Division,
    /// Where a case may stand that is not registered yet.
    pub first: First,
    /// The divisions that the node knows.
    pub divisions: &'a Divisions,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// How far ahead of this node's clock a date or an observation may be.
    pub drift_ms: u64,
}

/// What is wrong with a write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A value breaks a rule.
    #[error("{detail}")]
    Invalid {
        /// The field.
        field: FieldNumber,
        /// Which rule, and what to do.
        detail: String,
    },
    /// A number that no value of an enum has, as far as this program knows.
    #[error("{detail}")]
    UnknownValue {
        /// The field.
        field: FieldNumber,
        /// Where in the field, as it is added to the field's name: `.state`, `[1].role`; empty: the field itself.
        part: String,
        /// Which values are known.
        detail: String,
    },
    /// A division that this node does not know. A row of a ledger waits until it does.
    #[error("{detail}")]
    UnknownDivision {
        /// The field.
        field: FieldNumber,
        /// The division.
        division: Division,
        /// What to do.
        detail: String,
    },
}

impl Violation {
    /// Whether the row can go in once a division is known.
    pub fn is_unknown_division(&self) -> bool {
        matches!(self, Violation::UnknownDivision { .. })
    }

    /// The field to blame.
    pub fn field(&self) -> FieldNumber {
        match self {
            Violation::Invalid { field, .. }
            | Violation::UnknownValue { field, .. }
            | Violation::UnknownDivision { field, .. } => *field,
        }
    }

    /// Where in the field, as it is added to the field's name; empty: the field as a whole.
    pub fn part(&self) -> &str {
        if let Violation::UnknownValue { part, .. } = self { part } else { "" }
    }

    /// What is wrong, where, and what to do, in plain words.
    pub fn detail(&self) -> &str {
        match self {
            Violation::Invalid { detail, .. }
            | Violation::UnknownValue { detail, .. }
            | Violation::UnknownDivision { detail, .. } => detail,
        }
    }
}

/// Judges a write. Everything that is wrong is named at once.
pub fn check(subject: &Subject<'_>) -> Result<(), Vec<Violation>> {
    let mut checker = Checker { s: subject, found: Vec::new() };
    entries(&mut checker);
    values::check(&mut checker);
    match subject.kind.rule.name {
        "grid" => grid::check(&mut checker),
        "case" => case::check(&mut checker),
        "camera" => camera::check(&mut checker),
        "division" => division::check(&mut checker),
        "submission" => submission::check(&mut checker),
        "threshold" => threshold::check(&mut checker),
        _ => {}
    }
    if checker.found.is_empty() { Ok(()) } else { Err(checker.found) }
}

/// Entries of a list are told apart by their ids: two without one would replace each other. A number of another system
/// needs both its parts.
fn entries(c: &mut Checker<'_>) {
    for field in c.s.written {
        let union = c.s.kind.field(*field).is_some_and(|rule| rule.policy == Policy::Union);
        let Some(value) = c.fresh(*field).filter(|_| union) else { continue };
        let mut written = view::union_entries(&value);
        if *field == fields::EXTERNAL_REFS {
            let whole = |entry: view::UnionEntry<'_>| {
                let read = v1::ExternalRef::decode(entry.message);
                read.is_ok_and(|r| !r.id.is_empty() && !r.system.is_empty() && !r.number.is_empty())
            };
            let words = ("each needs a system and a number", "外部编号须填写系统和编号");
            c.refuse_unless(written.all(whole), *field, words);
        } else {
            let words = ("each entry needs an id that no other has", "每条记录须有唯一标识");
            c.refuse_unless(written.all(|entry| !entry.id.is_empty()), *field, words);
        }
    }
}

/// A rule that is broken, in English and in Chinese.
type Words<'w> = (&'w str, &'w str);

/// Gathers what is wrong with one write.
struct Checker<'a> {
    s: &'a Subject<'a>,
    found: Vec<Violation>,
}

impl Checker<'_> {
    fn wrote(&self, field: FieldNumber) -> bool {
        self.s.written.contains(&field)
    }

    fn created(&self) -> bool {
        self.s.before.is_empty()
    }

    /// Label and name of a field, and what is wrong with it.
    fn say(&self, field: FieldNumber, (english, chinese): Words<'_>) -> String {
        match self.s.kind.field(field) {
            Some(rule) => format!("{} ({}): {english} ({chinese})", rule.label, rule.name),
            None => format!("{field}: {english} ({chinese})"),
        }
    }

    fn refuse(&mut self, field: FieldNumber, words: Words<'_>) {
        let detail = self.say(field, words);
        self.found.push(Violation::Invalid { field, detail });
    }

    fn refuse_unless(&mut self, fine: bool, field: FieldNumber, words: Words<'_>) {
        if !fine {
            self.refuse(field, words);
        }
    }

    /// What a record shows of a field.
    fn shown(&self, record: &Record, field: FieldNumber) -> Option<Bytes> {
        let rule = self.s.kind.field(field)?;
        view::shown(rule, record.get(field)?, self.s.home).map(|s| s.value)
    }

    /// What is written to a field. It need not be what is shown afterwards: another value may stand beside it.
    fn fresh(&self, field: FieldNumber) -> Option<Bytes> {
        let (before, after) = (self.s.before.get(field), self.s.after.get(field)?);
        let mut live = after.live();
        let new = live.find(|(e, _)| before.and_then(|r| r.seen(e.writer)) < Some(e.stamp));
        new.map(|(_, value)| value.clone()).or_else(|| self.shown(self.s.after, field))
    }

    /// The message of the written fields, and of those of `beside` as they are shown. Names the fields whose bytes are
    /// no encoding of them; these stay empty.
    fn read<M: Message + Default>(&mut self, beside: &[FieldNumber]) -> M {
        let mut message = M::default();
        let others = beside.iter().filter(|field| !self.wrote(**field));
        let values = self.s.written.iter().map(|field| (*field, self.fresh(*field)));
        let values = values.chain(others.map(|field| (*field, self.shown(self.s.after, *field))));
        let mut broken = Vec::new();
        for (field, value) in values {
            if value.is_some_and(|value| message.merge(value).is_err()) {
                broken.push(field);
            }
        }
        for field in broken {
            let why = "the bytes are not an encoding of the field; send it as the contract defines it";
            self.refuse(field, (why, "编码不正确"));
        }
        message
    }

    /// A code that must be the record's id.
    fn named_by_code<'c>(&mut self, field: FieldNumber, code: Option<&'c str>) -> Option<&'c str> {
        let Some(code) = code else {
            self.refuse(field, ("it names the record and cannot be cleared", "该编码标识本记录，不能清空"));
            return None;
        };
        if code == self.s.id {
            return Some(code);
        }
        let english = format!(
            "the record's id must be this code; write to the record named by it, not to {}",
            self.s.id
        );
        self.refuse(field, (&english, "记录标识必须与该编码相同"));
        None
    }

    /// A division inside the home.
    fn inside_home(&mut self, field: FieldNumber, code: Option<&str>) {
        let Some(code) = code.filter(|_| self.wrote(field)) else { return };
        let home = self.s.home;
        match division_of(code) {
            None => self.refuse(field, ("it is not a 12-digit division code", "不是12位区划代码")),
            Some(found) if !home.contains(found) => {
                let english =
                    format!("{found} does not lie inside the record's home {home}; correct the code");
                self.refuse(field, (&english, "区划不在本记录所属区划内"));
            }
            Some(_) => {}
        }
    }

    /// A day that the calendar has.
    fn day(&mut self, field: FieldNumber, date: Option<&v1::Date>) -> Option<i64> {
        let date = date?;
        if calendar::is_date(date) {
            return Some(calendar::sort_key(date));
        }
        if self.wrote(field) {
            self.refuse(field, ("it is not a day of the calendar, 1900 to 2199", "日期不存在"));
        }
        None
    }

    /// A day that must not lie in the future.
    fn past_day(&mut self, field: FieldNumber, date: Option<&v1::Date>) -> Option<i64> {
        let day = self.day(field, date)?;
        let today = calendar::beijing_date(self.s.now_ms.saturating_add(self.s.drift_ms));
        let past = day <= calendar::sort_key(&today) || !self.wrote(field);
        self.refuse_unless(past, field, ("it lies in the future, Beijing time", "日期不能晚于今天"));
        Some(day)
    }

    /// Two days in order; whoever writes the later field is told, else whoever writes the earlier one.
    fn in_order(
        &mut self,
        first: (FieldNumber, Option<i64>),
        then: (FieldNumber, Option<i64>),
        words: Words<'_>,
    ) {
        let (Some(a), Some(b)) = (first.1, then.1) else { return };
        let blamed = [then.0, first.0].into_iter().find(|field| self.wrote(*field));
        if let Some(field) = blamed.filter(|_| b < a) {
            self.refuse(field, words);
        }
    }

    /// A number that counts something.
    fn count(&mut self, field: FieldNumber, number: Option<i64>) {
        let fine = number.is_none_or(|n| n >= 0) || !self.wrote(field);
        self.refuse_unless(fine, field, ("it is less than zero", "不能小于零"));
    }

    /// A place that can be.
    fn place(&mut self, field: FieldNumber, place: Option<&v1::LngLat>) {
        let fine = place.is_none_or(|p| is_place(p.longitude, p.latitude)) || !self.wrote(field);
        let words = (
            "it lies outside 73 to 136 degrees east, 3 to 54 north; check the order, longitude comes first",
            "经纬度超出范围，请检查经度与纬度的顺序",
        );
        self.refuse_unless(fine, field, words);
    }
}

fn is_place(longitude: f64, latitude: f64) -> bool {
    WEST_EAST.contains(&longitude) && SOUTH_NORTH.contains(&latitude)
}

/// A division from its 12 digits.
fn division_of(code: &str) -> Option<Division> {
    Division::parse(code).ok().filter(|_| code.len() == 12)
}

/// Whether the text is a code of so many digits.
fn is_digits(code: &str, count: usize) -> bool {
    code.len() == count && code.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
