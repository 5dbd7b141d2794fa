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
use crate::record::{FieldNumber, Record, Register};
use crate::release::{self, Concern};
use crate::schema::Kind;
use crate::stamp::{Stamp, Writer};

/// Who wrote a value, when, and the value.
type Written = (Writer, Stamp, Bytes);

impl Work<'_> {
    /// Writes again, as the store's current writers, what writers that were given up wrote after `after`: a copy of the
    /// store may have used the same stamps for something else. The values stay as they are.
    pub fn restamp(&mut self, slot: Slot, after: Stamp) {
        let kind = self.kind(slot);
        let mut record = self.record(slot).clone();
        let mut changed = false;
        for (field, register) in self.record(slot).clone().fields() {
            let rule = kind.field(*field);
            if rule.is_some_and(|r| r.derived_from.is_some()) {
                continue;
            }
            let union = rule.is_some_and(|r| r.policy == Policy::Union);
            let mut register = register.clone();
            for (author, values) in self.suspect(&register, after) {
                let stamped = self.writers.stamp(author.0, &author.1, self.ctx.now_ms);
                let Some((writer, stamp)) = stamped else { continue };
                let replaced: Vec<_> = values.iter().map(|(w, s, _)| (*w, *s)).collect();
                // Of a union, a writer's value holds all its entries; of other fields there is one value to keep, the
                // latest: one author wrote one after the other.
                let own = register.live().find(|(e, _)| e.writer == writer).map(|(_, v)| v.to_vec());
                let value = match values.last() {
                    Some(_) if union => {
                        let all = values.iter().flat_map(|(_, _, v)| v.to_vec());
                        own.unwrap_or_default().into_iter().chain(all).collect::<Vec<u8>>().into()
                    }
                    Some((_, _, value)) => value.clone(),
                    None => continue,
                };
                merge::write(&mut register, writer, stamp, value, &replaced);
                changed = true;
            }
            record.set(*field, register);
        }
        if changed {
            super::derive::derive(kind, &mut record);
            self.put(slot, record);
            self.owe_all(slot, None, Lane::Bulk, None);
        }
    }

    /// The values of given up writers after `after`, by division and purpose, in the order of their stamps.
    fn suspect(&self, register: &Register, after: Stamp) -> BTreeMap<(Division, String), Vec<Written>> {
        let mut suspect: BTreeMap<_, Vec<Written>> = BTreeMap::new();
        for (entry, value) in register.live().filter(|(e, _)| e.stamp > after) {
            let given_up = self.writers.states().iter().find(|s| s.writer == entry.writer && !s.current);
            if let Some(state) = given_up {
                let author = (entry.writer.division, state.purpose.clone());
                suspect.entry(author).or_default().push((entry.writer, entry.stamp, value.clone()));
            }
        }
        suspect.values_mut().for_each(|values| values.sort_by_key(|v| v.1));
        suspect
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
