//! What a reader is shown of a register: a pure function of the values that stand, by the field's policy. It decides
//! nothing for good; siblings stay until someone writes over them.

use std::cmp::Reverse;

use bytes::Bytes;
use guantong_proto::rules::{Field, Policy};

use crate::division::Division;
use crate::record::{Entry, Register, raw};
use crate::schema::effective_tier;
use crate::stamp::{Stamp, Writer};

/// Number of the id in an entry of a `UNION` field.
pub const ENTRY_ID: u32 = 1;
/// Number of the stamp in an entry of a `UNION` field.
pub const ENTRY_STAMP: u32 = 15;
/// Number of the observation time in a value of an `OBSERVED` field.
pub const OBSERVE_TIME: u32 = 2;

/// What a reader sees of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The field's encoding; empty: cleared.
    pub value: Bytes,
    /// Who wrote it; of a `UNION`, the latest.
    pub writer: Writer,
    /// When.
    pub stamp: Stamp,
}

/// Picks what is shown. `None`: nothing stands.
pub fn shown(field: &Field, register: &Register, home: Division) -> Option<Shown> {
    if let [Entry { writer, stamp, value: Some(value), .. }] = register.entries() {
        return Some(Shown { value: value.clone(), writer: *writer, stamp: *stamp });
    }
    let latest = |e: &Entry| (e.stamp, e.writer);
    let (entry, value) = match field.policy {
        Policy::Latest | Policy::Union => register.live().max_by_key(|(e, _)| latest(e)),
        Policy::Owner => {
            let owner = field.owner.map(|tier| effective_tier(tier, home));
            register.live().max_by_key(|(e, _)| (Some(e.writer.division.tier()) == owner, latest(e)))
        }
        Policy::Senior => register.live().max_by_key(|(e, _)| (e.writer.division.tier(), latest(e))),
        Policy::Observed => register.live().max_by_key(|(e, v)| (observed_ms(v), latest(e))),
    }?;
    let value = if field.policy == Policy::Union { union(register) } else { value.clone() };
    Some(Shown { value, writer: entry.writer, stamp: entry.stamp })
}

/// Whether values stand side by side that a person must choose between: different ones, in a field that is neither
/// gathered from all (`UNION`) nor derived from another.
pub fn conflicts(field: &Field, register: &Register) -> bool {
    if register.entries().len() < 2 || field.policy == Policy::Union || field.derived_from.is_some() {
        return false;
    }
    let mut live = register.live();
    let first = live.next();
    first.is_some_and(|(_, first)| live.any(|(_, other)| other != first))
}

/// The observation time inside a value, Unix milliseconds.
pub fn observed_ms(value: &[u8]) -> i64 {
    let message = raw::payloads(value).filter_map(raw::Payload::bytes).last().unwrap_or_default();
    raw::find(message, OBSERVE_TIME).and_then(raw::Payload::bytes).map_or(i64::MIN, raw::timestamp_ms)
}

/// The text in a value.
pub fn text(value: &[u8]) -> Option<String> {
    raw::payloads(value).last().and_then(raw::Payload::text).map(str::to_owned)
}

/// The number in a value.
pub fn number(value: &[u8]) -> Option<u64> {
    raw::payloads(value).last().and_then(raw::Payload::number)
}

/// An entry of a `UNION` field, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnionEntry<'a> {
    /// Its id, unique in the field.
    pub id: &'a [u8],
    /// When it was written.
    pub stamp: u64,
    /// The entry's message.
    pub message: &'a [u8],
}

/// The entries in one value.
pub fn union_entries(value: &[u8]) -> impl Iterator<Item = UnionEntry<'_>> {
    raw::payloads(value).filter_map(raw::Payload::bytes).map(|message| UnionEntry {
        id: raw::find(message, ENTRY_ID).and_then(raw::Payload::bytes).unwrap_or_default(),
        stamp: raw::find(message, ENTRY_STAMP).and_then(raw::Payload::number).unwrap_or(0),
        message,
    })
}

