//! What an erasure does to a record. The marks in its `erased` field name fields and a moment; a value of such a field
//! whose content was written up to that moment ends, as if it had been replaced, and is told from one that was never
//! seen. So erasing commutes with merging: whatever the order in which marks and values come, the same is left.
//!
//! A mark never holds content, and nothing here reads a clock. Whoever merges erases in both sides first: of a union,
//! entries are taken out of a value that stays, which must not look like one stamp with two contents.

use bytes::Bytes;
use guantong_proto::rules::Policy;
use guantong_proto::v1;
use prost::Message;

use crate::record::{FieldNumber, Record, Register, raw, view};
use crate::schema::Kind;
use crate::stamp::Stamp;

/// Numbers in an encoded `guantong.v1.Erasure`.
const FIELD_NUMBERS: u32 = 2;
const BEFORE: u32 = 3;

/// What is erased of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedField {
    /// The field.
    pub field: FieldNumber,
    /// Content written up to here.
    pub before: Stamp,
    union: bool,
}

/// All that the marks of a record erase, by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasures {
    fields: Vec<ErasedField>,
}

/// Whether content of the field can be erased. Whom a record concerns, what became of it and what was erased of it must
/// stay: nodes could not agree without. What is derived goes with its source.
pub fn may_erase(kind: &Kind, field: FieldNumber) -> bool {
    let roles = &kind.roles;
    let kept =
        [roles.steps, roles.lifecycle, roles.sealed, roles.deleted, roles.record_complete, roles.erased];
    !kept.contains(&Some(field))
}

/// What is erased where nobody says otherwise: what says something about a person, and a case's file.
pub fn usual_fields(kind: &Kind) -> Vec<FieldNumber> {
    let usual = kind.fields().filter(|f| (f.personal || f.file) && may_erase(kind, f.number));
    usual.map(|f| f.number).collect()
}

/// How far ahead of a stamp a mark reaches: the latest moment that a register of marks names.
pub fn latest_before(register: &Register) -> Option<Stamp> {
    let marks = register.live().flat_map(|(_, value)| view::union_entries(value));
    marks.filter_map(|mark| before_of(mark.message)).max()
}

/// The same marks, none of which reaches beyond the `latest` moment of its fields: for those that a wrong clock made.
pub fn not_beyond(value: &Bytes, latest: impl Fn(FieldNumber) -> Stamp) -> Bytes {
    let Some(tag) = raw::payload_tag(value) else { return value.clone() };
    let mut out = Vec::with_capacity(value.len());
    for mark in view::union_entries(value) {
        let latest = numbers_of(mark.message).map(&latest).max().unwrap_or_default();
        let reaching = before_of(mark.message).filter(|before| *before > latest);
        match reaching.and_then(|_| v1::Erasure::decode(mark.message).ok()) {
            Some(erasure) => {
                let erasure = v1::Erasure { before: latest.0, ..erasure };
                raw::put_message(&mut out, tag, &erasure.encode_to_vec());
            }
            None => raw::put_message(&mut out, tag, mark.message),
        }
    }
    out.into()
}

fn numbers_of(mark: &[u8]) -> impl Iterator<Item = FieldNumber> {
    let numbers = raw::occurrences(mark, FIELD_NUMBERS).flat_map(raw::Payload::numbers);
    numbers.filter_map(|n| FieldNumber::try_from(n).ok())
}

fn before_of(mark: &[u8]) -> Option<Stamp> {
    raw::find(mark, BEFORE).and_then(raw::Payload::number).map(Stamp)
}

