//! Ledgers: a row is compared with what the same source brought for it last. Unchanged there means no write; changed
//! there while the field has changed elsewhere means a write beside it, a visible conflict. So importing twice changes
//! nothing, and last month's file never reverts a correction.

use std::collections::BTreeMap;

use bytes::Bytes;
use guantong_proto::rules::Lane;

use super::changes::ImportRowMemory;
use super::local::{Authority, Basis, LocalWrite, WriteError, Written};
use super::{Slot, Work};
use crate::erasure::Erasures;
use crate::record::FieldNumber;

/// Hash of a value as a ledger brought it.
pub fn value_hash(value: &[u8]) -> u64 {
    let hash = blake3::hash(value);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// One row, cut into fields. A field whose column is empty is there with no bytes.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which ledger, as a writer's purpose.
    pub source: String,
    /// What it brings.
    pub fields: Vec<(FieldNumber, Bytes)>,
    /// What it brought last; `None`: the source never had the row.
    pub memory: Option<BTreeMap<FieldNumber, u64>>,
}

impl Work<'_> {
    /// Takes in a row. `remember` is stored with the transaction if the row goes in. Gives how many cells were left out,
    /// too: what was erased of a record, no ledger brings back, and nothing is remembered of it.
    pub fn import(
        &mut self,
        slot: Slot,
        row: &Row,
        mut remember: ImportRowMemory,
    ) -> Result<(Written, usize), WriteError> {
        let erasures = Erasures::of(self.kind(slot), self.record(slot));
        let erased = |field: FieldNumber| erasures.before(field).is_some();
        let left_out = row.fields.iter().filter(|(field, value)| erased(*field) && !value.is_empty()).count();
        let unchanged = |field: FieldNumber, value: &[u8]| match &row.memory {
            Some(memory) => memory.get(&field).map_or(value.is_empty(), |hash| *hash == value_hash(value)),
            // An empty cell of a row that never was is no wish to clear anything.
            None => value.is_empty(),
        };
        let wanted = |(field, value): &&(FieldNumber, Bytes)| !erased(*field) && !unchanged(*field, value);
        let fields = row.fields.iter().filter(wanted).cloned().collect();
        let write = LocalWrite {
            basis: Basis::Own,
            purpose: row.source.clone(),
            lane: Some(Lane::Bulk),
            authority: Authority::Ledger,
            ..LocalWrite::of(fields)
        };
        let written = self.write(slot, &write, None)?;
        remember.values = row.memory.clone().unwrap_or_default();
        remember.values.extend(row.fields.iter().map(|(field, value)| (*field, value_hash(value))));
        remember.values.retain(|field, _| !erased(*field));
        if row.memory.as_ref() != Some(&remember.values) || remember.generation != 0 {
            self.changes.import_rows.push(remember);
        }
        Ok((written, left_out))
    }
}
