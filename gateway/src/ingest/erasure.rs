//! Erasing content of a record, and keeping erased content out of ledgers. What a mark that came over a link does is
//! `link`'s, by the same `erasure::Erasures`.

use std::sync::Arc;

use guantong_proto::v1;
use prost::Message;

use super::changes::ErasedContent;
use super::local::{WriteError, Written, title};
use super::{Slot, VALUE_MAX_BYTES, Work, union, writers};
use crate::audit::{Beside, Event};
use crate::division::Division;
use crate::erasure::{self, Erasures};
use crate::merge;
use crate::record::audience::Audience;
use crate::record::{FieldNumber, Record};
use crate::stamp::{Stamp, Writer};

/// What is to be erased of a record, and on whose word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erase {
    /// Which fields.
    pub fields: Vec<FieldNumber>,
    /// In whose name; `None`: the record's home where the node acts for it, else the node's own division.
    pub acting: Option<Division>,
    /// Who asks for it, for the audit log.
    pub by: String,
    /// Why, for the audit log; without personal data.
    pub reason: String,
}

impl Work<'_> {
    /// Erases what was written of these fields up to now, in the name of the record's home where the node acts for it,
    /// else of the node's own division: it must be the home or lie above it. Everyone whom the record concerns is owed
    /// the mark.
    pub fn erase(
        &mut self,
        slot: Slot,
        erase: &Erase,
        traceparent: Option<&Arc<str>>,
    ) -> Result<Written, WriteError> {
        if !self.exists(slot) {
            return Err(WriteError::NotFound);
        }
        let (kind, home, own) = (self.kind(slot), self.name(slot).home, self.ctx.topology.own());
        let mark_field = kind.roles.erased.ok_or(WriteError::UnknownField(0))?;
        if !Audience::of(kind, home, self.record(slot)).concerns(own) {
            return Err(WriteError::OutOfScope { home, own });
        }
        let division = match erase.acting {
            Some(division) => self.writing_division(slot, Some(division))?,
            None if self.ctx.topology.acts_for(home) => home,
            None => own,
        };
        let refused = |field: String, why| WriteError::NotAllowed { field, division, why };
        if !division.contains(home) {
            return Err(refused("erased".into(), "only the record's home and the divisions above it erase"));
        }
        let mut numbers = Vec::new();
        for number in &erase.fields {
            let field = kind.field(*number).ok_or(WriteError::UnknownField(*number))?;
            if !erasure::may_erase(kind, *number) || field.derived_from.is_some() {
                let why = "it cannot be erased: nodes could not agree without it, or it goes with its source";
                return Err(refused(title(field), why));
            }
            numbers.push(*number);
            numbers.extend(kind.derived_from(*number).map(|f| f.number));
        }
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.is_empty() {
            return Ok(Written { created: false, changed: false, conflicts: false });
        }
        let stamped = self.writers.stamp(division, writers::LOCAL, self.ctx.now_ms);
        let (writer, stamp) = stamped.ok_or(WriteError::NoWriter)?;
        let before = self.record(slot).clone();
        let after = self.marked(slot, mark_field, numbers, writer, stamp)?;
        self.put(slot, after);
        self.erased_anew(slot, &before, erase.by.clone(), erase.reason.clone());
        self.complete(slot, Some((writer, stamp)));
        let lane = self.lane_of(slot, &[mark_field], false);
        self.owe_all(slot, None, lane, traceparent);
        Ok(Written { created: false, changed: true, conflicts: false })
    }

    /// The record with one more mark, and without what it erases.
    fn marked(
        &self,
        slot: Slot,
        mark_field: FieldNumber,
        field_numbers: Vec<FieldNumber>,
        writer: Writer,
        stamp: Stamp,
    ) -> Result<Record, WriteError> {
        let mut after = self.record(slot).clone();
        // A writer whose clock is a little ahead may have written later than now.
        let held = field_numbers.iter().filter_map(|field| after.get(*field));
        let latest = held.flat_map(|register| register.live()).map(|(entry, _)| entry.stamp).max();
        let mark = v1::Erasure {
            id: format!("{:x}-{:x}", stamp.0, writer.id),
            field_numbers,
            before: latest.unwrap_or_default().max(stamp).0,
            stamp: 0,
        };
        let mut value = Vec::new();
        crate::record::raw::put_message(
            &mut value,
            crate::record::raw::message_tag(mark_field),
            &mark.encode_to_vec(),
        );
        let mut register = after.get(mark_field).cloned().unwrap_or_default();
        let value = union::union_value(&register, mark_field, &value.into(), writer, stamp);
        if value.len() > VALUE_MAX_BYTES {
            return Err(WriteError::TooLarge(mark_field));
        }
        merge::write(&mut register, writer, stamp, value, &[]);
        after.set(mark_field, register);
        Erasures::of(self.kind(slot), &after).apply(&mut after);
        Ok(after)
    }

    /// Notes what the store must forget of a record: what is erased now and was not when it was as `before`.
    pub(super) fn erased_anew(&mut self, slot: Slot, before: &Record, by: String, reason: String) {
        let kind = self.kind(slot);
        let new = Erasures::of(kind, self.record(slot)).beyond(&Erasures::of(kind, before));
        if new.is_empty() {
            return;
        }
        let (key, name) = (self.key(slot), self.name(slot).clone());
        let event = Event::Erased {
            record: name.display(self.ctx.schema).to_string(),
            fields: new.fields().iter().map(|erased| erased.field).collect(),
            values: new.count(before) as u64,
            by,
            reason,
            beside: Beside::default(),
        };
        let fields = new.fields().iter().map(|erased| (erased.field, erased.before)).collect();
        self.changes.erased.push(ErasedContent { key, name, fields, event });
    }
}
