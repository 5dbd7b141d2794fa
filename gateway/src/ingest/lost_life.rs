//! What a store that was put back does with writes of the life that it lost. Until somebody tells it, it writes on under
//! its old writers, and a node that never met the lost life may take that in. There, what the lost life wrote under
//! earlier stamps of the same writer would count as replaced. So the store writes it again, under a writer of its own,
//! when it comes back: no other node can, and all ways between the two lead over this store.
//!
//! Nothing here tells an early write of the life that it lives from one of the life that it lost: either may come back
//! beside what stands, for a person to choose. It must never let one go.

use bytes::Bytes;

use super::{Slot, Work};
use crate::erasure::Erasures;
use crate::merge;
use crate::record::{Entry, FieldNumber, Record, Register, raw, view};
use crate::stamp::{Stamp, Writer};
use guantong_proto::rules::Policy;

/// The values of a register that comes in which somebody else may take for replaced.
pub(super) fn values<'r>(
    held: &'r Record,
    field: FieldNumber,
    register: &'r Register,
) -> impl Iterator<Item = (FieldNumber, Entry)> + 'r {
    let lost = move |e: &&Entry| {
        let doubt = held.doubted(field, e.writer);
        e.value.is_some() && doubt.is_some_and(|doubt| doubt.sure < e.stamp && e.stamp < doubt.through)
    };
    register.entries().iter().filter(lost).map(move |e| (field, e.clone()))
}

impl Work<'_> {
    /// Writes such values again in the record that is taken in. Gives the fields that changed.
    pub(super) fn write_lost(
        &mut self,
        slot: Slot,
        after: &mut Record,
        lost: impl IntoIterator<Item = (FieldNumber, Entry)>,
    ) -> Vec<FieldNumber> {
        let kind = self.kind(slot);
        let mut changed = Vec::new();
        for (field, entry) in lost {
            let union = kind.field(field).is_some_and(|rule| rule.policy == Policy::Union);
            let Some(doubt) = after.doubted(field, entry.writer) else { continue };
            let mut register = after.get(field).cloned().unwrap_or_default();
            let now_ms = Erasures::of(kind, after).after([field], self.ctx.now_ms);
            // Each writer that was given up has its own, for a writer has one value in a field.
            let purpose = format!("lost-{:x}", entry.writer.id);
            let Some(value) = missing(&register, field, &entry, union) else { continue };
            let stamped = self.writers.stamp(entry.writer.division, &purpose, now_ms);
            let Some((writer, stamp)) = stamped else { continue };
            let own = register.live().find(|(e, _)| union && e.writer == writer).map(|(_, v)| v.to_vec());
            let value: Vec<u8> = own.unwrap_or_default().into_iter().chain(value).collect();
            merge::write(&mut register, writer, stamp, value.into(), &[(entry.writer, entry.stamp)]);
            if !union {
                register.written_since(writer, entry.content_stamp());
                self.write_on_top(&mut register, doubt.through, now_ms);
            }
            after.set(field, register);
            after.settle(field, entry.writer, entry.stamp);
            changed.push(field);
        }
        changed
    }

    /// What this store wrote later stays later: who reads is shown that.
    fn write_on_top(&mut self, register: &mut Register, content: Stamp, now_ms: u64) {
        let current = |writer: Writer| self.writers.states().iter().find(|s| s.current && s.writer == writer);
        let own = register.live().find_map(|(entry, value)| {
            let state = current(entry.writer).filter(|_| entry.content_stamp() == content)?;
            Some((entry.clone(), value.clone(), state.purpose.clone()))
        });
        let Some((entry, value, purpose)) = own else { return };
        if let Some((writer, stamp)) = self.writers.stamp(entry.writer.division, &purpose, now_ms) {
            merge::write(register, writer, stamp, value, &[(entry.writer, entry.stamp)]);
            register.written_since(writer, content);
        }
    }
}

