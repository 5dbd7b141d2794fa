//! Every write that a store took, and what it replaced: the book against which the trees are checked at the end.
//!
//! It never looks at how the engine did it, only at what came out.

use std::collections::BTreeMap;

use bytes::Bytes;
use guantong_gateway::record::{FieldNumber, Record, RecordName, view};
use guantong_gateway::schema::Schema;
use guantong_gateway::stamp::{Stamp, Writer};
use guantong_proto::rules::Policy;

use super::disk::Disk;

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
pub fn changes_between(schema: &Schema, name: &RecordName, before: &Record, after: &Record) -> Vec<Change> {
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
            let old: Vec<_> = held.into_iter().flat_map(|r| r.live()).flat_map(|(_, v)| view::union_entries(v)).collect();
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
}

/// All changes.
#[derive(Default)]
pub struct Ledger {
    /// In order.
    pub written: Vec<Written>,
    /// Where the changes of a field are.
    pub by_field: BTreeMap<(RecordName, FieldNumber), Vec<usize>>,
    /// The world's step.
    pub step: u64,
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
            self.by_field.entry((change.name.clone(), change.field)).or_default().push(self.written.len());
            self.written.push(Written { change, node, step: self.step, gone: false });
        }
    }

    /// A disk goes from what it is to what it was, or away: what nobody else has is gone, and that is nobody's fault.
    pub fn put_back(&mut self, from: &Disk, to: Option<&Disk>, others: &[&Disk]) {
        let mut cache: BTreeMap<RecordName, (Option<Record>, Option<Record>, Vec<Option<Record>>)> = BTreeMap::new();
        for written in self.written.iter_mut().filter(|w| !w.gone) {
            let Change { name, field, writer, stamp, .. } = &written.change;
            let (was, is, elsewhere) = cache.entry(name.clone()).or_insert_with(|| {
                let elsewhere = others.iter().map(|d| d.record(name)).collect();
                (from.record(name), to.and_then(|d| d.record(name)), elsewhere)
            });
            let has = |record: &Option<Record>| {
                record.as_ref().is_some_and(|r| r.had(*field, *writer) >= Some(*stamp))
            };
            if has(was) && !has(is) && !elsewhere.iter().any(has) {
                written.gone = true;
            }
        }
    }
}
