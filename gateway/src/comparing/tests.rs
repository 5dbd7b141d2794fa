//! Two ends back to back: what differs is found, all of it and nothing else, and equal is said of nothing else.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::division::Division;
use crate::merge;
use crate::proof;
use crate::record::{Record, Register};
use crate::stamp::{Stamp, Writer};

mod hostile;
mod laws;
mod words;

/// Homes below the child.
const HOMES: [u64; 3] = [220822101000, 220822102000, 220822103000];

fn pair() -> Pair {
    Pair { child: Division::parse("220822").unwrap(), parent: Division::parse("2208").unwrap() }
}

fn schema() -> Schema {
    Schema::current()
}

/// Fields of grids that cross up on the link.
fn fields(schema: &Schema) -> Vec<FieldNumber> {
    let kind = schema.kind_named("grid").unwrap();
    let mut record = Record::default();
    for field in kind.fields() {
        record.set(field.number, register(1, 1, 1));
    }
    let name = name(schema, 0, 1);
    proof::shared(schema, pair(), &name, &record).into_iter().map(|(field, _)| field).take(4).collect()
}

fn name(schema: &Schema, home: usize, id: u32) -> RecordName {
    let home = Division::from_code(HOMES[home % HOMES.len()]).unwrap();
    RecordName::new(home, schema.kind_named("grid").unwrap().id, &format!("g{id:05}")).unwrap()
}

fn register(writer: u64, stamp: u64, value: u8) -> Register {
    let writer = Writer { division: Division::from_code(HOMES[0]).unwrap(), id: writer };
    Register::single(writer, Stamp(stamp), vec![value; 3].into())
}

/// One end, with its store.
struct End {
    comparing: Comparing,
    records: BTreeMap<RecordName, Record>,
    owed: BTreeSet<RecordName>,
    refused: Vec<(RecordName, FieldNumber)>,
    unknown: Option<Unknown>,
    noted: Vec<Noted>,
    reads: usize,
    held: bool,
    wall_ahead_ms: i64,
    position: Option<Position>,
}

impl End {
    fn new(schema: &Schema, side: Side, records: BTreeMap<RecordName, Record>) -> End {
        let common = Common::of(schema, &schema.rule_table());
        let comparing = Comparing::new(side, pair(), common, Pace::every(300_000), LinkProof::default(), 0);
        End {
            comparing,
            records,
            owed: BTreeSet::new(),
            refused: Vec::new(),
            unknown: None,
            noted: Vec::new(),
            reads: 0,
            held: false,
            wall_ahead_ms: 0,
            position: Some(Position { last_batch_sent: 0, last_batch_received: 0 }),
        }
    }

    fn view(&self, now_ms: u64) -> View {
        let wall_ms = now_ms.saturating_add_signed(self.wall_ahead_ms);
        View { now_ms, wall_ms, position: self.position, drained: self.owed.is_empty() }
    }

    fn found(&self, schema: &Schema, read: &Read) -> Found {
        match read {
            Read::Standing { named } => {
                if let Some(why) = self.unknown {
                    return Found::Standing(Err(why));
                }
                let mut standing = Standing::default();
                for (name, record) in &self.records {
                    for (field, sum) in proof::shared(schema, pair(), name, record) {
                        standing.sums.add(name.kind, field, sum);
                    }
                }
                standing.owed = self.owed.iter().cloned().collect();
                standing.refused.clone_from(&self.refused);
                let wanted = named.iter().chain(&standing.owed).chain(self.refused.iter().map(|r| &r.0));
                for name in wanted {
                    if let Some(record) = self.records.get(name) {
                        standing.shares.insert(name.clone(), proof::shared(schema, pair(), name, record));
                    }
                }
                Found::Standing(Ok(standing))
            }
            Read::Homes { kind } => {
                let mut homes: BTreeMap<Division, BTreeMap<FieldNumber, proof::Sum>> = BTreeMap::new();
                for (name, record) in self.records.iter().filter(|(name, _)| name.kind == *kind) {
                    for (field, sum) in proof::shared(schema, pair(), name, record) {
                        let all = homes.entry(name.home).or_default().entry(field).or_default();
                        *all = *all + sum;
                    }
                }
                Found::Homes(homes.into_iter().map(|(h, sums)| (h, sums.into_iter().collect())).collect())
            }
            Read::Page { difference, kind, home, after_id } => {
                let of_home = |(name, _): &(&RecordName, &Record)| {
                    name.kind == *kind && name.home == *home && *name.id > **after_id
                };
                let records = self.records.iter().filter(of_home).take(PAGE_RECORDS);
                Found::Page(page(schema, difference, records.map(|(name, record)| (name, record.clone()))))
            }
        }
    }
}

