//! Laws of running checksums: whatever the order, what was added up is what a fresh computation gives.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::merge::tests::arbitrary_record;
use crate::record::{Entry, raw};
use crate::stamp::{Stamp, Writer};

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::current);

fn division(code: &str) -> Division {
    Division::parse(code).unwrap()
}

fn pair(child: &str, parent: &str) -> Pair {
    Pair { child: division(child), parent: division(parent) }
}

/// Links that cases of township 220822101 may cross, and one that they never do before they are handed on.
fn pairs() -> [Pair; 4] {
    [("220822101", "220822"), ("220822", "2208"), ("2208", "22"), ("220822102", "220822")]
        .map(|(c, p)| pair(c, p))
}

fn case_of(id: &str) -> RecordName {
    RecordName::new(division("220822101"), SCHEMA.kind_named("case").unwrap().id, id).unwrap()
}

fn field(name: &str) -> FieldNumber {
    SCHEMA.kind_named("case").unwrap().field_named(name).unwrap().number
}

/// One of what decides how far a case goes: nothing, a hand-over to a neighbour, and a seal.
fn decisive(which: usize, stamp: u64) -> Option<(FieldNumber, Register)> {
    let writer = Writer { division: division("220822101"), id: 1 };
    let single =
        |number, value: Vec<u8>| (number, Register::single(writer, Stamp::from_ms(stamp), value.into()));
    match which {
        1 => {
            let (mut step, mut value) = (Vec::new(), Vec::new());
            raw::put_message(&mut step, raw::message_tag(4), b"220822102000");
            raw::put_message(&mut value, raw::message_tag(field("steps")), &step);
            Some(single(field("steps"), value))
        }
        2 => {
            let mut value = Vec::new();
            raw::put_varint(&mut value, u64::from(field("sealed")) << 3);
            value.push(1);
            Some(single(field("sealed"), value))
        }
        _ => None,
    }
}

/// A case: fields of all limits, sometimes handed on, sometimes sealed.
fn arbitrary_case() -> impl Strategy<Value = Record> {
    let numbers: Vec<FieldNumber> =
        ["title", "narrative", "parties", "lifecycle", "risk"].map(field).to_vec();
    let text = proptest::option::of((0..3u64, 0..4u8));
    (proptest::collection::vec(text, numbers.len()), 0..2usize, 0..3usize).prop_map(
        move |(texts, handed, sealed)| {
            let mut record = Record::default();
            for (number, text) in numbers.iter().zip(texts) {
                let Some((stamp, text)) = text else { continue };
                let mut value = Vec::new();
                raw::put_message(&mut value, raw::message_tag(*number), &[b'a' + text]);
                let writer = Writer { division: division("220822101"), id: 1 };
                record.set(*number, Register::single(writer, Stamp::from_ms(stamp), value.into()));
            }
            for (number, register) in [decisive(handed, 7), decisive(sealed, 8)].into_iter().flatten() {
                record.set(number, register);
            }
            record
        },
    )
}

type Totals = BTreeMap<(usize, FieldNumber), Sum>;

fn fresh(records: &BTreeMap<u8, Record>) -> Totals {
    let mut totals = Totals::new();
    for (id, record) in records {
        for (place, pair) in pairs().into_iter().enumerate() {
            for (field, sum) in shared(&SCHEMA, pair, &case_of(&id.to_string()), record) {
                let total = totals.entry((place, field)).or_default();
                *total = *total + sum;
            }
        }
    }
    totals.retain(|_, sum| *sum != Sum::ZERO);
    totals
}

