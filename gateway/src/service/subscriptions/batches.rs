//! Rows of an outbox as batches for a reader: bounded in bytes and records, each record once.

use std::collections::HashMap;

use guantong_proto::v1;
use prost::Message;

use super::lens::Lens;
use crate::engine::Shared;
use crate::ingest::changes::{RecordKey, Subscription};
use crate::store::Owed;

/// A batch is closed when it holds this much.
const BATCH_BYTES: usize = 512 * 1024;
/// And this many.
const BATCH_CHANGES: usize = 512;
/// A change larger than this goes without the values that stand side by side: clients take messages of 4 MiB.
const CHANGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A batch that is to be sent.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<v1::Change>,
    pub(super) bytes: usize,
    /// The rows that it has a part of.
    pub(super) rows: Vec<i64>,
}

/// Cuts what is owed into batches. Rows of which nothing is seen are given apart: there is nothing to acknowledge.
pub(super) fn cut(
    shared: &Shared,
    lens: &Lens,
    subscription: &Subscription,
    owed: &Owed,
) -> (Vec<Batch>, Vec<i64>) {
    let mut batches: Vec<Batch> = Vec::new();
    let mut unseen = Vec::new();
    // Where each record went; `None`: nowhere.
    let mut placed: HashMap<RecordKey, Option<usize>> = HashMap::new();
    for row in &owed.rows {
        let mut seen = false;
        for key in &row.keys {
            let at = *placed.entry(*key).or_insert_with(|| {
                let change = change(shared, lens, subscription, owed, *key)?;
                Some(place(&mut batches, change))
            });
            let Some(batch) = at.and_then(|at| batches.get_mut(at)) else { continue };
            seen = true;
            if batch.rows.last() != Some(&row.seq) {
                batch.rows.push(row.seq);
            }
        }
        if !seen {
            unseen.push(row.seq);
        }
    }
    (batches, unseen)
}

fn change(
    shared: &Shared,
    lens: &Lens,
    subscription: &Subscription,
    owed: &Owed,
    key: RecordKey,
) -> Option<v1::Change> {
    let stored = owed.record(key)?;
    match lens.change(shared, subscription, stored) {
        Ok(change) => change,
        Err(error) => {
            // It must not hold up everything after it.
            let name = stored.name.display(&shared.schema).to_string();
            tracing::error!(%name, %error, "a stored record cannot be read and is not sent to a subscriber");
            None
        }
    }
}

/// Puts a change into the last batch, or a new one; gives which.
fn place(batches: &mut Vec<Batch>, mut change: v1::Change) -> usize {
    if change.encoded_len() > CHANGE_BYTES_MAX {
        change.conflicts.clear();
    }
    let bytes = change.encoded_len();
    let fits = |last: &Batch| last.bytes + bytes <= BATCH_BYTES && last.changes.len() < BATCH_CHANGES;
    if !batches.last().is_some_and(fits) {
        batches.push(Batch::default());
    }
    if let Some(last) = batches.last_mut() {
        last.bytes += bytes;
        last.changes.push(change);
    }
    batches.len().saturating_sub(1)
}