/// What a register does not have of a value that comes in, of a union: the entries; `None`: it has all of it.
fn missing(register: &Register, field: FieldNumber, entry: &Entry, union: bool) -> Option<Bytes> {
    let value = entry.value.clone()?;
    let others = || register.live().filter(|(e, _)| (e.writer, e.stamp) != (entry.writer, entry.stamp));
    if !union {
        let same = |(e, v): (&Entry, &Bytes)| {
            e.writer.division == entry.writer.division
                && e.content_stamp() == entry.content_stamp()
                && *v == value
        };
        return (!others().any(same)).then_some(value);
    }
    let stands = |new: &view::UnionEntry<'_>| {
        let mut held = others().flat_map(|(_, v)| view::union_entries(v));
        held.any(|held| held.id == new.id && held.stamp >= new.stamp)
    };
    let mut left = Vec::new();
    for new in view::union_entries(&value).filter(|new| !stands(new)) {
        raw::put_message(&mut left, raw::message_tag(field), new.message);
    }
    (!left.is_empty()).then(|| left.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Context;
    use super::super::link::Sender;
    use super::super::topology::{PeerId, Role, Topology};
    use super::super::writers::{LOCAL, WriterState, Writers};
    use super::*;
    use crate::division::{Division, Divisions};
    use crate::record::{Doubt, RecordName, codec};
    use crate::schema::Schema;
    use crate::stamp::Clock;

    const TITLE: FieldNumber = 12;

    fn own(id: u64) -> Writer {
        Writer { division: Division::parse("220822").unwrap(), id }
    }

    fn title(writer: Writer, ms: u64, text: &str) -> Record {
        let mut value = Vec::new();
        raw::put_message(&mut value, raw::message_tag(TITLE), text.as_bytes());
        let mut record = Record::default();
        record.set(TITLE, Register::single(writer, Stamp::from_ms(ms), value.into()));
        record
    }

    /// A county wrote `late` at 5 s, before it was told that it was put back, and writes as writer 2 since. `come` comes
    /// in from the prefecture. Gives what stands then, by what is shown first.
    fn after(come: &[Record]) -> Vec<(Writer, String)> {
        let (schema, divisions) = (Schema::current(), Divisions::embedded());
        let kind = schema.kind_named("case").unwrap();
        let mut held = title(own(2), 8_000, "late");
        let mut register = held.get(TITLE).unwrap().clone();
        register.written_since(own(2), Stamp::from_ms(5_000));
        held.set(TITLE, register);
        held.doubt(TITLE, own(1), Doubt { sure: Stamp::from_ms(1_000), through: Stamp::from_ms(5_000) });
        let parent = Division::parse("2208").unwrap();
        let mut topology = Topology::new(own(1).division);
        topology.set_parent(PeerId(1), parent);
        let state = |id, current| {
            let clock = Clock::resume(Stamp::from_ms(8_000));
            WriterState { writer: own(id), purpose: LOCAL.into(), clock, current, slot: 0 }
        };
        let mut writers = Writers::new(vec![state(1, false), state(2, true)]);
        let mut id = 2;
        writers.provide_ids(4, || {
            id += 1;
            id
        });
        let ctx = Context {
            schema: &schema,
            topology: &topology,
            divisions: &divisions,
            now_ms: 9_000,
            drift_ms: 1_000,
        };
        let mut work = Work::new(ctx, &mut writers);
        let name = RecordName::new(own(1).division, kind.id, "c").unwrap();
        let slot = work.bring(name, 1, Some((1, codec::encode(&held)))).unwrap();
        let sender = Sender {
            peer: PeerId(1),
            role: Role::Parent,
            division: parent,
            recovering_to: None,
            same_epoch: true,
            bulk: false,
        };
        for incoming in come {
            let state = codec::encode(incoming);
            assert!(work.accept(&sender, slot, incoming.clone(), &state, None).refused.is_empty());
        }
        let mut live: Vec<_> = work.record(slot).get(TITLE).unwrap().live().collect();
        live.sort_by_key(|(e, _)| std::cmp::Reverse(e.stamp));
        live.iter().map(|(e, v)| (e.writer, String::from_utf8(v[2..].to_vec()).unwrap())).collect()
    }

    #[test]
    fn what_the_lost_life_wrote_stands_whatever_came_first() {
        let (lost, late) = (title(own(1), 3_000, "lost"), title(own(1), 5_000, "late"));
        for come in [[lost.clone(), late.clone()], [late.clone(), lost.clone()]] {
            let stands = after(&come);
            assert_eq!(stands[0], (own(2), "late".into()), "written later");
            assert!(
                stands.iter().any(|(w, text)| text == "lost" && ![own(1), own(2)].contains(w)),
                "{stands:?}"
            );
        }
    }

    #[test]
    fn it_is_written_again_once_and_what_is_sure_is_not() {
        let lost = title(own(1), 3_000, "lost");
        let once = after(std::slice::from_ref(&lost));
        assert_eq!(after(&[lost.clone(), lost]), once);
        assert_eq!(once.iter().filter(|(_, text)| text == "lost").count(), 1);
        let before = after(&[title(own(1), 900, "before")]);
        assert!(before.iter().all(|(w, _)| [own(1), own(2)].contains(w)), "{before:?}");
    }
}
