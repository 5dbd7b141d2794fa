//! Values of `UNION` fields as their writers keep them: a writer's value holds its own entries only, each with its own
//! stamp; it never drops one.

use bytes::Bytes;

use crate::record::view::{ENTRY_STAMP, union_entries};
use crate::record::{FieldNumber, Register, raw};
use crate::stamp::{Stamp, Writer};

/// The writer's value after writing `entries`: what it held, with the entries that are new or changed. Entries that
/// someone already wrote just so stay theirs.
pub fn union_value(
    register: &Register,
    field: FieldNumber,
    entries: &Bytes,
    writer: Writer,
    stamp: Stamp,
) -> Bytes {
    let tag = raw::message_tag(field);
    let own = register.live().find(|(e, _)| e.writer == writer).map(|(_, v)| v.clone()).unwrap_or_default();
    let mut fresh: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for entry in union_entries(entries) {
        let bare = without_stamp(entry.message);
        let held =
            register.live().flat_map(|(_, v)| union_entries(v)).any(|e| without_stamp(e.message) == bare);
        if !held {
            fresh.push((entry.id.to_vec(), bare));
        }
    }
    let mut value = Vec::with_capacity(own.len() + entries.len() + 9 * fresh.len());
    for entry in union_entries(&own).filter(|e| !fresh.iter().any(|(id, _)| id == e.id)) {
        raw::put_message(&mut value, tag, entry.message);
    }
    for (_, mut message) in fresh {
        raw::put_varint(&mut message, u64::from(ENTRY_STAMP) << 3 | 1);
        message.extend_from_slice(&stamp.0.to_le_bytes());
        raw::put_message(&mut value, tag, &message);
    }
    value.into()
}

/// An entry without its stamp, to compare what it says.
fn without_stamp(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    let mut rest = message;
    loop {
        let before = rest;
        match raw::next(&mut rest) {
            Ok(Some((ENTRY_STAMP, _))) => {}
            Ok(Some(_)) => out.extend_from_slice(&before[..before.len() - rest.len()]),
            _ => return out,
        }
    }
}
