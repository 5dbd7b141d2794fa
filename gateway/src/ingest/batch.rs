//! A batch of a link: read as records, and taken in one by one. What cannot be read, or may not go in, is named in a
//! refusal and never blocks the rest.

use std::sync::Arc;

use bytes::Bytes;
use guantong_proto::v1::{self, RefusalReason};

use super::changes::Refused;
use super::link::Sender;
use super::{Work, traceparent};
use crate::record::{NameError, Record, RecordName, codec};
use crate::schema::Schema;

/// A record of a batch, read.
struct Incoming {
    name: RecordName,
    record: Record,
    state: Bytes,
    traceparent: Option<Arc<str>>,
}

/// A batch, read: what can be taken in, and what cannot even be read.
#[derive(Default)]
pub struct Batch {
    records: Vec<Incoming>,
    refusals: Vec<v1::Refusal>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Records and fields that did not go in.
    pub refusals: Vec<v1::Refusal>,
    /// One stamp stood for two contents: a writer was cloned.
    pub forked: bool,
    /// Entries of writers outside the child's scope that went in only because this node recovers: for the audit log.
    pub recovered: usize,
}

impl Batch {
    /// Reads what a peer sent.
    pub fn read(schema: &Schema, records: &[v1::BatchRecord]) -> Batch {
        let mut read = Batch { records: Vec::with_capacity(records.len()), refusals: Vec::new() };
        for record in records {
            match read_record(schema, record) {
                Ok(incoming) => read.records.push(incoming),
                Err((reason, detail)) => {
                    let refused = Refused { field: 0, reason, detail, retry_at_ms: None };
                    read.refusals.push(refusal(&record.name, refused));
                }
            }
        }
        read
    }

    /// The records that must be brought into the work before the batch is taken.
    pub fn names(&self) -> impl Iterator<Item = &RecordName> {
        self.records.iter().map(|incoming| &incoming.name)
    }
}

fn read_record(schema: &Schema, record: &v1::BatchRecord) -> Result<Incoming, (RefusalReason, String)> {
    let name = RecordName::parse(schema, &record.name).map_err(|error| {
        let unknown = matches!(error, NameError::Kind(_));
        let reason = if unknown { RefusalReason::UnknownKind } else { RefusalReason::Malformed };
        (reason, error.to_string())
    })?;
    let mut state = record.state.clone();
    let mut decoded =
        codec::decode(state.clone()).map_err(|error| (RefusalReason::Malformed, error.to_string()))?;
    if !decoded.purged().is_empty() {
        // What a peer purged is its own memory and never crosses.
        decoded.forget_purged();
        state = codec::encode(&decoded);
    }
    let traceparent = record.traceparent.as_deref().and_then(traceparent::read);
    Ok(Incoming { name, record: decoded, state, traceparent })
}

impl Work<'_> {
    /// Takes in what a peer sent. Every record that can be read was brought in before.
    pub fn take_batch(&mut self, sender: &Sender, batch: Batch) -> Taken {
        let mut taken = Taken { refusals: batch.refusals, ..Taken::default() };
        let schema = self.context().schema;
        for incoming in batch.records {
            let name = incoming.name.display(schema).to_string();
            let Some(slot) = self.slot(&incoming.name) else {
                let detail = "the record stored here cannot be read; it must be repaired first".into();
                let refused =
                    Refused { field: 0, reason: RefusalReason::Malformed, detail, retry_at_ms: None };
                taken.refusals.push(refusal(&name, refused));
                continue;
            };
            let traceparent = incoming.traceparent.as_ref();
            let accepted = self.accept(sender, slot, incoming.record, &incoming.state, traceparent);
            taken.forked |= accepted.forked;
            taken.recovered += accepted.recovered;
            taken.refusals.extend(accepted.refused.into_iter().map(|refused| refusal(&name, refused)));
        }
        taken
    }
}

fn refusal(name: &str, refused: Refused) -> v1::Refusal {
    v1::Refusal {
        record: name.into(),
        field: refused.field,
        reason: refused.reason.into(),
        detail: refused.detail,
        retry_at_ms: refused.retry_at_ms.unwrap_or(0) as i64,
    }
}

#[cfg(test)]
mod tests;
