//! Snapshots: what a node writes about the divisions that it acts for, once a day, by the ordinary way of local writes.

use bytes::Bytes;
use guantong_proto::rules::{Lane, fields};
use guantong_proto::v1;
use prost::Message;

use super::{Slot, VALUE_MAX_BYTES, Work, union, writers};
use crate::merge;

impl Work<'_> {
    /// Adds the entry of a day to a snapshot's record, as its home. Returns whether it was written.
    pub fn add_snapshot(&mut self, slot: Slot, day: v1::SnapshotDay) -> bool {
        let home = self.name(slot).home;
        if !self.ctx.topology.acts_for(home) {
            return false;
        }
        let Some((writer, stamp)) = self.writers.stamp(home, writers::LOCAL, self.ctx.now_ms) else {
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