impl Erasures {
    /// What the marks of a record say.
    pub fn of(kind: &Kind, record: &Record) -> Erasures {
        let marks = kind.roles.erased.and_then(|field| record.get(field));
        let mut fields: Vec<ErasedField> = Vec::new();
        let Some(marks) = marks else { return Erasures { fields } };
        for mark in marks.live().flat_map(|(_, value)| view::union_entries(value)) {
            let Some(before) = before_of(mark.message) else { continue };
            for field in numbers_of(mark.message).filter(|f| may_erase(kind, *f)) {
                match fields.iter_mut().find(|erased| erased.field == field) {
                    Some(erased) => erased.before = erased.before.max(before),
                    None => {
                        let union = kind.field(field).is_some_and(|f| f.policy == Policy::Union);
                        fields.push(ErasedField { field, before, union });
                    }
                }
            }
        }
        fields.sort_unstable_by_key(|erased| erased.field);
        Erasures { fields }
    }

    /// Of fields that are no unions, as settled conflicts are.
    pub fn of_fields(fields: impl IntoIterator<Item = (FieldNumber, Stamp)>) -> Erasures {
        let plain = |(field, before)| ErasedField { field, before, union: false };
        Erasures { fields: fields.into_iter().map(plain).collect() }
    }

    /// Nothing is erased.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// What is erased, by field.
    pub fn fields(&self) -> &[ErasedField] {
        &self.fields
    }

    /// Up to when content of the field is erased; `None`: it never was.
    pub fn before(&self, field: FieldNumber) -> Option<Stamp> {
        self.fields.iter().find(|erased| erased.field == field).map(|erased| erased.before)
    }

    /// The present, or later than all that is erased of these fields: what is written then stands. Unix milliseconds.
    pub fn after(&self, fields: impl IntoIterator<Item = FieldNumber>, now_ms: u64) -> u64 {
        let latest = fields.into_iter().filter_map(|field| self.before(field)).max();
        latest.map_or(now_ms, |before| now_ms.max(before.ms() + 1))
    }

    /// What these erase and `earlier` ones did not.
    pub fn beyond(&self, earlier: &Erasures) -> Erasures {
        let new = |erased: &&ErasedField| earlier.before(erased.field) < Some(erased.before);
        Erasures { fields: self.fields.iter().filter(new).copied().collect() }
    }

    /// How many values or entries of a record they would end.
    pub fn count(&self, record: &Record) -> usize {
        self.apply(&mut record.clone())
    }

    /// Erases in a record. Gives how many values, or entries of unions, went.
    pub fn apply(&self, record: &mut Record) -> usize {
        let mut gone = 0;
        for erased in &self.fields {
            let Some(register) = record.get(erased.field) else { continue };
            let mut left = register.clone();
            let here = erased.apply(&mut left);
            if left != *register {
                record.set(erased.field, left);
            }
            gone += here;
        }
        gone
    }
}

impl ErasedField {
    /// Erases in the field's register. Gives how many values or entries went; one that says "cleared" is none.
    fn apply(&self, register: &mut Register) -> usize {
        let mut gone = 0;
        for entry in register.entries_mut() {
            let Some(value) = entry.value.clone() else { continue };
            if entry.content_stamp() <= self.before {
                gone += usize::from(!value.is_empty());
                entry.end();
            } else if self.union {
                let (left, taken) = self.later_entries(&value);
                gone += taken;
                match left {
                    Some(_) if taken == 0 => {}
                    Some(left) => entry.value = Some(left),
                    None => entry.end(),
                }
            }
        }
        gone
    }

    /// The entries of a union's value that were written later, and how many were not; `None`: none is left.
    fn later_entries(&self, value: &Bytes) -> (Option<Bytes>, usize) {
        let entries = || view::union_entries(value);
        let taken = entries().filter(|entry| Stamp(entry.stamp) <= self.before).count();
        if taken == 0 {
            return (Some(value.clone()), 0);
        }
        let mut left = Vec::with_capacity(value.len());
        for entry in entries().filter(|entry| Stamp(entry.stamp) > self.before) {
            raw::put_message(&mut left, raw::message_tag(self.field), entry.message);
        }
        ((!left.is_empty()).then(|| left.into()), taken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