proptest! {
    #[test]
    fn differences_add_up_to_a_fresh_computation_whatever_the_order(
        writes in proptest::collection::vec((0..3u8, arbitrary_case()), 1..20),
    ) {
        let kind = SCHEMA.kind_named("case").unwrap();
        let (mut records, mut kept) = (BTreeMap::<u8, Record>::new(), Totals::new());
        let mut hasher = Hasher::default();
        for (id, after) in writes {
            let before = records.get(&id).cloned().unwrap_or_default();
            let name = case_of(&id.to_string());
            let (was, is) = (Crossing::of(kind, name.home, &before), Crossing::of(kind, name.home, &after));
            differences(&name, &was, &is, &pairs(), &mut hasher, |place, field, sum| {
                let total = kept.entry((place, field)).or_default();
                *total = *total + sum;
            });
            records.insert(id, after);
        }
        kept.retain(|_, sum| *sum != Sum::ZERO);
        prop_assert_eq!(kept, fresh(&records));
    }

    #[test]
    fn both_ends_hash_the_same_of_what_crosses(record in arbitrary_case()) {
        let name = case_of("c");
        for pair in pairs() {
            let above = crate::outgoing::Route {
                schema: &SCHEMA,
                own: pair.child,
                role: crate::ingest::topology::Role::Parent,
                peer: pair.parent,
            };
            let sent = above.projection(&name, &record).unwrap_or_default();
            prop_assert_eq!(shared(&SCHEMA, pair, &name, &sent), shared(&SCHEMA, pair, &name, &record));
        }
    }

    #[test]
    fn registers_that_differ_hash_differently(a in arbitrary_record(), b in arbitrary_record()) {
        let mut hasher = Hasher::default();
        hasher.begin(&case_of("c"));
        for (number, one, other) in both(&a, &b) {
            if let (Some(one), Some(other)) = (one, other) {
                prop_assert_eq!(hasher.field(number, one) == hasher.field(number, other), one == other);
            }
        }
    }
}

#[test]
fn a_field_counts_while_it_crosses() {
    let mut record = Record::default();
    let title = {
        let mut value = Vec::new();
        raw::put_message(&mut value, raw::message_tag(field("parties")), b"x");
        let writer = Writer { division: division("220822101"), id: 1 };
        Register::single(writer, Stamp::from_ms(1), value.into())
    };
    record.set(field("parties"), title);
    let county = pair("220822101", "220822");
    let counts = |record: &Record| {
        shared(&SCHEMA, county, &case_of("c"), record).iter().any(|(number, _)| *number == field("parties"))
    };
    assert!(!counts(&record), "a file field stays at the township");
    let (number, steps) = decisive(1, 7).unwrap();
    record.set(number, steps);
    assert!(counts(&record), "handed on, it goes on its way");
    let (number, sealed) = decisive(2, 8).unwrap();
    record.set(number, sealed);
    assert!(!counts(&record), "sealed, it stays again");
}

#[test]
fn a_record_is_shared_with_whom_it_concerns() {
    let mut record = Record::default();
    let beside = pair("220822102", "220822");
    let writer = Writer { division: division("220822101"), id: 1 };
    record.set(1, Register::single(writer, Stamp::from_ms(1), Bytes::from_static(&[8, 1])));
    let (number, steps) = decisive(1, 7).unwrap();
    assert!(shared(&SCHEMA, beside, &case_of("c"), &record).is_empty());
    record.set(number, steps);
    assert!(!shared(&SCHEMA, beside, &case_of("c"), &record).is_empty());
}

#[test]
fn what_was_seen_counts_and_what_was_purged_does_not() {
    let writer = |id| Writer { division: division("220822101"), id };
    let value = Bytes::from_static(&[8, 1]);
    let single = Register::single(writer(1), Stamp::from_ms(1), value.clone());
    let standing = Entry::new(writer(1), Stamp::from_ms(1), Some(value));
    let more = Register::from_entries([standing.clone(), Entry::seen(writer(2), Stamp::from_ms(1))]);
    let dated = Entry { content_stamp: Stamp::from_ms(1), stamp: Stamp::from_ms(2), ..standing };
    let dated = Register::from_entries([dated]);
    let mut hasher = Hasher::default();
    hasher.begin(&case_of("c"));
    let mut hashes: Vec<Sum> = [&single, &more, &dated].map(|register| hasher.field(1, register)).to_vec();
    hashes.push(hasher.field(2, &single));
    hasher.begin(&case_of("d"));
    hashes.push(hasher.field(1, &single));
    let distinct: std::collections::BTreeSet<&Sum> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len());
    let mut record = Record::default();
    record.set(field("risk"), single);
    let whole = shared(&SCHEMA, pairs()[0], &case_of("c"), &record);
    record.set(field("title"), more);
    record.purge(field("title"));
    assert_eq!(shared(&SCHEMA, pairs()[0], &case_of("c"), &record), whole);
}

#[test]
fn the_hash_is_part_of_the_protocol() {
    let writer = Writer { division: division("220822101"), id: 7 };
    let mut hasher = Hasher::default();
    hasher.begin(&case_of("c"));
    let hash = hasher.field(1, &Register::single(writer, Stamp(9), Bytes::from_static(&[8, 1])));
    assert_eq!(
        format!("{:032x}", hash.0),
        "3c34e55301350bfac228e292524305d7",
        "nodes of different versions must agree: raise SUMMING with care"
    );
}
