//! Every write that a store took, and what it replaced: the book against which the trees are checked at the end.
//!
//! It never looks at how the engine did it, only at what came out.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;

use bytes::Bytes;
use guantong_gateway::division::Division;
use guantong_gateway::erasure::Erasures;
use guantong_gateway::record::{FieldNumber, Record, RecordName, Register, view};
use guantong_gateway::schema::Schema;
use guantong_gateway::stamp::{Stamp, Writer};
use guantong_proto::rules::{Policy, fields};
use guantong_proto::v1;

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
    /// When it was written first, by a store that has been put back since and has written it again.
    pub content: Stamp,
    /// Nobody wrote it: a store that was put back wrote what it held again.
    pub is_again: bool,
    /// The values that it replaced, because its author saw them.
    pub replaced: Vec<(Writer, Stamp, Bytes)>,
    /// Of a union: the entries that it added or changed, with their stamps.
    pub entries: Option<Vec<(Vec<u8>, u64)>>,
    /// Of an erasure: the content that it ended.
    pub ended: Vec<Content>,
}

impl Change {
    fn value_of(&self) -> Value {
        (self.name.clone(), self.field, self.writer, self.stamp)
    }

    /// Whether this erasure ended all that is left of a change.
    fn has_ended(&self, change: &Change) -> bool {
        let ended = |content| self.ended.contains(&content);
        match &change.entries {
            None => ended(Content::Value(change.field, change.writer, change.stamp)),
            Some(entries) => {
                entries.iter().all(|(id, stamp)| ended(Content::Entry(change.field, id.clone(), *stamp)))
            }
        }
    }
}

/// Content of a record that can be told from any other: by who wrote it when, or as an entry of a union.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A value.
    Value(FieldNumber, Writer, Stamp),
    /// An entry, by its id and stamp.
    Entry(FieldNumber, Vec<u8>, u64),
}