/// Both ends and the time. Frames arrive in order.
struct Link {
    schema: Schema,
    ends: [End; 2],
    now_ms: u64,
    frames: usize,
}

impl Link {
    fn new(child: BTreeMap<RecordName, Record>, parent: BTreeMap<RecordName, Record>) -> Link {
        let schema = schema();
        let ends = [End::new(&schema, Side::Child, child), End::new(&schema, Side::Parent, parent)];
        Link { schema, ends, now_ms: 1, frames: 0 }
    }

    /// One step of an end; false: it waits.
    fn step(&mut self, at: usize) -> bool {
        let view = self.ends[at].view(self.now_ms);
        let Some(step) = self.ends[at].comparing.poll(&self.schema, view) else { return false };
        let (now_ms, other) = (self.now_ms, 1 - at);
        self.frames += 1;
        match step {
            Step::Checksum(position, checksum) => {
                if position.is_none() || position == self.ends[at].position {
                    self.ends[other].comparing.handle_checksum(now_ms, checksum);
                }
            }
            Step::Probe(probe) => self.ends[other].comparing.handle_probe(probe),
            Step::Finding(finding) => self.ends[other].comparing.handle_finding(now_ms, finding),
            Step::Hold(held) => self.ends[at].held = held,
            Step::Read(read) => {
                let found = self.ends[at].found(&self.schema, &read);
                self.ends[at].reads += 1;
                self.ends[at].comparing.found(&self.schema, view, found);
            }
            Step::Owe(names) => {
                let end = &mut self.ends[at];
                let held = names.into_iter().filter(|name| end.records.contains_key(name));
                end.owed.extend(held);
                end.comparing.owed();
            }
            Step::Proof(_, noted) => self.ends[at].noted.push(noted),
        }
        true
    }

    /// Until both wait.
    fn rest(&mut self) {
        for _ in 0..100_000 {
            if !(self.step(0) | self.step(1)) {
                return;
            }
        }
        unreachable!("the ends never come to rest");
    }

    /// Until both wait, again and again while something is due within this time.
    fn rest_for(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        loop {
            self.rest();
            let now_ms = self.now_ms;
            let next = self.ends.iter().filter_map(|end| end.comparing.next_timeout(now_ms)).min();
            match next {
                Some(next_ms) if next_ms <= until_ms => self.now_ms = next_ms,
                _ => return,
            }
        }
    }

    /// Everything owed arrives.
    fn deliver(&mut self) {
        for at in [0, 1] {
            for name in std::mem::take(&mut self.ends[at].owed) {
                let record = self.ends[at].records[&name].clone();
                merge::merge_record(self.ends[1 - at].records.entry(name).or_default(), &record);
            }
        }
    }

    fn proofs(&self) -> [LinkProof; 2] {
        [self.ends[0].comparing.proof(), self.ends[1].comparing.proof()]
    }
}

/// So many records, the same at both ends.
fn records(schema: &Schema, count: u32) -> BTreeMap<RecordName, Record> {
    let fields = fields(schema);
    let record = |id: u32| {
        let mut record = Record::default();
        for field in &fields {
            record.set(*field, register(7, u64::from(id) + 1, id as u8));
        }
        (name(schema, id as usize, id), record)
    };
    (0..count).map(record).collect()
}
