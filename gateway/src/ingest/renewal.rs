//! What a store does about its own past: a new writer's stamps after a restore or a wrong clock, and purging what its
//! tier may no longer hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use guantong_proto::rules::{Field, Lane, Policy};

use super::topology::Topology;
use super::{Slot, Work};
use crate::division::Division;
use crate::merge;
use crate::record::audience::Audience;
use crate::record::{Entry, FieldNumber, Record, Register};
use crate::release::{self, Concern};
use crate::schema::Kind;
use crate::stamp::{Stamp, Writer};

/// Who wrote a value, when, and the value.
type Written = (Writer, Stamp, Bytes);

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
        let mut record = self.record(slot).clone();
        let mut changed = false;
        for (field, register) in self.record(slot).clone().fields() {
            let rule = kind.field(*field);
            if rule.is_some_and(|r| r.derived_from.is_some()) || !self.is_suspect(register, after) {
                continue;
            }
            let union = rule.is_some_and(|r| r.policy == Policy::Union);
            let before = register;
            let mut register = register.clone();
            for (author, (writer_then, then, value)) in self.suspect(&register, after) {
                let stamped = self.writers.stamp(author.0, &author.1, self.ctx.now_ms);
                let Some((writer, stamp)) = stamped else { continue };
                // Of a union, a writer's value holds all its entries.
                let own = register.live().find(|(e, _)| union && e.writer == writer).map(|(_, v)| v.to_vec());
                let value =
                    own.unwrap_or_default().into_iter().chain(value.iter().copied()).collect::<Vec<u8>>();
                merge::write(&mut register, writer, stamp, value.into(), &[(writer_then, then)]);
            }
            if doubt == Doubt::Copied {
                let doubtful = self.unsee(&mut register, after);
                record.remember_purged(*field, &doubtful);
            }
            changed |= register != *before;
            record.set(*field, register);
        }
        if changed {
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
                suspect.insert(author, (entry.writer, entry.stamp, value.clone()));
            }
        }
        suspect
    }

    /// Takes back what was said to be seen of writers given up, and gives it: from a child that has it, it is still
    /// taken, as something that this node had. Values of writers given up earlier are not doubtful: see
    /// `Writers::renewed`.
    fn unsee(&self, register: &mut Register, after: Stamp) -> Register {
        let renewed = |writer| self.writers.renewed().contains(&writer);
        let doubtful = |e: &Entry| {
            e.stamp > after && (renewed(e.writer) || e.value.is_none() && self.is_given_up(e.writer))
        };
        let taken: Vec<Entry> = register.entries().iter().filter(|e| doubtful(e)).cloned().collect();
        for entry in register.entries_mut() {
            if doubtful(entry) {
                *entry = Entry { stamp: after, value: None, writer: entry.writer };
            }
        }
        register.entries_mut().retain(|e| e.stamp > Stamp::default());
        Register::from_entries(taken.into_iter().map(|e| Entry { value: None, ..e }))
    }

    /// Judges a record anew after the program has learned other rules, and owes it to everyone it concerns: what was
    /// unknown until now is released by itself. The store forgets all sums and conflicts in the same transaction, before.
    pub fn relearn(&mut self, slot: Slot) {
        let kind = self.kind(slot);
        self.touch_as_new(slot);
        let mut record = self.record(slot).clone();
        super::derive::derive(kind, &mut record);
        self.put(slot, record);
        self.complete(slot, None);
        self.owe_all(slot, None, Lane::Bulk, None);
    }

    /// Purges what this node may no longer hold of a record. Nobody is owed anything by that.
    pub fn purge(&mut self, slot: Slot) {
        let excess = excess(self.ctx.topology, self.kind(slot), self.name(slot).home, self.record(slot));
        if !excess.is_empty() {
            let mut record = self.record(slot).clone();
            excess.into_iter().for_each(|field| record.purge(field));
            self.put(slot, record);
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
