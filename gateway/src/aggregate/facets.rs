//! Reads single values of what a record shows, without decoding the rest.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::division::Division;
use crate::period::Day;
use crate::record::{FieldNumber, Record, raw, view};
use crate::schema::Kind;

pub(super) struct Facets<'a> {
    pub(super) kind: &'a Kind,
    pub(super) home: Division,
    pub(super) record: &'a Record,
}

impl Facets<'_> {
    /// The shown encoding of a field.
    pub(super) fn value(&self, field: FieldNumber) -> Option<Bytes> {
        let rule = self.kind.field(field)?;
        view::shown(rule, self.record.get(field)?, self.home).map(|s| s.value)
    }

    pub(super) fn number(&self, field: FieldNumber) -> u64 {
        self.value(field).and_then(|v| raw::payloads(&v).last()?.number()).unwrap_or(0)
    }

    pub(super) fn flag(&self, field: FieldNumber) -> bool {
        self.number(field) == 1
    }

    /// The numbers of a repeated enum, packed or not.
    pub(super) fn numbers(&self, field: FieldNumber) -> SmallVec<[u64; 4]> {
        let Some(value) = self.value(field) else { return SmallVec::new() };
        raw::payloads(&value).flat_map(raw::Payload::numbers).collect()
    }

    /// The bytes of a text.
    pub(super) fn text(&self, field: FieldNumber) -> SmallVec<[u8; 32]> {
        let Some(value) = self.value(field) else { return SmallVec::new() };
        SmallVec::from_slice(message(&value))
    }

    /// The day of a `guantong.v1.Date`.
    pub(super) fn day(&self, field: FieldNumber) -> Option<Day> {
        day_of(message(&self.value(field)?))
    }
}

/// The bytes of the last occurrence in a value: an encoded message, or a text.
pub(super) fn message(value: &[u8]) -> &[u8] {
    raw::payloads(value).filter_map(raw::Payload::bytes).last().unwrap_or_default()
}

/// A number inside a message.
pub(super) fn part(message: &[u8], field: FieldNumber) -> u64 {
    raw::find(message, field).and_then(raw::Payload::number).unwrap_or(0)
}

/// The bytes of a text or message inside a message.
pub(super) fn inner(message: &[u8], field: FieldNumber) -> Option<&[u8]> {
    raw::find(message, field).and_then(raw::Payload::bytes)
}

/// The day of an encoded `guantong.v1.Date`; `None` if the calendar has no such day.
pub(super) fn day_of(date: &[u8]) -> Option<Day> {
    let part = |field| u32::try_from(part(date, field)).ok();
    Day::of(i32::try_from(part(1)?).ok()?, part(2)?, part(3)?)
}

/// The day in Beijing of an encoded `google.protobuf.Timestamp`.
pub(super) fn day_at(timestamp: &[u8]) -> Option<Day> {
    Day::of_seconds(raw::timestamp_ms(timestamp).div_euclid(1_000))
}
