//! What a node may hold, checked whenever something comes to it and whenever it has stored something: not only at the
//! end, when everything was made good.
//!
//! It must err on the side of the tree only where nobody could know better: whom a record concerns is taken from all
//! that anybody knows of it by now, and a seal counts for nothing, since not everyone has heard of it.

use guantong_gateway::division::Division;
use guantong_gateway::record::audience::Audience;
use guantong_gateway::record::{Entry, FieldNumber, Record, RecordName, Register, codec};
use guantong_gateway::release::{self, Concern};
use guantong_gateway::session::Inbound;
use guantong_gateway::stamp::Writer;

use super::world::World;

impl World {
    /// A batch has come to a node.
    pub(super) fn look_into(&self, receiver: usize, sender: Division, batch: &Inbound) {
        for sent in &batch.records {
            let Ok(name) = RecordName::parse(&self.schema, &sent.name) else { continue };
            let Ok(record) = codec::decode(sent.state.clone()) else { continue };
            let concerned = || self.widest_audience(&name, &record).concerns(self.nodes[receiver].division);
            let (node, home) = (&self.nodes[receiver], name.home);
            let above = node.division.contains(home) || home.contains(node.division);
            assert!(above || concerned(), "{} is sent {name:?}, which does not concern it", node.division);
            // What was held above for a node that had not come yet passes through those between, who purge it.
            if sender.contains(node.division) {
                continue;
            }
            if let Some(field) = self.not_to_hold(receiver, &name, &record) {
                panic!(
                    "{sender} sends {} the field {field} of {name:?}, which it may not hold",
                    node.division
                );
            }
        }
    }

    /// A node has stored something of these records.
    pub(super) fn look_at(&self, index: usize, changed: &[RecordName]) {
        let disk = &self.nodes[index].disk;
        for name in changed {
            let Some((key, _)) = disk.load(name).filter(|(key, _)| !disk.purges.contains(key)) else {
                continue;
            };
            let Some(record) = disk.records.get(&key).and_then(|s| codec::decode(s.state.clone()).ok())
            else {
                continue;
            };
            if let Some(field) = self.not_to_hold(index, name, &record) {
                panic!(
                    "{} stored field {field} of {name:?}, which it may not hold",
                    self.nodes[index].division
                );
            }
        }
    }

    /// A field that a node may not hold, whatever else is known of the record.
    fn not_to_hold(&self, index: usize, name: &RecordName, record: &Record) -> Option<FieldNumber> {
        let (node, home) = (&self.nodes[index], name.home);
        let kind = self.schema.kind(name.kind);
        // A field that its program does not know was handed down; it goes once the program does.
        let known = |number: &FieldNumber| node.schema.kind(name.kind).field(*number).is_some();
        let numbers = record.fields().iter().map(|(number, _)| number).filter(|number| known(number));
        let rules = numbers.filter_map(|number| kind.field(*number));
        let mut beyond = rules.filter(|f| !release::within_limit(f, home, node.division.tier())).peekable();
        beyond.peek()?;
        let audience = self.widest_audience(name, record);
        let concern = Concern { home, audience: &audience, sealed: false };
        let heir = node.disk.topology(node.division).child_over(home).map(|c| c.1);
        beyond.find(|field| !release::may_hold(field, concern, node.division, heir)).map(|field| field.number)
    }

    /// Whom a record concerns by all that anybody knows.
    fn widest_audience(&self, name: &RecordName, record: &Record) -> Audience {
        let kind = self.schema.kind(name.kind);
        let mut whole = Record::default();
        if let Some(steps) = kind.roles.steps {
            let held = self.nodes.iter().filter_map(|node| node.disk.record(name)).chain([record.clone()]);
            let registers: Vec<Register> = held.filter_map(|known| known.get(steps).cloned()).collect();
            // Two copies of a store write as the same writer, and what the one wrote must not hide the other's.
            let values = registers.iter().flat_map(|register| register.live());
            let entries = (1..).zip(values).map(|(id, (entry, value))| {
                Entry::new(Writer { id, ..entry.writer }, entry.stamp, Some(value.clone()))
            });
            whole.set(steps, Register::from_entries(entries));
        }
        Audience::of(kind, name.home, &whole)
    }
}