/// All entries of all values by id; of the same id the one with the greatest stamp, then the greatest bytes.
fn union(register: &Register) -> Bytes {
    let Some(tag) = register.live().find_map(|(_, v)| raw::payload_tag(v)) else { return Bytes::new() };
    let mut entries: Vec<UnionEntry<'_>> = register.live().flat_map(|(_, v)| union_entries(v)).collect();
    entries.sort_by_key(|e| (e.id, Reverse(e.stamp), Reverse(e.message)));
    entries.dedup_by_key(|e| e.id);
    let mut value = Vec::new();
    for entry in entries {
        raw::put_message(&mut value, tag, entry.message);
    }
    value.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::merge::{merge_register, tests::arbitrary_register, tests::writers};
    use crate::schema::Schema;
    use proptest::prelude::*;

    fn field(kind: &str, name: &str) -> &'static Field {
        Schema::current().kind_named(kind).unwrap().field_named(name).unwrap()
    }

    fn register(values: &[(usize, u64, &[u8])]) -> Register {
        Register::from_entries(values.iter().map(|(w, ms, v)| {
            Entry::new(writers()[*w], Stamp::from_ms(*ms), Some(Bytes::copy_from_slice(v)))
        }))
    }

    fn home() -> Division {
        Division::parse("220822101000").unwrap()
    }

    #[test]
    fn each_policy_picks_its_own() {
        // Township writes late, county in between, province first.
        let siblings = register(&[(0, 9, &[8, 1]), (2, 5, &[8, 2]), (4, 1, &[8, 3])]);
        let pick = |f| shown(f, &siblings, home()).unwrap().value[1];
        assert_eq!(pick(field("case", "sealed")), 1);
        assert_eq!(pick(field("grid", "grid_type")), 2, "the county owns it");
        assert_eq!(pick(field("case", "risk")), 3, "the highest tier");
        assert!(conflicts(field("case", "risk"), &siblings));
    }

    #[test]
    fn equal_values_side_by_side_are_no_conflict() {
        let siblings = register(&[(0, 9, &[8, 1]), (2, 5, &[8, 1])]);
        assert!(!conflicts(field("case", "risk"), &siblings));
    }

    #[test]
    fn a_union_shows_every_entry_once() {
        // Entries: id "a" stamp 1, id "a" stamp 2 with another text, id "b".
        let entry = |id: u8, stamp: u8, extra: u8| {
            let mut message = vec![0x0a, 1, id, 0x12, 1, extra, 0x79];
            message.extend([stamp, 0, 0, 0, 0, 0, 0, 0]);
            let mut value = Vec::new();
            raw::put_message(&mut value, 0xba, &message);
            value
        };
        let one = [entry(b'a', 1, b'x'), entry(b'b', 1, b'y')].concat();
        let two = entry(b'a', 2, b'z');
        let both = register(&[(0, 1, &one), (2, 2, &two)]);
        let value = shown(field("case", "steps"), &both, home()).unwrap().value;
        let entries: Vec<_> = union_entries(&value).map(|e| (e.id.to_vec(), e.stamp)).collect();
        assert_eq!(entries, vec![(b"a".to_vec(), 2), (b"b".to_vec(), 1)]);
        assert!(!conflicts(field("case", "steps"), &both));
    }

    proptest! {
        #[test]
        fn all_tiers_show_the_same(a in arbitrary_register(6), b in arbitrary_register(6)) {
            let (mut ab, mut ba) = (a.clone(), b.clone());
            merge_register(&mut ab, &b);
            merge_register(&mut ba, &a);
            for f in [field("case", "risk"), field("case", "sealed"), field("grid", "grid_type")] {
                prop_assert_eq!(shown(f, &ab, home()), shown(f, &ba, home()));
            }
        }
    }
}
