//! Snapshots: what a node writes about the divisions that it acts for, once a day, by the ordinary way of local writes.

use bytes::Bytes;
use guantong_proto::rules::{Lane, fields};
use guantong_proto::v1;
use prost::Message;

use super::{Slot, VALUE_MAX_BYTES, Work, union, writers};
use crate::erasure::Erasures;
use crate::merge;

impl Work<'_> {
    /// Adds the entry of a day to a snapshot's record, as its home. Returns whether it was written.
    pub fn add_snapshot(&mut self, slot: Slot, day: v1::SnapshotDay) -> bool {
        let home = self.name(slot).home;
        if !self.ctx.topology.acts_for(home) {
            return false;
        }
        // Later than all that is erased of it, or every other node would erase it as well.
        let erasures = Erasures::of(self.kind(slot), self.record(slot));
        let now_ms = erasures.after([fields::snapshot::DAYS], self.ctx.now_ms);
        let Some((writer, stamp)) = self.writers.stamp(home, writers::LOCAL, now_ms) else {
            return false;
        };
        let entry: Bytes = v1::Snapshot { days: vec![day], ..v1::Snapshot::default() }.encode_to_vec().into();
        let mut after = self.record(slot).clone();
        let mut register = after.get(fields::snapshot::DAYS).cloned().unwrap_or_default();
        let value = union::union_value(&register, fields::snapshot::DAYS, &entry, writer, stamp);
        if value.len() > VALUE_MAX_BYTES {
            return false;
        }
        merge::write(&mut register, writer, stamp, value, &[]);
        after.set(fields::snapshot::DAYS, register);
        self.put(slot, after);
        self.complete(slot, Some((writer, stamp)));
        self.owe_all(slot, None, Lane::Bulk, None);
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Context;
    use super::super::topology::Topology;
    use super::super::writers::Writers;
    use super::*;
    use crate::division::{Division, Divisions};
    use crate::record::{Record, RecordName, Register, codec, raw};
    use crate::schema::Schema;
    use crate::stamp::{Stamp, Writer};

    #[test]
    fn a_day_that_is_counted_after_an_erasure_stands_although_the_clock_is_behind() {
        let (schema, divisions) = (Schema::current(), Divisions::embedded());
        let own = Division::parse("220822101").unwrap();
        let kind = schema.kind_named("snapshot").unwrap();
        let mark = v1::Erasure {
            id: "m".into(),
            field_numbers: vec![fields::snapshot::DAYS],
            before: Stamp::from_ms(9_500).0,
            stamp: Stamp::from_ms(9_500).0,
        };
        let mut marks = Vec::new();
        raw::put_message(&mut marks, raw::message_tag(fields::ERASED), &mark.encode_to_vec());
        let mut held = Record::default();
        let above = Writer { division: own.county(), id: 1 };
        held.set(fields::ERASED, Register::single(above, Stamp::from_ms(9_500), marks.into()));
        let topology = Topology::new(own);
        let mut writers = Writers::new(Vec::new());
        writers.provide_ids(2, || 2);
        let ctx = Context {
            schema: &schema,
            topology: &topology,
            divisions: &divisions,
            now_ms: 9_000,
            drift_ms: 1_000,
        };
        let mut work = Work::new(ctx, &mut writers);
        let name = RecordName::new(own, kind.id, "2026-01").unwrap();
        let slot = work.bring(name, 1, Some((1, codec::encode(&held)))).unwrap();
        assert!(work.add_snapshot(slot, v1::SnapshotDay { id: "2026-01-05".into(), ..Default::default() }));
        let mut elsewhere = work.record(slot).clone();
        assert_eq!(Erasures::of(kind, &elsewhere).apply(&mut elsewhere), 0);
        assert_eq!(elsewhere, *work.record(slot));
    }
}
