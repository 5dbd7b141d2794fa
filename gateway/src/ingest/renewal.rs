//! What a store does about its own past: a new writer's stamps after a restore or a wrong clock, and purging what its
//! tier may no longer hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use guantong_proto::rules::{Field, Lane, Policy};

use super::topology::Topology;
use super::{Slot, Work};
use crate::audit::Event;
use crate::division::Division;
use crate::erasure::{self, Erasures};
use crate::merge;
use crate::record::audience::Audience;
use crate::record::{self, Entry, FieldNumber, Record, Register};
use crate::release::{self, Concern};
use crate::schema::Kind;
use crate::stamp::{Stamp, Writer};

/// A write and its value.
type Written = (Entry, Bytes);

/// Why writers were given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// A copy of the store, or the store itself before it was put back, may have used the same stamps for something
    /// else. What this store claims to have seen of those writers goes back to where it is surely true: otherwise their
    /// other writes, which nobody here has seen, would count as replaced.
    Copied,
    /// Their clock was ahead. Their stamps mean what they say, but nobody takes them yet.
    ClockAhead,
}

impl Work<'_> {
    /// Writes again, as the store's current writers, what the writers just given up wrote after `after`. The values
    /// stay as they are.
    pub fn restamp(&mut self, slot: Slot, after: Stamp, doubt: Doubt) {
        let kind = self.kind(slot);
        let before = self.record(slot).clone();
        let mut record = before.clone();
        // The marks first: nothing may be written again at a moment that is erased.
        let marks = before.fields().iter().filter(|(field, _)| Some(*field) == kind.roles.erased);
        let others = before.fields().iter().filter(|(field, _)| Some(*field) != kind.roles.erased);
        for (field, register) in marks.chain(others) {
            let rule = kind.field(*field);
            if rule.is_some_and(|r| r.derived_from.is_some()) || !self.is_suspect(register, after) {
                continue;
            }
            let union = rule.is_some_and(|r| r.policy == Policy::Union);
            let now_ms = Erasures::of(kind, &record).after([*field], self.ctx.now_ms);
            // Erased until a moment that is yet to come here: the clock is behind, and what was written after the mark
            // has the right stamp. A new one would run ahead as well, and be given up again, without end.
            let is_early = Stamp::from_ms(now_ms).beyond(self.ctx.now_ms, self.ctx.drift_ms);
            if doubt == Doubt::ClockAhead && is_early {
                continue;
            }
            let mut register = register.clone();
            for (author, (then, value)) in self.suspect(&register, after) {
                let stamped = self.writers.stamp(author.0, &author.1, now_ms);
                let Some((writer, stamp)) = stamped else { continue };
                // Of a union, a writer's value holds all its entries.
                let own = register.live().find(|(e, _)| union && e.writer == writer).map(|(_, v)| v.to_vec());
                let value = own.unwrap_or_default().into_iter().chain(value.iter().copied());
                let mut value = Bytes::from(value.collect::<Vec<u8>>());
                if doubt == Doubt::ClockAhead && Some(*field) == kind.roles.erased {
                    // What is written again here was not erased by it: it stands. What others wrote and it ended stays
                    // ended: the clock may have been right then, and be behind now.
                    let until = Stamp(after.0.saturating_sub(1));
                    value =
                        erasure::not_beyond(&value, |field| self.latest_of_others(&before, field).max(until));
                }
                merge::write(&mut register, writer, stamp, value, &[(then.writer, then.stamp)]);
                // A wrong clock says nothing about when the content was written.
                if doubt == Doubt::Copied && !union {
                    register.written_since(writer, then.content_stamp());
                }
            }
            if doubt == Doubt::Copied {
                for (writer, doubt) in self.unsee(&mut register, after) {
                    record.doubt(*field, writer, doubt);
                }
            }
            record.set(*field, register);
        }
        // Where nothing stood and nothing is sure to be seen, nothing is known: an empty register is no register.
        record.retain(|_, register| !register.entries().is_empty());
        if record != before {
            // What is derived from something doubtful is doubtful itself: it is made anew.
            let sources: Vec<FieldNumber> = record.fields().iter().map(|f| f.0).collect();
            record.retain(|field, _| {
                let source = kind.field(field).and_then(|f| f.derived_from);
                source.is_none_or(|source| !sources.contains(&source))
            });
            super::derive::derive(kind, &mut record);
            self.put(slot, record);
            self.owe_all(slot, None, Lane::Bulk, None);
        }
    }

    /// The latest stamp in a field of any writer but those just given up.
    fn latest_of_others(&self, record: &Record, field: FieldNumber) -> Stamp {
        let entries = record.get(field).map_or(&[][..], |register| register.entries());
        let others = entries.iter().filter(|e| !self.writers.renewed().contains(&e.writer));
        others.map(|e| e.stamp).max().unwrap_or_default()
    }

    fn is_suspect(&self, register: &Register, after: Stamp) -> bool {
        register.entries().iter().any(|e| e.stamp > after && self.is_given_up(e.writer))
    }

    fn is_given_up(&self, writer: Writer) -> bool {
        self.writers.states().iter().any(|s| s.writer == writer && !s.current)
    }

    /// The values of writers just given up after `after`, one for each division and purpose.
    fn suspect(&self, register: &Register, after: Stamp) -> BTreeMap<(Division, String), Written> {
        let mut suspect = BTreeMap::new();
        for (entry, value) in register.live().filter(|(e, _)| e.stamp > after) {
            let given_up = self.writers.states().iter().find(|s| s.writer == entry.writer);
            if let Some(state) = given_up.filter(|s| self.writers.renewed().contains(&s.writer)) {
                let author = (entry.writer.division, state.purpose.clone());
                suspect.insert(author, (entry.clone(), value.clone()));
            }
        }
        suspect
    }

    /// Takes back what was said to be seen of writers given up, and gives it: from a child that has it, it is still
    /// taken, as something that this node had. Values of writers given up earlier are not doubtful: see
    /// `Writers::renewed`.
    fn unsee(&self, register: &mut Register, after: Stamp) -> Vec<(Writer, record::Doubt)> {
        let renewed = |writer| self.writers.renewed().contains(&writer);
        let doubtful = |e: &Entry| {
            e.stamp > after && (renewed(e.writer) || e.value.is_none() && self.is_given_up(e.writer))
        };
        let doubted = |e: &Entry| (e.writer, record::Doubt { sure: after, through: e.stamp });
        let taken = register.entries().iter().filter(|e| doubtful(e)).map(doubted).collect();
        for entry in register.entries_mut() {
            if doubtful(entry) {
                *entry = Entry::seen(entry.writer, after);
            }
        }
        register.entries_mut().retain(|e| e.stamp > Stamp::default());
        taken
    }

    /// Judges a record anew after the program has learned other rules, and owes it to everyone it concerns: what was
    /// unknown until now is released by itself. The store forgets all sums and conflicts in the same transaction, before.
    pub fn relearn(&mut self, slot: Slot) {
        let kind = self.kind(slot);
        self.touch_as_new(slot);
        let mut record = self.record(slot).clone();
        Erasures::of(kind, &record).apply(&mut record);
        super::derive::derive(kind, &mut record);
        self.put(slot, record);
        self.complete(slot, None);
        self.owe_all(slot, None, Lane::Bulk, None);
    }

    /// Purges what this node may no longer hold of a record. No node is owed anything by that; subscribers are, so that
    /// their copies lose it too.
    pub fn purge(&mut self, slot: Slot) {
        let excess = excess(self.ctx.topology, self.kind(slot), self.name(slot).home, self.record(slot));
        if !excess.is_empty() {
            let mut record = self.record(slot).clone();
            let name = self.name(slot).display(self.ctx.schema).to_string();
            self.changes.audit.push(Event::Purged { record: name, fields: excess.clone() }.into());
            excess.into_iter().for_each(|field| record.purge(field));
            self.put(slot, record);
            self.owe_subscribers(slot);
        }
        let key = self.key(slot);
        self.changes.purged.push(key);
    }
}

