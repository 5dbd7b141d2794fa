//! Single values of a record as its policies show them, read from raw fields without decoding the rest.

use bytes::Bytes;
use guantong_proto::rules::fields;
use smallvec::SmallVec;

use super::{FieldNumber, Record, raw, view};
use crate::division::Division;
use crate::schema::Kind;

/// A record to read from.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Its kind.
    pub kind: &'a Kind,
    /// Where it was born.
    pub home: Division,
    /// What is known of it.
    pub record: &'a Record,
}

impl Reader<'_> {
    /// The encoding of a field; `None`: nothing is known of it.
    pub fn value(&self, field: FieldNumber) -> Option<Bytes> {
        let register = self.record.get(field)?;
        view::shown(self.kind.field(field)?, register, self.home).map(|s| s.value)
    }

    /// A number, an enum's value or a truth value (1).
    pub fn number(&self, field: FieldNumber) -> Option<u64> {
        view::number(&self.value(field)?)
    }

    /// A text.
    pub fn text(&self, field: FieldNumber) -> Option<String> {
        view::text(&self.value(field)?)
    }

    /// Whether a truth value is known to be true.
    pub fn flag(&self, field: FieldNumber) -> bool {
        self.number(field) == Some(1)
    }

    /// The nested message in a field, with `read` applied to it.
    pub fn within<T>(&self, field: FieldNumber, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let value = self.value(field)?;
        let message = raw::payloads(&value).filter_map(raw::Payload::bytes).last()?;
        read(message)
    }

    /// A number inside a nested message.
    pub fn part_number(&self, field: FieldNumber, part: FieldNumber) -> Option<u64> {
        self.within(field, |message| raw::find(message, part)?.number())
    }

    /// A text inside a nested message.
    pub fn part_text(&self, field: FieldNumber, part: FieldNumber) -> Option<String> {
        self.within(field, |message| raw::find(message, part)?.text().map(str::to_owned))
    }

    /// The systems and numbers that other systems gave the record.
    pub fn external_numbers(&self) -> SmallVec<[(String, String); 1]> {
        let Some(value) = self.value(fields::EXTERNAL_REFS) else { return SmallVec::new() };
        // Numbers of the parts of `ExternalRef`: system, number.
        let part = |entry: &view::UnionEntry<'_>, part| {
            raw::find(entry.message, part).and_then(raw::Payload::text).unwrap_or_default().to_owned()
        };
        view::union_entries(&value).map(|entry| (part(&entry, 2), part(&entry, 3))).collect()
    }
}
