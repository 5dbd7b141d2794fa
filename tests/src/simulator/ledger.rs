//! Every write that a store took, and what it replaced: the book against which the trees are checked at the end.
//!
//! It never looks at how the engine did it, only at what came out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use guantong_gateway::record::{FieldNumber, Record, RecordName, view};
use guantong_gateway::schema::Schema;
use guantong_gateway::stamp::{Stamp, Writer};
use guantong_proto::rules::Policy;

use super::disk::Disk;

/// One record as different stores hold it, each read once.
type Versions = (Option<Record>, Option<Record>, Vec<Option<Record>>);

/// One field of one write.
#[derive(Clone, Debug)]
pub struct Change {
    /// The record.
    pub name: RecordName,
    /// The field.
    pub field: FieldNumber,
    /// Who wrote.
    pub writer: Writer,
    /// When.
    pub stamp: Stamp,
    /// What.
    pub value: Bytes,
    /// The values that it replaced, because its author saw them.
    pub replaced: Vec<(Writer, Stamp)>,
    /// Of a union: the entries that it added or changed, with their stamps.
    pub entries: Option<Vec<(Vec<u8>, u64)>>,
}

/// What a write did to a record.
pub(super) fn changes_between(
    schema: &Schema,
    name: &RecordName,
    before: &Record,
    after: &Record,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for (field, register) in after.fields() {
        let rule = schema.kind(name.kind).field(*field);
        if rule.is_some_and(|r| r.derived_from.is_some()) {
            continue;
        }
        let union = rule.is_some_and(|r| r.policy == Policy::Union);
        let held = before.get(*field);
        let gone: Vec<(Writer, Stamp)> = held
            .into_iter()
            .flat_map(|r| r.live())
            .map(|(e, _)| (e.writer, e.stamp))
            .filter(|old| !register.live().any(|(e, _)| (e.writer, e.stamp) == *old))
            .collect();
        for (entry, value) in register.live() {
            if before.get(*field).and_then(|r| r.seen(entry.writer)) >= Some(entry.stamp) {
                continue;
            }
            let of_author = |old: &&(Writer, Stamp)| !union || old.0.division == entry.writer.division;
            let old: Vec<_> =
                held.into_iter().flat_map(|r| r.live()).flat_map(|(_, v)| view::union_entries(v)).collect();
            let entries = view::union_entries(value)
                .filter(|e| !old.contains(e))
                .map(|e| (e.id.to_vec(), e.stamp))
                .collect();
            changes.push(Change {
                name: name.clone(),
                field: *field,
                writer: entry.writer,
                stamp: entry.stamp,
                value: value.clone(),
                replaced: gone.iter().filter(of_author).copied().collect(),
                entries: union.then_some(entries),
            });
        }
    }
    changes
}

/// A value, by where it stood and who wrote it when.
pub(super) type Value = (RecordName, FieldNumber, Writer, Stamp);

/// A change that is on a disk.
pub struct Written {
    /// What.
    pub change: Change,
    /// The node that took it.
    pub node: usize,
    /// When, by the world's steps.
    pub step: u64,
    /// The only disks that had it were put back to before it.
    pub gone: bool,
    /// A disk that had it was put back to before it; whoever else has it may purge it, since it had its receipt.
    pub receded: bool,
    /// Its node had claimed a later moment before: its clock was put back by more than clocks may be apart.
    pub late: bool,
    /// Its own node was put back to before it: only others know of it.
    pub forgotten: bool,
}

/// All changes.
#[derive(Default)]
pub struct Ledger {
    /// In order.
    pub written: Vec<Written>,
    /// The changes that replaced a value.
    pub replaced_by: BTreeMap<Value, Vec<usize>>,
    /// The world's step.
    pub step: u64,
    /// The greatest moment that each node claimed for itself.
    pub claimed: BTreeMap<usize, u64>,
    /// Nodes of which there was a copy.
    pub copied: BTreeSet<usize>,
    /// Fields, by kind, that some node did not know at first.
    pub unsure: BTreeSet<(u32, FieldNumber)>,
    /// Claims that arrived.
    pub claims_heard: usize,
    /// Clocks go wrong in this run.
    pub wrong_clocks: bool,
    /// Whether to tell what happens, on standard error.
    pub verbose: bool,
}

impl Ledger {
    /// Tells what happens, if anyone listens.
    pub fn trace(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:5} {}", self.step, what());
        }
    }

    /// Notes what a node committed.
    pub fn wrote(&mut self, node: usize, changes: Vec<Change>) {
        for change in changes {
            self.trace(|| {
                let Change { name, field, writer, stamp, replaced, .. } = &change;
                format!("node {node} wrote {name:?} field {field} as {writer:?} at {stamp:?}, replacing {replaced:?}")
            });
            for (writer, stamp) in &change.replaced {
                let value = (change.name.clone(), change.field, *writer, *stamp);
                self.replaced_by.entry(value).or_default().push(self.written.len());
            }
            let late = change.stamp.ms() <= self.claimed.get(&node).copied().unwrap_or(0);
            assert!(!late || self.wrong_clocks, "node {node} wrote under its own claim: {change:?}");
            let (gone, receded, forgotten) = (false, false, false);
            self.written.push(Written { change, node, step: self.step, gone, receded, late, forgotten });
        }
    }

    /// A disk goes from what it is to what it was, or away: what nobody else has is gone, and that is nobody's fault.
    pub fn put_back(&mut self, from: &Disk, to: Option<&Disk>, others: &[&Disk]) {
        let mut cache: BTreeMap<RecordName, Versions> = BTreeMap::new();
        let mut gone = Vec::new();
        for (index, written) in self.written.iter().enumerate().filter(|(_, w)| !w.gone) {
            let name = &written.change.name;
            let (was, is, elsewhere) = cache.entry(name.clone()).or_insert_with(|| {
                let elsewhere = others.iter().map(|d| d.record(name)).collect();
                (from.record(name), to.and_then(|d| d.record(name)), elsewhere)
            });
            let has = |record: &Option<Record>| record.as_ref().is_some_and(|r| self.has(r, &written.change));
            if has(was) && !has(is) {
                let purged = is.as_ref().is_some_and(|r| {
                    r.had(written.change.field, written.change.writer) >= Some(written.change.stamp)
                });
                gone.push((index, purged, !elsewhere.iter().any(has) && (!purged || written.receded)));
            }
        }
        for (index, purged, gone) in gone {
            self.written[index].gone = gone;
            self.written[index].receded |= !purged;
        }
    }

    /// Whether a record has taken in a change, or one that replaced it.
    pub fn has(&self, record: &Record, change: &Change) -> bool {
        // What was purged is not there any more. A later stamp of the same writer says nothing by itself: copies of a
        // store write as the same.
        record.get(change.field).and_then(|r| r.seen(change.writer)) == Some(change.stamp)
            || self.replaced(record, change)
    }

    /// Whether a record has taken in a change that replaced this one.
    pub fn replaced(&self, record: &Record, change: &Change) -> bool {
        let value = (change.name.clone(), change.field, change.writer, change.stamp);
        let by = self.replaced_by.get(&value);
        by.is_some_and(|all| all.iter().any(|i| self.has(record, &self.written[*i].change)))
    }
}