/// The fields of a record that the node may no longer hold.
pub fn excess(topology: &Topology, kind: &Kind, home: Division, record: &Record) -> Vec<FieldNumber> {
    let own = topology.own();
    let beyond = |f: &Field| !release::within_limit(f, home, own.tier());
    let beyond: Vec<&Field> =
        record.fields().iter().filter_map(|(n, _)| kind.field(*n)).filter(|f| beyond(f)).collect();
    if beyond.is_empty() {
        return Vec::new();
    }
    let audience = Audience::of(kind, home, record);
    let concern = Concern { home, audience: &audience, sealed: release::is_sealed(kind, home, record) };
    let heir = topology.child_over(home).map(|c| c.1);
    let may_not = |f: &&Field| !release::may_hold(f, concern, own, heir);
    beyond.into_iter().filter(may_not).map(|f| f.number).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::division::Divisions;
    use crate::ingest::Context;
    use crate::ingest::writers::{WriterState, Writers};
    use crate::record::RecordName;
    use crate::record::codec;
    use crate::schema::Schema;
    use crate::stamp::Clock;

    use guantong_proto::rules::fields::ERASED;

    const TITLE: FieldNumber = 12;

    fn value(text: &str) -> Bytes {
        let mut out = Vec::new();
        crate::record::raw::put_message(&mut out, crate::record::raw::message_tag(TITLE), text.as_bytes());
        out.into()
    }

    /// A township's store that wrote `x` at 5 s: its title after it was given up for what it wrote after 3 s.
    fn restamped(doubt: Doubt) -> (Writer, Record) {
        let title = Register::single(own_writer(), Stamp::from_ms(5_000), value("x"));
        (own_writer(), restamped_after(Stamp::from_ms(3_000), title, doubt))
    }

    fn own_writer() -> Writer {
        Writer { division: Division::parse("220822101").unwrap(), id: 1 }
    }

    fn restamped_after(after: Stamp, title: Register, doubt: Doubt) -> Record {
        let mut record = Record::default();
        record.set(TITLE, title);
        restamped_record(after, record, doubt)
    }

    fn restamped_record(after: Stamp, record: Record, doubt: Doubt) -> Record {
        let (schema, divisions) = (Schema::current(), Divisions::embedded());
        let writer = own_writer();
        let own = writer.division;
        let topology = Topology::new(own);
        let clock = Clock::resume(Stamp::from_ms(5_000));
        let state = WriterState { writer, purpose: String::new(), clock, current: true, slot: 0 };
        let mut writers = Writers::new(vec![state]);
        writers.provide_ids(4, || 2);
        writers.renew(|_| true);
        let ctx = Context {
            schema: &schema,
            topology: &topology,
            divisions: &divisions,
            now_ms: 9_000,
            drift_ms: 1_000,
        };
        let mut work = Work::new(ctx, &mut writers);
        let name = RecordName::new(own, schema.kind_named("case").unwrap().id, "c").unwrap();
        let slot = work.bring(name, 1, Some((1, codec::encode(&record)))).unwrap();
        work.restamp(slot, after, doubt);
        work.record(slot).clone()
    }

    #[test]
    fn a_store_that_was_put_back_claims_nothing_about_what_it_wrote_in_the_life_that_it_lost() {
        let (writer, record) = restamped(Doubt::Copied);
        let mut register = record.get(TITLE).unwrap().clone();
        assert_eq!(register.seen(writer), Some(Stamp::from_ms(3_000)));
        assert_eq!(record.had(TITLE, writer), Some(Stamp::from_ms(5_000)), "a child may still bring it back");
        let lost = Register::single(writer, Stamp::from_ms(4_000), value("y"));
        merge::merge_register(&mut register, &lost);
        let mut live: Vec<_> = register.live().map(|(_, v)| v.clone()).collect();
        live.sort();
        assert_eq!(live, [value("x"), value("y")], "both stand, for a person to choose");
    }

    #[test]
    fn what_is_written_again_by_a_clock_that_was_put_back_stands_after_what_was_erased_before_it() {
        let home = Division::parse("2208").unwrap();
        for (erased_ms, is_again) in [(9_500, true), (12_000, false)] {
            let mark = guantong_proto::v1::Erasure {
                id: "m".into(),
                field_numbers: vec![TITLE],
                before: Stamp::from_ms(erased_ms).0,
                stamp: Stamp::from_ms(erased_ms).0,
            };
            let tag = crate::record::raw::message_tag(ERASED);
            let mut marks = Vec::new();
            crate::record::raw::put_message(&mut marks, tag, &prost::Message::encode_to_vec(&mark));
            let mut record = Record::default();
            let theirs = Writer { division: home, id: 7 };
            record.set(ERASED, Register::single(theirs, Stamp::from_ms(12_000), marks.into()));
            record.set(TITLE, Register::single(own_writer(), Stamp::from_ms(13_000), value("x")));
            // The clock says 9 s; everybody else has had the mark for a while.
            let record = restamped_record(Stamp::from_ms(9_000), record, Doubt::ClockAhead);
            let schema = Schema::current();
            let mut elsewhere = record.clone();
            Erasures::of(schema.kind_named("case").unwrap(), &record).apply(&mut elsewhere);
            assert_eq!(elsewhere, record, "nothing of it is erased where it arrives");
            let entry = record.get(TITLE).unwrap().live().next().unwrap().0.clone();
            assert_eq!(
                entry.writer != own_writer(),
                is_again,
                "nothing is written again far ahead of the clock"
            );
            assert!(!is_again || !entry.stamp.beyond(9_000, 1_000));
        }
    }

    #[test]
    fn what_others_wrote_and_a_mark_ended_stays_ended_when_the_clock_falls_behind() {
        let theirs = Writer { division: Division::parse("2208").unwrap(), id: 7 };
        let mark = guantong_proto::v1::Erasure {
            id: "m".into(),
            field_numbers: vec![TITLE],
            before: Stamp::from_ms(20_000).0,
            stamp: Stamp::from_ms(20_000).0,
        };
        let mut marks = Vec::new();
        let tag = crate::record::raw::message_tag(ERASED);
        crate::record::raw::put_message(&mut marks, tag, &prost::Message::encode_to_vec(&mark));
        let mut record = Record::default();
        record.set(ERASED, Register::single(own_writer(), Stamp::from_ms(20_000), marks.into()));
        record.set(TITLE, Register::from_entries([Entry::seen(theirs, Stamp::from_ms(15_000))]));
        let record = restamped_record(Stamp::from_ms(9_000), record, Doubt::ClockAhead);
        let mut elsewhere = record.clone();
        elsewhere.set(TITLE, Register::single(theirs, Stamp::from_ms(15_000), value("x")));
        Erasures::of(Schema::current().kind_named("case").unwrap(), &record).apply(&mut elsewhere);
        assert_eq!(elsewhere, record, "where it still stands the mark ends it too");
    }

    #[test]
    fn a_record_of_which_nothing_is_sure_stays_readable() {
        let gone = Entry::seen(own_writer(), Stamp::from_ms(5_000));
        let record = restamped_after(Stamp::default(), Register::from_entries([gone]), Doubt::Copied);
        assert_eq!(record.get(TITLE), None);
        assert_eq!(codec::decode(codec::encode(&record)).as_ref(), Ok(&record));
        assert_eq!(record.had(TITLE, own_writer()), Some(Stamp::from_ms(5_000)));
    }

    #[test]
    fn a_clock_that_was_ahead_leaves_no_second_copy_of_its_values() {
        let (writer, record) = restamped(Doubt::ClockAhead);
        let mut register = record.get(TITLE).unwrap().clone();
        merge::merge_register(&mut register, &Register::single(writer, Stamp::from_ms(5_000), value("x")));
        assert_eq!(register.live().count(), 1);
    }
}