/// All content of some fields of a record.
pub(super) fn contents(
    schema: &Schema,
    name: &RecordName,
    record: &Record,
    of: &[FieldNumber],
) -> Vec<Content> {
    let kind = schema.kind(name.kind);
    let mut all = Vec::new();
    for (field, register) in record.fields().iter().filter(|(field, _)| of.contains(field)) {
        let union = kind.field(*field).is_some_and(|rule| rule.policy == Policy::Union);
        for (entry, value) in register.live() {
            match union {
                true => all.extend(
                    view::union_entries(value).map(|e| Content::Entry(*field, e.id.to_vec(), e.stamp)),
                ),
                false => all.push(Content::Value(*field, entry.writer, entry.stamp)),
            }
        }
    }
    all
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
        let gone: Vec<(Writer, Stamp, Bytes)> = held
            .into_iter()
            .flat_map(|r| r.live())
            .map(|(e, v)| (e.writer, e.stamp, v.clone()))
            .filter(|old| !register.live().any(|(e, _)| (e.writer, e.stamp) == (old.0, old.1)))
            .collect();
        for (entry, value) in register.live() {
            if before.get(*field).and_then(|r| r.seen(entry.writer)) >= Some(entry.stamp) {
                continue;
            }
            let of_author = |old: &&(Writer, Stamp, Bytes)| !union || old.0.division == entry.writer.division;
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
                content: entry.content_stamp(),
                is_again: false,
                replaced: gone.iter().filter(of_author).cloned().collect(),
                entries: union.then_some(entries),
                ended: Vec::new(),
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

/// What is told of a run.
#[derive(Debug)]
pub enum Telling {
    /// Nothing: it is fastest.
    Nothing,
    /// Everything that happens, on standard error.
    All,
    /// Everything that happens, as one number.
    Hash(RefCell<DefaultHasher>),
}

/// All changes.
pub struct Ledger {
    /// The rules of today's program.
    pub schema: Arc<Schema>,
    /// Records that links found to differ.
    pub repaired: u64,
    /// Links that found records to differ after they were sent again.
    pub stays: Vec<String>,
    /// In order.
    pub written: Vec<Written>,
    /// The erasures of a record.
    pub erasures: BTreeMap<RecordName, Vec<usize>>,
    /// The changes that replaced a value.
    pub replaced_by: BTreeMap<Value, Vec<usize>>,
    /// What each value was when it was written first.
    contents: HashMap<Value, Bytes>,
    /// Values whose stamp two copies of a store gave out for different contents.
    forked: BTreeSet<Value>,
    /// The world's step.
    pub step: u64,
    /// The greatest moment that each node claimed for itself.
    pub claimed: BTreeMap<usize, u64>,
    /// When each claim was first said: by its node and moment, the world's step.
    pub said: BTreeMap<(usize, u64), u64>,
    /// When a field, or a record (0), left the quarantine of a node for the last time.
    pub let_go: BTreeMap<(usize, RecordName, FieldNumber), u64>,
    /// Nodes of which there was a copy.
    pub copied: BTreeSet<usize>,
    /// Fields, by kind, that some node did not know at first.
    pub unsure: BTreeSet<(u32, FieldNumber)>,
    /// Claims that arrived.
    pub claims_heard: usize,
    /// Clocks go wrong in this run.
    pub wrong_clocks: bool,
    /// What is told of it.
    pub telling: Telling,
}

impl Ledger {
    /// An empty book.
    pub fn new(schema: Arc<Schema>, telling: Telling) -> Ledger {
        Ledger {
            schema,
            repaired: 0,
            stays: Vec::new(),
            written: Vec::new(),
            erasures: BTreeMap::new(),
            replaced_by: BTreeMap::new(),
            contents: HashMap::new(),
            forked: BTreeSet::new(),
            step: 0,
            claimed: BTreeMap::new(),
            said: BTreeMap::new(),
            let_go: BTreeMap::new(),
            copied: BTreeSet::new(),
            unsure: BTreeSet::new(),
            claims_heard: 0,
            wrong_clocks: false,
            telling,
        }
    }

    /// Notes what a node, of this division, says of itself.
    pub fn said(&mut self, node: usize, own: Division, claim: &v1::Claim) {
        if claim.division == own.to_string() {
            let through_ms = claim.through_ms as u64;
            self.said.entry((node, through_ms)).or_insert(self.step);
            let said = self.claimed.entry(node).or_default();
            *said = through_ms.max(*said);
        }
    }

    /// Tells what happens, if anyone listens.
    pub fn trace(&self, what: impl FnOnce() -> String) {
        match &self.telling {
            Telling::Nothing => {}
            Telling::All => eprintln!("{:5} {}", self.step, what()),
            Telling::Hash(hash) => (self.step, what()).hash(&mut *hash.borrow_mut()),
        }
    }

    /// Notes what a node committed.
    pub fn wrote(&mut self, node: usize, changes: Vec<Change>) {
        for change in changes {
            self.trace(|| {
                let Change { name, field, writer, stamp, replaced, .. } = &change;
                let replaced: Vec<_> = replaced.iter().map(|(writer, stamp, _)| (writer, stamp)).collect();
                format!("node {node} wrote {name:?} field {field} as {writer:?} at {stamp:?}, replacing {replaced:?}")
            });
            for (writer, stamp, _) in &change.replaced {
                let value = (change.name.clone(), change.field, *writer, *stamp);
                self.replaced_by.entry(value).or_default().push(self.written.len());
            }
            self.note_again(&change);
            let stands_for = self.contents.entry(change.value_of()).or_insert_with(|| change.value.clone());
            if *stands_for != change.value {
                self.forked.insert(change.value_of());
            }
            if !change.ended.is_empty() {
                self.erasures.entry(change.name.clone()).or_default().push(self.written.len());
            }
            let late = change.stamp.ms() <= self.claimed.get(&node).copied().unwrap_or(0);
            assert!(!late || self.wrong_clocks, "node {node} wrote under its own claim: {change:?}");
            let (gone, receded, forgotten) = (false, false, false);
            self.written.push(Written { change, node, step: self.step, gone, receded, late, forgotten });
        }
    }

    /// A value that a store that was put back writes again takes the place of the one that it was.
    fn note_again(&mut self, change: &Change) {
        if change.content == change.stamp || change.entries.is_some() {
            return;
        }
        let was = |c: &Change| {
            (c.field, c.stamp, &c.value, c.writer.division)
                == (change.field, change.content, &change.value, change.writer.division)
                && c.name == change.name
        };
        if let Some(was) = self.written.iter().map(|w| &w.change).find(|c| was(c)).map(Change::value_of) {
            let by = self.replaced_by.entry(was).or_default();
            if !by.contains(&self.written.len()) {
                by.push(self.written.len());
            }
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
                let taken = |record: &Option<Record>| {
                    record.as_ref().is_some_and(|r| self.has_taken(r, &written.change))
                };
                gone.push((index, purged, !elsewhere.iter().any(taken) && (!purged || written.receded)));
            }
        }
        for (index, purged, gone) in gone {
            self.written[index].gone = gone;
            self.written[index].receded |= !purged;
        }
    }

    /// Whether a record has taken in a change, or one that replaced it, or a mark by which it was erased.
    pub fn has(&self, record: &Record, change: &Change) -> bool {
        self.stands_in(record, change) || self.replaced(record, change) || self.is_erased(record, change)
    }

    /// Whether a record has taken in a change, or one that replaced it. A mark that would erase it says nothing of that.
    fn has_taken(&self, record: &Record, change: &Change) -> bool {
        self.stands_in(record, change) || self.successors(change).any(|by| self.has_taken(record, by))
    }

    /// Whether a record has taken in this very change.
    fn stands_in(&self, record: &Record, change: &Change) -> bool {
        // What was purged is not there any more. A later stamp of the same writer says nothing by itself: copies of a
        // store write as the same.
        let entries = record.get(change.field).map_or(&[][..], |register| register.entries());
        let mut same = entries.iter().filter(|e| (e.writer, e.stamp) == (change.writer, change.stamp));
        same.any(|e| !self.forked.contains(&change.value_of()) || e.value.as_ref() == Some(&change.value))
    }

    /// Whether a record has a mark by which a change was erased.
    pub fn is_erased(&self, record: &Record, change: &Change) -> bool {
        let marks = Erasures::of(self.schema.kind(change.name.kind), record);
        let Some(before) = marks.before(change.field) else { return self.has_ended(record, change) };
        let is_older = match &change.entries {
            Some(entries) => change.stamp <= before || entries.iter().all(|(_, stamp)| *stamp <= before.0),
            None => change.content <= before,
        };
        // A mark that a wrong clock made is written again and reaches less far; what it ended stays ended.
        let seen = || record.get(change.field).and_then(|r| r.seen(change.writer));
        is_older
            || self.wrong_clocks && (seen() >= Some(change.stamp) || self.was_ended(record, change))
            || self.has_ended(record, change)
    }

    /// Whether a mark that a record has was made when the change, or what replaced it, was there.
    fn was_ended(&self, record: &Record, change: &Change) -> bool {
        self.marks_in(record, &change.name).any(|mark| mark.has_ended(change))
            || self.successors(change).any(|by| self.was_ended(record, by))
    }

    /// Whether a record was told that a change, or what replaced it, ended, by a mark that is on no disk any more: who
    /// does not take the mark for its time has it from the value's own register.
    fn has_ended(&self, record: &Record, change: &Change) -> bool {
        let marks = self.erasures.get(&change.name).into_iter().flatten().map(|i| &self.written[*i]);
        let mut lost = marks.filter(|mark| mark.gone);
        let seen = || record.get(change.field).and_then(|r| r.seen(change.writer)) >= Some(change.stamp);
        lost.any(|mark| mark.change.has_ended(change) || self.reached(&mark.change, change)) && seen()
            || self.successors(change).any(|by| self.has_ended(record, by))
    }

    /// Whether a mark erases what it was written for wherever that comes later.
    fn reached(&self, mark: &Change, change: &Change) -> bool {
        let mut record = Record::default();
        record.set(fields::ERASED, Register::single(mark.writer, mark.stamp, mark.value.clone()));
        let marks = Erasures::of(self.schema.kind(mark.name.kind), &record);
        marks.before(change.field).is_some_and(|before| change.content <= before)
    }

    /// The erasures whose marks a record has.
    pub fn marks_in(&self, record: &Record, name: &RecordName) -> impl Iterator<Item = &Change> {
        let marks = self.erasures.get(name).into_iter().flatten().map(|i| &self.written[*i].change);
        let values = record.get(fields::ERASED).into_iter().flat_map(|register| register.live());
        let ids: Vec<Vec<u8>> =
            values.flat_map(|(_, v)| view::union_entries(v)).map(|e| e.id.to_vec()).collect();
        marks.filter(move |mark| mark.entries.iter().flatten().any(|(id, _)| ids.contains(id)))
    }

    /// Whether a value was written up to a moment, and since then only by stores that wrote what they held again.
    pub fn is_only_older(&self, name: &RecordName, field: FieldNumber, value: &Bytes, before: Stamp) -> bool {
        let same = |c: &Change| c.field == field && c.value == *value && c.name == *name;
        let mut all = self.written.iter().map(|w| &w.change).filter(|c| same(c));
        let older = |c: &Change| c.stamp <= before;
        all.clone().any(older) && all.all(|c| older(c) || c.is_again)
    }

    /// Whether a record has taken in a change that replaced this one.
    pub fn replaced(&self, record: &Record, change: &Change) -> bool {
        self.successors(change).any(|by| self.has(record, by))
    }

    /// Whether a record has taken in a change of its own author that replaced an entry of this one, whatever the clock
    /// said then.
    pub fn entry_replaced(&self, record: &Record, change: &Change, id: &[u8]) -> bool {
        let rewrote = |by: &Change| by.entries.iter().flatten().any(|(other, _)| other == id);
        self.successors(change)
            .any(|by| rewrote(by) && self.has(record, by) || self.entry_replaced(record, by, id))
    }

    fn successors<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = &'a Change> {
        let value = change.value_of();
        let forked = self.forked.contains(&value);
        let all = self.replaced_by.get(&value).into_iter().flatten().map(|i| &self.written[*i].change);
        // One stamp with two contents: whoever saw the one need not have seen the other.
        let same = |(writer, stamp, content): &(Writer, Stamp, Bytes)| {
            (*writer, *stamp) == (change.writer, change.stamp) && *content == change.value
        };
        let again = |by: &Change| (by.content, &by.value) == (change.stamp, &change.value);
        all.filter(move |by| !forked || again(by) || by.replaced.iter().any(same))
    }
}
